"""The report of a prediction: its map, its scores, and where to look first."""

import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from bdloss.colours import rgb_of
from bdloss.constants import IGNORED
from bdloss.data.ground_truth import OUTLINE_SUFFIXES, GroundTruth
from bdloss.errors import InputError
from bdloss.evaluation.error_maps import ErrorMap, worst_and_best
from bdloss.evaluation.pairs import Pair, find_pairs, images_by_name, open_pair
from bdloss.evaluation.scores import Scores, describe_scores
from bdloss.evaluation.scoring import count_pair, summarise
from bdloss.files import refuse_existing
from bdloss.geo import raster, vector
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import GeoBox, ground_of
from bdloss.geo.windows import Window
from bdloss.report import page
from bdloss.report.tiles import make_pyramid

TILE_BYTES = 8_000_000  # of levels that are whole
OUTLINE_BYTES = 2_500_000  # of all outlines; what is beyond is left out, and said
PICTURE_SIDE = 1500  # pixels of the longer side of what lies over the orthophoto
MASK_PIXELS = 25_000_000  # of a true mask that is outlined
TENTHS = 10  # outlines are in tenths of a pixel
FIELDS = ("id", "class", "area_m2", "probability")  # of outlines, where there are such
PLACES = 8
AROUND = 40  # pixels around a building that is a place to look at


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
        other: Outlines of another prediction, to compare with; None for none.
    """

    image: Path
    mask: Path
    outlines: Path | None = None
    probabilities: Path | None = None
    band: Path | None = None
    rings: Path | None = None
    truth: Path | None = None
    other: Path | None = None


class Place(NamedTuple):
    """Where to look, and why."""

    text: str
    window: Window


def write_report(
    prediction: Prediction, path: str | PathLike, *, overwrite: bool = False
) -> None:
    """Write the report of a prediction as one HTML file.

    The orthophoto is in it as far as its tiles fit into some megabytes; beyond that the
    places to look at are in it at full resolution.

    Args:
        prediction: The files.
        path: HTML file to write.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If `path` exists and may not be replaced.
        ValueError: If the files do not go together.
    """
    refuse_existing(path, overwrite)
    with raster.open_raster(prediction.image) as source:
        ground, _ = ground_of(source)
        scores, places, missed = _look_for_errors(prediction)
        outlines, left_out = _collect_outlines(prediction, ground)
        if prediction.truth is None and prediction.outlines is not None:
            places = list(_least_sure(prediction.outlines, ground))
        whole = [place.window for place in places]
        pyramid = make_pyramid(source, TILE_BYTES, whole)
    pictures = [*_collect_pictures(prediction, ground), *missed]
    notes = []
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
    title = f"Buildings of {prediction.image.name}"
    body = (
        f"<header><h1>{html.escape(title)}</h1></header>\n<main>\n"
        '<div id="map" tabindex="0" role="application" aria-label="map"></div>\n'
        f'<aside>{swipe}<h2>Layers</h2><div id="layers"></div>'
        f"{''.join(f'<p>{html.escape(note)}</p>' for note in notes)}"
        f'<h2>Places to look at</h2><ul id="places"></ul>{tabulate(scores)}</aside>\n'
        "</main>\n<noscript>This page needs JavaScript, which is in it.</noscript>"
    )
    page.write_page(path, title, body, data, with_map=True, overwrite=overwrite)


def report_scores(
    predictions: Path, truths: Path, images: Path, out: Path, *, overwrite: bool = False
) -> list[Path]:
    """Write a report of each prediction that is scored and has an orthophoto.

    Args:
        predictions: As in `pairs.find_pairs`; outlines of a mask are found beside it.
        truths: As in `pairs.find_pairs`.
        images: An orthophoto, or a folder of them.
        out: Folder to write `NAME_report.html` into.
        overwrite: Whether files that exist may be replaced.

    Returns:
        The pages.

    Raises:
        FileExistsError: If a page exists and may not be replaced.
        ValueError: If a prediction is no mask, for a page is drawn on its grid.
    """
    pairs, _ = find_pairs(predictions, truths)
    known = images_by_name(images)
    pages = []
    for pair in pairs:
        if pair.name not in known:
            continue
        if GroundTruth(pair.pred).is_vector:
            raise InputError(f"a report needs the mask of a prediction: {pair.pred}")
        beside = [
            pair.pred.with_name(f"{pair.name}_buildings{suffix}")
            for suffix in sorted(OUTLINE_SUFFIXES)
        ]
        files = Prediction(
            image=known[pair.name],
            mask=pair.pred,
            outlines=next((path for path in beside if path.is_file()), None),
            truth=pair.truth,
        )
        pages.append(out / f"{pair.name}_report.html")
        write_report(files, pages[-1], overwrite=overwrite)
    return pages


def _look_for_errors(
    prediction: Prediction,
) -> tuple[Scores | None, list[Place], list[dict[str, Any]]]:
    """Return scores, the worst places and a picture of errors, if truth is known."""
    if prediction.truth is None:
        return None, [], []
    pair = Pair(prediction.image.stem, prediction.mask, prediction.truth)
    with open_pair(pair, outlines=prediction.outlines) as reader:
        height, width = reader.geobox.height, reader.geobox.width
        errors = ErrorMap(pair, height, width)
        counts = count_pair(reader, see=errors.add)
        shape = _reduced(height, width)
        true = reader.truth.read_reduced(shape, Window(0, 0, height, width))
    with raster.open_raster(prediction.mask) as source:
        pred = raster.read_reduced_mask(source, shape)
    known = (true != IGNORED) & (pred != IGNORED)
    pictures = [
        _paint("missed", page.MISSED, known & (true == 1) & (pred == 0), False),
        _paint("false", page.FALSE, known & (true == 0) & (pred == 1), False),
    ]
    worst = worst_and_best(errors.windows).get("worst", [])
    places = [
        Place(f"IoU {one.iou:.2f}, {_at(one.window)}", one.window) for one in worst
    ]
    return summarise([counts]), places, pictures


def _at(window: Window) -> str:
    return f"row {window.row}, column {window.col}"


def _reduced(height: int, width: int) -> tuple[int, int]:
    """Return the shape of what lies over an orthophoto."""
    factor = min(1.0, PICTURE_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _paint(name: str, colour: str, strength: np.ndarray, shown: bool) -> dict[str, Any]:
    """Return a picture of one colour, as opaque as an array in [0, 1] says."""
    pixels = np.zeros((*strength.shape, 4), np.uint8)
    pixels[..., :3] = rgb_of(colour)
    pixels[..., 3] = np.rint(200 * strength.astype(np.float32))
    source = page.encode_png(pixels)
    return {"name": name, "colour": colour, "source": source, "shown": shown}


def _collect_pictures(
    prediction: Prediction, ground: GeoBox
) -> Iterator[dict[str, Any]]:
    """Yield pictures of probability, and of a margin without outlines."""
    shape = _reduced(ground.height, ground.width)
    if prediction.probabilities is not None:
        with raster.open_raster(prediction.probabilities) as source:
            whole = Window(0, 0, *source.shape)
            values = raster.read_shaped(source, whole, shape)[..., 0].astype(np.float32)
        likely = np.where(values == IGNORED, 0, values / raster.PROBABILITY_SCALE)
        yield _paint("probability", page.PREDICTED, likely, False)
    if prediction.band is not None and prediction.rings is None:
        with raster.open_raster(prediction.band) as source:
            inside = raster.read_reduced_mask(source, shape) == 1
        yield _paint("margin", page.NEAR, inside, False)


def _collect_outlines(
    prediction: Prediction, ground: GeoBox
) -> tuple[list[dict[str, Any]], int]:
    """Return layers of outlines, and how many outlines did not fit."""
    layers = []
    if prediction.rings is not None:
        rings = vector.read_outlines(prediction.rings, ground.crs)
        layers.append(_layer("margin", "margin", page.NEAR, rings, filled=True))
    if prediction.truth is not None:
        true = _read_truth(prediction.truth, ground)
        layers.append(_layer("truth", "truth", page.TRUE, true, dashed=True))
    if prediction.outlines is not None:
        found, fields, values = _read_table(prediction.outlines, ground)
        layer = _layer("predicted", "prediction", page.PREDICTED, found)
        layers.append({**layer, "fields": fields, "values": values})
    if prediction.other is not None:
        found, fields, values = _read_table(prediction.other, ground)
        layer = _layer("other", "other prediction", page.OTHER, found)
        layers.append({**layer, "fields": fields, "values": values})
    left_out = 0
    for layer in layers:
        polygons = to_pixels(np.array(layer["polygons"], object), ground)
        coded, used = [], 0
        for polygon in polygons:
            coded.append(_encode(polygon))
            used += len(json.dumps(coded[-1], separators=(",", ":")))
            if used > OUTLINE_BYTES / len(layers):
                coded.pop()
                break
        left_out += len(polygons) - len(coded)
        layer["polygons"] = coded
    return layers, left_out


def _layer(
    key: str,
    name: str,
    colour: str,
    polygons: Sequence[shapely.Polygon],
    filled: bool = False,
    dashed: bool = False,
) -> dict[str, Any]:
    return {
        **{"key": key, "name": name, "colour": colour, "polygons": polygons},
        **{"filled": filled, "dashed": dashed, "shown": not filled},
    }


def _read_truth(path: Path, ground: GeoBox) -> list[shapely.Polygon]:
    """Return true outlines that reach into an orthophoto; of a large mask none."""
    truth = GroundTruth(path)
    if not truth.is_vector and ground.height * ground.width > MASK_PIXELS:
        return []
    return truth.outlines(ground)


def _read_table(
    path: Path, ground: GeoBox
) -> tuple[list[shapely.Polygon], list[str], list[list[str]]]:
    """Return outlines, the names of their attributes and the values of each."""
    columns = {}
    polygons = vector.read_outlines(path, ground.crs)
    for name in FIELDS:
        try:
            _, columns[name] = vector.read_attribute(path, ground.crs, None, name)
        except InputError:  # it has no such attribute
            continue
    rows = [
        [
            f"{column[i]:g}" if _is_number(column[i]) else str(column[i])
            for column in columns.values()
        ]
        for i in range(len(polygons))
    ]
    return polygons, list(columns), rows


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _encode(polygon: shapely.Polygon) -> list[list[int]]:
    """Return the rings of a polygon: a point in tenths, then the way to the next."""
    rings = []
    for ring in shapely.get_rings(polygon):
        points = np.rint(TENTHS * shapely.get_coordinates(ring)[:-1]).astype(int)
        ways = np.diff(points, axis=0, prepend=np.zeros((1, 2), int))
        rings.append(ways.ravel().tolist())
    return rings


def _least_sure(outlines: Path, ground: GeoBox) -> Iterator[Place]:
    """Yield the buildings that are least probable."""
    try:
        polygons, likely = vector.read_attribute(
            outlines, ground.crs, None, "probability"
        )
    except InputError:
        return
    bounds = shapely.bounds(to_pixels(np.array(polygons, object), ground))
    for index in np.argsort(likely.astype(float), kind="stable")[:PLACES]:
        left, top, right, bottom = bounds[index]
        row, col = max(0, int(top) - AROUND), max(0, int(left) - AROUND)
        window = Window(
            row,
            col,
            min(ground.height, math.ceil(bottom) + AROUND) - row,
            min(ground.width, math.ceil(right) + AROUND) - col,
        )
        yield Place(f"probability {likely[index]:.2f}, {_at(window)}", window)


def tabulate(scores: Scores | None) -> str:
    """Return the four groups of scores as tables of HTML; nothing of no scores."""
    if scores is None:
        return ""
    parts = []
    for group, columns in describe_scores(scores.depth).items():
        rows = [
            [column.head, "" if value != value else f"{value:.4g}"]
            for column in columns
            for value in [column.value(scores)]
        ]
        parts.append(f"<h2>{html.escape(group)}</h2>{page.table_of([], rows)}")
    return "".join(parts)
