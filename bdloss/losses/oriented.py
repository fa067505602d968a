"""Oriented boundaries: how a map falls towards each of its four neighbours, compared.

The boundary of Eq. 1 is a set of pixels, and the pooling of Eq. 2 asks only whether one
of the other boundary is near. On an edge that nobody can know, a comb of teeth is the
best answer to that. Here a boundary is a set of **faces** between pixels, each with the
direction in which the map falls across it. Faces are spread over a window by averaging,
so that each pixel of it gets its gradient, and ground truth and prediction are compared
by their Dice score: faces that nothing stands against, such as those of teeth, cost,
and opposite walls do not stand for each other.

In geometry this is a normalised kernel distance between oriented curves (currents and
varifolds; Vaillant and Glaunes 2005, Charon and Trouve 2013).
"""

from keras import ops

from bdloss.losses.boundary import SMOOTH, check_smooth, check_windows
from bdloss.losses.inputs import sum_pixels
from bdloss.losses.windows import (
    COLUMN,
    ROW,
    compiled,
    cut,
    pad,
    sum_runs,
    widen,
)

FACE = 1  # pixel: the window of a face, in the place of theta0


def extract_faces(y, valid=None):
    """Return how far a map falls towards the pixels below, above, right and left.

    Args:
        y: Map of shape `(batch, height, width, classes)`, values in [0, 1].
        valid: Map of the same shape, 1 where the pixel counts and 0 where it is
            ignored; None if all count.

    Returns:
        Four maps of the same shape: `max(0, y(x) - y(neighbour))` at each pixel x.
        Beside an ignored pixel and at the edge of the image it is 0.

    Example:
        >>> row = ops.reshape([0.0, 1.0, 0.75, 0.0], (1, 1, 4, 1))
        >>> for face in extract_faces(row)[2:]:  # to the right, to the left
        ...     print(ops.convert_to_numpy(face).ravel().tolist())
        [0.0, 0.25, 0.75, 0.0]
        [0.0, 1.0, 0.0, 0.0]
    """
    y = ops.convert_to_tensor(y)
    faces = []
    for axis in (COLUMN, ROW):
        fall = cut(y, axis, last=1) - cut(y, axis, first=1)
        if valid is not None:
            fall = fall * cut(valid, axis, last=1) * cut(valid, axis, first=1)
        faces += [pad(ops.relu(fall), axis, 0, 1), pad(ops.relu(-fall), axis, 1, 0)]
    return faces


def spread(y, theta: int = 5):
    """Return the mean of the window around each pixel; beyond the edge there is 0.

    Args:
        y: Map of shape `(batch, height, width[, classes])`.
        theta: Side of the window, odd, in pixels.

    Returns:
        Map of the same shape. It can be differentiated once, in reverse mode.

    Example:
        >>> row = ops.reshape([0.0, 0.0, 9.0, 0.0], (1, 1, 4, 1))
        >>> ops.convert_to_numpy(spread(row, theta=3)).ravel().tolist()
        [0.0, 1.0, 1.0, 1.0]
    """

    def average(y):
        with compiled():
            for axis in (COLUMN, ROW):
                y = sum_runs(widen(y, theta, axis), theta, axis)
            return y / theta**2

    # As far as a pixel reaches, others reach it: the gradient is spread alike, which
    # compilers do not see (four times slower, measured).
    @ops.custom_gradient
    def average_both_ways(y):
        def gradient(*args, upstream=None):
            return average(args[0] if upstream is None else upstream)

        return average(y), gradient

    return average_both_ways(y)


def soft_oriented_f1(
    y_true,
    y_pred,
    theta: int = 5,
    smooth: float = SMOOTH,
    valid=None,
    batch: bool = False,
):
    """Return the Dice score of oriented boundaries that are spread over a window.

    `2 sum_k <a_k, b_k> / sum_k (<a_k, a_k> + <b_k, b_k>)`, where a and b are the faces
    of truth and prediction in direction k, spread. Sums are taken times theta, so that
    a straight wall of a mask weighs as many pixels as it is long.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, values in [0, 1].
        y_pred: Prediction of the same shape, values in [0, 1].
        theta: Side of the window, odd, in pixels.
        smooth: Pixels added to numerator and denominator.
        valid: As in `extract_faces`.
        batch: As in `sum_pixels`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]: 1 if both boundaries are empty.

    Example:
        >>> house = ops.pad(ops.ones((1, 16, 16, 1)), [[0, 0], [8, 8], [8, 8], [0, 0]])
        >>> moved = ops.roll(house, 2, axis=1)
        >>> round(float(soft_oriented_f1(house, moved, smooth=0.0)[0, 0]), 2)
        0.77
    """
    check_windows(FACE, theta)
    check_smooth(smooth)
    both = total = 0.0
    faces = extract_faces(y_true, valid), extract_faces(y_pred, valid)
    for true, pred in zip(*faces, strict=True):
        a, b = spread(true, theta), spread(pred, theta)
        if valid is not None:  # as beyond the edge of the image
            a, b = a * valid, b * valid
        both += sum_pixels(a * b, batch)
        total += sum_pixels(a * a + b * b, batch)
    numerator, denominator = 2.0 * theta * both + smooth, theta * total + smooth
    none = denominator <= 0.0  # so that NaN stays NaN
    return ops.where(none, 1.0, numerator / ops.where(none, 1.0, denominator))
