"""What is reported (Section 3.1): pooled IoU, BF1 with true distances, buildings.

`tolerance` is a distance in pixels. It is not the `theta` of the losses, which is the
side of a window: on hard masks the boundary loss with theta = 5 and smooth = 0 is one
minus the BF1 of an 8-neighbour boundary with tolerance 3.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import cv2
import keras
import numpy as np
from keras import ops
from scipy import sparse

from bdloss.errors import InputError

TOLERANCE = 3.0  # pixels
PIECE = 0.1  # of a building: what a region covers of it at least to be a part of it
MIN_AREA = 20  # pixels: what is smaller is no building, as in SpaceNet's score
UNKNOWN = 2  # marks ignored pixels beside 0 and 1

Counted = TypeVar("Counted", bound=tuple[int, ...])


class BoundaryScore(NamedTuple):
    """Precision, recall and F1 of predicted boundary pixels, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def find_boundary(
    mask: np.ndarray,
    connectivity: int = 4,
    image_edge: bool = False,
    ignore: int | None = None,
) -> np.ndarray:
    """Return the inner boundary of a mask.

    Args:
        mask: Array of shape `(height, width)`; non-zero is building.
        connectivity: 4 or 8, which neighbours are looked at.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value of ignored pixels: neither boundary nor background.

    Returns:
        Boolean array of the same shape: building pixels with a neighbour outside.

    Raises:
        ValueError: If connectivity is neither 4 nor 8.

    Example:
        >>> find_boundary(np.array([[0, 1, 1, 1]])).tolist()
        [[False, True, False, False]]
    """
    inside = (mask != 0).astype(np.uint8)  # ignored pixels are no background
    eroded = cv2.erode(
        inside,
        _neighbours(connectivity),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0 if image_edge else 1,
    )
    found = inside > eroded
    return found if ignore is None else found & (mask != ignore)


def boundary_f1(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    tolerance: float = TOLERANCE,
    connectivity: int = 4,
    image_edge: bool = False,
    ignore: int | None = None,
) -> BoundaryScore:
    """Return the BF1 of a predicted mask (Section 3.1; MATLAB's `bfscore`).

    A boundary pixel is matched if the other boundary has a pixel strictly closer than
    the tolerance. An empty boundary is matched wholly, so that a mask missed or
    invented has F1 0; without a boundary in truth and prediction all three are NaN,
    and the image belongs in no mean.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        tolerance: Distance in pixels, above 0.
        connectivity: 4 or 8, which neighbours make a boundary.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value in `y_true` of pixels that do not count.

    Returns:
        Precision, recall and F1.

    Raises:
        ValueError: If the shapes differ, or the tolerance is not above 0.

    Example:
        >>> mask = np.zeros((9, 12), int)
        >>> mask[2:7, 2:9] = 1
        >>> boundary_f1(mask, np.roll(mask, 2, axis=1)).f1
        1.0
    """
    return count_boundary(
        y_true, y_pred, tolerance, connectivity, image_edge, ignore
    ).score


def boundary_f1_per_class(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    classes: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    connectivity: int = 4,
    image_edge: bool = False,
    ignore: int | None = None,
) -> dict[int, BoundaryScore]:
    """Return the BF1 of each class of a label image, each against all the others.

    Args:
        y_true: True labels of shape `(height, width)`, integers.
        y_pred: Predicted labels of the same shape.
        classes: The labels to score; None for all that occur in truth or prediction.
            One in the prediction only has F1 0 here; MATLAB calls it NaN.
        tolerance: As in `boundary_f1`.
        connectivity: As in `boundary_f1`.
        image_edge: As in `boundary_f1`.
        ignore: Label in `y_true` of pixels that do not count.

    Returns:
        Score of each class.

    Raises:
        ValueError: As `boundary_f1` does.

    Example:
        >>> true, pred = np.array([[1, 1, 2, 2, 3]]), np.array([[1, 1, 2, 2, 2]])
        >>> {label: score.f1 for label, score in
        ...  boundary_f1_per_class(true, pred, tolerance=1).items()}
        {1: 1.0, 2: 0.6666666666666666, 3: 0.0}
    """
    if classes is None:
        found = np.union1d(y_true, y_pred).tolist()
        classes = [label for label in found if label != ignore]
    known = np.full(y_true.shape, True) if ignore is None else y_true != ignore
    return {
        label: boundary_f1(
            np.where(known, y_true == label, UNKNOWN),
            y_pred == label,
            tolerance,
            connectivity,
            image_edge,
            UNKNOWN,
        )
        for label in classes
    }


def add_counts(first: Counted, *others: Counted) -> Counted:
    """Return counts of one kind, added up: those of all images, or of all strips.

    Args:
        first: `Counts`, `BoundaryCounts` or `InstanceCounts`.
        others: More of the same kind.

    Example:
        >>> add_counts(Counts(1, 2, 3, 4), Counts(total=6))
        Counts(intersection=1, union=2, correct=3, total=10)
    """
    sums = map(sum, zip(first, *others, strict=True))
    return type(first)(*sums)  # type: ignore[arg-type]  # a NamedTuple


class BoundaryCounts(NamedTuple):
    """Boundary pixels counted in parts of an image: see `add_counts`.

    Attributes:
        pred: Boundary pixels of the prediction.
        pred_matched: Those of them with a true one closer than the tolerance.
        true: Boundary pixels of the truth.
        true_matched: Those of them with a predicted one closer than the tolerance.
    """

    pred: int = 0
    pred_matched: int = 0
    true: int = 0
    true_matched: int = 0

    @property
    def score(self) -> BoundaryScore:
        """Precision, recall and F1; NaN without any boundary (see `boundary_f1`)."""
        if not self.pred and not self.true:
            return BoundaryScore(math.nan, math.nan, math.nan)
        precision = self.pred_matched / self.pred if self.pred else 1.0
        recall = self.true_matched / self.true if self.true else 1.0
        total = precision + recall
        return BoundaryScore(
            precision, recall, 2 * precision * recall / total if total else 0.0
        )


def count_boundary(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    tolerance: float = TOLERANCE,
    connectivity: int = 4,
    image_edge: bool = False,
    ignore: int | None = None,
    rows: slice = slice(None),
) -> BoundaryCounts:
    """Count the boundary pixels from which BF1 is made.

    An image too large for memory is counted in strips of rows: with as many rows as
    the tolerance, rounded up, above and below a strip as its surroundings, the counts
    add up to those of the whole.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        tolerance: Distance in pixels, above 0.
        connectivity: 4 or 8, which neighbours make a boundary.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value in `y_true` of pixels that do not count.
        rows: The rows to count in; the others are surroundings.

    Returns:
        Counts, to be added up over the strips of an image.

    Raises:
        ValueError: If the shapes differ, or the tolerance is not above 0.
    """
    _check_shapes(y_true, y_pred, images=True)
    if ignore is not None:
        y_pred = np.where(y_true == ignore, ignore, y_pred != 0)
    true = find_boundary(y_true, connectivity, image_edge, ignore)
    pred = find_boundary(y_pred, connectivity, image_edge, ignore)
    near_true, near_pred = (widen_boundary(edge, tolerance) for edge in (true, pred))
    return BoundaryCounts(
        int(np.count_nonzero(pred[rows])),
        int(np.count_nonzero((pred & near_true)[rows])),
        int(np.count_nonzero(true[rows])),
        int(np.count_nonzero((true & near_pred)[rows])),
    )


def widen_boundary(boundary: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Return the pixels with a boundary pixel strictly closer than the tolerance.

    Args:
        boundary: Array of shape `(height, width)`, bool.
        tolerance: Distance in pixels, above 0.

    Returns:
        Boolean array of the same shape.

    Example:
        >>> widen_boundary(np.array([[1, 0, 0, 0]], bool), tolerance=2).tolist()
        [[True, True, False, False]]
    """
    widened = cv2.dilate(
        boundary.astype(np.uint8),
        _disk(tolerance),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return widened > 0


def _neighbours(connectivity: int) -> np.ndarray:
    """Return a pixel and its neighbours, as 0 and 1."""
    if connectivity not in (4, 8):
        raise InputError(f"connectivity must be 4 or 8, got {connectivity}")
    shape = np.ones((3, 3), np.uint8)
    if connectivity == 4:
        shape[::2, ::2] = 0
    return shape


def _disk(tolerance: float) -> np.ndarray:
    """Return the pixels strictly closer than the tolerance, as 0 and 1."""
    if not tolerance > 0:
        raise InputError(f"tolerance must be above 0 pixels, got {tolerance}")
    reach = math.ceil(tolerance) - 1
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (rows**2 + cols**2 < tolerance**2).astype(np.uint8)


class Counts(NamedTuple):
    """Pixels counted over images: see `add_counts`.

    Attributes:
        intersection: Building in truth and prediction.
        union: Building in truth or prediction.
        correct: The same in truth and prediction.
        total: All that are not ignored.
    """

    intersection: int = 0
    union: int = 0
    correct: int = 0
    total: int = 0

    @property
    def iou(self) -> float:
        """Pooled intersection over union, in [0, 1]; NaN without any building."""
        return self.intersection / self.union if self.union else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right, in [0, 1]; NaN without any pixel."""
        return self.correct / self.total if self.total else float("nan")


def count_pixels(
    y_true: np.ndarray, y_pred: np.ndarray, ignore: int | None = None
) -> Counts:
    """Count the pixels from which pooled IoU and accuracy are made.

    Args:
        y_true: True mask of any shape; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        ignore: Value in `y_true` of pixels that do not count.

    Returns:
        Counts, to be added up over images.

    Example:
        >>> count_pixels(np.array([1, 1, 0, 255]), np.array([1, 0, 0, 1]), 255)
        Counts(intersection=1, union=2, correct=2, total=3)
    """
    _check_shapes(y_true, y_pred)
    valid = np.full(y_true.shape, True) if ignore is None else y_true != ignore
    true, pred = (y_true != 0)[valid], (y_pred != 0)[valid]
    return Counts(
        int(np.count_nonzero(true & pred)),
        int(np.count_nonzero(true | pred)),
        int(np.count_nonzero(true == pred)),
        true.size,
    )


class InstanceCounts(NamedTuple):
    """Buildings counted over images: see `add_counts`.

    A building is a connected part of the true mask, a region one of the predicted
    mask; pixels connect where they share an edge, as in the polygons that are written.
    Specks, parts of fewer pixels than `min_area`, are neither.
    A region **takes** a building if it covers more than half of its pixels, so at most
    one region takes a building.

    Attributes:
        buildings: Connected parts of the truth.
        found: Buildings of which more than half the pixels are predicted, by however
            many regions. The others are missed.
        split: Buildings found of which two regions or more cover a tenth each.
        merged: Buildings taken by a region that takes another building too. They are
            found; two houses under one outline count as two.
        regions: Connected parts of the prediction.
        invented: Regions that take no building and lie with more than half of their
            pixels outside of all.
    """

    buildings: int = 0
    found: int = 0
    split: int = 0
    merged: int = 0
    regions: int = 0
    invented: int = 0

    @property
    def missed(self) -> int:
        """Buildings that were not found."""
        return self.buildings - self.found


def count_instances(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    ignore: int | None = None,
    min_area: int = MIN_AREA,
) -> InstanceCounts:
    """Count the buildings that were found, missed, split and merged.

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
        {'buildings': 3, 'found': 3, 'split': 1, 'merged': 2, 'regions': 3,
         'invented': 0}
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

    def __init__(self, ignore: int | None = None, min_area: int = MIN_AREA):
        self._ignore = ignore
        self._min_area = min_area
        self._sides = (_Parts(), _Parts())  # of truth and of prediction
        self._overlaps: list[np.ndarray] = []  # building, region, pixels

    def add(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Count the next rows.

        Args:
            y_true: Strip of the true mask, of shape `(height, width)`.
            y_pred: Strip of the predicted mask, of the same shape.

        Raises:
            ValueError: If the shapes differ.
        """
        _check_shapes(y_true, y_pred, images=True)
        masks = [y_true != 0, y_pred != 0]
        if self._ignore is not None:
            known = y_true != self._ignore
            masks = [mask & known for mask in masks]
        true, pred = (
            side.label(mask) for side, mask in zip(self._sides, masks, strict=True)
        )
        some = masks[0] | masks[1]
        shape = tuple(side.count for side in self._sides)
        table = _overlap_table(true[some], pred[some], np.ones(some.sum(), int), shape)
        self._overlaps.append(np.stack([*table.coords, table.data]))

    def counts(self) -> InstanceCounts:
        """Return the counts of all rows so far."""
        true, pred = (side.join() for side in self._sides)
        parts = np.hstack([np.zeros((3, 1), int), *self._overlaps])
        shape = (int(true.max()) + 1, int(pred.max()) + 1)
        table = _overlap_table(true[parts[0]], pred[parts[1]], parts[2], shape)
        (i, j), pixels = table.coords, table.data
        size, extent = (
            np.bincount(i, pixels, shape[0]),
            np.bincount(j, pixels, shape[1]),
        )
        building, region = size >= self._min_area, extent >= self._min_area
        building[0] = region[0] = False  # the ground
        found = building & (2 * np.bincount(i[j > 0], pixels[j > 0], shape[0]) > size)
        both = building[i] & region[j]
        pieces = np.bincount(i[both & (pixels >= PIECE * size[i])], minlength=shape[0])
        taking = both & (2 * pixels > size[i])
        taken = np.bincount(j[taking], minlength=shape[1])
        outside = np.bincount(j[i == 0], pixels[i == 0], shape[1])
        apart = region & (taken == 0) & (2 * outside > extent)
        return InstanceCounts(
            buildings=int(np.count_nonzero(building)),
            found=int(np.count_nonzero(found)),
            split=int(np.count_nonzero(found & (pieces > 1))),
            merged=int(taken[taken > 1].sum()),
            regions=int(np.count_nonzero(region)),
            invented=int(np.count_nonzero(apart)),
        )


class _Parts:
    """The connected parts of a mask that comes in strips of rows; 0 is the ground."""

    def __init__(self) -> None:
        self.count = 1
        self._last: np.ndarray | None = None  # row of labels
        self._seams: list[np.ndarray] = [np.zeros((2, 0), int)]

    def label(self, mask: np.ndarray) -> np.ndarray:
        """Return the parts of the next rows, numbered on."""
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        labels = np.where(mask, labels + (self.count - 1), 0)
        self.count += count - 1
        if self._last is not None:
            self._seams.append(np.stack([self._last, labels[0]])[:, mask[0]])
        self._last = labels[-1]
        return labels

    def join(self) -> np.ndarray:
        """Return the number of the whole that each part belongs to."""
        above, below = np.hstack(self._seams)
        above = np.where(above == 0, below, above)
        graph = sparse.coo_array(
            (np.ones(above.size, bool), (above, below)), (self.count, self.count)
        )
        return sparse.csgraph.connected_components(graph, directed=False)[1]


def _overlap_table(true, pred, pixels, shape: tuple[int, ...]) -> sparse.coo_array:
    """Return the pixels that parts of truth and prediction share."""
    table = sparse.coo_array((pixels, (true, pred)), shape)
    table.sum_duplicates()
    return table


def _check_shapes(y_true: np.ndarray, y_pred: np.ndarray, images: bool = False) -> None:
    """Refuse masks of different shapes and, where images are needed, other arrays."""
    if images and y_true.shape == y_pred.shape and 0 in y_true.shape:
        raise InputError(f"masks must have pixels, got shape {y_true.shape}")
    if y_true.shape != y_pred.shape or (images and y_true.ndim != 2):
        raise InputError(
            f"y_true and y_pred must have the same shape{' (height, width)' * images}, "
            f"got {y_true.shape} and {y_pred.shape}"
        )


def _check_known_sides(y_true, y_pred) -> None:
    """Refuse batches whose shapes are known to differ: they would be stretched."""
    true, pred = (tuple(ops.shape(y)) for y in (y_true, y_pred))
    sides = [
        (a, b)
        for a, b in zip(true, pred, strict=False)
        if isinstance(a, int) and isinstance(b, int)
    ]
    if len(true) != len(pred) or any(a != b for a, b in sides):
        raise InputError(
            f"y_true and y_pred must have the same shape, got {true} and {pred}"
        )


@keras.saving.register_keras_serializable("bdloss")
class IoU(keras.metrics.Metric):
    """Pooled intersection over union while training: summed, then divided.

    Args:
        threshold: Probability from which a pixel is building.
        ignore: Value in `y_true` of pixels that do not count.
        name: Name in the logs.
    """

    def __init__(
        self, threshold: float = 0.5, ignore: int | None = None, name: str = "iou"
    ):
        super().__init__(name=name)
        self.threshold = threshold
        self.ignore = ignore
        self.intersection = self.add_variable((), "zeros", name="intersection")
        self.union = self.add_variable((), "zeros", name="union")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add the pixels of a batch: masks of any shape, probabilities of the same.

        A pixel of the mask that is not 0 is building, unless it is ignored.
        """
        _check_known_sides(y_true, y_pred)
        true = ops.cast(ops.not_equal(y_true, 0), "float32")
        pred = ops.cast(ops.cast(y_pred, "float32") >= self.threshold, "float32")
        if self.ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, self.ignore), "float32")
            true, pred = true * valid, pred * valid
        both = ops.sum(true * pred)
        self.intersection.assign_add(both)
        self.union.assign_add(ops.sum(true) + ops.sum(pred) - both)

    def result(self):
        """Return the score in [0, 1]; 0 before any building was seen."""
        return self.intersection / ops.maximum(self.union, 1.0)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same metric again."""
        return {
            "threshold": self.threshold,
            "ignore": self.ignore,
            "name": self.name,
        }


@keras.saving.register_keras_serializable("bdloss")
class BoundaryF1(keras.metrics.Metric):
    """BF1 while training: `boundary_f1` of each image, averaged.

    The mean is over the images of all batches that have a boundary in truth or
    prediction; `count` says how many they were. Each class of a map with several is
    an image of its own.

    Args:
        tolerance: Distance in pixels, above 0.
        threshold: Probability from which a pixel is building.
        connectivity: 4 or 8, which neighbours make a boundary.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value in `y_true` of pixels that do not count.
        name: Name in the logs.

    Raises:
        ValueError: If the tolerance is not above 0, or connectivity neither 4 nor 8.
    """

    def __init__(
        self,
        tolerance: float = TOLERANCE,
        threshold: float = 0.5,
        connectivity: int = 4,
        image_edge: bool = False,
        ignore: int | None = None,
        name: str = "bf1",
    ):
        super().__init__(name=name)
        self._disk = _disk(tolerance)
        self._neighbours = _neighbours(connectivity)
        self.tolerance = tolerance
        self.threshold = threshold
        self.connectivity = connectivity
        self.image_edge = image_edge
        self.ignore = ignore
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: masks `(batch, height, width, classes)`, probabilities alike."""
        _check_known_sides(y_true, y_pred)
        y_true = _classes_to_images(ops.cast(y_true, "float32"))
        y_pred = _classes_to_images(ops.cast(y_pred, "float32"))
        valid = ops.ones_like(y_true)
        if self.ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, self.ignore), "float32")
        true = self._find_boundary(ops.not_equal(y_true, 0), valid)
        pred = self._find_boundary(y_pred >= self.threshold, valid)
        precision, pixels_pred = _share(pred, _widen(true, self._disk))
        recall, pixels_true = _share(true, _widen(pred, self._disk))
        some = ops.cast(pixels_pred + pixels_true > 0, "float32")
        f1 = 2 * precision * recall / ops.maximum(precision + recall, 1e-12)
        self.total.assign_add(ops.sum(some * f1))
        self.count.assign_add(ops.sum(some))

    def _find_boundary(self, mask, valid):
        """Return what `find_boundary` does, as 0 and 1."""
        mask = ops.cast(mask, "float32")
        return (
            mask
            * valid
            * _widen((1 - mask) * valid, self._neighbours, float(self.image_edge))
        )

    def result(self):
        """Return the mean in [0, 1]; 0 before any boundary was seen."""
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same metric again."""
        return {
            "tolerance": self.tolerance,
            "threshold": self.threshold,
            "connectivity": self.connectivity,
            "image_edge": self.image_edge,
            "ignore": self.ignore,
            "name": self.name,
        }


def _classes_to_images(y):
    """Return maps with classes as so many maps with one."""
    _, height, width, classes = ops.shape(y)
    if classes == 1:
        return y
    return ops.reshape(ops.transpose(y, (0, 3, 1, 2)), (-1, height, width, 1))


def _widen(y, shape: np.ndarray, beyond: float = 0.0):
    """Return 1 where a map of 0 and 1 has a 1 within the shape around a pixel."""
    reach = len(shape) // 2
    padded = ops.pad(
        y, [[0, 0], [reach, reach], [reach, reach], [0, 0]], constant_values=beyond
    )
    kernel = ops.convert_to_tensor(shape[..., None, None], "float32")
    found = ops.conv(padded, kernel, padding="valid", data_format="channels_last")
    return ops.cast(found > 0.5, "float32")


def _share(boundary, region):
    """Return the share of a boundary that lies in a region, and its pixels."""
    pixels = ops.sum(boundary, axis=(1, 2, 3))
    inside = ops.sum(boundary * region, axis=(1, 2, 3))
    return ops.where(pixels > 0, inside / ops.maximum(pixels, 1.0), 1.0), pixels
