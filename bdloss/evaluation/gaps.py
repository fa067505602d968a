"""Gaps between buildings, and the theta they allow (Sections 3.2 and 4.3).

The paper has two rules, a pixel apart: theta is "not greater than the minimum distance
between neighboring segments" (3.2); theta0 and theta "should be smaller than minimum
distance between segments" (4.3). Here theta is smaller, which keeps both.
A **gap** is the number of background pixels between a building and the nearest other
one, along rows or columns, whichever is more: the side of the widest square that fits
between them. That is how the square windows of the loss count. Pixels that share an
edge or a corner are one building, so the smallest gap is 1.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.figure import Figure

from bdloss.data.datasets import read_dataset
from bdloss.data.ground_truth import GroundTruth
from bdloss.data.scenes import Scene, load_mask
from bdloss.errors import InputError
from bdloss.files import atomic_path
from bdloss.geo import raster, vector
from bdloss.geo.windows import Window

logger = logging.getLogger(__name__)

USUAL_THETAS = (3, 5, 7)  # window sides, pixels, that people choose from
THETA0 = 3  # pixels: Eq. 1 finds no boundary with a smaller window
REACH = 8  # pixels around a building looked at first, then four times as many
TOUCHING = 0.05  # share of buildings that may stand closer than theta
WIDEST_BAR = 30  # pixels: wider gaps are drawn as one bar


class Advice(NamedTuple):
    """What the gaps of some masks say of the windows of the loss.

    Attributes:
        buildings: How many there are.
        alone: How many have no other building in their mask.
        smallest: Smallest gap in pixels, infinite without neighbours.
        quantile: Gap in pixels below which few buildings lie, see `advise`.
        theta: Largest odd window smaller than the smallest gap; None if that is less
            than 3 pixels, or if there are no neighbours to hold it back.
        robust_theta: The same for the quantile.
    """

    buildings: int
    alone: int
    smallest: float
    quantile: float
    theta: int | None
    robust_theta: int | None


def measure_gaps(mask: np.ndarray) -> np.ndarray:
    """Measure the gap between each building of a mask and its nearest neighbour.

    Args:
        mask: Array of shape `(height, width)`: 1 is building, the rest (0 and ignored
            pixels) is background.

    Returns:
        Gap of each building in pixels, float; infinite if it is the only one.

    Example:
        >>> measure_gaps(np.array([[1, 0, 0, 1, 0, 1]])).tolist()
        [2.0, 1.0, 1.0]
    """
    if not mask.size:
        return np.empty(0)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        (mask == 1).astype(np.uint8), connectivity=8
    )
    gaps = np.full(count - 1, np.inf)
    if count > 2:
        for label in range(1, count):
            gaps[label - 1] = _gap(labels, label, boxes[label])
    return gaps


def _gap(labels: np.ndarray, label: int, box: np.ndarray) -> float:
    """Return the gap of a building among others; exact, from a window around it."""
    left, top, width, height = box[:4]
    reach = REACH
    while True:
        around = labels[
            max(top - reach, 0) : top + height + reach,
            max(left - reach, 0) : left + width + reach,
        ]
        own = around == label
        free = (own | (around == 0)).astype(np.uint8)
        if not free.all():
            distance = cv2.distanceTransform(free, cv2.DIST_C, 3)[own].min()
            # what lies beyond the window is farther than its reach
            if distance <= reach or around.shape == labels.shape:
                return float(distance) - 1
        reach *= 4


def largest_theta(gap: float) -> int | None:
    """Return the largest window that the paper's rule allows.

    Args:
        gap: Smallest gap between buildings, in pixels.

    Returns:
        Largest odd side smaller than the gap; None if that is below 3 pixels (theta0 is
        3 and theta is not less), or the gap is infinite.

    Example:
        >>> [largest_theta(gap) for gap in (3, 4, 5, 6, 7.5)]
        [None, 3, 3, 5, 7]
    """
    if math.isinf(gap):
        return None
    below = math.ceil(gap) - 1
    theta = below - (below % 2 == 0)
    return theta if theta >= THETA0 else None


def advise(gaps: np.ndarray, share: float = TOUCHING) -> Advice:
    """Say which windows the gaps allow.

    Real masks have roofs that nearly touch, so that the rule, taken at its word, often
    allows no window at all. Beside it stands what it allows without the closest few.

    Args:
        gaps: Gap of each building, in pixels, from `measure_gaps`.
        share: Share of the buildings with neighbours that may stand closer, in [0, 1).

    Returns:
        Numbers and windows.

    Raises:
        ValueError: If there are no buildings, or the share is outside [0, 1).

    Example:
        >>> gaps = np.array([1, 6, 6, 8, 9, 9, 12, 20, 31, 31, np.inf])
        >>> advice = advise(gaps, share=0.2)
        >>> advice.smallest, advice.theta
        (1.0, None)
        >>> advice.quantile, advice.robust_theta
        (6.0, 5)
    """
    if not 0 <= share < 1:
        raise InputError(f"share must lie in [0, 1), got {share}")
    if not gaps.size:
        raise InputError("gaps are measured between buildings, the masks have none")
    near = np.sort(gaps[np.isfinite(gaps)])
    smallest, quantile = (
        (near[0], near[int(share * near.size)]) if near.size else (np.inf, np.inf)
    )
    return Advice(
        buildings=gaps.size,
        alone=gaps.size - near.size,
        smallest=float(smallest),
        quantile=float(quantile),
        theta=largest_theta(smallest),
        robust_theta=largest_theta(quantile),
    )


def share_closer(gaps: np.ndarray, theta: int) -> float:
    """Return the share of buildings for which theta breaks the paper's rule.

    Args:
        gaps: Gap of each building, in pixels.
        theta: Side of the window, in pixels.

    Returns:
        Share of all buildings whose gap is not larger than theta, in [0, 1].

    Example:
        >>> share_closer(np.array([3, 5, 6, np.inf]), theta=5)
        0.5
    """
    return float(np.mean(gaps <= theta)) if gaps.size else 0.0


def measure_dataset(name: str, root: str | PathLike) -> np.ndarray:
    """Measure the gaps of all scenes of a dataset.

    Args:
        name: One of `datasets.DATASETS`.
        root: Its folder.

    Returns:
        Gap of each building of all scenes, in pixels.

    Raises:
        FileNotFoundError: As `measure_scenes` does.
        ValueError: As `datasets.read_dataset` and `measure_scenes` do.
    """
    splits = read_dataset(name, root)
    whole = {s.name: s._replace(area=None) for part in splits for s in part}
    return measure_scenes(whole.values())


def measure_scenes(scenes: Iterable[Scene]) -> np.ndarray:
    """Measure the gaps of the scenes of a dataset; those of each are logged.

    Args:
        scenes: The scenes; their truth is read as it is for training.

    Returns:
        Gap of each building of all scenes, in pixels.

    Raises:
        FileNotFoundError: As `load_mask` does.
        ValueError: As `load_mask` does.
    """
    return _measure((scene.name, load_mask(scene)) for scene in scenes)


def measure_files(
    paths: Sequence[str | PathLike],
    resolution: float | None = None,
    value: int | None = None,
) -> np.ndarray:
    """Measure the gaps of single mask or vector files; those of each are logged.

    Args:
        paths: Masks in any raster format, or files of outlines.
        resolution: Metres a pixel at which outlines are drawn as a mask: that of the
            orthophotos they are for.
        value: In masks, that of the class whose gaps are measured; None for all but 0.

    Returns:
        Gap of each building of all files, in pixels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read, or outlines come without a resolution or
            make too large a mask.
    """
    return _measure(
        (str(path), _read_truth(Path(path), resolution, value)) for path in paths
    )


def tabulate_advice(gaps: np.ndarray, share: float = TOUCHING) -> list[tuple[str, str]]:
    """Return what a person should know to choose theta, as rows of two texts.

    Args:
        gaps: Gap of each building, in pixels.
        share: As in `advise`.

    Raises:
        ValueError: As `advise` does.
    """
    advice = advise(gaps, share)
    rows = [
        ("buildings", f"{advice.buildings}, {advice.alone} of them alone"),
        ("smallest gap", f"{advice.smallest:g} pixels: theta {advice.theta or 'none'}"),
        (
            f"all but {share:.0%}",
            f"{advice.quantile:g} pixels: theta {advice.robust_theta or 'none'}",
        ),
    ]
    for side in USUAL_THETAS:
        closer = share_closer(gaps, side)
        rows.append((f"theta {side}", f"{closer:.0%} of buildings stand too close"))
    return rows


def draw_gaps(gaps: np.ndarray, path: str | PathLike, share: float = TOUCHING) -> None:
    """Draw the gaps as a histogram, with the windows they allow, or theta0 if none.

    Args:
        gaps: Gap of each building, in pixels.
        path: PNG file to write.
        share: As in `advise`.

    Raises:
        ValueError: As `advise` does.
    """
    advice = advise(gaps, share)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    near = np.minimum(gaps[np.isfinite(gaps)], WIDEST_BAR)
    edges = [side + 0.5 for side in range(WIDEST_BAR + 1)]
    axes.hist(near, bins=edges, color="0.6", rwidth=0.9)
    allowed = ((advice.theta, "C3"), (advice.robust_theta, "C0"))
    lines = {theta: colour for theta, colour in allowed if theta is not None}
    for theta, colour in (lines or {THETA0: "0.3"}).items():
        share = share_closer(gaps, theta)
        label = f"theta = {theta}: {share:.1%} of the buildings stand closer"
        axes.axvline(min(theta, WIDEST_BAR) + 0.5, color=colour, label=label)
    axes.legend()
    axes.set(
        xlabel=f"gap to the nearest building, pixels ({WIDEST_BAR}: or more)",
        ylabel="buildings",
        xlim=(0.5, WIDEST_BAR + 0.5),
        title=f"{near.size} buildings, smallest gap {advice.smallest:g} pixels",
    )
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)


def _measure(masks: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    measured = [np.empty(0)]
    for name, mask in masks:
        gaps = measure_gaps(mask)
        measured.append(gaps)
        smallest = f", smallest gap {gaps.min():g} pixels" if gaps.size > 1 else ""
        logger.info("%s: %d buildings%s", name, gaps.size, smallest)
    return np.concatenate(measured)


def _read_truth(path: Path, resolution: float | None, value: int | None) -> np.ndarray:
    if GroundTruth(path).is_vector:
        return _draw_outlines(path, resolution)
    with raster.open_raster(path) as source:
        whole = Window(0, 0, source.height, source.width)
        return raster.read_mask(source, whole, value)


def _draw_outlines(path: Path, resolution: float | None) -> np.ndarray:
    """Draw a file of outlines as a mask of its own extent."""
    if resolution is None or not resolution > 0:
        raise InputError(
            f"outlines need the resolution of a pixel in metres, got {resolution}: "
            f"{path}"
        )
    crs = vector.metric_crs(path)
    outlines = vector.read_outlines(path, crs)
    if not outlines:
        return np.zeros((1, 1), np.uint8)
    return vector.rasterise(outlines, vector.bounding_geobox(outlines, crs, resolution))
