"""Passes of a window along one axis of maps: what pooling and averaging are made of."""

import contextlib
import sys

import keras
from keras import ops

ROW, COLUMN = 2, 1  # the axis that a pass runs along


def pad(y, axis: int, before: int, after: int, value: float = 0.0):
    """Add pixels of a value at the ends of an axis."""
    widths = [[0, 0] for _ in y.shape]
    widths[axis] = [before, after]
    return ops.pad(y, widths, constant_values=value)


def widen(y, side: int, axis: int, value: float = 0.0):
    """Add half a window of a value at both ends of an axis."""
    return pad(y, axis, side // 2, side // 2, value)


def cut(y, axis: int, first: int = 0, last: int = 0):
    """Drop pixels at the ends of an axis of known or unknown size."""
    return y[(slice(None),) * axis + (slice(first, -last if last else None),)]


def sum_runs(y, length: int, axis: int):
    """Return the sum of each run of `length` pixels, from two shorter runs.

    Example:
        >>> row = ops.convert_to_tensor([1.0, 2.0, 3.0, 4.0])
        >>> ops.convert_to_numpy(sum_runs(row, 3, axis=0)).tolist()
        [6.0, 9.0]
    """
    if length == 1:
        return y
    half = length // 2
    runs = sum_runs(y, half, axis)
    runs = cut(runs, axis, last=half) + cut(runs, axis, first=half)
    if length % 2 == 0:
        return runs
    return cut(runs, axis, last=1) + cut(y, axis, first=length - 1)


def compiled():
    """Have XLA compile the operations inside, in TensorFlow graphs on CPUs.

    Uncompiled, each of the dozens of small operations goes through memory: three times
    slower, measured. It has no effect where the whole step is compiled anyway.
    """
    if keras.backend.backend() == "tensorflow":
        tf = sys.modules["tensorflow"]  # Keras has imported it
        devices = {device.device_type for device in tf.config.list_physical_devices()}
        if not tf.executing_eagerly() and devices == {"CPU"}:
            return tf.xla.experimental.jit_scope()
    return contextlib.nullcontext()
