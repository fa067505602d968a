"""Test-time augmentation: the mean of a model's answers to a batch turned and flipped.

    batch -> do -> model -> undo -> mean

A transform is a pair `(do, undo)` on arrays of shape `(batch, height, width, channels)`
with `undo(do(x)) == x`, so the maps come back as the batch was.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bdloss.errors import InputError

Operation = Callable[[np.ndarray], np.ndarray]


class Transform(NamedTuple):
    """A transform of a batch and its inverse."""

    do: Operation
    undo: Operation


def _turn(quarters: int, mirrored: bool = False) -> Transform:
    """Return the transform that mirrors left to right, then makes quarter turns."""
    step = -1 if mirrored else 1

    def do(batch):
        return np.rot90(batch[:, :, ::step], quarters, axes=(1, 2))

    def undo(batch):
        return np.rot90(batch, -quarters, axes=(1, 2))[:, :, ::step]

    return Transform(do, undo)


IDENTITY = _turn(0)
LEFT_RIGHT = _turn(0, mirrored=True)
UP_DOWN = _turn(2, mirrored=True)
BOTH = _turn(2)

NONE = (IDENTITY,)
FLIPS = (IDENTITY, LEFT_RIGHT, UP_DOWN, BOTH)
D4 = tuple(
    _turn(quarters, mirrored) for mirrored in (False, True) for quarters in range(4)
)

MODES: dict[str, tuple[Transform, ...]] = {"none": NONE, "flips": FLIPS, "d4": D4}

MEANS = ("arithmetic", "geometric")


def check_modes(mode: str, mean: str) -> None:
    """Refuse a mode that is not one of `MODES`, or a mean that is not of `MEANS`."""
    if mode not in MODES:
        raise InputError(f"tta must be one of {', '.join(MODES)}, got {mode!r}")
    if mean not in MEANS:
        raise InputError(f"mean must be one of {', '.join(MEANS)}, got {mean!r}")


def augment_prediction(
    predict: Callable, mode: str, mean: str = "arithmetic"
) -> Callable:
    """Return `predict` averaged over the transforms of a mode.

    Args:
        predict: Callable from a batch of shape `(batch, height, width, bands)` to maps
            of shape `(batch, height, width, channels)`.
        mode: "none" asks the model once, "flips" four times (as it is, left-right,
            up-down, both), "d4" eight times (the symmetries of a square; the patches
            must be square).
        mean: "arithmetic", or "geometric": that calls building only what all maps do.

    Returns:
        Callable of the same shapes, whose maps are float32.

    Raises:
        ValueError: If the mode is not one of `MODES`, or the mean one of `MEANS`.

    Example:
        >>> leftmost = lambda batch: batch * [[[1.0], [0.0]]]
        >>> predict = augment_prediction(leftmost, "flips")
        >>> predict(np.ones((1, 2, 2, 1))).ravel().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    check_modes(mode, mean)
    transforms = MODES[mode]

    def predict_mean(batch):
        # Some frameworks refuse the negative strides of a flipped view.
        maps = (
            undo(np.asarray(predict(np.ascontiguousarray(do(batch))), np.float32))
            for do, undo in transforms
        )
        if mean == "geometric":
            return math.prod(maps) ** np.float32(1 / len(transforms))
        return sum(maps) / np.float32(len(transforms))

    return predict_mean
