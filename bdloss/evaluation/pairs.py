"""Predictions and their ground truth: paired by name, read by rows."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import shapely

from bdloss.data.ground_truth import (
    IMAGE_SUFFIXES,
    OUTLINE_SUFFIXES,
    GroundTruth,
    MaskReader,
    OutlineReader,
)
from bdloss.errors import InputError
from bdloss.files import visible_files
from bdloss.geo import raster, vector
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.windows import Window

MAX_SHIFT = 0.5  # pixels that truth and prediction may lie apart on the ground

RESOLUTION = 0.3  # metres a pixel, of outlines that are scored without any raster

Rows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
Labels = Callable[[int, int], tuple[np.ndarray | None, np.ndarray | None]]
Reader = MaskReader | OutlineReader


class Pair(NamedTuple):
    """A prediction and its truth, each a mask or a file of outlines.

    Attributes:
        name: What it is called.
        pred: The prediction.
        truth: Its truth.
        value: In masks, that of the class that is looked at; None for all but 0.
    """

    name: str
    pred: Path
    truth: Path
    value: int | None = None


class Strip(NamedTuple):
    """Rows of truth and prediction with some of their neighbours."""

    true: np.ndarray
    pred: np.ndarray
    rows: slice  # those of the strip itself


def find_pairs(
    predictions: Path, truths: Path, value: int | None = None
) -> tuple[list[Pair], list[Path]]:
    """Pair predictions with their ground truth.

    Args:
        predictions: A mask, a file of outlines, or a folder of either.
        truths: A mask, a file of outlines, or a folder of either.
        value: As of a `Pair`.

    Returns:
        The pairs by name, and the truths that have no prediction. The name is that of
        the file without `_mask` or `_buildings`. In a folder that has rasters these are
        masks, only those called `NAME_mask.*` if there are any; in one that has none,
        files of outlines are looked for, in the same way `NAME_buildings.*`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no prediction, or one has no truth.
    """
    preds, known = _files_by_name(predictions), _files_by_name(truths)
    if not preds:
        raise InputError(f"no rasters and no files of outlines in {predictions}")
    if truths.is_file():  # one for all: outlines, or a mask of whatever name
        if not GroundTruth(truths).is_vector and len(preds) > 1:
            raise InputError(
                f"{len(preds)} predictions need a folder of truths or outlines, "
                f"got one mask: {truths}"
            )
        return [Pair(name, pred, truths, value) for name, pred in preds.items()], []
    if predictions.is_file() and len(known) == 1:
        preds = dict(zip(known, preds.values(), strict=True))
    for name, pred in preds.items():
        if name not in known:
            raise InputError(f"no truth named {name} in {truths}: {pred}")
    pairs = [Pair(name, pred, known[name], value) for name, pred in preds.items()]
    return pairs, [truth for name, truth in known.items() if name not in preds]


def _files_by_name(path: Path) -> dict[str, Path]:
    """Return masks, or files of outlines if there are none, by their name."""
    files: Sequence[Path] = []
    for suffixes, mark in ((IMAGE_SUFFIXES, "_mask"), (OUTLINE_SUFFIXES, "_buildings")):
        files = _files_of(path, suffixes)
        marked = [file for file in files if file.stem.endswith(mark)]
        if files:
            return _by_name(marked or files)
    return {}


def images_by_name(path: Path) -> dict[str, Path]:
    """Return an orthophoto, or those of a folder, by name; masks are left out."""
    files = _files_of(path, IMAGE_SUFFIXES)
    return _by_name(file for file in files if not file.stem.endswith("_mask"))


def _by_name(files: Iterable[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in files:
        name = file.stem.removesuffix("_mask").removesuffix("_buildings")
        if name in names:
            raise InputError(f"two files of one name: {names[name]} and {file}")
        names[name] = file
    return names


def _files_of(path: Path, suffixes: Collection[str]) -> Sequence[Path]:
    if path.is_dir():
        return visible_files(path, suffixes)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return [path]


class PairReader:
    """Reads a prediction and its ground truth by rows, on one grid.

    Attributes:
        geobox: Where the pixels of both lie.
        truth: Reads the ground truth.
        pred: Reads the prediction.
    """

    def __init__(
        self,
        geobox: GeoBox,
        truth: Reader,
        pred: Reader,
        outlines: OutlineReader | None = None,
    ):
        """Take the readers, and one of the outlines of a predicted mask if any."""
        self.geobox, self.truth, self.pred = geobox, truth, pred
        self._outlines = (truth, outlines or pred)

    @property
    def are_outlines(self) -> tuple[bool, bool]:
        """Whether the buildings of truth and prediction are known by outlines."""
        true, pred = (isinstance(side, OutlineReader) for side in self._outlines)
        return true, pred

    def rows(self, top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of truth and prediction: masks of 0, 1 and 255.

        Args:
            top: The first row.
            end: The row after the last.
        """
        window = self._window(top, end)
        return self.truth.read(window), self.pred.read(window)

    def labels(self, top: int, end: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return rows of truth and prediction with a number for each outline.

        Args:
            top: The first row.
            end: The row after the last.

        Returns:
            Of each side, as `OutlineReader.labels` has it; None of a mask.
        """
        window = self._window(top, end)
        true, pred = (
            side.labels(window) if isinstance(side, OutlineReader) else None
            for side in self._outlines
        )
        return true, pred

    def outlines(
        self,
    ) -> tuple[list[shapely.Polygon] | None, list[shapely.Polygon] | None]:
        """Return the outlines of truth and prediction; None of a mask."""
        true, pred = (
            side.outlines if isinstance(side, OutlineReader) else None
            for side in self._outlines
        )
        return true, pred

    def _window(self, top: int, end: int) -> Window:
        return Window(top, 0, end - top, self.geobox.width)


@contextmanager
def open_pair(
    pair: Pair,
    probabilities: bool = False,
    resolution: float = RESOLUTION,
    outlines: Path | None = None,
) -> Iterator[PairReader]:
    """Open a prediction and its truth to read rows of both.

    They are read on the grid of the mask, of that of the prediction if both are; of
    outlines alone on one that covers both, north up.

    Args:
        pair: The files.
        probabilities: Whether the prediction may be a map of probabilities, which is
            then read as such.
        resolution: Metres a pixel, where there is no mask.
        outlines: The buildings of a predicted mask, a vector file; None for its
            connected parts.

    Yields:
        The reader.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If they are not of one size or lie at different places, or both are
            outlines and a class is chosen.
    """
    pred, truth = (
        GroundTruth(path, value=pair.value) for path in (pair.pred, pair.truth)
    )
    with ExitStack() as stack:
        # Else GDAL keeps what it read in a twentieth of all memory.
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=raster.GDAL_CACHE))
        if pred.is_vector and truth.is_vector:
            if pair.value is not None:
                raise InputError(
                    "a class is chosen by its value in masks, got outlines: "
                    f"{pair.pred}"
                )
            yield _read_outlines(pair, resolution)
            return
        if pred.is_vector:
            with raster.open_raster(pair.truth) as source:
                geobox = geobox_of(source)
            read_pred: Reader = stack.enter_context(pred.open(geobox))
        else:
            source = stack.enter_context(raster.open_raster(pair.pred))
            scaled = probabilities and raster.holds_probabilities(source)
            read_pred = MaskReader(source, probabilities=scaled, value=pair.value)
            geobox = read_pred.geobox
        read_truth = stack.enter_context(truth.open(geobox))
        check_geoboxes(pair, geobox, read_truth.geobox)
        buildings = None
        if outlines is not None:
            buildings = OutlineReader(
                vector.read_outlines(outlines, geobox.crs), geobox
            )
        yield PairReader(geobox, read_truth, read_pred, buildings)


def _read_outlines(pair: Pair, resolution: float) -> PairReader:
    """Return a reader of outlines on both sides, on a grid that covers them."""
    crs = vector.metric_crs(pair.truth)
    sides = [vector.read_outlines(path, crs) for path in (pair.truth, pair.pred)]
    outlines = [outline for side in sides for outline in side]
    if not outlines:
        raise InputError(f"there must be outlines to score, got none: {pair.pred}")
    true, pred = (shapely.total_bounds(np.array(side, object)) for side in sides)
    if all(sides) and not shapely.box(*true).intersects(shapely.box(*pred)):
        raise InputError(
            f"predicted outlines must overlap the true ones, {pair.truth} lies "
            f"elsewhere: {pair.pred}"
        )
    geobox = vector.bounding_geobox(outlines, crs, resolution)
    return PairReader(geobox, *(OutlineReader(side, geobox) for side in sides))


def check_geoboxes(pair: Pair, pred: GeoBox, truth: GeoBox) -> None:
    """Refuse a pair of other sizes, or at other places.

    Args:
        pair: The files, to name them.
        pred: Where the pixels of the prediction lie.
        truth: Where those of the ground truth lie.

    Raises:
        ValueError: If they differ in size, or by more than `MAX_SHIFT` on the ground.
    """
    if (pred.height, pred.width) != (truth.height, truth.width):
        raise InputError(
            f"a mask is of the size of its truth {(truth.height, truth.width)}, "
            f"got {(pred.height, pred.width)}: {pair.pred}"
        )
    if pred.crs and truth.crs:
        apart = ~truth.transform @ pred.transform
        far = pred.crs != truth.crs or any(
            math.dist(apart @ corner, corner) > MAX_SHIFT
            for corner in ((0.0, 0.0), (float(pred.width), float(pred.height)))
        )
        if far:
            raise InputError(
                f"a mask lies where its truth does, {pair.truth} does not: {pair.pred}"
            )


def read_image(path: Path, window: Window) -> np.ndarray:
    """Read a window of the orthophoto that masks belong to.

    Args:
        path: The orthophoto.
        window: A window of its masks.

    Returns:
        Array of shape `(height, width, bands)`, 0..255.

    Raises:
        ValueError: If it is smaller than its masks.
    """
    with raster.open_raster(path) as source:
        rows, cols = source.shape
        if window.row + window.height > rows or window.col + window.width > cols:
            raise InputError(f"an image is of the size of its masks, got less: {path}")
        return raster.read_pixels(source, window)
