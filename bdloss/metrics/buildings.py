"""Buildings that a mask detects, splits, merges and matches, and false ones."""

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse

from bdloss.metrics.scores import check_shapes
from bdloss.strip_labels import (
    LabelledStrip,
    StripLabels,
    StripValues,
    find_runs,
    join_components,
)

MIN_SPLIT_OVERLAP = 0.1  # of a building, for a region over it to be a part of it
MIN_IOU = 0.5  # of a building and a region that are matched, as in SpaceNet's score
MIN_BUILDING_AREA = 20  # pixels, as in SpaceNet's score


class InstanceCounts(NamedTuple):
    """Buildings counted over images: see `add_counts`.

    A building is a connected part of the true mask, its pixels joined at edges or at
    corners; a region is one of the predicted mask, alike, so that a mask is all right
    by itself. Of a labelled image each value is one. Specks, parts of fewer pixels than
    `min_area`, are neither.
    A region **covers** a building if it holds more than half of its pixels, so at most
    one region covers a building.
    A region and a building are **matched** if their IoU is 0.5 or more, each with one
    at most (SpaceNet; Van Etten et al. 2018, arXiv 1807.01232). Only where two halves
    make up a whole could it be either: then it is the first, in reading order.

    Attributes:
        buildings: Connected parts of the truth.
        detected: Buildings of which more than half the pixels are predicted, by
            however many regions. The others are false negatives.
        split: Detected buildings of which two regions or more cover a tenth each.
        merged: Buildings covered by a region that covers another building too. They
            are detected; two houses under one outline count as two.
        regions: Connected parts of the prediction.
        false_positives: Regions that cover no building and lie with more than half of
            their pixels outside of all.
        matched: Pairs of a building and a region.
        matched_iou_sum: IoU of these pairs, added up.
    """

    buildings: int = 0
    detected: int = 0
    split: int = 0
    merged: int = 0
    regions: int = 0
    false_positives: int = 0
    matched: int = 0
    matched_iou_sum: float = 0.0

    @property
    def false_negatives(self) -> int:
        """Buildings that were not detected."""
        return self.buildings - self.detected

    @property
    def precision(self) -> float:
        """Share of the regions that are matched, in [0, 1]; NaN without regions."""
        return self.matched / self.regions if self.regions else math.nan

    @property
    def recall(self) -> float:
        """Share of the buildings that are matched, in [0, 1]; NaN without buildings."""
        return self.matched / self.buildings if self.buildings else math.nan

    @property
    def f1(self) -> float:
        """SpaceNet's F1, in [0, 1]; NaN without buildings and regions."""
        both = self.buildings + self.regions
        return 2 * self.matched / both if both else math.nan

    @property
    def matched_iou(self) -> float:
        """Mean IoU of the matched, in [0.5, 1]; NaN if none are."""
        return self.matched_iou_sum / self.matched if self.matched else math.nan


def count_instances(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    ignore: int | None = None,
    min_area: int = MIN_BUILDING_AREA,
    *,
    labelled_true: bool = False,
    labelled_pred: bool = False,
) -> InstanceCounts:
    """Count buildings that are detected, split, merged and matched, and false ones.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        ignore: Value in `y_true` of pixels that do not count: they are ground to both,
            and a building that they cut in two counts as two.
        min_area: Pixels of the smallest building and of the smallest region.
        labelled_true: Whether each value of `y_true` but 0 is one building, touching
            others or not, such as the number of its outline; `ignore` is then a value
            that no building has.
        labelled_pred: Whether each value of `y_pred` but 0 is one region.

    Returns:
        Counts, to be added up over images.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> true = np.array([[1, 1, 0, 1, 1, 0, 1, 1, 1, 1]])
        >>> pred = np.array([[1, 1, 1, 1, 1, 0, 1, 0, 1, 1]])
        >>> counts = count_instances(true, pred, min_area=1)
        >>> counts._asdict()  # doctest: +NORMALIZE_WHITESPACE
        {'buildings': 3, 'detected': 3, 'split': 1, 'merged': 2, 'regions': 3,
         'false_positives': 0, 'matched': 1, 'matched_iou_sum': 0.5}
        >>> numbered = np.array([[1, 1, 2, 2, 2, 0, 3, 3, 3, 3]])
        >>> count_instances(true, numbered, min_area=1, labelled_pred=True).f1
        1.0
    """
    counter = InstanceCounter(
        ignore, min_area, labelled_true=labelled_true, labelled_pred=labelled_pred
    )
    counter.add(y_true, y_pred)
    return counter.counts()


class InstanceCounter:
    """Count the buildings of an image that comes in strips of rows.

    What a strip cuts is joined to its continuation in the next, so that the counts are
    those of the whole; between strips only a few numbers for each building are kept.

    Args:
        ignore: As in `count_instances`.
        min_area: As in `count_instances`.
        labelled_true: As in `count_instances`.
        labelled_pred: As in `count_instances`.
    """

    def __init__(
        self,
        ignore: int | None = None,
        min_area: int = MIN_BUILDING_AREA,
        *,
        labelled_true: bool = False,
        labelled_pred: bool = False,
    ):
        self._min_area = min_area
        self._labels = PairLabels(ignore, labelled_true, labelled_pred)
        self._seams: tuple[list[np.ndarray], ...] = ([], [])
        self._overlaps: list[np.ndarray] = []  # building, region, pixels

    def add(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Count the next rows.

        Args:
            y_true: Strip of the true mask, of shape `(height, width)`.
            y_pred: Strip of the predicted mask, of the same shape.

        Raises:
            ValueError: If the shapes differ.
        """
        strips = self._labels.add(y_true, y_pred)
        for seams, strip in zip(self._seams, strips, strict=True):
            seams.append(np.stack([strip.above, strip.continued]))
        self._overlaps.append(find_overlaps(*strips))

    def counts(self) -> InstanceCounts:
        """Return the counts of all rows so far."""
        true, pred = (
            join_components(seams, side.count)
            for side, seams in zip(self._labels.sides, self._seams, strict=True)
        )
        parts = np.hstack([np.zeros((3, 1), int), *self._overlaps])
        shape = (int(true.max()) + 1, int(pred.max()) + 1)
        # Rows are buildings and columns regions; the first of each is background.
        row, column, pixels = add_overlaps(true[parts[0]], pred[parts[1]], parts[2])
        area_true = np.bincount(row, pixels, shape[0])
        area_pred = np.bincount(column, pixels, shape[1])
        building = area_true >= self._min_area
        region = area_pred >= self._min_area
        building[0] = region[0] = False

        # A building is detected by all that is predicted of it, specks too.
        under = column > 0
        predicted = np.bincount(row[under], pixels[under], shape[0])
        detected = building & (2 * predicted > area_true)

        # It is split by regions over a good part of it.
        paired = building[row] & region[column]
        parted = paired & (pixels >= MIN_SPLIT_OVERLAP * area_true[row])
        split = detected & (np.bincount(row[parted], minlength=shape[0]) > 1)

        # A region merges the buildings that it covers, if they are two or more.
        covering = paired & (2 * pixels > area_true[row])
        covered = np.bincount(column[covering], minlength=shape[1])

        # It is a false positive if it covers none and lies outside of all, mostly.
        outside = row == 0
        unmatched = np.bincount(column[outside], pixels[outside], shape[1])
        false_positive = region & (covered == 0) & (2 * unmatched > area_pred)

        # Matched are those alike enough, each with one.
        row, column, pixels = row[paired], column[paired], pixels[paired]
        iou = pixels / (area_true[row] + area_pred[column] - pixels)
        alike = iou >= MIN_IOU
        matched = match_one_to_one(row[alike], column[alike], iou[alike])
        return InstanceCounts(
            buildings=int(np.count_nonzero(building)),
            detected=int(np.count_nonzero(detected)),
            split=int(np.count_nonzero(split)),
            merged=int(covered[covered > 1].sum()),
            regions=int(np.count_nonzero(region)),
            false_positives=int(np.count_nonzero(false_positive)),
            matched=len(matched),
            matched_iou_sum=math.fsum(iou[alike][matched]),
        )


class PairLabels:
    """Label the buildings and the regions in strips of a true and a predicted mask.

    Args:
        ignore: As in `count_instances`.
        labelled_true: As in `count_instances`.
        labelled_pred: As in `count_instances`.

    Attributes:
        sides: The labels of the truth and those of the prediction.
    """

    def __init__(
        self,
        ignore: int | None = None,
        labelled_true: bool = False,
        labelled_pred: bool = False,
    ):
        self._ignore = ignore
        self.sides: tuple[StripLabels | StripValues, StripLabels | StripValues] = (
            StripValues() if labelled_true else StripLabels(connectivity=8),
            StripValues() if labelled_pred else StripLabels(connectivity=8),
        )

    def add(
        self, y_true: np.ndarray, y_pred: np.ndarray
    ) -> tuple[LabelledStrip, LabelledStrip]:
        """Label the next rows, as `InstanceCounter.add` takes them."""
        check_shapes(y_true, y_pred, images=True)
        if self._ignore is not None:
            known = y_true != self._ignore
            y_true, y_pred = np.where(known, y_true, 0), np.where(known, y_pred, 0)
        true, pred = self.sides
        return true.add(y_true), pred.add(y_pred)


def find_overlaps(true: LabelledStrip, pred: LabelledStrip) -> np.ndarray:
    """Return how many pixels of a strip each building and region share.

    Args:
        true: The strip of the truth.
        pred: That of the prediction.

    Returns:
        Array of shape `(3, n)`: building, region and pixels, 0 for the background.
    """
    some = (true.labels > 0) | (pred.labels > 0)
    buildings, regions = true.labels[some], pred.labels[some]
    starts = find_runs(buildings, regions)
    lengths = np.diff(np.append(starts, len(buildings)))
    return add_overlaps(
        true.components[buildings[starts]], pred.components[regions[starts]], lengths
    )


def add_overlaps(true: np.ndarray, pred: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return pixels that buildings and regions share, each pair once.

    Args:
        true: Building of each, and more than once perhaps.
        pred: Region of each.
        pixels: Pixels of each.

    Returns:
        Array of shape `(3, n)`: building, region and pixels.
    """
    shape = (int(true.max(initial=0)) + 1, int(pred.max(initial=0)) + 1)
    table = sparse.coo_array((pixels, (true, pred)), shape)
    table.sum_duplicates()
    return np.stack([*table.coords, table.data])


def match_one_to_one(true: np.ndarray, pred: np.ndarray, iou: np.ndarray) -> list[int]:
    """Return which pairs are matched: the best IoU first, each side used once.

    Args:
        true: Number of the building of each pair.
        pred: Number of its region.
        iou: Their IoU. Of equal ones the lowest building is first, then the lowest
            region.

    Returns:
        Places of the matched pairs, the best first.

    Example:
        >>> iou = np.array([0.5, 0.5, 0.9])
        >>> match_one_to_one(np.array([1, 1, 2]), np.array([4, 3, 5]), iou)
        [2, 1]
    """
    used_true, used_pred = set(), set()
    matched = []
    for place in np.lexsort((pred, true, -iou)).tolist():
        building, region = int(true[place]), int(pred[place])
        if building not in used_true and region not in used_pred:
            used_true.add(building)
            used_pred.add(region)
            matched.append(place)
    return matched
