"""U-Nets on the encoders of segmodels-keras: their scaling, weights and repairs."""

import contextlib
import io
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
from keras import layers, ops

from bdloss.errors import InputError
from bdloss.models import torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # red, green, blue, of pixels 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


def _import_segmodels() -> ModuleType:
    os.environ.setdefault("SM_FRAMEWORK", "keras")
    with contextlib.redirect_stdout(io.StringIO()):  # prints on import
        import segmodels_keras

    return segmodels_keras


def encoder_names() -> list[str]:
    """Return the names of the encoders of segmodels-keras."""
    return sorted(_import_segmodels().Backbones.models_names())


def build_encoder_unet(
    backbone: str, classes: int, weights: str | None, momentum: float
) -> keras.Model:
    """Build a U-Net of segmodels-keras.

    Args:
        backbone: One of `encoder_names`.
        classes: Number of maps that come out.
        weights: `imagenet`, the path of a weights file, or None for random ones, as
            `encoder_weights` of `build_model`.
        momentum: Of the moving averages of batch norm.

    Returns:
        Model of scaled pixels `(batch, height, width, 3)` to logits `(batch, height,
        width, classes)`.

    Raises:
        ValueError: If the file holds other weights.
        FileNotFoundError: If there is no file of weights, or it cannot be fetched.
    """
    is_torchvision = backbone in torchvision.BACKBONES and str(weights).endswith(
        ".safetensors"
    )
    if weights == "imagenet" and backbone in torchvision.BACKBONES:
        url = torchvision.WEIGHTS_URL.format(backbone)
        raise FileNotFoundError(
            f"the ImageNet weights of {backbone} are not fetched: get {url} and give "
            "its path as encoder_weights"
        )
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"no such file of encoder weights: {weights}")
    unet = _build_segmodels_unet(backbone, classes, None if is_torchvision else weights)
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum
    if is_torchvision:
        torchvision.load_weights(unet, Path(str(weights)))
    return _replace_scaled_sums(unet)


def _build_segmodels_unet(
    backbone: str, classes: int, weights: str | None
) -> keras.Model:
    segmodels_keras = _import_segmodels()
    skips: Any = "default"
    if backbone.startswith("densenet"):  # Keras 3 names the stem with an underscore
        names = segmodels_keras.Backbones.get_feature_layers(backbone, n=4)
        skips = [name.replace("conv1/relu", "conv1_relu") for name in names]
    try:
        return segmodels_keras.Unet(
            backbone,
            input_shape=(None, None, 3),
            classes=classes,
            activation="linear",
            encoder_weights=weights,
            encoder_features=skips,
        )
    except Exception as error:  # Keras raises a bare Exception
        fetch = re.search(r"URL fetch failure on (\S+?):?(?:\s|$)", str(error))
        if fetch:
            folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
            raise FileNotFoundError(
                f"cannot fetch the ImageNet weights of {backbone}: put {fetch[1]} into "
                f"{folder / 'models'}, or give the path of a file as encoder_weights"
            ) from error
        if weights not in (None, "imagenet"):
            raise InputError(
                f"not a file of {backbone} weights without top: {weights}"
            ) from error
        raise


# Saved models name this class and `Caffe`: they keep their names and their package.
@keras.saving.register_keras_serializable("bdloss")
class ScaledSum(layers.Layer):
    """The residual sum of Inception-ResNet-v2: `first + scale * second`."""

    def __init__(self, scale: float, **settings):
        super().__init__(**settings)
        self.scale = scale

    def call(self, inputs):
        """Add two maps of the same shape."""
        return inputs[0] + inputs[1] * self.scale

    def get_config(self) -> dict[str, Any]:
        """Return the settings from which Keras makes the same layer again."""
        return {**super().get_config(), "scale": self.scale}


def _replace_scaled_sums(unet: keras.Model) -> keras.Model:
    """Return the network with `ScaledSum` where a layer cannot be loaded safely."""

    def copy(layer: layers.Layer) -> layers.Layer:
        kind = type(layer)
        if kind.__name__ == "CustomScaleLayer":
            kind = ScaledSum
        return kind.from_config(layer.get_config())

    if not any(type(layer).__name__ == "CustomScaleLayer" for layer in unet.layers):
        return unet
    replaced = keras.models.clone_model(unet, clone_function=copy)
    replaced.set_weights(unet.get_weights())
    return replaced


def scale_pixels(backbone: str) -> keras.layers.Layer:
    """Return the scaling of pixels 0..255 that an encoder was trained with."""
    if backbone.startswith(("resnet50", "resnet101", "resnet152", "vgg")) and (
        not backbone.endswith("v2")
    ):
        return Caffe(name="scaling")
    if backbone.startswith("densenet") or backbone in torchvision.BACKBONES:
        return layers.Rescaling(
            [1 / (255 * std) for std in IMAGENET_STD],
            offset=[
                -mean / std
                for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
            ],
            name="scaling",
        )
    if backbone.startswith("efficientnet"):  # these scale their pixels themselves
        return layers.Rescaling(1.0, name="scaling")
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")


@keras.saving.register_keras_serializable("bdloss")
class Caffe(layers.Layer):
    """The scaling of VGG and ResNet50+: blue first, less ImageNet's mean pixel."""

    MEAN = (103.939, 116.779, 123.68)  # blue, green, red

    def call(self, pixels):
        """Scale pixels 0..255 of shape `(batch, height, width, 3)`."""
        pixels = ops.flip(pixels, axis=-1)
        return pixels - ops.convert_to_tensor(self.MEAN, dtype=pixels.dtype)
