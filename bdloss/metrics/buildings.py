"""Buildings that a mask detects, splits and merges, and false ones."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from bdloss.metrics.scores import check_shapes
from bdloss.strip_labels import StripLabels, join_components

MIN_SPLIT_OVERLAP = 0.1  # of a building, for a region over it to be a part of it
MIN_BUILDING_AREA = 20  # pixels, as in SpaceNet's score


class InstanceCounts(NamedTuple):
    """Buildings counted over images: see `add_counts`.

    A building is a connected part of the true mask, a region one of the predicted
    mask; pixels connect where they share an edge, as in the polygons that are written.
    Specks, parts of fewer pixels than `min_area`, are neither.
    A region **matches** a building if it covers more than half of its pixels, so at
    most one region matches a building.

    Attributes:
        buildings: Connected parts of the truth.
        detected: Buildings of which more than half the pixels are predicted, by
            however many regions. The others are false negatives.
        split: Detected buildings of which two regions or more cover a tenth each.
        merged: Buildings matched by a region that matches another building too. They
            are detected; two houses under one outline count as two.
        regions: Connected parts of the prediction.
        false_positives: Regions that match no building and lie with more than half of
            their pixels outside of all.
    """

    buildings: int = 0
    detected: int = 0
    split: int = 0
    merged: int = 0
    regions: int = 0
    false_positives: int = 0

    @property
    def false_negatives(self) -> int:
        """Buildings that were not detected."""
        return self.buildings - self.detected


def count_instances(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    ignore: int | None = None,
    min_area: int = MIN_BUILDING_AREA,
) -> InstanceCounts:
    """Count the buildings that were detected, split and merged, and the false ones.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        ignore: Value in `y_true` of pixels that do not count: they are ground to both,
            and a building that they cut in two counts as two.
        min_area: Pixels of the smallest building and of the smallest region.

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
         'false_positives': 0}
    """
    counter = InstanceCounter(ignore, min_area)
    counter.add(y_true, y_pred)
    return counter.counts()


class InstanceCounter:
    """Count the buildings of an image that comes in strips of rows.

    What a strip cuts is joined to its continuation in the next, so that the counts are
    those of the whole; between strips only a few numbers for each building are kept.

    Args:
        ignore: As in `count_instances`.
        min_area: As in `count_instances`.
    """

    def __init__(self, ignore: int | None = None, min_area: int = MIN_BUILDING_AREA):
        self._ignore = ignore
        self._min_area = min_area
        self._sides = (StripLabels(), StripLabels())  # of truth and of prediction
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
        check_shapes(y_true, y_pred, images=True)
        masks = [y_true != 0, y_pred != 0]
        if self._ignore is not None:
            known = y_true != self._ignore
            masks = [mask & known for mask in masks]
        some = masks[0] | masks[1]
        parts = []
        for side, seams, mask in zip(self._sides, self._seams, masks, strict=True):
            strip = side.add(mask)
            seams.append(np.stack([strip.above, strip.continued]))
            parts.append(strip.components[strip.labels[some]])
        shape = tuple(side.count for side in self._sides)
        true, pred = parts
        table = _overlap_table(true, pred, np.ones(some.sum(), int), shape)
        self._overlaps.append(np.stack([*table.coords, table.data]))

    def counts(self) -> InstanceCounts:
        """Return the counts of all rows so far."""
        true, pred = (
            join_components(seams, side.count)
            for side, seams in zip(self._sides, self._seams, strict=True)
        )
        parts = np.hstack([np.zeros((3, 1), int), *self._overlaps])
        shape = (int(true.max()) + 1, int(pred.max()) + 1)
        overlaps = _overlap_table(true[parts[0]], pred[parts[1]], parts[2], shape)
        # Rows are buildings and columns regions; the first of each is background.
        (row, column), pixels = overlaps.coords, overlaps.data
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

        # A region merges the buildings that it matches, if they are two or more.
        matching = paired & (2 * pixels > area_true[row])
        matched = np.bincount(column[matching], minlength=shape[1])

        # It is a false positive if it matches none and lies outside of all, mostly.
        outside = row == 0
        unmatched = np.bincount(column[outside], pixels[outside], shape[1])
        false_positive = region & (matched == 0) & (2 * unmatched > area_pred)
        return InstanceCounts(
            buildings=int(np.count_nonzero(building)),
            detected=int(np.count_nonzero(detected)),
            split=int(np.count_nonzero(split)),
            merged=int(matched[matched > 1].sum()),
            regions=int(np.count_nonzero(region)),
            false_positives=int(np.count_nonzero(false_positive)),
        )


def _overlap_table(true, pred, pixels, shape: tuple[int, ...]) -> sparse.coo_array:
    """Return the pixels that parts of truth and prediction share."""
    table = sparse.coo_array((pixels, (true, pred)), shape)
    table.sum_duplicates()
    return table
