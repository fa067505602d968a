"""Boundaries of maps and their BF1 score: Eqs. 1 to 4 of the paper.

`theta0` and `theta` are sides of pooling windows, odd, in pixels. They are not the
`tolerance` of `bdloss.metrics`, which is a distance: on hard masks theta = 5 gives
the score of an 8-neighbour boundary and a tolerance of 3 pixels, since the pixels
closer than 3 are just those of a 5 x 5 window.

Ignored pixels are treated like those beyond the edge of the image: nothing is known
there, so they count neither as background nor as boundary nor as an error.
"""

import math

from keras import ops

from bdloss.errors import InputError
from bdloss.losses.inputs import sum_pixels
from bdloss.losses.pooling import POOLINGS, check_pool

SMOOTH = 1.0  # pixels, added to numerator and denominator of Eq. 3
EMPTY = 1e-7  # pixels: a sum below this is that of an empty boundary


def check_windows(theta0: int, theta: int) -> None:
    """Refuse pooling windows that Eqs. 1 and 2 cannot use.

    Args:
        theta0: Side of the window of Eq. 1, in pixels.
        theta: Side of the window of Eq. 2, in pixels.

    Raises:
        ValueError: If one is even or below 1, or theta is below theta0. The paper's
            "5-7" leaves out 6: an even window has no pixel in its middle, and would
            move the boundary by half a pixel.
    """
    for name, side in (("theta0", theta0), ("theta", theta)):
        if int(side) != side or side < 1 or side % 2 == 0:
            raise InputError(f"{name} must be an odd number of pixels, got {side}")
    if theta < theta0:
        raise InputError(
            f"theta must not be less than theta0, got theta={theta}, theta0={theta0}"
        )


def check_smooth(smooth: float) -> None:
    """Refuse a smoothing that is negative or not finite."""
    if not 0 <= smooth < math.inf:
        raise InputError(f"smooth must be at least 0 pixels, got {smooth}")


def check_boundary(boundary: str, theta0: int = 3) -> None:
    """Refuse an unknown way to find boundaries, or one that has another window."""
    if boundary not in BOUNDARIES:
        raise InputError(
            f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}"
        )
    if boundary == "sobel" and theta0 != 3:
        raise InputError(f"the Sobel filter has theta0 = 3, got {theta0}")


def extract_boundary(y, theta0: int = 3, valid=None, pool: str = "shared"):
    """Return the boundary of a map (Eq. 1).

    Args:
        y: Map of shape `(batch, height, width, classes)`, values in [0, 1].
        theta0: Side of the pooling window, in pixels.
        valid: Map of the same shape, 1 where the pixel counts and 0 where it is
            ignored; None if all count.
        pool: How pixels that tie share the gradient, a name in `POOLINGS`.

    Returns:
        Map of the same shape: the object's pixels with background in the window
        around them. Nothing beyond the edge of the image counts as background.

    Example:
        >>> row = ops.reshape([0.0, 1.0, 1.0, 1.0, 0.0], (1, 1, 5, 1))
        >>> ops.convert_to_numpy(extract_boundary(row)).ravel().tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0]
    """
    check_pool(pool)
    max_pool = POOLINGS[pool]
    background = 1.0 - ops.convert_to_tensor(y)
    if valid is None:
        return max_pool(background, theta0) - background
    background = background * valid
    return (max_pool(background, theta0) - background) * valid


def extend_boundary(boundary, theta: int = 5, pool: str = "shared"):
    """Return a boundary dilated by half a window to every side (Eq. 2).

    Args:
        boundary: Map of shape `(batch, height, width, classes)`, values in [0, 1].
        theta: Side of the pooling window, in pixels.
        pool: As in `extract_boundary`.

    Returns:
        Map of the same shape: the largest value in the window around each pixel.

    Example:
        >>> row = ops.reshape([0.0, 0.0, 0.0, 1.0, 0.0], (1, 1, 5, 1))
        >>> ops.convert_to_numpy(extend_boundary(row, theta=3)).ravel().tolist()
        [0.0, 0.0, 1.0, 1.0, 1.0]
    """
    check_pool(pool)
    return POOLINGS[pool](boundary, theta)


def soft_precision_recall(
    y_true,
    y_pred,
    theta0: int = 3,
    theta: int = 5,
    smooth: float = SMOOTH,
    valid=None,
    boundary: str = "pooling",
    pool: str = "shared",
    batch: bool = False,
):
    """Return precision and recall of the predicted boundary (Eq. 3).

    Precision is the share of the predicted boundary that lies in the extended true
    one; recall the share of the true boundary that lies in the extended predicted
    one. With `smooth` 0 the share of an empty boundary is 1: it has no errors.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, values in [0, 1].
        y_pred: Prediction of the same shape, values in [0, 1].
        theta0: Side of the window that finds boundaries, in pixels.
        theta: Side of the window that extends them, in pixels.
        smooth: Pixels added to numerator and denominator.
        valid: As in `extract_boundary`.
        boundary: How boundaries are found, a name in `BOUNDARIES`.
        pool: As in `extract_boundary`.
        batch: As in `sum_pixels`.

    Returns:
        Precision and recall, each of shape `(batch, classes)`, values in [0, 1].
    """
    check_windows(theta0, theta)
    check_smooth(smooth)
    check_boundary(boundary, theta0)
    find_boundary = BOUNDARIES[boundary]
    true = find_boundary(y_true, theta0, valid, pool)
    pred = find_boundary(y_pred, theta0, valid, pool)
    precision = _share(pred, extend_boundary(true, theta, pool), smooth, batch)
    recall = _share(true, extend_boundary(pred, theta, pool), smooth, batch)
    return precision, recall


def soft_boundary_f1(
    y_true,
    y_pred,
    theta0: int = 3,
    theta: int = 5,
    smooth: float = SMOOTH,
    valid=None,
    boundary: str = "pooling",
    pool: str = "shared",
    batch: bool = False,
):
    """Return BF1 of maps, the harmonic mean 2PR / (P + R); Eq. 4 is one minus it.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, values in [0, 1].
        y_pred: Prediction of the same shape, values in [0, 1].
        theta0: Side of the window that finds boundaries, in pixels.
        theta: Side of the window that extends them, in pixels.
        smooth: Pixels added to numerator and denominator of Eq. 3.
        valid: As in `extract_boundary`.
        boundary: How boundaries are found, a name in `BOUNDARIES`.
        pool: As in `extract_boundary`.
        batch: As in `sum_pixels`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]: 1 if both boundaries are empty.

    Example:
        >>> house = ops.pad(ops.ones((1, 5, 5, 1)), [[0, 0], [2, 2], [2, 2], [0, 0]])
        >>> float(soft_boundary_f1(house, house)[0, 0])
        1.0
        >>> field = ops.zeros_like(house)
        >>> round(float(soft_boundary_f1(house, field)[0, 0]), 4)  # 2 / (2 + 16)
        0.1111
    """
    precision, recall = soft_precision_recall(
        y_true, y_pred, theta0, theta, smooth, valid, boundary, pool, batch
    )
    total = precision + recall
    safe = ops.where(total > 0.0, total, 1.0)
    return 2.0 * precision * recall / safe


def _share(boundary, region, smooth: float, batch: bool):
    """Return the share of a boundary that lies in a region, per image and class."""
    inside = sum_pixels(boundary * region, batch)
    whole = sum_pixels(boundary, batch)
    if smooth > 0.0:
        return (inside + smooth) / (whole + smooth)
    none = whole <= EMPTY  # so that NaN stays NaN
    return ops.where(none, 1.0, inside / ops.where(none, 1.0, whole))


def find_sobel_boundary(y, theta0: int = 3, valid=None, pool: str = "shared"):
    """Return the boundary that a Sobel filter finds, which the paper rejected.

    It is the gradient magnitude, 1 at both pixels along a straight edge of a mask. A
    ramp as wide as the filter is a boundary too, and a soft edge is a weaker one. The
    image is padded with its edge pixels, so that its edge is no boundary.

    Args:
        y: Map of shape `(batch, height, width, classes)`, values in [0, 1].
        theta0: Side of the filter, 3 pixels.
        valid: As in `extract_boundary`; a pixel beside an ignored one has no boundary.
        pool: As in `extract_boundary`; it makes no difference here.

    Returns:
        Map of the same shape, values in [0, 1].
    """
    y = ops.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    rows = (y[:, :-2] + 2.0 * y[:, 1:-1] + y[:, 2:]) / 4.0
    columns = (y[:, :, :-2] + 2.0 * y[:, :, 1:-1] + y[:, :, 2:]) / 4.0
    beside = rows[:, :, 2:] - rows[:, :, :-2]
    below = columns[:, 2:] - columns[:, :-2]
    square = ops.square(beside) + ops.square(below)
    none = square <= 0.0  # the square root has no finite gradient at 0
    length = ops.where(none, 0.0, ops.sqrt(ops.where(none, 1.0, square)))
    length = ops.minimum(length, 1.0)
    if valid is None:
        return length
    return length * (1.0 - extend_boundary(1.0 - valid, theta0, pool))


BOUNDARIES = {"pooling": extract_boundary, "sobel": find_sobel_boundary}
