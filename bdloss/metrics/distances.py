"""Distances between outlines of matched buildings: ASSD and HD95."""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from bdloss.errors import InputError
from bdloss.metrics.buildings import (
    MIN_BUILDING_AREA,
    MIN_IOU,
    PairLabels,
    add_overlaps,
    find_overlaps,
    match_one_to_one,
)
from bdloss.metrics.scores import check_shapes, find_boundary
from bdloss.strip_labels import LabelledStrip, find_runs

FAR_PERCENTILE = 95  # of HD95


class SurfaceDistances(NamedTuple):
    """Distances between two boundaries, in pixels or in metres.

    Attributes:
        assd: Average symmetric surface distance: the mean over the boundary pixels of
            both of the distance to the nearest one of the other.
        hd95: Hausdorff distance, robust: the 95th percentile of these distances from
            truth to prediction or from prediction to truth, whichever is larger.
    """

    assd: float
    hd95: float


def surface_distances(
    y_true: np.ndarray, y_pred: np.ndarray, resolution: float = 1.0
) -> SurfaceDistances:
    """Return ASSD and HD95 of two masks, of one building each.

    Boundaries are building pixels with one of their four neighbours outside; the image
    is surrounded by ground. Percentiles are interpolated linearly. The values are those
    of MONAI's `compute_average_surface_distance` (`symmetric=True`) and
    `compute_hausdorff_distance` (`percentile=95`). DeepMind's surface-distance lays the
    boundary between pixels and weighs its pieces by their length: other values.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        resolution: Side of a pixel, in metres for distances in metres.

    Returns:
        Both distances, at least 0; NaN if either mask is empty.

    Raises:
        ValueError: If the shapes differ, or the resolution is not above 0.

    Example:
        >>> true, pred = np.zeros((2, 5, 9))
        >>> true[1:4, 1:4] = pred[1:4, 3:6] = 1  # 2 pixels to the right
        >>> surface_distances(true, pred, resolution=0.5)
        SurfaceDistances(assd=0.5, hd95=1.0)
    """
    check_shapes(y_true, y_pred, images=True)
    _check_resolution(resolution)
    true, pred = (
        np.argwhere(find_boundary(mask, connectivity=4, image_edge=True))
        for mask in (y_true, y_pred)
    )
    return _measure(true, pred, resolution)


class DistanceCounts(NamedTuple):
    """Distances of matched buildings, added up over images: see `add_counts`.

    Attributes:
        matched: Pairs of a building and a region, as in `InstanceCounts`.
        assd_sum: Their ASSD, added up.
        hd95_sum: Their HD95, added up.
    """

    matched: int = 0
    assd_sum: float = 0.0
    hd95_sum: float = 0.0

    @property
    def mean(self) -> SurfaceDistances:
        """Mean over the matched buildings, each weighing the same; NaN without any."""
        if not self.matched:
            return SurfaceDistances(math.nan, math.nan)
        return SurfaceDistances(
            self.assd_sum / self.matched, self.hd95_sum / self.matched
        )


class MatchedDistances:
    """Measure the matched buildings of an image that comes in strips of rows.

    Buildings and regions are those of `InstanceCounter`, and so is which of them are
    matched: distances of others say nothing. The distances are those of the whole
    image. Between strips the boundary pixels are kept of the buildings that are not
    finished; those of a labelled image may come back in any strip and are kept all.

    Ignored pixels are ground to both, so that a boundary along them is one of both.

    Args:
        ignore: As in `count_instances`.
        min_area: As in `count_instances`.
        resolution: Side of a pixel, in metres for distances in metres.
        labelled_true: As in `count_instances`.
        labelled_pred: As in `count_instances`.

    Raises:
        ValueError: If the resolution is not above 0.

    Example:
        >>> mask = np.zeros((8, 9))
        >>> mask[1:6, 1:6] = 1
        >>> distances = MatchedDistances()
        >>> for row in range(8):
        ...     distances.add(mask[row : row + 1], np.roll(mask, 1, 1)[row : row + 1])
        >>> distances.counts().matched, distances.counts().mean.assd
        (1, 0.5)
    """

    def __init__(
        self,
        ignore: int | None = None,
        min_area: int = MIN_BUILDING_AREA,
        resolution: float = 1.0,
        *,
        labelled_true: bool = False,
        labelled_pred: bool = False,
    ):
        _check_resolution(resolution)
        self._min_area = min_area
        self._resolution = resolution
        self._labels = PairLabels(ignore, labelled_true, labelled_pred)
        self._sides = (_Outlines(), _Outlines())
        self._shared = np.zeros((3, 0), int)  # building, region, pixels
        self._measured: list[SurfaceDistances] = []

    def add(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Measure the buildings that end in the next rows.

        Args:
            y_true: Strip of the true mask, of shape `(height, width)`.
            y_pred: Strip of the predicted mask, of the same shape.

        Raises:
            ValueError: If the shapes differ.
        """
        strips = self._labels.add(y_true, y_pred)
        overlaps = find_overlaps(*strips)
        numbers = []
        for side, kept, new, strip in zip(
            self._sides, self._shared, overlaps, strips, strict=False
        ):
            side.add(strip, new, overlaps[2])
            numbers.append(np.append(_go_on(kept, strip), new))
        pixels = np.append(self._shared[2], overlaps[2])
        both = (numbers[0] > 0) & (numbers[1] > 0)
        self._shared = add_overlaps(numbers[0][both], numbers[1][both], pixels[both])
        below = [strip.below for strip in strips]
        self._measured += self._measure_finished(below)
        self._drop_finished(below)

    def counts(self) -> DistanceCounts:
        """Return the distances of all rows so far, as if they were the whole image."""
        nothing = np.zeros(0, int)
        measured = self._measured + self._measure_finished([nothing, nothing])
        return DistanceCounts(
            len(measured),
            math.fsum(pair.assd for pair in measured),
            math.fsum(pair.hd95 for pair in measured),
        )

    def _measure_finished(self, below: list[np.ndarray]) -> list[SurfaceDistances]:
        """Return the distances of the pairs of which neither goes on below."""
        true, pred = self._sides
        goes_on = [
            np.isin(part, open_)
            for part, open_ in zip(self._shared, below, strict=False)
        ]
        shared = self._shared[:, ~(goes_on[0] | goes_on[1])]
        areas = true.areas_of(shared[0]), pred.areas_of(shared[1])
        iou = shared[2] / (areas[0] + areas[1] - shared[2])
        alike = (iou >= MIN_IOU) & (np.minimum(*areas) >= self._min_area)
        buildings, regions, _ = shared[:, alike].tolist()
        true_outlines, pred_outlines = true.outlines(buildings), pred.outlines(regions)
        # The first pixel of each stands for it: strips do not change which is first.
        places = match_one_to_one(
            np.array([true_outlines[number][0] for number in buildings], int),
            np.array([pred_outlines[number][0] for number in regions], int),
            iou[alike],
        )
        return [
            _measure(
                true.coordinates(true_outlines[buildings[place]]),
                pred.coordinates(pred_outlines[regions[place]]),
                self._resolution,
            )
            for place in places
        ]

    def _drop_finished(self, below: list[np.ndarray]) -> None:
        """Keep what may still be matched, because it or its overlap goes on below."""
        true, pred = self._sides
        building, region, pixels = self._shared
        open_true, open_pred = np.isin(building, below[0]), np.isin(region, below[1])
        union = true.areas_of(building) + pred.areas_of(region) - pixels
        # Unless both go on, no more pixels are shared, and the union does not shrink.
        may_match = (open_true & open_pred) | (pixels >= MIN_IOU * union)
        self._shared = self._shared[:, (open_true | open_pred) & may_match]
        for side, part, open_ in zip(self._sides, self._shared, below, strict=False):
            side.keep(np.union1d(part, open_))


class _Outlines:
    """Areas and boundary pixels of the buildings of one side."""

    def __init__(self) -> None:
        self._areas = np.zeros((2, 0), int)  # building, pixels
        self._boundary = np.zeros((2, 0), int)  # building, place in reading order
        self._height = 0
        # Of the last row, the building of each pixel, and whether its neighbours at the
        # sides and above are of the same: only the next row tells about the one below.
        self._last: np.ndarray | None = None
        self._inner = np.zeros(0, bool)

    def add(
        self, strip: LabelledStrip, numbers: np.ndarray, pixels: np.ndarray
    ) -> None:
        """Add the buildings of a strip, and the pixels of parts of them."""
        height, width = strip.labels.shape
        if self._last is None:
            self._last, self._inner = np.zeros(width, int), np.zeros(width, bool)
        areas = np.hstack([self._areas, [numbers, pixels]])
        found, place = np.unique(_go_on(areas[0], strip), return_inverse=True)
        area = np.bincount(place, areas[1]).astype(int)
        self._areas = np.stack([found, area])[:, found > 0]

        last = _go_on(self._last, strip)
        goes_on = last == strip.components[strip.labels[0]]
        inner = _find_inner(strip.labels, goes_on)
        late = np.flatnonzero(self._inner & ~goes_on)
        edge = np.flatnonzero((strip.labels > 0) & ~inner)
        top = self._height * width
        self._boundary = np.hstack(
            [
                [_go_on(self._boundary[0], strip), self._boundary[1]],
                [last[late], top - width + late],
                [strip.components[strip.labels.ravel()[edge]], top + edge],
            ]
        )
        self._last, self._inner = strip.components[strip.labels[-1]], inner[-1]
        self._height += height

    def keep(self, numbers: np.ndarray) -> None:
        """Drop all buildings but some."""
        self._areas = self._areas[:, np.isin(self._areas[0], numbers)]
        self._boundary = self._boundary[:, np.isin(self._boundary[0], numbers)]

    def areas_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the pixels of each building."""
        return self._areas[1, np.searchsorted(self._areas[0], numbers)]

    def outlines(self, numbers: list[int]) -> dict[int, np.ndarray]:
        """Return the boundary pixels of buildings, as places in reading order.

        Below the last row there is ground.
        """
        chosen = self._boundary[:, np.isin(self._boundary[0], numbers)]
        if self._last is not None:
            held = np.flatnonzero(self._inner & np.isin(self._last, numbers))
            places = (self._height - 1) * len(self._last) + held
            chosen = np.hstack([chosen, [self._last[held], places]])
        number, place = chosen[:, np.lexsort(chosen[::-1])]
        starts = find_runs(number)
        parts = np.split(place, starts[1:])
        return dict(zip(number[starts].tolist(), parts, strict=False))

    def coordinates(self, places: np.ndarray) -> np.ndarray:
        """Return rows and columns of places in reading order, of shape `(n, 2)`."""
        width = 1 if self._last is None else len(self._last)
        return np.stack(np.divmod(places, width), axis=1)


def _go_on(numbers: np.ndarray, strip: LabelledStrip) -> np.ndarray:
    """Return what number each component of the strips above has in this one."""
    if not len(strip.above):
        return numbers
    place = np.searchsorted(strip.above, numbers).clip(max=len(strip.above) - 1)
    return np.where(strip.above[place] == numbers, strip.continued[place], numbers)


def _find_inner(labels: np.ndarray, goes_on: np.ndarray) -> np.ndarray:
    """Return which pixels have four neighbours of the same label.

    Args:
        labels: Labels of a strip.
        goes_on: Which pixels of the first row have the same building above. Nothing is
            asked of the row below the last.
    """
    inner = labels > 0
    across, down = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    inner[:, 1:] &= across
    inner[:, :-1] &= across
    inner[:, [0, -1]] = False  # ground beside the image
    inner[1:] &= down
    inner[:-1] &= down
    inner[0] &= goes_on
    return inner


def _measure(true: np.ndarray, pred: np.ndarray, resolution: float) -> SurfaceDistances:
    """Return the distances between boundaries of shape `(pixels, 2)`."""
    if not len(true) or not len(pred):
        return SurfaceDistances(math.nan, math.nan)
    to_pred, _ = cKDTree(pred).query(true)
    to_true, _ = cKDTree(true).query(pred)
    both = np.append(to_pred, to_true)
    far = [np.percentile(part, FAR_PERCENTILE) for part in (to_pred, to_true)]
    return SurfaceDistances(
        # The sum is exact, so that it does not depend on the order of the pixels.
        math.fsum(both) / len(both) * resolution,
        float(max(far)) * resolution,
    )


def _check_resolution(resolution: float) -> None:
    if not 0 < resolution < math.inf:
        raise InputError(f"resolution must be above 0 metres, got {resolution}")
