"""The max-pooling of Eqs. 1 and 2: along rows, then along columns.

The values are those of plain max-pooling. The gradient differs where maxima tie, which
the paper leaves open: the gradient of a window is shared equally by all its pixels that
attain the maximum. (The usual rule routes all of it to the first of them, so that the
gradient of a rotated image is not the rotated gradient.) Both are sub-gradients of the
same function; `POOLINGS` has both.

Sharing equally among rows first, and then within a row, would not be equal: a row
with one maximum would get as much as a row with three. So ties are counted along rows,
and the counts weigh the rows in the pass along columns. The passes combine pairs of
shifted maps, with windows that double in size: their cost grows with the logarithm of
the side.
"""

import keras
from keras import ops

from bdloss.errors import InputError
from bdloss.losses.windows import COLUMN, ROW, compiled, cut, widen


def max_pool(y, side: int):
    """Return the largest value in the window around each pixel.

    Args:
        y: Floating-point map of shape `(batch, height, width, classes)`; any of the
            sizes may be unknown while a graph is traced.
        side: Side of the window, odd, in pixels; it may be larger than the map.

    Returns:
        Map of the same shape. Windows are cut at the edge of the map. It can be
        differentiated once, in reverse mode.

    Example:
        >>> row = ops.reshape([3.0, 1.0, 0.0, 2.0], (1, 1, 4, 1))
        >>> ops.convert_to_numpy(max_pool(row, 3)).ravel().tolist()
        [3.0, 3.0, 2.0, 2.0]
    """
    y = ops.convert_to_tensor(y)
    if side == 1:
        return y
    if y.shape[-1] == 1:  # one axis fewer is faster where nothing is compiled
        return ops.expand_dims(_pool(ops.squeeze(y, -1), side), -1)
    return _pool(y, side)


def keras_max_pool(y, side: int):
    """Return the same values, pooled by Keras: one of the pixels that tie gets it all.

    Args:
        y: As in `max_pool`.
        side: Side of the window, odd, in pixels.

    Returns:
        Map of the same shape. Which of the pixels that attain the maximum of a window
        gets its gradient is for the backend to say; TensorFlow takes the first.
    """
    return ops.max_pool(y, side, 1, "same", data_format="channels_last")


POOLINGS = {"shared": max_pool, "first": keras_max_pool}


def check_pool(pool: str) -> None:
    """Refuse an unknown way to pool."""
    if pool not in POOLINGS:
        raise InputError(f"pool must be one of {', '.join(POOLINGS)}, got {pool!r}")


def _pool(y, side: int):
    @ops.custom_gradient
    def pool(y):
        with compiled():
            rows = _window_max(y, side, ROW)
            pooled = _window_max(rows, side, COLUMN)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            with compiled():
                return _share(y, rows, pooled, upstream, side)

        return pooled, gradient

    return pool(y)


def _share(y, rows, pooled, upstream, side: int):
    """Return the gradient at each pixel, routed from the windows that contain it.

    Args:
        y: Map that was pooled.
        rows: The map pooled along rows.
        pooled: The map pooled along rows and columns.
        upstream: Gradient of the loss with respect to `pooled`.
        side: Side of the window, in pixels.
    """
    dtype = keras.backend.result_type(y.dtype, "float32")  # bfloat16 counts to 256
    ties = _count_at_max(y, rows, side, ROW, dtype)
    ties = _sum_at_max(rows, ties, side, COLUMN)
    shares = ops.cast(upstream, dtype) / ties
    shares = _sum_where_max(rows, pooled, shares, side, COLUMN)
    return ops.cast(_sum_where_max(y, rows, shares, side, ROW), y.dtype)


def _window_max(y, side: int, axis: int):
    """Return the largest value in the window around each pixel, along one axis."""
    return _run_max(widen(y, side, axis, -float("inf")), side, axis)


def _count_at_max(y, maxima, side: int, axis: int, dtype: str):
    """Return how many pixels of each window attain its maximum."""
    y = widen(y, side, axis, -float("inf"))
    ties = 0.0
    for step in range(side):
        pixel = cut(y, axis, first=step, last=side - 1 - step)
        ties = ties + ops.cast(ops.equal(pixel, maxima), dtype)
    return ties


def _sum_at_max(y, weights, side: int, axis: int):
    """Return the summed weight of the pixels of each window that attain its maximum."""
    y = widen(y, side, axis, -float("inf"))
    weights = widen(weights, side, axis, 0.0)
    return _run_sum_at_max(y, weights, side, axis)[1]


def _sum_where_max(y, maxima, shares, side: int, axis: int):
    """Return the summed shares of the windows whose maximum a pixel attains.

    The maximum of a window is at least each of its pixels. So of the windows around a
    pixel, those with the least maximum are the only ones whose maximum it can attain.
    """
    maxima = widen(-maxima, side, axis, -float("inf"))
    shares = widen(shares, side, axis, 0.0)
    least, total = _run_sum_at_max(maxima, shares, side, axis)
    return ops.where(-least == y, total, 0.0)


def _run_max(y, length: int, axis: int):
    """Return the maximum of each run of `length` pixels, from two shorter runs.

    The two may overlap: a maximum does not mind.
    """
    if length == 1:
        return y
    half = (length + 1) // 2
    y = _run_max(y, half, axis)
    step = length - half
    return ops.maximum(cut(y, axis, last=step), cut(y, axis, first=step))


def _run_sum_at_max(y, weights, length: int, axis: int):
    """Return the maximum of each run of `length` pixels, and the weight summed at it.

    The two shorter runs lie side by side: an overlap would count weights twice.
    """
    if length == 1:
        return y, weights
    half = length // 2
    run = _run_sum_at_max(y, weights, half, axis)
    run = _join(
        [cut(part, axis, last=half) for part in run],
        [cut(part, axis, first=half) for part in run],
    )
    if length % 2 == 0:
        return run
    return _join(
        [cut(part, axis, last=1) for part in run],
        [cut(part, axis, first=length - 1) for part in (y, weights)],
    )


def _join(left, right):
    """Return the maximum of two runs and its weight: that of both if they tie."""
    (a, weight_a), (b, weight_b) = left, right
    weight = ops.where(a >= b, weight_a, 0.0) + ops.where(b >= a, weight_b, 0.0)
    return ops.maximum(a, b), weight
