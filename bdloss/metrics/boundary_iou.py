"""Boundary IoU of masks (Cheng et al. 2021): the IoU of what lies close to the edges.

`distance` is the depth of the boundary regions, in pixels. Cheng et al. take 2 % of
the diagonal of an image, which suits photos: on a tile of 5000 x 5000 it is 141 pixels,
more than most buildings are wide, so that the score would be IoU.
"""

import math
import operator
from typing import NamedTuple

import cv2
import numpy as np

from bdloss.errors import InputError
from bdloss.metrics.scores import check_shapes

BOUNDARY_DISTANCE = 3  # pixels


class BoundaryIoUCounts(NamedTuple):
    """Pixels of boundary regions counted over images or strips: see `add_counts`.

    Attributes:
        intersection: In the boundary region of truth and prediction.
        union: In that of truth or prediction.
    """

    intersection: int = 0
    union: int = 0

    @property
    def iou(self) -> float:
        """Boundary IoU in [0, 1]; NaN without any boundary (see `boundary_iou`)."""
        return self.intersection / self.union if self.union else math.nan


def find_boundary_region(
    mask: np.ndarray,
    distance: int = BOUNDARY_DISTANCE,
    image_edge: bool = False,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Return the boundary region of a mask: what an erosion by `distance` takes away.

    Args:
        mask: Array of shape `(height, width)`; non-zero is building.
        distance: Depth in pixels, a whole number from 1, diagonal steps counted as
            one: an erosion by a square of side `2 * distance + 1`, which is what Cheng
            et al. reach by as many erosions by a square of side 3.
        image_edge: Whether there is background beyond the edge of the image.
        ignored: Pixels that are neither boundary nor background, bool.

    Returns:
        Boolean array of the same shape. At a distance of 1 it is the boundary that
        `find_boundary` finds with 8 neighbours.

    Raises:
        ValueError: If the distance is no whole number from 1.

    Example:
        >>> row = np.array([[0, 1, 1, 1, 1, 1]])
        >>> find_boundary_region(row, distance=2).astype(int).tolist()
        [[0, 1, 1, 0, 0, 0]]
        >>> find_boundary_region(row, distance=2, image_edge=True).astype(int).tolist()
        [[0, 1, 1, 1, 1, 1]]
    """
    check_distance(distance)
    inside = mask != 0
    if ignored is not None:
        inside |= ignored
    pixels = inside.view(np.uint8)
    side = 2 * min(distance, max(mask.shape)) + 1  # more would see no more
    eroded = cv2.erode(
        pixels,
        np.ones((side, side), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0 if image_edge else 1,
    )
    found = pixels > eroded
    return found if ignored is None else found & ~ignored


def boundary_iou(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    distance: int = BOUNDARY_DISTANCE,
    image_edge: bool = False,
    ignore: int | None = None,
) -> float:
    """Return the Boundary IoU of a predicted mask (Cheng et al., CVPR 2021).

    The boundary region of a mask is what of it has background at most `distance`
    pixels away; the score is the intersection of the regions of truth and prediction
    over their union. It is 0 if one alone is empty. If both are it is NaN, and the
    image belongs in no mean.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        distance: Depth of the regions in pixels, a whole number from 1.
        image_edge: Whether buildings end at the edge of the image, as those of Cheng
            et al. do. By default an image is a part of a larger one.
        ignore: Value in `y_true` of pixels that do not count. To truth and prediction
            alike they are neither boundary nor background.

    Returns:
        The score, in [0, 1] or NaN.

    Raises:
        ValueError: If the shapes differ, or the distance is no whole number from 1.

    Example:
        >>> mask = np.zeros((12, 16), int)
        >>> mask[2:10, 2:12] = 1
        >>> boundary_iou(mask, mask, distance=2)
        1.0
        >>> boundary_iou(mask, np.roll(mask, 2, axis=1), distance=2)  # 32 of 80
        0.4
    """
    return count_boundary_iou(y_true, y_pred, distance, image_edge, ignore).iou


def count_boundary_iou(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    distance: int = BOUNDARY_DISTANCE,
    image_edge: bool = False,
    ignore: int | None = None,
    rows: slice = slice(None),
) -> BoundaryIoUCounts:
    """Count the pixels from which Boundary IoU is made.

    An image too large for memory is counted in strips of rows: with `distance` rows
    above and below a strip as its surroundings, the counts add up to those of the
    whole.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        distance: As in `boundary_iou`.
        image_edge: As in `boundary_iou`.
        ignore: As in `boundary_iou`.
        rows: The rows to count in; the others are surroundings.

    Returns:
        Counts, to be added up over the strips of an image, or over images.

    Raises:
        ValueError: If the shapes differ, or the distance is no whole number from 1.
    """
    check_shapes(y_true, y_pred, images=True)
    ignored = None if ignore is None else y_true == ignore
    true, pred = (
        find_boundary_region(mask, distance, image_edge, ignored)[rows]
        for mask in (y_true, y_pred)
    )
    return BoundaryIoUCounts(
        int(np.count_nonzero(true & pred)), int(np.count_nonzero(true | pred))
    )


def check_distance(distance: int) -> None:
    """Refuse what is no whole number of pixels from 1."""
    try:
        whole = operator.index(distance)
    except TypeError:
        whole = 0
    if whole < 1:
        raise InputError(
            f"distance must be a whole number of pixels from 1, got {distance!r}"
        )
