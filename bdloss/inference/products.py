"""What is made of finished rows: mask, probabilities, outlines and a picture."""

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio import Affine
from rasterio.crs import CRS

from bdloss import plots
from bdloss.colours import default_colours
from bdloss.constants import BUILDING, CONTACT, IGNORED, PROBABILITY_SCALE
from bdloss.data.ground_truth import OutlineReader
from bdloss.errors import InputError, OutputExistsError
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import GeoBox
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_spool import OutlineSpool
from bdloss.geo.outline_writer import check_format, create_outlines, write_outlines
from bdloss.geo.polygonize import Outlines, count_vertices, outline_strips
from bdloss.geo.raster import GDAL_CACHE, create_mask, open_raster, read_reduced_mask
from bdloss.geo.regularize import MIN_IOU
from bdloss.geo.vector import count_outlines
from bdloss.geo.windows import Window, panels
from bdloss.inference.margin import (
    DISTANCE,
    PROBABILITY,
    Margin,
    doubt_of_strips,
)
from bdloss.inference.strips import IDENTITY, UNSAID, StripStore, in_tiles
from bdloss.metrics.conformal import rings_of
from bdloss.models import class_names
from bdloss.report.prediction import Prediction

logger = logging.getLogger(__name__)

RASTER_PRODUCTS = (
    "mask",
    "prob",
    "overlay",
    "margin",
)  # written beside an image, no images
LARGEST_PICTURE = 3000  # pixels: the most of the longer side of an overlay
FORMATS = ("geotiff", "inria")


@dataclass(frozen=True, kw_only=True)
class Products:
    """What is made of the rows of an orthophoto, and where.

    Attributes:
        mask: GeoTIFF of the mask: 1 building, 0 not, 255 no data. Of several classes it
            has their numbers, from 1, a palette and their names.
        probabilities: GeoTIFF of probabilities, 0 to 254, 255 no data, a band for each
            class; None for none.
        polygons: Outlines, of a suffix in `outline_writer.FORMATS`, with their number
            from the top (`id`), of several classes the name of their `class`, their
            area (`area_m2`), the mean of their pixels' `probability`, and the tags of
            the mask as metadata; None for none.
        overlay: Picture of the outlines on the image, a PNG; None for none.
        overlay_mask: Called with a shape, gives another mask of it, as of the ground
            truth, to be drawn in the overlay.
        min_area: Smallest polygon, in square metres.
        simplify: Tolerance of outlines, in pixels.
        min_hole: Smallest hole of an outline, in square metres.
        regularize: Whether buildings get right angles and straight walls, see
            `geo.regularize`.
        min_iou: With the pixels of a building, that it must keep then.
        irregular: Outlines as they would be without `regularize`, to compare with, of a
            suffix in `outline_writer.FORMATS`; None for none.
        margin: What lies near walls, as `bdloss calibrate` found it; None for none.
        band: GeoTIFF of it: 1 there, 0 elsewhere, 255 no data; None for none.
        rings: Its inner and outer outline around each building, by the `id` of this,
            of a suffix in `outline_writer.FORMATS`; None for none.
        split: Whether buildings that touch are outlined one by one, where the rows have
            a map of contact.
        format: Of the mask: `geotiff`, or `inria`, as INRIA's benchmark takes it: 255
            building, 0 all else, no nodata.
        cog: Whether rasters are cloud-optimised GeoTIFFs.
        overviews: Whether rasters get overviews.
    """

    mask: Path
    probabilities: Path | None = None
    polygons: Path | None = None
    overlay: Path | None = None
    overlay_mask: Callable[[tuple[int, int]], np.ndarray] | None = None
    min_area: float = 5.0
    simplify: float = 1.0
    min_hole: float = 0.0
    regularize: bool = False
    min_iou: float = MIN_IOU
    irregular: Path | None = None
    margin: Margin | None = None
    band: Path | None = None
    rings: Path | None = None
    split: bool = True
    format: str = "geotiff"
    cog: bool = False
    overviews: bool = False

    @classmethod
    def in_folder(
        cls,
        folder: str | PathLike,
        name: str,
        *,
        prob: bool = False,
        polygons: bool = True,
        vector: str = "gpkg",
        overlay: bool = False,
        format: str = "geotiff",
        margin: Margin | None = None,
        margin_by: str = DISTANCE,
        **settings: Any,
    ) -> "Products":
        """Name the files of a raster in a folder.

        Args:
            folder: Where they go.
            name: That of the raster: `NAME_mask.tif`, `NAME_prob.tif`,
                `NAME_buildings.gpkg`, `NAME_overlay.png`; the mask of the format
                `inria` is called `NAME.tif`, as the image is.
            prob: Whether probabilities are written.
            polygons: Whether outlines are written.
            vector: Format of the outlines: `gpkg`, `geojson`, `fgb` or `parquet`.
            overlay: Whether they are drawn on the image.
            format: As of the products.
            margin: As of the products: `NAME_margin.tif` and, by distance, its outlines
                too.
            margin_by: Whether it lies around walls, `distance`, or where the model is
                in doubt, `probability`.
            **settings: The other attributes.
        """
        folder = Path(folder)
        buildings = folder / f"{name}_buildings.{vector}"
        return cls(
            mask=folder / f"{name}{'' if format == 'inria' else '_mask'}.tif",
            probabilities=folder / f"{name}_prob.tif" if prob else None,
            polygons=buildings if polygons else None,
            overlay=folder / f"{name}_overlay.png" if overlay else None,
            format=format,
            margin=margin,
            band=folder / f"{name}_margin.tif" if margin else None,
            rings=folder / f"{name}_margin.{vector}"
            if margin and margin_by == DISTANCE
            else None,
            **settings,
        )

    def __post_init__(self) -> None:
        paths = [path.resolve() for path in self.paths]
        if len(set(paths)) < len(paths):
            names = ", ".join(str(path) for path in self.paths)
            raise InputError(f"outputs must be different files, got {names}")

    @property
    def paths(self) -> list[Path]:
        """All files that are written, the mask first."""
        named = (
            *(self.mask, self.probabilities, self.polygons, self.overlay),
            *(self.band, self.rings),
        )
        return [path for path in named if path is not None]

    @property
    def store(self) -> StripStore:
        """Where the finished rows lie until the products are whole."""
        return StripStore(self.mask.with_name(f"{self.mask.stem}.partial"))

    def tags(self) -> dict[str, Any]:
        """Return the tags that a mask has of what was made of its rows."""
        tags: dict[str, Any] = {"cog": self.cog, "overviews": self.overviews}
        if self.polygons is not None:
            tags |= self.way
        if self.margin is not None:
            tags |= {"margin_m": self.margin.radius, "margin_doubt": self.margin.doubt}
            tags["margin_alpha"] = self.margin.alpha
            tags["margin_by"] = self.margin_by
        return tags

    @property
    def way(self) -> dict[str, Any]:
        """How outlines are made, by the names of tags."""
        return {
            "min_area": self.min_area,
            "simplify": self.simplify,
            "min_hole": self.min_hole,
            "split": self.split,
            "regularize": self.min_iou if self.regularize else False,
        }

    def are_finished(
        self, known: dict[str, Any], *, overwrite: bool = False, resume: bool = True
    ) -> bool:
        """Return whether all files are there, as they would be made.

        Args:
            known: Tags that their mask must have.
            overwrite: Whether files that exist are replaced; then nothing is finished.
            resume: Whether those that exist may be kept.

        Raises:
            FileExistsError: If a file exists that is not what would be made.
        """
        there = [path for path in self.paths if path.exists()]
        if overwrite or not there:
            return False
        hint = "give --overwrite or another --out"
        half = self.store.folder.exists()  # killed between two outputs
        if not resume:
            raise OutputExistsError(f"{there[0]} exists; {hint}")
        if len(there) < len(self.paths):
            if half:
                return False
            missing = next(path for path in self.paths if path not in there)
            raise OutputExistsError(
                f"{there[0]} exists, {missing.name} does not; {hint}"
            )
        for key, found in _other_tags(self.mask, known):
            if key == "image_time" and found is None:
                continue  # merged of shards, which may be of copies
            if key in IDENTITY and found is not None:
                raise OutputExistsError(
                    f"{self.mask} exists, of another image of this name; {hint}"
                )
            raise OutputExistsError(
                f"{self.mask} exists, made with {key} {found}, not {known[key]}; {hint}"
            )
        return True

    def check(self, ground: GeoBox, targets: Sequence[str]) -> None:
        """Refuse what cannot be made of a raster.

        Args:
            ground: Where its outlines lie.
            targets: Names of the maps of its rows.

        Raises:
            ValueError: If the format of the outlines cannot be written, holes are to be
                measured without a CRS, or what is for buildings alone is wanted of
                several classes.
        """
        if self.polygons is not None:
            check_format(self.polygons, ground.crs)
            if self.min_hole and ground.resolution is None:
                raise InputError(
                    "min_hole is in square metres, which a raster without CRS lacks"
                )
        if self.margin is not None and (
            ground.resolution is None or self.polygons is None
        ):
            raise InputError("a margin needs outlines, and a raster with a CRS")
        classes = class_names(targets)
        if len(classes) > 1:
            for name, wanted in (
                ("the format inria", self.format == "inria"),
                ("min_hole", self.min_hole > 0),
                ("regularize", self.regularize),
                ("a margin", self.margin is not None),
            ):
                if wanted:
                    names = ", ".join(classes)
                    raise InputError(f"{name} is for one class, the model has {names}")

    def mask_has(self, known: dict[str, Any]) -> bool:
        """Return whether the mask is there and has all these tags."""
        return self.mask.exists() and not _other_tags(self.mask, known)

    def as_prediction(self, image: Path, **more: Any) -> Prediction:
        """Return the files as a page shows them.

        Args:
            image: The orthophoto.
            **more: Other attributes: `truth`, `other`.
        """
        return Prediction(
            image=image,
            mask=self.mask,
            outlines=self.polygons,
            probabilities=self.probabilities,
            band=self.band,
            rings=self.rings,
            promise=self.margin.promise(self.margin_by) if self.margin else "",
            **more,
        )

    @property
    def margin_by(self) -> str:
        """Of what kind the margin is, if there is one."""
        return PROBABILITY if self.rings is None else DISTANCE

    @property
    def counted_margin(self) -> float | Path | None:
        """The margin that true walls are counted in: metres, or its raster."""
        if self.margin is None:
            return None
        return self.margin.radius if self.margin_by == DISTANCE else self.band

    def count_polygons(self) -> int | None:
        """Return how many outlines were written; None if none were asked for."""
        return None if self.polygons is None else count_outlines(self.polygons)


class RegularizedCounts(NamedTuple):
    """What right angles made of outlines.

    Attributes:
        regular: How many have right angles.
        before: Vertices of all if they were simplified only.
        after: Vertices of all.
    """

    regular: int = 0
    before: int = 0
    after: int = 0

    def add(self, outlines: Outlines) -> "RegularizedCounts":
        """Return them with those of more outlines."""
        regular, before, after = self
        if outlines.regular is not None and outlines.vertices is not None:
            regular += int(outlines.regular.sum())
            before += int(outlines.vertices.sum())
        after += int(count_vertices(outlines.polygons).sum())
        return RegularizedCounts(regular, before, after)


class Made(NamedTuple):
    """What is counted while products are made.

    Attributes:
        masked: Pixels that are masked in the raster, or outside of its area.
        building: Pixels that are building, or of a class.
        polygons: Outlines; None if none were asked for.
        classes: Names of the classes.
        regularized: What became of the outlines; None unless that was asked for.
    """

    masked: int
    building: int
    polygons: int | None
    classes: tuple[str, ...]
    regularized: RegularizedCounts | None = None


def write_products(orthophoto: Orthophoto, products: Products) -> Made:
    """Make all products from finished rows, or none.

    Args:
        orthophoto: The raster.
        products: What to make; files that exist are replaced.

    Raises:
        ValueError: If rows are missing, or the format is not one of several classes.
        OSError: If a file cannot be written.
    """
    strips = products.store
    targets = targets_of(strips.settings)
    products.check(orthophoto.ground, targets)
    # Rows of shards, which may be of copies, do not know the time of the image.
    tags = {**strips.settings, **orthophoto.identity, **products.tags()}
    tags = dict(sorted(tags.items()))  # files of shards are the same to the byte
    with ExitStack() as undo:
        masked, building = _write_rasters(orthophoto, strips, products, tags)
        for path in products.paths:
            undo.callback(path.unlink, missing_ok=True)
        number = regularized = None
        crs, classes = orthophoto.ground.crs, list(_colours_of(strips))
        if products.polygons is not None:
            with _spooled_outlines(orthophoto, products) as (spool, counts):
                path = products.polygons
                number = _write_polygons(path, spool, crs, classes, tags)
                regularized = counts if products.regularize else None
                if products.margin is not None:
                    _write_margin(spool, orthophoto, products, tags)
        if products.irregular is not None:
            plain = replace(products, regularize=False)
            with _spooled_outlines(orthophoto, plain) as (spool, _):
                _write_polygons(products.irregular, spool, crs, classes, tags)
        if products.overlay is not None:
            _draw_overlay(products.overlay, orthophoto, products)
        undo.pop_all()
    return Made(masked, building, number, tuple(class_names(targets)), regularized)


def _write_rasters(
    orthophoto: Orthophoto, strips: StripStore, products: Products, tags: dict[str, Any]
) -> tuple[int, int]:
    """Write mask and probabilities; return the pixels masked and building."""
    geobox, area = orthophoto.geobox, orthophoto.area
    whole = orthophoto.window
    last = whole.row + whole.height
    columns = panels(whole, int(strips.settings.get("panels", 1)))
    for panel in columns:
        if (there := strips.finished(panel)) < last:
            raise InputError(f"rows from {there} on are missing: {strips.folder}")
    masked = geobox.height * geobox.width - whole.height * whole.width
    building = 0
    colours = _colours_of(strips)
    benchmark = products.format == "inria"
    outputs = [products.mask]
    if products.probabilities is not None:
        outputs.append(products.probabilities)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), ExitStack() as files:
        writers = [
            files.enter_context(
                create_mask(
                    path,
                    geobox,
                    tags,
                    nodata=None if benchmark and path == products.mask else IGNORED,
                    cog=products.cog,
                    overviews=products.overviews,
                    probabilities=path == products.probabilities,
                    classes=colours,
                    gcps=orthophoto.gcps,
                )
            )
            for path in outputs
        ]
        # A panel after the other, so that tiles are written once.
        pieces = (
            (panel, *piece)
            for panel in columns
            for piece in in_tiles(strips.read(panel))
        )
        for panel, row, layers in pieces:
            window = Window(row, panel.col, *layers.shape[1:])
            if area is not None:
                layers[:, ~area.mask(window)] = IGNORED  # its margin
            unknown = int((layers[0] == IGNORED).sum())
            masked += unknown
            building += int((layers[0] != 0).sum()) - unknown
            if benchmark:
                layers[0] = np.where(layers[0] == 1, 255, 0)
            parts = [layers[0], layers[1 : 1 + max(1, len(colours))]]
            for writer, pixels in zip(writers, parts, strict=False):
                writer.write(pixels, window)
    return masked, building


@contextmanager
def _spooled_outlines(
    orthophoto: Orthophoto, products: Products
) -> Iterator[tuple[OutlineSpool, RegularizedCounts]]:
    """Give the outlines of a mask, and what became of them by right angles.

    In memory are a few rows of the mask, and the outlines that reach into them.
    """
    ground, area = orthophoto.ground, orthophoto.area
    cut, regularized = 0, RegularizedCounts()
    with TemporaryDirectory(dir=products.store.folder) as folder:
        kinds = {"class": int, "probability": float}
        if ground.resolution:
            kinds["area_m2"] = float
        spool = OutlineSpool(Path(folder), ground, **kinds)
        for number, outlines in _outline_classes(orthophoto, products):
            if area is not None:
                cut += area.beyond(to_pixels(outlines.polygons, ground))
            regularized = regularized.add(outlines)
            facts = {
                "class": np.full(len(outlines.polygons), number),
                "probability": outlines.probability,
            }
            if outlines.area is not None:
                facts["area_m2"] = outlines.area
            spool.add(outlines.polygons, **facts)
        if cut:
            logger.warning(
                "%s: %d buildings reach out of the area beyond what was predicted, and "
                "are cut there",
                *(orthophoto.path.name, cut),
            )
        yield spool, regularized


def _write_polygons(
    path: Path,
    spool: OutlineSpool,
    crs: CRS | None,
    classes: Sequence[str],
    tags: dict[str, Any],
) -> int:
    """Write outlines with what is known of them; return how many there are."""
    names = np.array(["", *classes], object)
    with create_outlines(path, crs, tags) as writer:
        for polygons, facts in spool.sorted():
            first = writer.count + 1
            columns = {"id": np.arange(first, first + len(polygons))}
            if classes:
                columns["class"] = names[facts["class"]]
            if "area_m2" in facts:
                columns["area_m2"] = np.round(facts["area_m2"], 1)
            means = facts["probability"] / PROBABILITY_SCALE
            columns["probability"] = np.round(means, 3)
            writer.write(polygons, **columns)
    return writer.count


def _outline_classes(
    orthophoto: Orthophoto, products: Products
) -> Iterator[tuple[int, Outlines]]:
    """Yield the outlines of each class, by its number from 1, as they are finished."""
    targets = targets_of(products.store.settings)
    classes = len(class_names(targets))
    area = orthophoto.area
    for number in range(1, classes + 1):
        rows = products.store.read()
        for outlines in outline_strips(
            _class_alone(rows, number, classes) if classes > 1 else rows,
            orthophoto.ground,
            products.min_area if orthophoto.ground.resolution else 0.0,
            products.simplify,
            split=products.split and CONTACT in targets,
            first_col=orthophoto.window.col,
            keep=None if area is None else area.keep,
            min_hole=products.min_hole,
            min_iou=products.min_iou if products.regularize else None,
        ):
            yield number, outlines


def _write_margin(
    spool: OutlineSpool,
    orthophoto: Orthophoto,
    products: Products,
    tags: dict[str, Any],
) -> None:
    """Write the margin of outlines, and where it lies in the raster.

    In memory are the margins of all.
    """
    margin, ground = products.margin, orthophoto.ground
    assert margin is not None and ground.resolution is not None
    # In pixels, whose sides are known in metres in any CRS.
    pixels = ground._replace(transform=Affine.identity())
    rings = np.concatenate(
        [
            rings_of(to_pixels(polygons, ground), margin.radius / ground.resolution)
            for polygons, _ in spool.sorted()
        ]
    )
    if products.rings is not None:
        matrix = np.array(ground.transform[:6]).reshape(2, 3)
        placed = shapely.transform(
            rings, lambda xy: xy @ matrix[:, :2].T + matrix[:, 2]
        )
        facts = {
            "id": np.arange(1, len(rings) + 1),
            "margin_m": np.full(len(rings), margin.radius),
            "confidence": np.full(len(rings), 1 - margin.alpha),
        }
        rows = placed.tolist()
        write_outlines(products.rings, rows, ground.crs, tags, "margin", **facts)
    if products.band is None:
        return
    drawn = OutlineReader(rings.tolist(), pixels)
    columns = panels(orthophoto.window, int(products.store.settings.get("panels", 1)))
    if products.margin_by == PROBABILITY:
        columns = [orthophoto.window]  # pixels beside a panel have their say

    def bands(panel: Window) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the raster of the margin, some rows at a time, `(1, rows, width)`."""
        by_distance = products.margin_by == DISTANCE
        read = partial(products.store.read, panel if by_distance else None)
        doubts = itertools.repeat(None) if by_distance else doubt_of_strips(read())
        for (row, layers), doubt in zip(read(), doubts, strict=False):
            window = Window(row, panel.col, *layers.shape[1:])
            if doubt is None:
                band = drawn.read(window)
            else:
                band = (doubt[1] >= margin.doubt_steps).astype(np.uint8)
            band[layers[0] == IGNORED] = IGNORED
            if orthophoto.area is not None:
                band[~orthophoto.area.mask(window)] = IGNORED
            yield row, band[None]

    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),
        create_mask(
            products.band,
            orthophoto.geobox,
            tags,
            cog=products.cog,
            overviews=products.overviews,
            gcps=orthophoto.gcps,
        ) as writer,
    ):
        for panel in columns:
            for row, band in in_tiles(bands(panel)):
                writer.write(band[0], Window(row, panel.col, *band.shape[1:]))


def _class_alone(
    strips: Iterable[tuple[int, np.ndarray]], number: int, classes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the strips of one of several classes as if there were no other."""
    for row, layers in strips:
        mask = layers[0] == number
        yield row, np.stack([mask, layers[number], *layers[1 + classes :]])


def targets_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the maps that rows with such settings hold."""
    return json.loads(settings.get("targets", "[]")) or [BUILDING]


def _colours_of(strips: StripStore) -> dict[str, str]:
    """Return the colours of classes by their names; none of buildings alone."""
    names = class_names(targets_of(strips.settings))
    if names == [BUILDING]:
        return {}
    colours = json.loads(strips.settings.get("colours", "[]"))
    return dict(zip(names, colours or default_colours(len(names)), strict=True))


def _draw_overlay(path: Path, orthophoto: Orthophoto, products: Products) -> None:
    """Draw outlines on the image, or its area, at a size that a person looks at."""
    with orthophoto.open() as reader:
        pixels = reader.reduced(LARGEST_PICTURE)
    shape = pixels.shape[0], pixels.shape[1]
    colours = _colours_of(products.store)
    with open_raster(products.mask) as source:
        pred = read_reduced_mask(source, shape, orthophoto.window, bool(colours))
    other = products.overlay_mask(shape) if products.overlay_mask else None
    zoom = max(1, LARGEST_PICTURE // max(shape))
    if colours:
        masks = pred[..., np.newaxis] == np.arange(1, 1 + len(colours))
        picture = plots.draw_classes(pixels, masks, list(colours.values()), zoom)
    else:
        picture = plots.draw_outlines(pixels, pred, other, zoom)
    plots.write_picture(picture, path)


def _other_tags(mask: Path, known: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return the tags of a mask that are not as known: name, and value if any."""
    with open_raster(mask) as source:
        found = {**UNSAID, **source.tags()}
    return [
        (key, found.get(key))
        for key, value in known.items()
        if found.get(key, "") != str(value)
    ]
