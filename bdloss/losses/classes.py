"""The losses as Keras classes, for `model.compile`, and their weighted sum.

A loss holds its settings. Its `call` prepares ground truth and prediction, has them
scored by `score`, and takes the mean over classes. `CombinedLoss` prepares them once
for all its parts.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import keras
from keras import ops

from bdloss.errors import InputError
from bdloss.losses.boundary import (
    SMOOTH,
    check_boundary,
    check_smooth,
    check_windows,
    soft_boundary_f1,
)
from bdloss.losses.inputs import (
    Inputs,
    check_class_weights,
    check_data_format,
    mean_over_classes,
    prepare,
)
from bdloss.losses.oriented import FACE, soft_oriented_f1
from bdloss.losses.pooling import check_pool
from bdloss.losses.region import (
    THETA0,
    check_fraction,
    crossentropy,
    near_edges,
    soft_dice,
    soft_iou,
    soft_ss,
)
from bdloss.losses.vgg import VGGFeatures, feature_distance

PACKAGE = "bdloss"  # the name under which Keras saves these classes


class InputOptions(TypedDict):
    """How a loss reads ground truth and prediction: see `inputs.prepare`."""

    from_logits: bool
    ignore: int | None
    batch: bool
    data_format: str
    validate: bool


class ImageLoss(keras.losses.Loss):
    """A loss of one value per image."""

    def __init__(
        self,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        check_data_format(data_format)
        if class_weights is not None:
            check_class_weights(class_weights)
            class_weights = list(class_weights)
        self.from_logits = from_logits
        self.ignore = ignore
        self.class_weights = class_weights
        self.batch = batch
        self.data_format = data_format
        self.validate = validate

    @property
    def options(self) -> InputOptions:
        """The keyword arguments of `prepare`."""
        return {
            "from_logits": self.from_logits,
            "ignore": self.ignore,
            "batch": self.batch,
            "data_format": self.data_format,
            "validate": self.validate,
        }

    def score(self, inputs: Inputs):
        """Return the loss of each image and class, of shape `(batch, classes)`."""
        raise NotImplementedError

    def call(self, y_true, y_pred):
        """Return the loss of each image, of shape `(batch,)`."""
        inputs = prepare(y_true, y_pred, **self.options)
        return mean_over_classes(self.score(inputs), self.class_weights)

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {
            **super().get_config(),
            **self.options,
            "class_weights": self.class_weights,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class BinaryCrossentropy(ImageLoss):
    """Binary cross-entropy without ignored pixels: see `binary_crossentropy`.

    Args:
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of the mean; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.
    """

    def score(self, inputs: Inputs):
        """Return the cross-entropy of each image and class."""
        return crossentropy(*inputs)


@keras.saving.register_keras_serializable(PACKAGE)
class EdgeCrossentropy(ImageLoss):
    """Binary cross-entropy of the pixels near a true edge: see `edge_crossentropy`.

    Args:
        theta: Side of the window, odd, in pixels, that must have true boundary in it.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of the mean; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `edge_crossentropy` does.
    """

    def __init__(
        self,
        theta: int = 9,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_windows(THETA0, theta)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.theta = theta

    def score(self, inputs: Inputs):
        """Return the cross-entropy near the edges of each image and class."""
        near = near_edges(inputs.y_true, self.theta, inputs.valid)
        return crossentropy(
            inputs.y_true, inputs.y_pred, near, inputs.logits, inputs.batch
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {**super().get_config(), "theta": self.theta}


@keras.saving.register_keras_serializable(PACKAGE)
class IoULoss(ImageLoss):
    """One minus the soft intersection over union (Section 2): see `iou_loss`.

    Args:
        smooth: Pixels added to numerator and denominator.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `iou_loss` does.
    """

    def __init__(
        self,
        smooth: float = SMOOTH,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_smooth(smooth)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.smooth = smooth

    def score(self, inputs: Inputs):
        """Return one minus the soft IoU of each image and class."""
        return 1.0 - soft_iou(inputs.y_true, inputs.y_pred, self.smooth, inputs.batch)

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {**super().get_config(), "smooth": self.smooth}


@keras.saving.register_keras_serializable(PACKAGE)
class DiceLoss(ImageLoss):
    """One minus the soft Dice score (Section 2): see `dice_loss`.

    Args:
        smooth: Pixels added to numerator and denominator.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `dice_loss` does.
    """

    def __init__(
        self,
        smooth: float = SMOOTH,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_smooth(smooth)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.smooth = smooth

    def score(self, inputs: Inputs):
        """Return one minus the soft Dice score of each image and class."""
        return 1.0 - soft_dice(inputs.y_true, inputs.y_pred, self.smooth, inputs.batch)

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {**super().get_config(), "smooth": self.smooth}


@keras.saving.register_keras_serializable(PACKAGE)
class SSLoss(ImageLoss):
    """One minus the weighted specificity and sensitivity (Section 2): see `ss_loss`.

    Args:
        lam: Weight of the specificity, in [0, 1].
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `ss_loss` does.
    """

    def __init__(
        self,
        lam: float = 0.5,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_fraction("lam", lam)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.lam = lam

    def score(self, inputs: Inputs):
        """Return one minus SS of each image and class."""
        return 1.0 - soft_ss(
            inputs.y_true, inputs.y_pred, self.lam, inputs.valid, inputs.batch
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {**super().get_config(), "lam": self.lam}


@keras.saving.register_keras_serializable(PACKAGE)
class BoundaryLoss(ImageLoss):
    """One minus the soft BF1 of the boundaries (Eq. 4): see `boundary_loss`.

    Args:
        theta0: Side of the window that finds boundaries (Eq. 1), odd, in pixels.
        theta: Side of the window that extends them (Eq. 2), odd, in pixels.
        smooth: Pixels added to numerator and denominator of Eq. 3.
        boundary: `"pooling"` (Eq. 1) or `"sobel"`, which the paper rejected.
        pool: Whether the gradient of pooling is `"shared"` among pixels that tie, or
            one of them, the `"first"`, gets it all.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `boundary_loss` does.
    """

    def __init__(
        self,
        theta0: int = 3,
        theta: int = 5,
        smooth: float = SMOOTH,
        boundary: str = "pooling",
        pool: str = "shared",
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_windows(theta0, theta)
        check_smooth(smooth)
        check_boundary(boundary, theta0)
        check_pool(pool)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.theta0 = theta0
        self.theta = theta
        self.smooth = smooth
        self.boundary = boundary
        self.pool = pool

    def score(self, inputs: Inputs):
        """Return one minus the soft BF1 of each image and class."""
        return 1.0 - soft_boundary_f1(
            inputs.y_true,
            inputs.y_pred,
            self.theta0,
            self.theta,
            self.smooth,
            inputs.valid,
            self.boundary,
            self.pool,
            inputs.batch,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {
            **super().get_config(),
            "theta0": self.theta0,
            "theta": self.theta,
            "smooth": self.smooth,
            "boundary": self.boundary,
            "pool": self.pool,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class OrientedBoundaryLoss(ImageLoss):
    """One minus the Dice of oriented boundaries: see `oriented_boundary_loss`.

    Args:
        theta: Side of the window that boundaries are spread over, odd, in pixels.
        smooth: Pixels of boundary added to numerator and denominator.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: As `oriented_boundary_loss` does.
    """

    def __init__(
        self,
        theta: int = 9,
        smooth: float = SMOOTH,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        check_windows(FACE, theta)
        check_smooth(smooth)
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        self.theta = theta
        self.smooth = smooth

    def score(self, inputs: Inputs):
        """Return one minus the oriented Dice score of each image and class."""
        return 1.0 - soft_oriented_f1(
            inputs.y_true,
            inputs.y_pred,
            self.theta,
            self.smooth,
            inputs.valid,
            inputs.batch,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {**super().get_config(), "theta": self.theta, "smooth": self.smooth}


@keras.saving.register_keras_serializable(PACKAGE)
class VGGLoss(ImageLoss):
    """Squared difference of VGG19 features (Section 2): see `vgg_loss`.

    Args:
        extractor: `"imagenet"`; the path of a file of VGG19 weights; or a callable that
            returns the features of maps, such as a `VGGFeatures` of other layers. The
            loss can be saved if this has a `get_config`, or is a function or class
            registered with Keras; a Keras model is saved without its weights.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are shown as background; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether the mean is over all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        FileNotFoundError: As `VGGFeatures` does. To load a model without the weights,
            `keras.saving.load_model(path, compile=False)`.
        ValueError: As `VGGFeatures` and `vgg_loss` do.
    """

    def __init__(
        self,
        extractor: str | os.PathLike | Callable = "imagenet",
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        if isinstance(extractor, str | os.PathLike):
            extractor = VGGFeatures(extractor)
        self.extractor = extractor

    def score(self, inputs: Inputs):
        """Return the distance of features of each image and class."""
        return feature_distance(
            inputs.y_true, inputs.y_pred, self.extractor, inputs.batch
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        extractor = keras.saving.serialize_keras_object(self.extractor)
        return {**super().get_config(), "extractor": extractor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VGGLoss":
        """Return the loss that `get_config` described."""
        extractor = keras.saving.deserialize_keras_object(config["extractor"])
        return cls(**{**config, "extractor": extractor})


EXTRAS: dict[str, type[ImageLoss]] = {
    "boundary": BoundaryLoss,
    "dice": DiceLoss,
    "edge": EdgeCrossentropy,
    "oriented": OrientedBoundaryLoss,
    "ss": SSLoss,
    "vgg": VGGLoss,
}


@keras.saving.register_keras_serializable(PACKAGE)
class CombinedLoss(ImageLoss):
    """`BCE + w * L_extra + (1 - w) * L_IoU`, what the paper trains with (Section 4.2).

    `w` is a `keras.Variable`: `loss.w.assign(0.7)` changes a compiled model at the
    next step, with no new trace. `bdloss.callbacks.BoundaryWeight` does so over
    epochs. Ground truth and prediction are prepared once for all parts, so set
    `from_logits`, `ignore`, `class_weights`, `batch`, `data_format` and `validate`
    here.

    Args:
        extra: The loss beside IoU: a name of `EXTRAS`, a
            loss of this module, any other Keras loss of one value per image, or None
            for `BCE + L_IoU`. A Keras loss is given the prepared maps: probabilities,
            classes last, and 0 in both maps where a pixel is ignored.
        w: Weight of `extra`, in [0, 1].
        bce: Whether the binary cross-entropy is added.
        from_logits: Whether predictions are logits; a sigmoid is applied to each class.
        ignore: Mask value of pixels that are left out of every sum; None for none.
        class_weights: One weight per class for the mean over classes; equal if None.
        batch: Whether sums are over the pixels of all images of a batch.
        data_format: `"channels_last"` or `"channels_first"`.
        validate: Whether masks must be exactly 0 or 1: see `prepare`.
        name: Name of the loss in Keras's logs.
        reduction: Keras's reduction, over the images of a batch.

    Raises:
        ValueError: If w is outside [0, 1], or `extra` is not known, has another value
            of a setting that is set here, or returns another shape than `(batch,)`
            when it is called.

    Example:
        >>> loss = CombinedLoss(BoundaryLoss(theta=7), w=0.3, ignore=255)
        >>> _ = loss.w.assign(0.5)
        >>> float(loss.w.value)
        0.5
    """

    def __init__(
        self,
        extra: str | keras.losses.Loss | None = "boundary",
        w: float = 0.5,
        bce: bool = True,
        *,
        from_logits: bool = False,
        ignore: int | None = None,
        class_weights: Sequence[float] | None = None,
        batch: bool = False,
        data_format: str = "channels_last",
        validate: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ):
        super().__init__(
            from_logits=from_logits,
            ignore=ignore,
            class_weights=class_weights,
            batch=batch,
            data_format=data_format,
            validate=validate,
            name=name,
            reduction=reduction,
        )
        check_fraction("w", w)
        self.extra = _make_extra(extra)
        if isinstance(self.extra, ImageLoss):
            self._check_part(self.extra)
        self.iou = IoULoss()
        self.bce = BinaryCrossentropy() if bce else None
        self.w = keras.Variable(w, trainable=False, dtype="float32", name="w")
        if w == 1.0 and self.bce is None and isinstance(self.extra, BoundaryLoss):
            warnings.warn(
                "the boundary loss alone does not train a network: it does not see "
                "the level of a prediction; keep bce=True or w below 1",
                stacklevel=2,
            )

    def _check_part(self, part: ImageLoss) -> None:
        """Refuse a setting of a part that would have no effect."""
        plain = BinaryCrossentropy()
        for key in (*self.options, "class_weights"):
            value = getattr(part, key)
            if value not in (getattr(plain, key), getattr(self, key)):
                raise InputError(
                    f"{key} is said to the combined loss, for all its parts: "
                    f"CombinedLoss(..., {key}={value!r}); got it in extra alone"
                )

    def call(self, y_true, y_pred):
        """Return the loss of each image, of shape `(batch,)`."""
        inputs = prepare(y_true, y_pred, **self.options)
        loss = mean_over_classes(self.iou.score(inputs), self.class_weights)
        if self.extra is not None:
            w = ops.convert_to_tensor(self.w)
            extra = _score_extra(self.extra, inputs, self.class_weights)
            loss = w * extra + (1.0 - w) * loss
        if self.bce is not None:
            bce = mean_over_classes(self.bce.score(inputs), self.class_weights)
            loss = loss + bce
        return loss

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras can make the loss again."""
        return {
            **super().get_config(),
            "extra": keras.saving.serialize_keras_object(self.extra),
            "w": float(self.w.value),
            "bce": self.bce is not None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CombinedLoss":
        """Return the loss that `get_config` described."""
        extra = config.get("extra", "boundary")
        if isinstance(extra, dict):
            extra = keras.saving.deserialize_keras_object(extra)
        return cls(**{**config, "extra": extra})


def _make_extra(extra: str | keras.losses.Loss | None) -> keras.losses.Loss | None:
    """Return the loss that has this name; a loss is returned as it is."""
    if isinstance(extra, str) and extra in EXTRAS:
        return EXTRAS[extra]()
    if extra is None or (
        isinstance(extra, keras.losses.Loss) and not isinstance(extra, CombinedLoss)
    ):
        return extra
    raise InputError(
        f"extra must be one of {', '.join(EXTRAS)}, a Keras loss of one value an "
        f"image, or None, got {extra!r}"
    )


def _score_extra(
    extra: keras.losses.Loss, inputs: Inputs, class_weights: Sequence[float] | None
):
    """Return the loss of each image, by a loss of this module or of Keras."""
    if isinstance(extra, ImageLoss):
        return mean_over_classes(extra.score(inputs), class_weights)
    values = ops.convert_to_tensor(extra.call(inputs.y_true, inputs.y_pred))
    shape, images = tuple(values.shape), inputs.y_true.shape[0]
    if shape not in ((images,), (None,)):
        raise InputError(
            "extra must return one value an image, of shape (batch,), got shape "
            f"{shape} from {type(extra).__name__}"
        )
    return ops.cast(values, "float32")


NAMES: dict[str, type[ImageLoss]] = {
    "bce": BinaryCrossentropy,
    "iou": IoULoss,
    **EXTRAS,
    "combined": CombinedLoss,
}


def get(name: str, **settings: Any) -> keras.losses.Loss:
    """Return a loss by its name.

    Args:
        name: `"bce"`, `"iou"`, one of `EXTRAS`, or `"combined"`.
        **settings: Arguments of its class.

    Returns:
        The loss.

    Raises:
        ValueError: If the name is not known, or a setting is wrong.

    Example:
        >>> get("boundary", theta=7).theta
        7
    """
    if name not in NAMES:
        raise InputError(f"a loss is one of {', '.join(NAMES)}, got {name!r}")
    return NAMES[name](**settings)
