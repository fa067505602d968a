"""Scores of masks (Section 3.1): pooled IoU, BF1 with true distances.

`tolerance` is a distance in pixels. It is not the `theta` of the losses, which is the
side of a window: on hard masks the boundary loss with theta = 5 and smooth = 0 is one
minus the BF1 of an 8-neighbour boundary with tolerance 3.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from bdloss.constants import IGNORED
from bdloss.errors import InputError

TOLERANCE = 3.0  # pixels
IGNORED_LABEL = 2  # beside 0 and 1

Counted = TypeVar("Counted", bound=tuple[float, ...])


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
        neighbours(connectivity),
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
    the tolerance. An empty boundary is matched wholly, so that F1 is 0 if one mask
    alone has a boundary; without one in truth and prediction all three are NaN, and
    the image belongs in no mean.

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
            np.where(known, y_true == label, IGNORED_LABEL),
            y_pred == label,
            tolerance,
            connectivity,
            image_edge,
            IGNORED_LABEL,
        )
        for label in classes
    }


def add_counts(first: Counted, *others: Counted) -> Counted:
    """Return counts of one kind, added up: those of all images, or of all strips.

    Args:
        first: Counts of any kind, such as `Counts`, `BoundaryCounts`, `InstanceCounts`.
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
    check_shapes(y_true, y_pred, images=True)
    masks = [y_true != 0, y_pred != 0]
    if ignore is not None:
        ignored = y_true == ignore
        masks = [np.where(ignored, np.uint8(IGNORED), mask) for mask in masks]
    true, pred = (
        find_boundary(mask, connectivity, image_edge, IGNORED) for mask in masks
    )
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
        disk(tolerance),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return widened > 0


def neighbours(connectivity: int) -> np.ndarray:
    """Return a pixel and its neighbours, as 0 and 1."""
    if connectivity not in (4, 8):
        raise InputError(f"connectivity must be 4 or 8, got {connectivity}")
    shape = np.ones((3, 3), np.uint8)
    if connectivity == 4:
        shape[::2, ::2] = 0
    return shape


def disk(tolerance: float) -> np.ndarray:
    """Return the pixels strictly closer than the tolerance, as 0 and 1."""
    if not 0 < tolerance < math.inf:
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
        return self.intersection / self.union if self.union else math.nan

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right, in [0, 1]; NaN without any pixel."""
        return self.correct / self.total if self.total else math.nan


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
    check_shapes(y_true, y_pred)
    valid = np.full(y_true.shape, True) if ignore is None else y_true != ignore
    true, pred = (y_true != 0)[valid], (y_pred != 0)[valid]
    return Counts(
        int(np.count_nonzero(true & pred)),
        int(np.count_nonzero(true | pred)),
        int(np.count_nonzero(true == pred)),
        true.size,
    )


def check_shapes(y_true: np.ndarray, y_pred: np.ndarray, images: bool = False) -> None:
    """Refuse masks of different shapes and, where images are needed, other arrays."""
    if images and y_true.shape == y_pred.shape and 0 in y_true.shape:
        raise InputError(f"masks must have pixels, got shape {y_true.shape}")
    if y_true.shape != y_pred.shape or (images and y_true.ndim != 2):
        raise InputError(
            f"y_true and y_pred must have the same shape{' (height, width)' * images}, "
            f"got {y_true.shape} and {y_pred.shape}"
        )
