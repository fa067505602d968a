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
from bdloss.losses.inputs import sum_images
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
        fall = _fall(y, axis, valid)
        faces += [pad(ops.relu(fall), axis, 0, 1), pad(ops.relu(-fall), axis, 1, 0)]
    return faces


def spread(y, theta: int = 9):
    """Return the mean of the window around each pixel; beyond the edge there is 0.

    Args:
        y: Map of shape `(batch, height, width[, classes])`.
        theta: Side of the window, odd, in pixels.

    Returns:
        Map of the same shape.

    Example:
        >>> row = ops.reshape([0.0, 0.0, 9.0, 0.0], (1, 1, 4, 1))
        >>> ops.convert_to_numpy(spread(row, theta=3)).ravel().tolist()
        [0.0, 1.0, 1.0, 1.0]
    """
    for axis in (COLUMN, ROW):
        y = sum_runs(widen(y, theta, axis), theta, axis)
    return y / theta**2


def overlap_faces(y_true, y_pred, theta: int = 9, valid=None):
    """Return what the faces of two maps have in common, and what they are.

    With a and b the faces of truth and prediction in direction k, spread over a window:
    `sum_k <a_k, b_k>`, and `sum_k <a_k, a_k> + <b_k, b_k>`.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, values in [0, 1].
        y_pred: Prediction of the same shape, values in [0, 1].
        theta: Side of the window, odd, in pixels.
        valid: As in `extract_faces`. What is spread over ignored pixels does not
            count, as beyond the edge of the image.

    Returns:
        Sums over the pixels of each image, of shape `(2, batch, classes)`. They can be
        differentiated once, in reverse mode.
    """

    def spread_faces(y):
        spreads = [spread(face, theta) for face in extract_faces(y, valid)]
        return spreads if valid is None else [face * valid for face in spreads]

    # As far as a pixel reaches, others reach it, so a gradient is spread like a face.
    # Compilers do not see it, and go through memory more often: see RESULTS.md.
    @ops.custom_gradient
    def overlap(y_true, y_pred):
        with compiled():
            true, pred = spread_faces(y_true), spread_faces(y_pred)
            pairs = list(zip(true, pred, strict=True))
            both = sum(ops.sum(a * b, axis=(1, 2)) for a, b in pairs)
            each = sum(ops.sum(a * a + b * b, axis=(1, 2)) for a, b in pairs)
            sums = ops.stack([both, each])

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            with compiled():
                of_both, of_each = (
                    ops.expand_dims(upstream[i], (1, 2)) for i in (0, 1)
                )
                return tuple(
                    _gradient_of_faces(
                        y,
                        [of_both * b + 2.0 * of_each * a for a, b in faces],
                        theta,
                        valid,
                    )
                    for y, faces in (
                        (y_true, pairs),
                        (y_pred, [(b, a) for a, b in pairs]),
                    )
                )

        return sums, gradient

    maps = [ops.convert_to_tensor(y) for y in (y_true, y_pred)]
    if maps[0].shape[-1] != 1:
        return overlap(*maps)
    # One axis fewer is faster, as in pooling.
    valid = None if valid is None else ops.squeeze(valid, -1)
    return ops.expand_dims(overlap(*(ops.squeeze(y, -1) for y in maps)), -1)


def soft_oriented_f1(
    y_true,
    y_pred,
    theta: int = 9,
    smooth: float = SMOOTH,
    valid=None,
    batch: bool = False,
):
    """Return the Dice score of oriented boundaries that are spread over a window.

    `2 sum_k <a_k, b_k> / sum_k (<a_k, a_k> + <b_k, b_k>)`: see `overlap_faces`. Sums
    are taken times theta, so that a straight wall of a mask weighs as many pixels as it
    is long.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`, values in [0, 1].
        y_pred: Prediction of the same shape, values in [0, 1].
        theta: Side of the window, odd, in pixels.
        smooth: Pixels added to numerator and denominator.
        valid: As in `extract_faces`.
        batch: As in `sum_images`.

    Returns:
        Score of shape `(batch, classes)` in [0, 1]: 1 if both boundaries are empty.

    Example:
        >>> house = ops.pad(ops.ones((1, 16, 16, 1)), [[0, 0], [8, 8], [8, 8], [0, 0]])
        >>> moved = ops.roll(house, 2, axis=1)
        >>> round(float(soft_oriented_f1(house, moved, smooth=0.0)[0, 0]), 2)
        0.87
    """
    check_windows(FACE, theta)
    check_smooth(smooth)
    sums = overlap_faces(y_true, y_pred, theta, valid)
    both, each = (sum_images(one, batch) for one in (sums[0], sums[1]))
    numerator, denominator = 2.0 * theta * both + smooth, theta * each + smooth
    none = denominator <= 0.0  # so that NaN stays NaN
    return ops.where(none, 1.0, numerator / ops.where(none, 1.0, denominator))


def _fall(y, axis: int, valid=None):
    """Return how far a map falls from each pixel to the next along an axis."""
    fall = cut(y, axis, last=1) - cut(y, axis, first=1)
    if valid is None:
        return fall
    return fall * cut(valid, axis, last=1) * cut(valid, axis, first=1)


def _gradient_of_faces(y, upstream, theta: int, valid=None):
    """Return the gradient at each pixel of a map.

    Args:
        y: The map.
        upstream: Gradients with respect to its four faces, spread.
        theta: Side of the window that they were spread over, in pixels.
        valid: As in `extract_faces`.
    """
    if valid is not None:
        upstream = [one * valid for one in upstream]
    below, above, right, left = (spread(one, theta) for one in upstream)
    total = ops.zeros_like(y)
    for axis, ahead, behind in ((COLUMN, below, above), (ROW, right, left)):
        fall = _fall(y, axis, valid)
        change = ops.where(fall > 0.0, cut(ahead, axis, last=1), 0.0)
        change = change - ops.where(fall < 0.0, cut(behind, axis, first=1), 0.0)
        total = total + pad(change, axis, 0, 1) - pad(change, axis, 1, 0)
    return total
