"""Predictions and their ground truth: paired by name, read by rows."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bdloss.data.ground_truth import IMAGE_SUFFIXES, GroundTruth
from bdloss.errors import InputError
from bdloss.files import visible_files
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.windows import Window

MAX_SHIFT = 0.5  # pixels that truth and prediction may lie apart on the ground

Rows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class Pair(NamedTuple):
    """A predicted mask and its truth, a mask or a file of outlines."""

    name: str
    pred: Path
    truth: Path


class Strip(NamedTuple):
    """Rows of truth and prediction with some of their neighbours."""

    true: np.ndarray
    pred: np.ndarray
    rows: slice  # those of the strip itself


def find_pairs(predictions: Path, truths: Path) -> tuple[list[Pair], list[Path]]:
    """Pair predicted masks with their truth.

    Args:
        predictions: A mask or a folder of them.
        truths: A mask, a folder of masks, or a file of outlines.

    Returns:
        The pairs by name, and the masks of the truth that have no prediction. In a
        folder with files `NAME_mask.*` only these are masks, else all rasters
        are; the name is that without `_mask`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there is no prediction, or one has no truth.
    """
    preds, known = _masks_by_name(predictions), _masks_by_name(truths)
    if not preds:
        raise InputError(f"no rasters in {predictions}")
    if truths.is_file():  # one for all: outlines, or a mask of whatever name
        if not GroundTruth(truths).is_vector and len(preds) > 1:
            raise InputError(
                f"{len(preds)} predictions need a folder of truths or outlines, "
                f"got one mask: {truths}"
            )
        return [Pair(name, pred, truths) for name, pred in preds.items()], []
    if predictions.is_file() and len(known) == 1:
        preds = dict(zip(known, preds.values(), strict=True))
    for name, pred in preds.items():
        if name not in known:
            raise InputError(f"no truth named {name} in {truths}: {pred}")
    pairs = [Pair(name, pred, known[name]) for name, pred in preds.items()]
    return pairs, [truth for name, truth in known.items() if name not in preds]


def _masks_by_name(path: Path) -> dict[str, Path]:
    files = _rasters(path)
    marked = [file for file in files if file.stem.endswith("_mask")]
    return _by_name(marked or files)


def images_by_name(path: Path) -> dict[str, Path]:
    """Return an orthophoto, or those of a folder, by name; masks are left out."""
    return _by_name(file for file in _rasters(path) if not file.stem.endswith("_mask"))


def _by_name(files: Iterable[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in files:
        name = file.stem.removesuffix("_mask")
        if name in names:
            raise InputError(f"two files of one name: {names[name]} and {file}")
        names[name] = file
    return names


def _rasters(path: Path) -> Sequence[Path]:
    if path.is_dir():
        return visible_files(path, IMAGE_SUFFIXES)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return [path]


@contextmanager
def open_pair(
    pair: Pair, probabilities: bool = False
) -> Iterator[tuple[Rows, int, int]]:
    """Open a prediction and its truth to read rows of both.

    Args:
        pair: The files.
        probabilities: Whether the prediction may be a map of probabilities, which is
            then read as such.

    Yields:
        A function of first row and end to truth and prediction of these rows, masks
        of 0, 1 and 255; the height and the width of both.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If they are not of one size or lie at different places.
    """
    with ExitStack() as stack:
        pred = stack.enter_context(raster.open_raster(pair.pred))
        geobox = geobox_of(pred)
        read_pred = raster.read_mask
        if probabilities and raster.holds_probabilities(pred):
            read_pred = raster.read_probabilities
        truth = stack.enter_context(GroundTruth(pair.truth).open(geobox))
        check_geoboxes(pair, geobox, truth.geobox)

        def read(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
            window = Window(top, 0, end - top, geobox.width)
            return truth.read(window), read_pred(pred, window)

        yield read, geobox.height, geobox.width


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
