"""Predictions scored against their ground truth: pooled, averaged over images."""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bdloss import plots
from bdloss.constants import IGNORED
from bdloss.data.inria import city_of
from bdloss.errors import InputError, OutputExistsError
from bdloss.evaluation.error_maps import (
    MIN_BUILDING_FRACTION,
    PICTURE_SIDE,
    ErrorMap,
    ScoredWindow,
    keep_extremes,
    read_sample,
    worst_and_best,
)
from bdloss.evaluation.pairs import (
    Rows,
    Strip,
    find_pairs,
    images_by_name,
    open_pair,
)
from bdloss.evaluation.scores import TOLERANCES, RasterScores, Scores
from bdloss.evaluation.tables import write_scores
from bdloss.files import atomic_folder, folder_aside
from bdloss.metrics.buildings import InstanceCounter, InstanceCounts
from bdloss.metrics.scores import (
    BoundaryCounts,
    BoundaryScore,
    Counts,
    add_counts,
    count_boundary,
    count_pixels,
)

ROWS_AROUND = max(TOLERANCES)  # rows that a strip sees of its neighbours
STRIP_HEIGHT = 1024  # rows in memory at a time, about


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
    pictures = {} if images is None else images_by_name(images)
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
            with open_pair(pair) as reader:
                height, width = reader.geobox.height, reader.geobox.width
                errors = None
                if folder:
                    errors = ErrorMap(
                        pair, height, width, picture_side, min_building_fraction
                    )
                counted[pair.name] = count_image(
                    reader.rows,
                    height,
                    width,
                    errors.add if errors else None,
                    strip_height,
                )
            if folder and errors:
                plots.write_picture(
                    errors.picture(), folder / f"{pair.name}_errors.png"
                )
                windows = keep_extremes([*windows, *errors.windows])
            progress(pair.name)
        result = RasterScores(
            images={name: summarise([one]) for name, one in counted.items()},
            cities=_score_cities(counted),
            all=summarise(counted.values()),
            without_prediction=[path.name for path in left],
        )
        if folder and out is not None:
            for name, chosen in worst_and_best(windows).items():
                samples = [read_sample(window, pictures) for window in chosen]
                plots.draw_windows(samples, folder / f"{name}.png")
            write_scores(result, folder)
    return result


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


def _score_cities(counted: Mapping[str, ImageCounts]) -> dict[str, Scores]:
    """Return the scores of INRIA's cities; none if a name is not of its tiles."""
    cities: dict[str, list[ImageCounts]] = {}
    for name, counts in counted.items():
        city = city_of(name)
        if city is None:
            return {}
        cities.setdefault(city, []).append(counts)
    return {city: summarise(images) for city, images in sorted(cities.items())}
