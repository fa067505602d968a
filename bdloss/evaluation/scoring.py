"""Scores of predictions against truth: pooled, averaged over images, in pictures."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bdloss import plots
from bdloss.constants import IGNORED
from bdloss.data.ground_truth import IMAGE_SUFFIXES, GroundTruth
from bdloss.data.inria import city_of
from bdloss.errors import InputError, OutputExistsError
from bdloss.evaluation.scores import TOLERANCES, RasterScores, Scores
from bdloss.evaluation.tables import write_scores
from bdloss.files import (
    atomic_folder,
    atomic_path,
    folder_aside,
    refuse_overlap,
    visible_files,
)
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.windows import Window, sliding_windows
from bdloss.metrics.buildings import InstanceCounter, InstanceCounts
from bdloss.metrics.scores import (
    BoundaryCounts,
    BoundaryScore,
    Counts,
    add_counts,
    count_boundary,
    count_pixels,
    find_boundary,
)

ROWS_AROUND = max(TOLERANCES)  # rows that a strip sees of its neighbours
STRIP_HEIGHT = 1024  # rows in memory at a time, about
WINDOW_SIDE = 256  # pixels of the windows that are drawn
WINDOWS_DRAWN = 4  # of the worst, and of the best
MAX_OVERLAPPING = 3  # windows of a grid that one may share pixels with, at its edges
MIN_BUILDING_FRACTION = 0.05  # of a window, for it to be drawn
PICTURE_SIDE = 2000  # pixels of the longer side of an error map at most
MAX_SHIFT = 0.5  # pixels that truth and prediction may lie apart on the ground

Rows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
Chosen = TypeVar("Chosen", bound=tuple[Any, ...])


class ImageCounts(NamedTuple):
    """What is counted on one image.

    Attributes:
        pixels: Pixels of building and ground.
        boundaries: Boundary pixels at each of `TOLERANCES`.
        instances: Buildings.
    """

    pixels: Counts
    boundaries: tuple[BoundaryCounts, ...]
    instances: InstanceCounts


class Pair(NamedTuple):
    """A predicted mask and its truth, a mask or a file of outlines."""

    name: str
    pred: Path
    truth: Path


class ScoredWindow(NamedTuple):
    """A window of a pair of masks, and its IoU."""

    iou: float
    pair: Pair
    window: Window


class Strip(NamedTuple):
    """Rows of truth and prediction with some of their neighbours."""

    true: np.ndarray
    pred: np.ndarray
    rows: slice  # those of the strip itself


def score_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Scores:
    """Score predicted masks against true ones.

    Args:
        pairs: True and predicted mask of each image, of shape `(height, width)`; 255
            marks an ignored pixel in the truth and a masked one in the prediction,
            and neither counts.

    Returns:
        Scores of all of them together.
    """
    return summarise(_count_arrays(true, pred) for true, pred in pairs)


def summarise(images: Iterable[ImageCounts]) -> Scores:
    """Turn the counts of images into scores.

    Args:
        images: Counts of each.
    """
    images = list(images)
    pixels = add_counts(Counts(), *(image.pixels for image in images))
    edges = add_counts(BoundaryCounts(), *(image.boundaries[0] for image in images))
    seen = [image for image in images if not math.isnan(image.boundaries[0].score.f1)]
    return Scores(
        iou=pixels.iou,
        boundary={
            tolerance: _mean_score([image.boundaries[index].score for image in seen])
            for index, tolerance in enumerate(TOLERANCES)
        },
        boundary_ratio=edges.pred / edges.true if edges.true else math.nan,
        accuracy=pixels.accuracy,
        images=len(images),
        images_with_boundary=len(seen),
        pixels=pixels.total,
        instances=add_counts(InstanceCounts(), *(image.instances for image in images)),
    )


def _mean_score(scores: Sequence[BoundaryScore]) -> BoundaryScore:
    """Return the means of scores; NaN without any."""
    if not scores:
        return BoundaryScore(math.nan, math.nan, math.nan)
    return BoundaryScore(*(float(np.mean(part)) for part in zip(*scores, strict=True)))


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


def score_rasters(
    predictions: Path,
    truths: Path,
    out: Path | None = None,
    images: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], Any] = lambda name: None,
    *,
    strip_height: int = STRIP_HEIGHT,
    picture_side: int = PICTURE_SIDE,
    min_building_fraction: float = MIN_BUILDING_FRACTION,
) -> RasterScores:
    """Score rasters of predicted masks, and show where they are wrong.

    Rasters are read by strips of rows, so that memory grows with their width only.

    Args:
        predictions: As in `find_pairs`.
        truths: As in `find_pairs`.
        out: Folder to write `scores.json`, `scores.md`, `NAME_errors.png` and, if any
            window has enough buildings, `worst.png` and `best.png`; None for nothing.
        images: An orthophoto or a folder of those of the same names, for the pictures.
        overwrite: Whether files that exist may be replaced.
        progress: Told the name of each image when it is done.
        strip_height: As in `count_image`.
        picture_side: Pixels of the longer side of an error map at most.
        min_building_fraction: Of a window in `worst.png` and `best.png`, at least.

    Returns:
        Scores of each image, of INRIA's cities and of all.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        FileExistsError: If there are files in `out` that may not be replaced.
        ValueError: If predictions and truths do not go together.
    """
    pairs, left = find_pairs(predictions, truths)
    pictures = {} if images is None else _images_by_name(images)
    if out is not None:
        shutil.rmtree(folder_aside(out), ignore_errors=True)  # killed at its end
        if (out / "scores.json").exists() and not overwrite:
            raise OutputExistsError(f"{out / 'scores.json'} exists; give --overwrite")
    counted: dict[str, ImageCounts] = {}
    windows: list[ScoredWindow] = []
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(atomic_folder(out, last="scores.json"))
        for pair in pairs:
            with open_pair(pair) as (read, height, width):
                errors = None
                if folder:
                    errors = _ErrorMap(
                        pair, height, width, picture_side, min_building_fraction
                    )
                counted[pair.name] = count_image(
                    read, height, width, errors.add if errors else None, strip_height
                )
            if folder and errors:
                plots.write_picture(
                    errors.picture(), folder / f"{pair.name}_errors.png"
                )
                windows = _keep_extremes([*windows, *errors.windows])
            progress(pair.name)
        result = RasterScores(
            images={name: summarise([one]) for name, one in counted.items()},
            cities=_score_cities(counted),
            all=summarise(counted.values()),
            without_prediction=[path.name for path in left],
        )
        if folder and out is not None:
            for name, chosen in _worst_and_best(windows).items():
                samples = [_read_sample(window, pictures) for window in chosen]
                plots.draw_windows(samples, folder / f"{name}.png")
            write_scores(result, folder)
    return result


def draw_stages(
    pred: Path,
    truth: Path,
    path: Path,
    image: Path | None = None,
    corner: tuple[int, int] | None = None,
    side: int = WINDOW_SIDE,
    theta0: int = 3,
    theta: int = 5,
    overwrite: bool = False,
) -> Window:
    """Draw the steps of the boundary loss (Fig. 1) on a window of a prediction.

    Args:
        pred: A mask, or a `NAME_prob.tif` of probabilities that `predict` wrote.
        truth: A mask or a file of outlines.
        path: PNG file to write.
        image: The orthophoto, to stand beside them.
        corner: Row and column of the window; None for the window of a grid that has
            most of the true boundary.
        side: Side of the window, in pixels.
        theta0: Side of the window of Eq. 1, in pixels.
        theta: Side of the window of Eq. 2, in pixels.
        overwrite: Whether the file may be replaced.

    Returns:
        The window.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If `path` exists and may not be replaced.
        ValueError: If the files do not go together, the corner lies outside, or the
            windows of the loss cannot be used.
    """
    refuse_overlap([path], [pred, truth, *([image] if image else [])])
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give --overwrite")
    pair = Pair(path.stem, pred, truth)
    if corner is None:
        corner = _longest_boundary(pair, side)
    row, col = corner
    with open_pair(pair, probabilities=True) as (read, height, width):
        if not (0 <= row < height and 0 <= col < width):
            raise InputError(
                f"the corner must lie in {height} rows and {width} columns, "
                f"got row {row}, column {col}"
            )
        window = Window(row, col, min(side, height - row), min(side, width - col))
        true, shown = (
            part[:, window.slices[1]] for part in read(row, row + window.height)
        )
    pixels = None
    if image is not None:
        with raster.open_raster(image) as source:
            _check_inside(source, window, image)
            pixels = raster.read_pixels(source, window)
    with atomic_path(path) as partial:
        plots.draw_stages(true, shown, partial, theta0, theta, pixels)
    return window


def _longest_boundary(pair: Pair, side: int) -> tuple[int, int]:
    """Return the corner of the window with most of the true boundary."""
    best, corner = -1, (0, 0)
    with open_pair(pair, probabilities=True) as (read, height, width):
        edge, above = np.zeros((0, 0), bool), -1
        for window in sliding_windows(height, width, side, side):
            if window.row != above:  # the first window of a row of them
                above = window.row
                true, _ = read(above, above + window.height)
                edge = find_boundary(true, ignore=IGNORED)
            length = np.count_nonzero(edge[:, window.slices[1]])
            if length > best:
                best, corner = int(length), (window.row, window.col)
    return corner


def _check_inside(source: Any, window: Window, image: Path) -> None:
    rows, cols = source.shape
    if window.row + window.height > rows or window.col + window.width > cols:
        raise InputError(f"an image is of the size of its masks, got less: {image}")


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
        _check_geoboxes(pair, geobox, truth.geobox)

        def read(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
            window = Window(top, 0, end - top, geobox.width)
            return truth.read(window), read_pred(pred, window)

        yield read, geobox.height, geobox.width


def _check_geoboxes(pair: Pair, pred: GeoBox, truth: GeoBox) -> None:
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


def _count_arrays(true: np.ndarray, pred: np.ndarray) -> ImageCounts:
    if true.shape != pred.shape:
        raise InputError(
            f"a mask is of the shape of its truth {true.shape}, got {pred.shape}"
        )

    def read(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return true[top:end], pred[top:end]

    return count_image(read, *true.shape)


def count_image(
    read: Rows,
    height: int,
    width: int,
    see: Callable[[Strip, int], None] | None = None,
    strip_height: int = STRIP_HEIGHT,
) -> ImageCounts:
    """Count an image in strips of rows, so that memory grows with its width only.

    Args:
        read: Function of first row and end to truth and prediction of these rows, as
            `open_pair` gives it.
        height: Height of the image, in pixels.
        width: Its width.
        see: Shown each strip and its first row.
        strip_height: Rows in memory at a time, about.

    Returns:
        The counts, for `summarise`.
    """
    pixels, instances = Counts(), InstanceCounter(IGNORED)
    boundaries = [BoundaryCounts() for _ in TOLERANCES]
    strips = math.ceil(height / strip_height)
    strip = math.ceil(height / strips)  # none is a thin remainder
    for top in range(0, height, strip):
        first, end = max(0, top - ROWS_AROUND), min(height, top + strip)
        true, pred = read(first, min(height, end + ROWS_AROUND))
        true = np.where(pred == IGNORED, IGNORED, true)
        rows = slice(top - first, end - first)
        pixels = add_counts(pixels, count_pixels(true[rows], pred[rows], IGNORED))
        instances.add(true[rows], pred[rows])
        for index, tolerance in enumerate(TOLERANCES):
            boundaries[index] = add_counts(
                boundaries[index],
                count_boundary(true, pred, tolerance, ignore=IGNORED, rows=rows),
            )
        if see:
            see(Strip(true, pred, rows), top)
    return ImageCounts(pixels, tuple(boundaries), instances.counts())


class _ErrorMap:
    """The error map of an image, at a size that a person looks at, and its windows.

    Args:
        pair: The masks of the image.
        height: Their height, in pixels.
        width: Their width.
        picture_side: Pixels of the longer side of the map at most.
        min_building_fraction: Windows with less building are not looked at.

    Attributes:
        windows: The windows of a grid that have enough buildings, and their IoU.
    """

    def __init__(
        self,
        pair: Pair,
        height: int,
        width: int,
        picture_side: int = PICTURE_SIDE,
        min_building_fraction: float = MIN_BUILDING_FRACTION,
    ):
        self.windows: list[ScoredWindow] = []
        self._pair = pair
        self._step = math.ceil(max(height, width) / picture_side)
        self._min_building = min_building_fraction * WINDOW_SIDE**2
        self._rows: list[np.ndarray] = []

    def add(self, strip: Strip, top: int) -> None:
        """Add the next strip of rows."""
        step = self._step
        marks = plots.mark_errors(strip.true, strip.pred, TOLERANCES[0])[strip.rows]
        # A copy: a view would hold the whole strip.
        self._rows.append(marks[-top % step :: step, ::step].copy())
        true, pred = strip.true[strip.rows], strip.pred[strip.rows]
        height, width = true.shape
        for part in sliding_windows(height, width, WINDOW_SIDE, WINDOW_SIDE):
            counts = count_pixels(true[part.slices], pred[part.slices], IGNORED)
            if counts.union >= self._min_building:
                window = part._replace(row=top + part.row)
                self.windows.append(ScoredWindow(counts.iou, self._pair, window))

    def picture(self) -> np.ndarray:
        """Return the map as an RGB picture."""
        return plots.colour_errors(np.vstack(self._rows))


def _keep_extremes(windows: Sequence[ScoredWindow]) -> list[ScoredWindow]:
    """Return, by IoU, those windows that may still be drawn."""
    ordered = sorted(windows)
    kept = WINDOWS_DRAWN * (1 + MAX_OVERLAPPING)
    return ordered if len(ordered) <= 2 * kept else ordered[:kept] + ordered[-kept:]


def _worst_and_best(
    windows: Sequence[ScoredWindow],
) -> dict[str, list[ScoredWindow]]:
    """Return the windows to draw, those that do not overlap, if there are any."""
    ordered = sorted(windows)
    chosen = {
        "worst": choose_apart(ordered, WINDOWS_DRAWN),
        "best": choose_apart(ordered[::-1], WINDOWS_DRAWN),
    }
    return {name: some for name, some in chosen.items() if some}


def choose_apart(candidates: Sequence[Chosen], number: int) -> list[Chosen]:
    """Return the first places whose windows do not overlap.

    Args:
        candidates: Tuples that end with an image and a window of it, in order.
        number: How many to return at most.

    Example:
        >>> windows = [Window(0, col, 4, 4) for col in (0, 3, 4)]
        >>> chosen = choose_apart([("a", window) for window in windows], 2)
        >>> [window.col for _, window in chosen]
        [0, 4]
    """
    chosen: list[Chosen] = []
    for candidate in candidates:
        *_, image, window = candidate
        free = all(
            image != other or not _overlap(window, taken) for *_, other, taken in chosen
        )
        if free and len(chosen) < number:
            chosen.append(candidate)
    return chosen


def _overlap(one: Window, other: Window) -> bool:
    return (
        one.row < other.row + other.height
        and other.row < one.row + one.height
        and one.col < other.col + other.width
        and other.col < one.col + one.width
    )


def _read_sample(scored: ScoredWindow, pictures: Mapping[str, Path]) -> plots.Sample:
    """Read what is drawn of a window."""
    window, pair = scored.window, scored.pair
    columns = window.slices[1]
    with open_pair(pair) as (read, *_):
        true, pred = (
            part[:, columns] for part in read(window.row, window.row + window.height)
        )
    pixels = None
    if pair.name in pictures:
        with raster.open_raster(pictures[pair.name]) as source:
            _check_inside(source, window, pictures[pair.name])
            pixels = raster.read_pixels(source, window)
    title = f"{pair.name}, IoU {scored.iou:.2f}\nrow {window.row}, column {window.col}"
    return plots.Sample(title, pixels, np.where(pred == IGNORED, pred, true), pred)


def _score_cities(counted: Mapping[str, ImageCounts]) -> dict[str, Scores]:
    """Return the scores of INRIA's cities; none if a name is not of its tiles."""
    cities: dict[str, list[ImageCounts]] = {}
    for name, counts in counted.items():
        city = city_of(name)
        if city is None:
            return {}
        cities.setdefault(city, []).append(counts)
    return {city: summarise(images) for city, images in sorted(cities.items())}


def _masks_by_name(path: Path) -> dict[str, Path]:
    files = _rasters(path)
    marked = [file for file in files if file.stem.endswith("_mask")]
    return _by_name(marked or files)


def _images_by_name(path: Path) -> dict[str, Path]:
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
