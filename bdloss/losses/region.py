"""Scores of regions, pixel by pixel: IoU, Dice and SS (Section 2), cross-entropy.

All take maps as `inputs.prepare` makes them and return one value for each image and
class. Soft counts are sums of products, as in TP = sum(y p), FP = sum((1 - y) p),
FN = sum(y (1 - p)) and TN = sum((1 - y)(1 - p)).
"""

from keras import ops

from bdloss.errors import InputError
from bdloss.losses.boundary import (
    EMPTY,
    SMOOTH,
    check_smooth,
    check_windows,
    extract_boundary,
)
from bdloss.losses.inputs import mean_over_images, sum_pixels
from bdloss.losses.pooling import max_pool

THETA0 = 3  # pixels: the window of Eq. 1


def crossentropy(y_true, y_pred, valid=None, logits=None, batch: bool = False):
    """Return the mean binary cross-entropy over the valid pixels.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, 0 or 1.
        y_pred: Probabilities of the same shape.
        valid: 1 where the pixel counts, 0 where it is ignored; None if all count.
        logits: The logits of `y_pred`, if known. The cross-entropy is then computed
            from them, so that a confident wrong prediction keeps its full gradient.
        batch: Whether the mean is over the pixels of all images.

    Returns:
        Values of shape `(batch, classes)`, at least 0; 0 if all pixels are ignored.
    """
    if logits is None:
        losses = ops.binary_crossentropy(y_true, y_pred)
    else:
        losses = ops.binary_crossentropy(y_true, logits, from_logits=True)
    if valid is None:
        return mean_over_images(ops.mean(losses, axis=(1, 2)), batch)
    count = ops.maximum(sum_pixels(valid, batch), 1.0)
    return sum_pixels(losses * valid, batch) / count


def near_edges(y_true, theta: int, valid=None):
    """Return where the window of side theta has true boundary in it (Eq. 2).

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, 0 or 1.
        theta: Side of the window, odd, in pixels, at least 3.
        valid: As in `crossentropy`.

    Returns:
        Map of the same shape, 1 there; 0 elsewhere, and where a pixel is ignored.

    Example:
        >>> row = ops.reshape([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], (1, 1, 6, 1))
        >>> ops.convert_to_numpy(near_edges(row, theta=3)).ravel().tolist()
        [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    """
    check_windows(THETA0, theta)
    near = max_pool(extract_boundary(y_true, THETA0, valid), theta)
    return near if valid is None else near * valid


def soft_iou(y_true, y_pred, smooth: float = SMOOTH, batch: bool = False):
    """Return the intersection over union, TP / (TP + FP + FN) (Section 2).

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, 0 where ignored.
        y_pred: Probabilities of the same shape, 0 where ignored.
        smooth: Pixels added to numerator and denominator.
        batch: As in `sum_pixels`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]: 1 if both masks are empty.
    """
    check_smooth(smooth)
    intersection = sum_pixels(y_true * y_pred, batch)
    union = sum_pixels(y_true + y_pred, batch) - intersection
    if smooth > 0.0:
        return (intersection + smooth) / (union + smooth)
    return _ratio(intersection, union)


def soft_dice(y_true, y_pred, smooth: float = SMOOTH, batch: bool = False):
    """Return the Dice score, 2 TP / (2 TP + FN + FP) (Section 2).

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, 0 where ignored.
        y_pred: Probabilities of the same shape, 0 where ignored.
        smooth: Pixels added to numerator and denominator.
        batch: As in `sum_pixels`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]: 1 if both masks are empty.
    """
    check_smooth(smooth)
    intersection = sum_pixels(y_true * y_pred, batch)
    total = sum_pixels(y_true, batch) + sum_pixels(y_pred, batch)
    if smooth > 0.0:
        return (2.0 * intersection + smooth) / (total + smooth)
    return _ratio(2.0 * intersection, total)


def soft_ss(y_true, y_pred, lam: float = 0.5, valid=None, batch: bool = False):
    """Return `lam * TN / (TN + FP) + (1 - lam) * TP / (TP + FN)`, SS of Section 2.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, 0 or 1.
        y_pred: Probabilities of the same shape.
        lam: Weight of the specificity, in [0, 1].
        valid: As in `crossentropy`.
        batch: As in `sum_pixels`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]. Without background the specificity
        is 1, without buildings the sensitivity: there is no pixel to be wrong.
    """
    check_fraction("lam", lam)
    background = 1.0 - y_true if valid is None else (1.0 - y_true) * valid
    specificity = _share(background, 1.0 - y_pred, batch)
    sensitivity = _share(y_true, y_pred, batch)
    return lam * specificity + (1.0 - lam) * sensitivity


def check_fraction(name: str, fraction: float) -> None:
    """Refuse a fraction outside of [0, 1]."""
    if not 0 <= fraction <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {fraction}")


def _share(region, right, batch: bool):
    """Return the share of a region that is predicted correctly."""
    return _ratio(sum_pixels(region * right, batch), sum_pixels(region, batch))


def _ratio(numerator, denominator):
    """Return a quotient, 1 where the denominator is 0; NaN stays NaN."""
    none = denominator <= EMPTY
    return ops.where(none, 1.0, numerator / ops.where(none, 1.0, denominator))
