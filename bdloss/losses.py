"""The losses of the paper (Section 2, Eq. 4), those beside it, their combination.

Each loss is a function of `y_true, y_pred` that returns one value per image, and a
Keras class of the same name above it. `get("boundary")` makes one by name. All share
four settings:

* `from_logits`: the predictions are logits; a sigmoid is applied to each class.
* `ignore`: pixels of the mask with this value drop out of every sum.
* `class_weights`: one weight a class for the mean over classes; equal if None.
* `data_format`: `"channels_last"` (batch, height, width, classes) or
  `"channels_first"`; a tensor of rank 3 is (batch, height, width), one class.

Masks may be of any dtype; all sums are taken in float32.
"""

import functools
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from bdloss.boundary import (
    EMPTY,
    SMOOTH,
    check_windows,
    sobel_boundary_f1,
    soft_boundary_f1,
)
from bdloss.perceptual import VGGFeatures

PACKAGE = "bdloss"  # the name under which Keras saves and finds these classes
BOUNDARIES = {"pooling": soft_boundary_f1, "sobel": sobel_boundary_f1}


def _loss_of_images(score: Callable) -> Callable:
    """Turn a function of float32 maps into a loss of whatever Keras code passes.

    Args:
        score: Takes truth, prediction and validity, float32 of shape `(batch,
            height, width, classes)` (validity None if all pixels count), and its own
            settings; returns `(batch, classes)`.

    Returns:
        Function of `y_true, y_pred`, the four shared settings and those of `score`,
        which returns the mean over classes, of shape `(batch,)`.
    """

    @functools.wraps(score)
    def loss(
        y_true,
        y_pred,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        data_format: str = "channels_last",
        **settings,
    ):
        y_true = _as_maps(y_true, data_format)
        y_pred = _as_maps(y_pred, data_format)
        _check_shapes(y_true.shape, y_pred.shape)
        valid = None
        if ignore is not None:
            valid = ops.cast(ops.not_equal(y_true, ignore), "float32")
            y_true = y_true * valid
        if from_logits:
            y_pred = ops.sigmoid(y_pred)
        return _mean_over_classes(
            score(y_true, y_pred, valid, **settings), class_weights
        )

    del loss.__wrapped__  # the signature is that of the loss, not of the score
    return loss


def _as_maps(y, data_format: str):
    """Return a tensor as float32 of shape `(batch, height, width, classes)`."""
    _check_data_format(data_format)
    y = ops.cast(y, "float32")
    if len(y.shape) == 3:
        return ops.expand_dims(y, -1)
    if len(y.shape) != 4:
        raise ValueError(
            "masks and predictions must have rank 3 (batch, height, width) or 4 "
            f"(with classes), got shape {tuple(y.shape)}"
        )
    return ops.moveaxis(y, 1, -1) if data_format == "channels_first" else y


def _check_data_format(data_format: str) -> None:
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            f'data_format must be "channels_last" or "channels_first", '
            f"got {data_format!r}"
        )


def _check_class_weights(class_weights: Sequence[float]) -> None:
    if not (min(class_weights, default=0) >= 0 and 0 < sum(class_weights) < math.inf):
        raise ValueError(
            f"class_weights must be at least 0 and not all 0, got {list(class_weights)}"
        )


def _check_smooth(smooth: float) -> None:
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth must be at least 0 pixels, got {smooth}")


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {share}")


def _check_shapes(true, pred) -> None:
    """Refuse shapes that are known to differ."""
    for a, b in zip(true, pred, strict=True):
        if isinstance(a, int) and isinstance(b, int) and a != b:
            raise ValueError(
                "y_true and y_pred must have the same shape, "
                f"got {tuple(true)} and {tuple(pred)}"
            )


def _mean_over_classes(values, class_weights: Sequence[float] | None):
    """Return the (weighted) mean of `(batch, classes)` over classes."""
    if class_weights is None:
        return ops.mean(values, axis=-1)
    _check_class_weights(class_weights)
    classes = values.shape[-1]
    if isinstance(classes, int) and len(class_weights) != classes:
        raise ValueError(
            f"class_weights must have one weight a class, got {len(class_weights)} "
            f"for {classes} classes"
        )
    weights = ops.convert_to_tensor(class_weights, dtype="float32")
    return ops.sum(values * weights, axis=-1) / ops.sum(weights)


def binary_crossentropy(y_true, y_pred, *, from_logits: bool = False, **shared):
    """Return the mean binary cross-entropy of each image, over its valid pixels.

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1], or logits.
        from_logits: Whether they are logits. Then a prediction that is wrong beyond
            doubt still has its full gradient.
        **shared: The other settings that all losses share.

    Returns:
        Loss of shape `(batch,)`, at least 0; 0 if all pixels are ignored.

    Example:
        >>> round(float(binary_crossentropy(ops.ones((1, 2, 3)),
        ...     ops.full((1, 2, 3), 0.5))[0]), 4)
        0.6931
    """
    return _crossentropy(y_true, y_pred, logits=from_logits, **shared)


@_loss_of_images
def _crossentropy(y_true, y_pred, valid, logits: bool):
    losses = ops.binary_crossentropy(y_true, y_pred, from_logits=logits)
    if valid is None:
        return ops.mean(losses, axis=(1, 2))
    count = ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0)
    return ops.sum(losses * valid, axis=(1, 2)) / count


@_loss_of_images
def iou_loss(y_true, y_pred, valid, smooth: float = SMOOTH):
    """Return one minus the soft intersection over union (Section 2).

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1].
        valid: Made from `ignore`.
        smooth: Pixels added above and below the line, so that two empty masks
            cost 0.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Example:
        >>> mask = ops.reshape([1.0, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> half = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> round(float(iou_loss(mask, half)[0]), 4)  # 1 - (1 + 1) / (2 + 1)
        0.3333
    """
    _check_smooth(smooth)
    if valid is not None:
        y_pred = y_pred * valid
    intersection = ops.sum(y_true * y_pred, axis=(1, 2))
    union = ops.sum(y_true + y_pred, axis=(1, 2)) - intersection
    if smooth > 0.0:
        return 1.0 - (intersection + smooth) / (union + smooth)
    return 1.0 - _ratio(intersection, union, empty=1.0)


@_loss_of_images
def dice_loss(y_true, y_pred, valid, smooth: float = SMOOTH):
    """Return one minus the soft Dice score (Section 2).

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1].
        valid: Made from `ignore`.
        smooth: Pixels added above and below the line, so that two empty masks
            cost 0.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If smooth is below 0.

    Example:
        >>> mask = ops.reshape([1.0, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> half = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> float(dice_loss(mask, half)[0])  # 1 - (2 x 1 + 1) / (2 + 1 + 1)
        0.25
    """
    _check_smooth(smooth)
    if valid is not None:
        y_pred = y_pred * valid
    intersection = ops.sum(y_true * y_pred, axis=(1, 2))
    total = ops.sum(y_true, axis=(1, 2)) + ops.sum(y_pred, axis=(1, 2))
    if smooth > 0.0:
        return 1.0 - (2.0 * intersection + smooth) / (total + smooth)
    return 1.0 - _ratio(2.0 * intersection, total, empty=1.0)


@_loss_of_images
def ss_loss(y_true, y_pred, valid, lam: float = 0.5):
    """Return one minus the weighted sensitivity and specificity (Section 2).

    `1 - (lam * TN / (TN + FP) + (1 - lam) * TP / (TP + FN))`, where soft counts are
    sums of products, as TP = sum(y p) and FP = sum((1 - y) p). A mask without
    background has a specificity of 1, one without buildings a sensitivity of 1: no
    pixel there can be wrong.

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1].
        valid: Made from `ignore`.
        lam: Weight of the specificity, in [0, 1]: 1 looks at the background only.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If lam is outside [0, 1].

    Example:
        >>> mask = ops.reshape([1.0, 0.0, 0.0, 0.0], (1, 1, 4))
        >>> pred = ops.reshape([0.5, 1.0, 0.0, 0.0], (1, 1, 4))
        >>> round(float(ss_loss(mask, pred, lam=0.25)[0]), 4)  # 1/4 x 1/3 + 3/4 x 1/2
        0.4583
    """
    _check_share("lam", lam)
    background = 1.0 - y_true if valid is None else (1.0 - y_true) * valid
    specificity, sensitivity = (
        _ratio(ops.sum(area * right, axis=(1, 2)), ops.sum(area, axis=(1, 2)), empty=1.0)
        for area, right in ((background, 1.0 - y_pred), (y_true, y_pred))
    )
    return 1.0 - (lam * specificity + (1.0 - lam) * sensitivity)


@_loss_of_images
def vgg_loss(y_true, y_pred, valid, extractor: Callable):
    """Return the squared difference of features (Section 2; Mosinska et al., 2018).

    The mean over pixels and filters, summed over depths. In an ignored pixel the
    network is shown ground in truth and prediction. Each class is a picture by itself.

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1].
        valid: Made from `ignore`.
        extractor: Takes maps of shape `(n, height, width, 1)`, returns a sequence of
            tensors `(n, rows, columns, filters)`: `bdloss.perceptual.VGGFeatures`.

    Returns:
        Loss of shape `(batch,)`, at least 0.

    Example:
        >>> mask = ops.ones((1, 4, 4))
        >>> float(vgg_loss(mask, mask / 2, extractor=lambda maps: [maps])[0])
        0.25
    """
    if valid is not None:
        y_pred = y_pred * valid
    shape = ops.shape(y_true)
    losses = 0.0
    for true, pred in zip(
        extractor(_as_pictures(y_true)), extractor(_as_pictures(y_pred)), strict=True
    ):
        losses = losses + ops.mean(ops.square(pred - true), axis=(1, 2, 3))
    return ops.reshape(losses, (shape[0], shape[3]))


def _as_pictures(maps):
    """Return `(batch, height, width, classes)` as `(batch * classes, ..., 1)`."""
    _, height, width, _ = ops.shape(maps)
    return ops.reshape(ops.transpose(maps, (0, 3, 1, 2)), (-1, height, width, 1))


def _ratio(above, below, empty: float = 0.0):
    """Return a quotient, and what it is where there is nothing to divide by."""
    some = below > EMPTY
    return ops.where(some, above / ops.where(some, below, 1.0), empty)


@_loss_of_images
def boundary_loss(
    y_true,
    y_pred,
    valid,
    theta0: int = 3,
    theta: int = 5,
    smooth: float = SMOOTH,
    boundary: str = "pooling",
):
    """Return one minus the soft BF1 of the boundaries (Eq. 4).

    With `smooth` 1 two empty boundaries cost 0; 16 true boundary pixels of which
    none was found and none invented cost 1 - 2 / 18 = 0.89; a prediction where
    nothing is costs nearly 1 and its gradient removes it. With `smooth` 0 this is
    Eq. 3 to the letter: 0, 1 and 1 in these three cases.

    It does not train a network alone: a constant added to the prediction changes
    nothing (its gradient sums to zero over each image), and a hollow outline costs
    nothing. See `CombinedLoss`.

    Args:
        y_true: Mask, 0 or 1.
        y_pred: Map of the same shape, values in [0, 1].
        valid: Made from `ignore`.
        theta0: Side of the window that finds boundaries (Eq. 1), odd, in pixels.
        theta: Side of the window that extends them (Eq. 2), odd, in pixels, less
            than the gap between buildings. A window, not a distance: see
            `bdloss.boundary`.
        smooth: Pixels added above and below the line of Eq. 3.
        boundary: `"pooling"` (Eq. 1) or `"sobel"`, the length of the gradient, which
            the paper rejected: it lies on both sides of an edge and is kept to compare.

    Returns:
        Loss of shape `(batch,)`, in [0, 1].

    Raises:
        ValueError: If theta0 or theta is even, theta is less than theta0, smooth is
            below 0 or there is no such boundary.

    Example:
        >>> house = ops.pad(ops.ones((1, 9, 9)), [[0, 0], [4, 4], [4, 4]])
        >>> float(boundary_loss(house, ops.roll(house, 1, axis=2))[0])
        0.0
    """
    _check_boundary(theta0, theta, smooth, boundary)
    score = BOUNDARIES[boundary]
    return 1.0 - score(y_true, y_pred, theta0, theta, smooth, valid)


def _check_boundary(theta0: int, theta: int, smooth: float, boundary: str) -> None:
    check_windows(theta0, theta)
    _check_smooth(smooth)
    if boundary not in BOUNDARIES:
        raise ValueError(
            f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}"
        )
    if boundary == "sobel" and theta0 != 3:
        raise ValueError(f"the Sobel filter has theta0 = 3, got {theta0}")


def _known_to_keras(loss: type) -> type:
    """Let Keras find a loss by name, in saved models and as a string.

    Keras looks strings up in a table of its own, which has no public door; what
    already stands there (`"BinaryCrossentropy"`) stays.
    """
    keras.saving.register_keras_serializable(PACKAGE)(loss)
    table = getattr(sys.modules[keras.losses.get.__module__], "ALL_OBJECTS_DICT", {})
    for name in (loss.__name__, f"{PACKAGE}>{loss.__name__}"):
        table.setdefault(name, loss)
    return loss


class _ImageLoss(keras.losses.Loss):
    """A loss of one value per image, with the four settings that all share.

    Attributes:
        function: The loss as a function of `y_true, y_pred` and settings.
        own: Names of the settings that only this loss has.
    """

    function: Callable
    own: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        data_format: str = "channels_last",
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        _check_data_format(data_format)
        if class_weights is not None:
            _check_class_weights(class_weights)
        self.from_logits = from_logits
        self.ignore = ignore
        self.class_weights = None if class_weights is None else list(class_weights)
        self.data_format = data_format

    @property
    def shared(self) -> dict:
        """The four settings that all losses share, by name."""
        return {
            "from_logits": self.from_logits,
            "ignore": self.ignore,
            "class_weights": self.class_weights,
            "data_format": self.data_format,
        }

    @property
    def settings(self) -> dict:
        """All that `function` is told, by name."""
        return {**{name: getattr(self, name) for name in self.own}, **self.shared}

    def call(self, y_true, y_pred):
        """Return the loss of each image."""
        return self.function(y_true, y_pred, **self.settings)

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same loss again."""
        return {**super().get_config(), **self.settings}


class _OverlapLoss(_ImageLoss):
    """A loss of overlapping areas, which has one more setting.

    Args:
        smooth: Pixels added above and below the line.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.
    """

    own = ("smooth",)

    def __init__(self, smooth: float = SMOOTH, **shared):
        _check_smooth(smooth)
        super().__init__(**shared)
        self.smooth = smooth


@_known_to_keras
class BinaryCrossentropy(_ImageLoss):
    """Binary cross-entropy that knows ignored pixels: see `binary_crossentropy`."""

    function = staticmethod(binary_crossentropy)


@_known_to_keras
class IoULoss(_OverlapLoss):
    """One minus the soft intersection over union (Section 2): see `iou_loss`.

    Args:
        smooth: Pixels added above and below the line.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.
    """

    function = staticmethod(iou_loss)


@_known_to_keras
class DiceLoss(_OverlapLoss):
    """One minus the soft Dice score (Section 2): see `dice_loss`.

    Args:
        smooth: Pixels added above and below the line.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.
    """

    function = staticmethod(dice_loss)


@_known_to_keras
class SSLoss(_ImageLoss):
    """The sensitivity-specificity loss (Section 2): see `ss_loss`.

    Args:
        lam: Share of the sensitivity, in [0, 1].
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.
    """

    function = staticmethod(ss_loss)
    own = ("lam",)

    def __init__(self, lam: float = 0.5, **shared):
        _check_share("lam", lam)
        super().__init__(**shared)
        self.lam = lam


@_known_to_keras
class BoundaryLoss(_ImageLoss):
    """One minus the soft BF1 of the boundaries (Eq. 4): see `boundary_loss`.

    Args:
        theta0: Side of the window that finds boundaries (Eq. 1), odd, in pixels.
        theta: Side of the window that extends them (Eq. 2), odd, in pixels.
        smooth: Pixels added above and below the line of Eq. 3.
        boundary: `"pooling"` (Eq. 1) or `"sobel"`, the paper's rejected alternative.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.

    Raises:
        ValueError: As `boundary_loss` does.
    """

    function = staticmethod(boundary_loss)
    own = ("theta0", "theta", "smooth", "boundary")

    def __init__(
        self,
        theta0: int = 3,
        theta: int = 5,
        smooth: float = SMOOTH,
        boundary: str = "pooling",
        **shared,
    ):
        _check_boundary(theta0, theta, smooth, boundary)
        super().__init__(**shared)
        self.theta0 = theta0
        self.theta = theta
        self.smooth = smooth
        self.boundary = boundary


@_known_to_keras
class VGGLoss(_ImageLoss):
    """Squared difference of VGG19 features (Section 2): see `vgg_loss`.

    Args:
        extractor: `"imagenet"`; the path of a file of VGG19 weights; or what returns
            the features of maps, such as a `bdloss.perceptual.VGGFeatures` of other
            layers. To save the loss it needs a `get_config`, or to be a function or
            class that Keras has been told of; a Keras model loses its weights there.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`.

    Raises:
        FileNotFoundError: As `VGGFeatures` does. To load a model without the weights,
            `keras.saving.load_model(path, compile=False)`.
        ValueError: As `VGGFeatures` does.
    """

    function = staticmethod(vgg_loss)
    own = ("extractor",)

    def __init__(self, extractor: str | os.PathLike | Callable = "imagenet", **shared):
        super().__init__(**shared)
        if isinstance(extractor, dict):
            extractor = keras.saving.deserialize_keras_object(extractor)
        if isinstance(extractor, str | os.PathLike):
            extractor = VGGFeatures(extractor)
        self.extractor = extractor

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same loss again."""
        extractor = keras.saving.serialize_keras_object(self.extractor)
        return {**super().get_config(), "extractor": extractor}


EXTRAS: dict[str, type[_ImageLoss]] = {
    "boundary": BoundaryLoss,
    "dice": DiceLoss,
    "ss": SSLoss,
    "vgg": VGGLoss,
}


@_known_to_keras
class CombinedLoss(_ImageLoss):
    """`BCE + w * L_extra + (1 - w) * L_IoU`, what the paper trains with.

    `w` is a `keras.Variable`: `loss.w.assign(0.7)` changes a compiled model at the
    next step, with no new trace. `bdloss.callbacks.BoundaryWeight` does so over
    epochs.

    Args:
        extra: The loss beside IoU: a name (`"boundary"`, `"dice"`, `"ss"`, `"vgg"`), a
            loss of this module, or None for `BCE + L_IoU`.
        w: Weight of `extra`, in [0, 1].
        bce: Whether the binary cross-entropy is added.
        **shared: `from_logits`, `ignore`, `class_weights`, `data_format` (see the
            module), and Keras's `name` and `reduction`. They hold for every part; an
            `extra` given as a loss must agree.

    Raises:
        ValueError: If w is outside [0, 1], or `extra` is not known or disagrees.

    Example:
        >>> loss = CombinedLoss(BoundaryLoss(theta=7), w=0.3)
        >>> _ = loss.w.assign(0.5)
        >>> float(loss.w.value)
        0.5
    """

    def __init__(
        self,
        extra: str | _ImageLoss | None = "boundary",
        w: float = 0.5,
        bce: bool = True,
        **shared,
    ):
        super().__init__(**shared)
        _check_share("w", w)
        if isinstance(extra, dict):
            extra = keras.saving.deserialize_keras_object(extra)
        self.extra = self._make_extra(extra)
        self.iou = IoULoss(**self.shared)
        self.bce = BinaryCrossentropy(**self.shared) if bce else None
        self.w = keras.Variable(w, trainable=False, dtype="float32", name="w")
        if w == 1.0 and self.bce is None and isinstance(self.extra, BoundaryLoss):
            warnings.warn(
                "the boundary loss alone does not train a network: it does not see "
                "the level of a prediction; keep bce=True or w below 1",
                stacklevel=2,
            )

    def _make_extra(self, extra: str | _ImageLoss | None) -> _ImageLoss | None:
        if extra is None:
            return None
        if isinstance(extra, str):
            if extra not in EXTRAS:
                raise ValueError(
                    f"extra must be one of {', '.join(EXTRAS)} or None, got {extra!r}"
                )
            return EXTRAS[extra](**self.shared)
        if extra.shared != self.shared:
            raise ValueError(
                "extra must have the settings of the combined loss, "
                f"got {extra.shared} and {self.shared}"
            )
        return extra

    def call(self, y_true, y_pred):
        """Return the loss of each image."""
        loss = self.iou.call(y_true, y_pred)
        if self.extra is not None:
            w = ops.convert_to_tensor(self.w)
            loss = w * self.extra.call(y_true, y_pred) + (1.0 - w) * loss
        if self.bce is not None:
            loss = loss + self.bce.call(y_true, y_pred)
        return loss

    def get_config(self) -> dict:
        """Return the settings from which Keras makes the same loss again."""
        return {
            **super().get_config(),
            "extra": keras.saving.serialize_keras_object(self.extra),
            "w": float(self.w.value),
            "bce": self.bce is not None,
        }


NAMES: dict[str, type[_ImageLoss]] = {
    "bce": BinaryCrossentropy,
    "iou": IoULoss,
    **EXTRAS,
    "combined": CombinedLoss,
}


def get(name: str, **settings: Any) -> keras.losses.Loss:
    """Return a loss by its name.

    Args:
        name: `"bce"`, `"iou"`, `"boundary"`, `"dice"`, `"ss"`, `"vgg"` or
            `"combined"`.
        **settings: Those of its class.

    Returns:
        The loss.

    Raises:
        ValueError: If the name is not known, or a setting is wrong.

    Example:
        >>> get("boundary", theta=7).theta
        7
    """
    if name not in NAMES:
        raise ValueError(f"a loss is one of {', '.join(NAMES)}, got {name!r}")
    return NAMES[name](**settings)
