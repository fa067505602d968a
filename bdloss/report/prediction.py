"""The report of a prediction: its map, its scores, and where to look first."""

import html
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely

from bdloss import plots
from bdloss.colours import rgb_of
from bdloss.constants import IGNORED
from bdloss.data.ground_truth import OUTLINE_SUFFIXES, GroundTruth
from bdloss.errors import InputError
from bdloss.evaluation.pairs import Pair
from bdloss.evaluation.scores import Scores, describe_scores
from bdloss.evaluation.scoring import Judged
from bdloss.files import refuse_existing
from bdloss.geo import raster, vector
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import GeoBox, ground_of
from bdloss.geo.windows import Window
from bdloss.report import page
from bdloss.report.tiles import make_pyramid

TILE_BYTES = 8_000_000  # of levels that are whole
OUTLINE_BYTES = 2_500_000  # of all outlines; what is beyond is left out, and said
PICTURE_PIXELS = 1500**2  # of all that lie over the orthophoto, each kind of them
MASK_PIXELS = 25_000_000  # of a true mask that is outlined
TENTHS = 10  # outlines are in tenths of a pixel
FIELDS = ("id", "class", "area_m2", "probability")  # of outlines, where there are such
PLACES = 8
AROUND = 40  # pixels around a building that is a place to look at
PLACE_SIDE = 512  # pixels of it at most


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a report is about: files of one orthophoto.

    Attributes:
        image: The orthophoto.
        mask: Predicted mask.
        outlines: Predicted outlines; None for none.
        probabilities: Map of probabilities; None for none.
        band: The margin as a raster; None for none.
        rings: The margin around each building; None for none.
        truth: Mask or file of outlines; None if it is not known.
        value: In a true mask, that of the class that is looked at; None for all but 0.
        other: Outlines of another prediction, to compare with; None for none.
        promise: What the margin is, in words; empty without one.
    """

    image: Path
    mask: Path
    outlines: Path | None = None
    probabilities: Path | None = None
    band: Path | None = None
    rings: Path | None = None
    truth: Path | None = None
    value: int | None = None
    other: Path | None = None
    promise: str = ""


class Place(NamedTuple):
    """Where to look, and why."""

    text: str
    window: Window


def write_report(
    prediction: Prediction,
    path: str | PathLike,
    judged: Judged | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the report of a prediction as one HTML file.

    The orthophoto is in it as far as its tiles fit into some megabytes; beyond that the
    places to look at are in it at full resolution.

    Args:
        prediction: The files.
        path: HTML file to write.
        judged: How it fits its truth; None if that is not known.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If `path` exists and may not be replaced.
        ValueError: If the files do not go together.
    """
    refuse_existing(path, overwrite)
    with ExitStack() as files:
        # Else GDAL keeps what it read in a twentieth of all memory.
        files.enter_context(rasterio.Env(GDAL_CACHEMAX=raster.GDAL_CACHE))
        source = files.enter_context(raster.open_raster(prediction.image))
        ground, _ = ground_of(source)
        tables = _read_tables(prediction, ground)
        colours = _colours_of(tables)
        places = list(_worst(judged) if judged else _least_sure(tables, ground))
        outlines, left_out = _encode_layers(
            _layers_of(prediction, ground, tables, colours)
        )
        whole = [place.window for place in places]
        pyramid = make_pyramid(source, TILE_BYTES, whole)
        pictures = list(_collect_pictures(prediction, ground, colours))
    if judged:
        pictures += _paint_errors(judged.errors.marks)
    notes = _notes_of(prediction, ground, judged)
    if pyramid.finest:
        notes.append(
            f"The orthophoto is averaged {2**pyramid.finest}-fold here; the places "
            "listed are at full resolution."
        )
    if left_out:
        notes.append(f"{left_out} outlines did not fit into this page.")
    data = {
        "height": ground.height,
        "width": ground.width,
        **pyramid._asdict(),
        "pictures": pictures,
        "outlines": outlines,
        "places": [{"text": one.text, **one.window._asdict()} for one in places],
    }
    swipe = ""
    if prediction.other is not None:
        swipe = (
            '<h2><label for="swipe">this prediction | the other</label></h2>'
            '<input type="range" id="swipe" min="0" max="100" value="50">'
        )
    scores = {"all of it": judged.scores} if judged else {}
    title = f"{'Outlines' if colours else 'Buildings'} of {prediction.image.name}"
    body = (
        f"<header><h1>{html.escape(title)}</h1></header>\n<main>\n"
        '<div id="map" tabindex="0" role="application" aria-label="map: arrows move '
        'it, plus and minus zoom, Enter tells of the outline in the middle"></div>\n'
        f'<aside>{swipe}<h2>Layers</h2><div id="layers"></div>'
        f"{''.join(f'<p>{html.escape(note)}</p>' for note in notes)}"
        f'<h2>Places to look at</h2><ul id="places"></ul>{tabulate(scores)}</aside>\n'
        "</main>\n<noscript>This page needs JavaScript, which is in it.</noscript>"
    )
    page.write_page(path, title, body, data, with_map=True, overwrite=overwrite)


def _notes_of(
    prediction: Prediction, ground: GeoBox, judged: Judged | None
) -> list[str]:
    """Return what must be known to read the map."""
    notes = []
    if prediction.promise:
        notes.append(
            f"Margin: {prediction.promise}, for scenes like those of its calibration."
        )
    found = judged.scores.margin if judged else None
    if found is not None:
        notes.append(
            f"Of the true walls here {100 * found.coverage:.1f} % lie in the margin, "
            f"which is {found.width:.2f} m wide on average."
        )
    if _is_too_large(prediction, ground):
        notes.append("The true mask is too large to be outlined here.")
    return notes


def check_pages(
    pairs: Iterable[Pair], images: Mapping[str, Path], out: Path, overwrite: bool
) -> None:
    """Refuse pages that cannot be written, before anything is scored.

    Args:
        pairs: What will be scored.
        images: Orthophotos by name.
        out: Folder that `NAME_report.html` will be in.
        overwrite: Whether files that exist may be replaced.

    Raises:
        FileExistsError: If a page exists and may not be replaced.
        ValueError: If no image is of the name of a prediction, or a prediction is no
            mask, for a page is drawn on its grid.
    """
    pairs = list(pairs)
    if not any(pair.name in images for pair in pairs):
        names = ", ".join(pair.name for pair in pairs)
        raise InputError(f"no orthophoto is called like a prediction: {names}")
    for pair in pairs:
        if pair.name in images:
            refuse_existing(out / _page_name(pair), overwrite)
            if GroundTruth(pair.pred).is_vector:
                raise InputError(
                    f"a report needs the mask of a prediction: {pair.pred}"
                )


def _page_name(pair: Pair) -> str:
    return f"{pair.name}_report.html"


def report_pair(
    images: Mapping[str, Path], pair: Pair, judged: Judged, folder: Path
) -> None:
    """Write the report of a pair that is scored, if its orthophoto is known.

    Args:
        images: Orthophotos by name.
        pair: The pair, whose prediction is a mask; its outlines are found beside it.
        judged: How it fits.
        folder: Folder to write `NAME_report.html` into.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files do not go together.
    """
    if pair.name not in images:
        return
    beside = [
        pair.pred.with_name(f"{pair.name}_buildings{suffix}")
        for suffix in sorted(OUTLINE_SUFFIXES)
    ]
    probabilities = pair.pred.with_name(f"{pair.name}_prob.tif")
    files = Prediction(
        image=images[pair.name],
        mask=pair.pred,
        outlines=next((path for path in beside if path.is_file()), None),
        probabilities=probabilities if probabilities.is_file() else None,
        truth=pair.truth,
        value=pair.value,
    )
    write_report(files, folder / _page_name(pair), judged)


def _worst(judged: Judged) -> Iterator[Place]:
    """Yield the windows that fit worst."""
    for one in judged.errors.worst:
        yield Place(f"IoU {one.iou:.2f}, {_at(one.window)}", one.window)


def _paint_errors(marks: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield pictures of what is missed and what is false."""
    for kind, colour in (("missed", page.MISSED), ("false", page.FALSE)):
        numbers = [i for i, name in enumerate(plots.ERRORS) if name.startswith(kind)]
        yield _paint(kind, colour, np.isin(marks, numbers), False)


def _at(window: Window) -> str:
    return f"row {window.row}, column {window.col}"


def _reduced(height: int, width: int, number: int = 1) -> tuple[int, int]:
    """Return the shape of what lies over an orthophoto, of so many of a kind."""
    factor = min(1.0, math.sqrt(PICTURE_PIXELS / number / (height * width)))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _paint(name: str, colour: str, strength: np.ndarray, shown: bool) -> dict[str, Any]:
    """Return a picture of one colour, as opaque as an array in [0, 1] says."""
    pixels = np.zeros((*strength.shape, 4), np.uint8)
    pixels[..., :3] = rgb_of(colour)
    pixels[..., 3] = np.rint(200 * strength.astype(np.float32))
    source = page.encode_png(pixels)
    return {"name": name, "colour": colour, "source": source, "shown": shown}


def _collect_pictures(
    prediction: Prediction, ground: GeoBox, colours: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield pictures of probability, and of a margin without outlines."""
    if prediction.probabilities is not None:
        with raster.open_raster(prediction.probabilities) as source:
            shape = _reduced(ground.height, ground.width, source.count)
            whole = Window(0, 0, *source.shape)
            for band, kind in zip(source.indexes, source.descriptions, strict=True):
                values = raster.read_probabilities(source, whole, band, shape=shape)
                likely = np.where(values == IGNORED, 0, values)
                several = source.count > 1
                name = f"probability: {kind}" if several else "probability"
                colour = colours.get(kind or "", page.PREDICTED)
                yield _paint(name, colour, likely, False)
    if prediction.band is not None and prediction.rings is None:
        shape = _reduced(ground.height, ground.width)
        with raster.open_raster(prediction.band) as source:
            inside = raster.read_reduced_mask(source, shape) == 1
        yield _paint("margin", page.NEAR, inside, False)


class Table(NamedTuple):
    """Outlines with their attributes.

    Attributes:
        polygons: In pixels.
        columns: Those of `FIELDS` that they have, by name: a value for each polygon.
    """

    polygons: np.ndarray
    columns: dict[str, np.ndarray]

    @property
    def texts(self) -> np.ndarray:
        """The attributes as texts, a row for each polygon."""
        rows = np.empty((len(self.polygons), len(self.columns)), object)
        for index, values in enumerate(self.columns.values()):
            rows[:, index] = _as_texts(values)
        return rows

    @property
    def kinds(self) -> np.ndarray:
        """The class of each polygon as a text, empty of none."""
        kinds = self.columns.get("class", [""] * len(self.polygons))
        return np.array(["" if kind is None else str(kind) for kind in kinds], object)


def _read_tables(prediction: Prediction, ground: GeoBox) -> dict[str, Table]:
    """Return the predicted outlines, `predicted` and `other`, where there are any."""
    tables = {}
    for key, path in (
        ("predicted", prediction.outlines),
        ("other", prediction.other),
    ):
        if path is not None:
            polygons, columns = vector.read_table(path, ground.crs, FIELDS)
            tables[key] = Table(to_pixels(np.array(polygons, object), ground), columns)
    return tables


def _layers_of(
    prediction: Prediction,
    ground: GeoBox,
    tables: Mapping[str, Table],
    colours: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """Yield layers of outlines, from below, each of one colour."""
    if prediction.rings is not None:
        rings = vector.read_outlines(prediction.rings, ground.crs)
        pixels = to_pixels(np.array(rings, object), ground)
        yield _layer("margin", "margin", page.NEAR, pixels, filled=True)
    if prediction.truth is not None:
        true = np.array(_read_truth(prediction, ground), object)
        yield _layer("truth", "truth", page.TRUE, to_pixels(true, ground), dashed=True)
    names = {"predicted": "prediction", "other": "other prediction"}
    plain = {"predicted": page.PREDICTED, "other": page.OTHER}
    for key, table in tables.items():
        kinds, texts = table.kinds, table.texts
        for kind in np.unique(kinds).tolist() or [""]:
            which = np.flatnonzero(kinds == kind)
            yield {
                **_layer(
                    key,
                    f"{names[key]}: {kind}" if kind else names[key],
                    colours.get(kind, plain[key]),
                    table.polygons[which],
                    dashed=bool(kind) and key == "other",
                ),
                "fields": list(table.columns),
                "values": texts[which].tolist(),
            }


def _colours_of(tables: Mapping[str, Table]) -> dict[str, str]:
    """Return a colour for each class, the same in all pictures and layers."""
    kinds = {kind for table in tables.values() for kind in table.kinds.tolist()}
    return dict(zip(sorted(kinds - {""}), itertools.cycle(page.CLASSES), strict=False))


def _layer(
    key: str,
    name: str,
    colour: str,
    polygons: np.ndarray,
    filled: bool = False,
    dashed: bool = False,
) -> dict[str, Any]:
    return {
        **{"key": key, "name": name, "colour": colour, "polygons": polygons},
        **{"filled": filled, "dashed": dashed, "shown": not filled},
    }


def _encode_layers(
    layers: Iterable[dict[str, Any]],
) -> tuple[list[dict[str, Any]], int]:
    """Return layers whose polygons are numbers, and how many did not fit."""
    layers = list(layers)
    left_out = 0
    for layer in layers:
        coded, used = [], 0
        texts = layer.get("values", [[]] * len(layer["polygons"]))
        for polygon, values in zip(layer["polygons"], texts, strict=True):
            coded.append(_encode(polygon))
            used += len(json.dumps([coded[-1], values], separators=(",", ":")))
            if used > OUTLINE_BYTES / len(layers):
                coded.pop()
                break
        left_out += len(layer["polygons"]) - len(coded)
        layer["polygons"] = coded
        if "values" in layer:
            layer["values"] = layer["values"][: len(coded)]
    return layers, left_out


def _is_too_large(prediction: Prediction, ground: GeoBox) -> bool:
    """Return whether the truth is a mask too large to be outlined."""
    if prediction.truth is None or GroundTruth(prediction.truth).is_vector:
        return False
    return ground.height * ground.width > MASK_PIXELS


def _read_truth(prediction: Prediction, ground: GeoBox) -> list[shapely.Polygon]:
    """Return true outlines that reach into an orthophoto; of a large mask none."""
    assert prediction.truth is not None
    if _is_too_large(prediction, ground):
        return []
    return GroundTruth(prediction.truth, value=prediction.value).outlines(ground)


def _as_texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind in "iuf":
        return [f"{value:g}" for value in values]
    return [str(value) for value in values]


def _encode(polygon: shapely.Polygon) -> list[list[int]]:
    """Return the rings of a polygon: a point in tenths, then the way to the next."""
    rings = []
    for ring in shapely.get_rings(polygon):
        points = np.rint(TENTHS * shapely.get_coordinates(ring)[:-1]).astype(int)
        ways = np.diff(points, axis=0, prepend=np.zeros((1, 2), int))
        rings.append(ways.ravel().tolist())
    return rings


def _least_sure(tables: Mapping[str, Table], ground: GeoBox) -> Iterator[Place]:
    """Yield the predicted buildings that are least probable."""
    if "predicted" not in tables:
        return
    polygons, columns = tables["predicted"]
    if "probability" not in columns:
        return
    likely = columns["probability"].astype(float)
    bounds = shapely.bounds(polygons)
    for index in np.argsort(likely, kind="stable")[:PLACES]:
        left, top, right, bottom = bounds[index]
        row, height = _around(top, bottom, ground.height)
        col, width = _around(left, right, ground.width)
        window = Window(row, col, height, width)
        yield Place(f"probability {likely[index]:.2f}, {_at(window)}", window)


def _around(low: float, high: float, side: int) -> tuple[int, int]:
    """Return where a place begins along an axis, and how long it is."""
    length = min(math.ceil(high - low) + 2 * AROUND, PLACE_SIDE)
    first = max(0, math.floor((low + high - length) / 2))
    return first, min(side, first + length) - first


def tabulate(scores: Mapping[str, Scores]) -> str:
    """Return the groups of scores as tables of HTML, without what is not known.

    Args:
        scores: Scores by what they are of, a column each.
    """
    if not scores:
        return ""
    depth = next(iter(scores.values())).depth
    head = ["", *scores]
    parts = []
    for group, columns in describe_scores(depth).items():
        rows = []
        for column in columns:
            values = [column.value(one) for one in scores.values()]
            if not all(map(math.isnan, values)):
                rows.append([column.head, *map(_as_text, values)])
        if rows:
            parts.append(f"<h2>{html.escape(group)}</h2>{page.table_of(head, rows)}")
    return "".join(parts)


def _as_text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
