"""What is reported (Section 3.1): pooled IoU, and BF1 with true Euclidean distances.

`tolerance` is a distance in pixels. It is not the `theta` of the losses, which is the
side of a window: on hard masks the boundary loss with theta = 5 and smooth = 0 is one
minus the BF1 of an 8-neighbour boundary with tolerance 3.
"""

from typing import NamedTuple

import cv2
import keras
import numpy as np
from keras import ops

TOLERANCE = 3.0  # pixels


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
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    shape = cv2.MORPH_CROSS if connectivity == 4 else cv2.MORPH_RECT
    inside = (mask != 0).astype(np.uint8)  # ignored pixels are no background
    eroded = cv2.erode(
        inside,
        cv2.getStructuringElement(shape, (3, 3)),
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
    if y_true.shape != y_pred.shape or y_true.ndim != 2:
        raise ValueError(
            "y_true and y_pred must have the same shape (height, width), "
            f"got {y_true.shape} and {y_pred.shape}"
        )
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0 pixels, got {tolerance}")
    if ignore is not None:
        y_pred = np.where(y_true == ignore, ignore, y_pred != 0)
    true = find_boundary(y_true, connectivity, image_edge, ignore)
    pred = find_boundary(y_pred, connectivity, image_edge, ignore)
    if not true.any() and not pred.any():
        return BoundaryScore(np.nan, np.nan, np.nan)
    disk = _disk(tolerance)
    precision = _share(pred, _widen(true, disk))
    recall = _share(true, _widen(pred, disk))
    total = precision + recall
    return BoundaryScore(
        precision, recall, 2 * precision * recall / total if total else 0.0
    )


def _disk(tolerance: float) -> np.ndarray:
    """Return the pixels strictly closer than the tolerance, as 0 and 1."""
    reach = int(np.ceil(tolerance)) - 1
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (rows**2 + cols**2 < tolerance**2).astype(np.uint8)


def _widen(boundary: np.ndarray, disk: np.ndarray) -> np.ndarray:
    """Return where a boundary pixel lies within the disk around a pixel."""
    widened = cv2.dilate(
        boundary.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return widened > 0


def _share(boundary: np.ndarray, region: np.ndarray) -> float:
    count = np.count_nonzero(boundary)
    return float(np.count_nonzero(boundary & region) / count) if count else 1.0


class Counts(NamedTuple):
    """Pixels counted over images; sums of two are counts of both.

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

    def plus(self, other: "Counts") -> "Counts":
        """Return the counts of both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

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
    if y_true.shape != y_pred.shape:
        raise ValueError(
            "y_true and y_pred must have the same shape, "
            f"got {y_true.shape} and {y_pred.shape}"
        )
    valid = np.full(y_true.shape, True) if ignore is None else y_true != ignore
    true, pred = (y_true != 0)[valid], (y_pred != 0)[valid]
    return Counts(
        int(np.count_nonzero(true & pred)),
        int(np.count_nonzero(true | pred)),
        int(np.count_nonzero(true == pred)),
        true.size,
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
        """Add the pixels of a batch: masks of any shape, probabilities of the same."""
        true = ops.cast(y_true, "float32")
        pred = ops.cast(ops.cast(y_pred, "float32") >= self.threshold, "float32")
        if self.ignore is not None:
            valid = ops.cast(true != self.ignore, "float32")
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
