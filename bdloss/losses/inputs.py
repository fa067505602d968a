"""How all losses prepare ground truth and prediction: float32, channels last."""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from bdloss.errors import InputError

LARGEST_LOGIT = 1e30  # beyond it a sum of cross-entropies overflows float32
DATA_FORMATS = ("channels_last", "channels_first")


class Inputs(NamedTuple):
    """Ground truth and prediction, prepared.

    Attributes:
        y_true: Mask, float32 of shape `(batch, height, width, classes)`, 0 or 1.
        y_pred: Probabilities of the same shape, in [0, 1].
        valid: Map of the same shape, 1 where a pixel counts and 0 where it is ignored;
            the other maps are 0 there. None if all pixels count.
        logits: The logits of `y_pred`; None if probabilities were given.
        batch: Whether sums over pixels are over those of all images.
    """

    y_true: Any
    y_pred: Any
    valid: Any = None
    logits: Any = None
    batch: bool = False


def prepare(
    y_true,
    y_pred,
    *,
    from_logits: bool = False,
    ignore: int | None = None,
    batch: bool = False,
    data_format: str = "channels_last",
    validate: bool = False,
) -> Inputs:
    """Return ground truth and prediction in the form that all scores take.

    A mask of other values than 0 and 1 would give a meaningless loss, such as a
    negative one. So a mask that leaves [0, 1] where it is not ignored is refused in
    eager execution; in a compiled step its values cannot be seen.

    Args:
        y_true: Mask of any dtype, 0 or 1, of shape `(batch, height, width)` or
            `(batch, height, width, classes)`.
        y_pred: Prediction of the same shape, in [0, 1], or logits.
        from_logits: Whether `y_pred` is logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        batch: Whether sums over pixels are over those of all images.
        data_format: Where the classes are: `"channels_last"`, or `"channels_first"`
            for `(batch, classes, height, width)`.
        validate: Whether the mask must be exactly 0 or 1 where it is not ignored, in
            a compiled step too: nothing can be raised there, and the loss becomes NaN.

    Raises:
        ValueError: If shapes differ or are of another rank, the format is unknown, or
            the mask has other values.

    Example:
        >>> inputs = prepare(ops.ones((1, 4, 6)), ops.zeros((1, 4, 6)))
        >>> tuple(inputs.y_true.shape)
        (1, 4, 6, 1)
    """
    y_true = _as_maps(y_true, data_format)
    y_pred = _as_maps(y_pred, data_format)
    _check_shapes(y_true.shape, y_pred.shape)
    valid = None
    if ignore is not None:
        known = ops.not_equal(y_true, ignore)
        valid = ops.cast(known, "float32")
        y_true = ops.where(known, y_true, 0.0)
        y_pred = ops.where(known, y_pred, 0.0)
    if _is_eager(y_true):
        _check_values(y_true, validate)
    elif validate:
        y_true = ops.where(ops.all((y_true == 0.0) | (y_true == 1.0)), y_true, math.nan)
    if not from_logits:
        return Inputs(y_true, y_pred, valid, batch=batch)
    y_pred = ops.clip(y_pred, -LARGEST_LOGIT, LARGEST_LOGIT)
    probabilities = ops.sigmoid(y_pred)
    if valid is not None:
        probabilities = probabilities * valid
    return Inputs(y_true, probabilities, valid, y_pred, batch)


def sum_pixels(y, batch: bool = False):
    """Return the sum over the pixels of each image, or of all of them.

    Args:
        y: Map of shape `(batch, height, width, classes)`.
        batch: Whether each image is given the sum of all.

    Returns:
        Sums of shape `(batch, classes)`.

    Example:
        >>> maps = ops.reshape([1.0, 2.0, 3.0, 4.0], (2, 1, 2, 1))
        >>> ops.convert_to_numpy(sum_pixels(maps)).ravel().tolist()
        [3.0, 7.0]
        >>> ops.convert_to_numpy(sum_pixels(maps, batch=True)).ravel().tolist()
        [10.0, 10.0]
    """
    return sum_images(ops.sum(y, axis=(1, 2)), batch)


def sum_images(sums, batch: bool = False):
    """Return sums of shape `(batch, classes)`, or for each image that of all.

    Where TensorFlow's replicas share a batch, the sum is over the images of all.
    """
    if not batch:
        return sums
    total = ops.sum(sums, axis=0, keepdims=True)
    if keras.backend.backend() == "tensorflow":
        distribute = sys.modules["tensorflow"].distribute
        replica = distribute.get_replica_context()  # none outside of them
        if replica is not None and replica.num_replicas_in_sync > 1:
            total = replica.all_reduce(distribute.ReduceOp.SUM, total)
    return total + ops.zeros_like(sums)


def mean_over_images(values, batch: bool = False):
    """Return values of shape `(batch, classes)`, or for each image the mean of all."""
    if not batch:
        return values
    return ops.mean(values, axis=0, keepdims=True) + ops.zeros_like(values)


def mean_over_classes(values, class_weights: Sequence[float] | None = None):
    """Return the mean of `(batch, classes)` over classes, of shape `(batch,)`.

    Args:
        values: Score of each image and class.
        class_weights: One weight per class; equal if None.

    Raises:
        ValueError: If there are more or fewer weights than classes, or one is below 0,
            or all are 0.
    """
    if class_weights is None:
        return ops.mean(values, axis=-1)
    check_class_weights(class_weights)
    classes = values.shape[-1]
    if isinstance(classes, int) and len(class_weights) != classes:
        raise InputError(
            f"class_weights must have one weight a class, got {len(class_weights)} "
            f"for {classes} classes"
        )
    weights = ops.convert_to_tensor(class_weights, dtype="float32")
    return ops.sum(values * weights, axis=-1) / ops.sum(weights)


def check_class_weights(class_weights: Sequence[float]) -> None:
    """Refuse weights that have no weighted mean."""
    if not (min(class_weights, default=0) >= 0 and 0 < sum(class_weights) < math.inf):
        raise InputError(
            f"class_weights must be at least 0 and not all 0, got {list(class_weights)}"
        )


def check_data_format(data_format: str) -> None:
    """Refuse a format that is not Keras's."""
    if data_format not in DATA_FORMATS:
        raise InputError(
            f'data_format must be "channels_last" or "channels_first", '
            f"got {data_format!r}"
        )


def _as_maps(y, data_format: str):
    """Return a tensor as float32 of shape `(batch, height, width, classes)`."""
    check_data_format(data_format)
    y = ops.cast(y, "float32")
    if len(y.shape) == 3:
        return ops.expand_dims(y, -1)
    if len(y.shape) != 4:
        raise InputError(
            "masks and predictions must have rank 3 (batch, height, width) or 4 "
            f"(with classes), got shape {tuple(y.shape)}"
        )
    return ops.moveaxis(y, 1, -1) if data_format == "channels_first" else y


def _is_eager(y) -> bool:
    """Return whether a tensor has values now: it is neither symbolic nor traced."""
    if isinstance(y, keras.KerasTensor):
        return False
    match keras.backend.backend():
        case "tensorflow":
            return sys.modules["tensorflow"].executing_eagerly()
        case "jax":
            return not isinstance(y, sys.modules["jax"].core.Tracer)
        case "torch":
            return not sys.modules["torch"].compiler.is_compiling()
    return False


def _check_values(y_true, strictly: bool) -> None:
    """Refuse a mask of other values than 0 and 1, or outside of [0, 1]."""
    values = ops.convert_to_numpy(y_true)  # not by ops, which JAX would trace
    if not values.size:
        return
    low, high = values.min(), values.max()
    if not (low >= 0.0 and high <= 1.0):  # so that NaN fails
        raise InputError(
            "masks must be 0 or 1 where they are not ignored, got values from "
            f"{low:g} to {high:g} (divide masks of 0 and 255 by 255)"
        )
    if strictly and not ((values == 0.0) | (values == 1.0)).all():
        raise InputError("masks must be 0 or 1 where they are not ignored, got others")


def _check_shapes(true, pred) -> None:
    """Refuse shapes that are known to differ."""
    for a, b in zip(true, pred, strict=True):
        if isinstance(a, int) and isinstance(b, int) and a != b:
            raise InputError(
                "y_true and y_pred must have the same shape, "
                f"got {tuple(true)} and {tuple(pred)}"
            )
