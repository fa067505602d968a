"""Networks: pixels 0..255 in, probabilities out; what trains in which stage.

Each network scales its pixels itself, in its first layer, so that training and
prediction cannot disagree.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("SM_FRAMEWORK", "keras")

import keras
from keras import layers, ops

from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED, atomic_path
from bdloss.memory import refuse_beyond_memory
from bdloss.models import efficientnet_lite, torchvision

METADATA = "bdloss.json"  # what a model file says of itself, beside the weights
# Batch norm forgets fast: runs of some hundred steps never reach Keras's 0.99.
MOMENTUM = 0.9
WINDOW = 512  # pixels, for a model that does not say what it was trained on
TRAINABLE = ("decoder", "decoder and batch norm", "all")
OURS = ("plain", "convnn", "lite")  # the others are encoders of segmodels-keras
WITHOUT_ENCODER = ("plain", "convnn")  # that could have weights of its own
DECODER = ("bands", "decoder", "center", "final")


def size_multiple(backbone: str, blocks: int) -> int:
    """Return what height and width of a patch must be multiples of, in pixels.

    Args:
        backbone: Name of a network, as in `build_model`.
        blocks: Times that `plain` and `convnn` halve the image.
    """
    if backbone == "lite":
        return efficientnet_lite.STRIDE
    return 2**blocks if backbone in OURS else 32


def build_model(
    backbone: str = "plain",
    bands: int = 3,
    classes: int = 1,
    filters: int = 16,
    blocks: int = 4,
    encoder_weights: str | None = None,
    skips: bool = True,
    momentum: float = MOMENTUM,
) -> keras.Model:
    """Build a segmentation network.

    Args:
        backbone: `plain` (a small U-Net), `convnn` (Section 4.1: a smaller one),
            `lite` (a U-Net on an encoder whose ImageNet weights come with the
            package), or the name of an encoder of segmodels-keras (`resnet34`,
            `vgg16`, ...).
        bands: Bands of the image. An encoder takes three; other counts pass through
            a 1 x 1 convolution first.
        classes: Number of maps that come out.
        filters: Filters of the first block of `plain` and `convnn`, of the last of
            `lite`.
        blocks: Times that `plain` and `convnn` halve the image.
        encoder_weights: Of `lite`: `imagenet`, for which it needs no network, or None
            for random ones. Of the encoders of segmodels-keras also a path to a
            weights file of the encoder without its top (`.h5`); of `resnet18` and
            `resnet34` to the one of torchvision (`.safetensors`).
        skips: Whether `convnn` has skip connections; the others always have.
        momentum: Of the moving averages of batch norm.

    Returns:
        Model of pixels `(batch, height, width, bands)`, 0..255, to float32
        probabilities `(batch, height, width, classes)`. Height and width must be
        multiples of `size_multiple`.

    Raises:
        ValueError: If no network has this name, the file holds other weights, or there
            is no encoder to give them to.
        FileNotFoundError: If there is no file of weights, or it cannot be fetched.
    """
    if encoder_weights and backbone in WITHOUT_ENCODER:
        raise InputError(
            "encoder_weights are of networks with an encoder, got "
            f"{encoder_weights!r} for {backbone}"
        )
    pixels = keras.Input((None, None, bands), name="pixels")
    x = pixels
    if bands != 3 and backbone not in WITHOUT_ENCODER:
        x = layers.Conv2D(3, 1, name="bands")(x)
    x = _scaling(backbone)(x)
    if backbone in OURS:
        if backbone == "lite":
            maps = _lite(x, filters, momentum)
        elif backbone == "plain":
            maps = _plain(x, filters, blocks, momentum)
        else:
            maps = _convnn(x, filters, blocks, skips, momentum)
        logits = layers.Conv2D(classes, 1, dtype="float32", name="final")(maps)
    else:
        logits = _encoder_unet(backbone, classes, encoder_weights, momentum)(x)
    # In half precision a probability near one would be rounded to it.
    maps = layers.Activation("sigmoid", dtype="float32", name="probability")(logits)
    model = keras.Model(pixels, maps, name=backbone)
    if backbone == "lite":
        _load_lite_weights(model, encoder_weights)
    return model


def _plain(x, filters: int, blocks: int, momentum: float):
    """A U-Net (Ronneberger et al. 2015) with batch norm, small enough for a CPU."""
    skips = []
    for depth in range(blocks):
        x = _convolve(x, filters * 2**depth, 2, f"encoder{depth}", momentum)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"encoder{depth}_pool")(x)
    x = _convolve(x, filters * 2**blocks, 2, "center", momentum)
    return _decode(x, skips, [filters * 2**depth for depth in range(blocks)], momentum)


def _lite(x, filters: int, momentum: float):
    """A U-Net on EfficientNet-Lite0, which starts at half the size of the image."""
    *skips, features = efficientnet_lite.encode(x, momentum)
    fine = _convolve(x, filters, 1, "decoder_fine", momentum)
    skips = [fine, *skips]
    widths = [filters * (1 + i) for i in range(len(skips))]
    return _decode(features, skips, widths, momentum)


def _decode(x, skips: list, filters: list[int], momentum: float, times: int = 2):
    """Bring features back to the size of the image; the finest skip comes first."""
    for depth in reversed(range(len(skips))):
        x = layers.UpSampling2D(2, name=f"decoder{depth}_up")(x)
        if skips[depth] is not None:
            x = layers.Concatenate(name=f"decoder{depth}_skip")([x, skips[depth]])
        x = _convolve(x, filters[depth], times, f"decoder{depth}", momentum)
    return x


def _load_lite_weights(model: keras.Model, weights: str | None) -> None:
    if weights not in (None, "imagenet"):
        raise InputError(
            f"encoder_weights of lite must be imagenet, or none, got {weights!r}"
        )
    if weights:
        efficientnet_lite.load_weights(model)


def _convnn(x, filters: int, blocks: int, skips: bool, momentum: float):
    """The paper's ConvNN (Section 4.1): one convolution a block, each way."""
    widths = [filters * 2**depth for depth in range(blocks)]
    skipped = []
    for depth, width in enumerate(widths):
        x = _convolve(x, width, 1, f"encoder{depth}", momentum)
        skipped.append(x if skips else None)
        x = layers.MaxPooling2D(2, name=f"encoder{depth}_pool")(x)
    return _decode(x, skipped, widths, momentum, times=1)


def _convolve(x, filters: int, times: int, name: str, momentum: float):
    for i in range(times):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, name=f"{name}_conv{i}"
        )(x)
        x = layers.BatchNormalization(momentum=momentum, name=f"{name}_bn{i}")(x)
        x = layers.Activation("relu", name=f"{name}_relu{i}")(x)
    return x


def encoder_names() -> list[str]:
    """Return the names of the encoders of segmodels-keras."""
    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        import segmodels_keras

    return sorted(segmodels_keras.Backbones.models_names())


def _encoder_unet(
    backbone: str, classes: int, weights: str | None, momentum: float
) -> keras.Model:
    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        import segmodels_keras

    if backbone not in encoder_names():
        raise InputError(
            f"backbone must be one of {', '.join([*OURS, *encoder_names()])}, "
            f"got {backbone!r}"
        )
    skips: Any = "default"
    if backbone.startswith("densenet"):  # Keras 3 names the stem with an underscore
        names = segmodels_keras.Backbones.get_feature_layers(backbone, n=4)
        skips = [name.replace("conv1/relu", "conv1_relu") for name in names]
    is_torchvision = backbone in torchvision.NAMES and str(weights).endswith(
        ".safetensors"
    )
    if weights == "imagenet" and backbone in torchvision.NAMES:
        raise FileNotFoundError(
            f"the ImageNet weights of {backbone} are not fetched: get "
            f"{torchvision.URL.format(backbone)} and give its path as encoder_weights"
        )
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"no such file of encoder weights: {weights}")
    try:
        unet = segmodels_keras.Unet(
            backbone,
            input_shape=(None, None, 3),
            classes=classes,
            activation="linear",
            encoder_weights=None if is_torchvision else weights,
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
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum
    if is_torchvision:
        torchvision.load_weights(unet, Path(str(weights)))
    return _with_our_sums(unet)


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


def _with_our_sums(unet: keras.Model) -> keras.Model:
    """Return the network with `ScaledSum` where a layer cannot be loaded safely."""

    def copy(layer: layers.Layer) -> layers.Layer:
        kind = type(layer)
        if kind.__name__ == "CustomScaleLayer":
            kind = ScaledSum
        return kind.from_config(layer.get_config())

    if not any(type(layer).__name__ == "CustomScaleLayer" for layer in unet.layers):
        return unet
    ours = keras.models.clone_model(unet, clone_function=copy)
    ours.set_weights(unet.get_weights())
    return ours


def _scaling(backbone: str) -> keras.layers.Layer:
    """Return the scaling that an encoder was trained with; our own nets take any."""
    if backbone == "lite":
        return efficientnet_lite.scale_pixels()
    if backbone.startswith(("resnet50", "resnet101", "resnet152", "vgg")) and (
        not backbone.endswith("v2")
    ):
        return Caffe(name="scaling")
    if backbone.startswith("densenet") or backbone in torchvision.NAMES:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        return layers.Rescaling(
            [1 / (255 * s) for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
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


def set_trainable(model: keras.Model, which: str) -> None:
    """Choose what trains in a stage. Compile the model afterwards.

    Frozen batch norm layers also keep their moving averages.

    Args:
        model: A model of `build_model`.
        which: `decoder`, `decoder and batch norm` (of the encoder too), or `all`.

    Raises:
        ValueError: If `which` is none of these.
    """
    if which not in TRAINABLE:
        raise InputError(f"trainable must be one of {TRAINABLE}, got {which!r}")
    for layer in _leaves(model):
        is_decoder = layer.name.startswith(DECODER)
        is_batch_norm = isinstance(layer, layers.BatchNormalization)
        layer.trainable = (
            which == "all"
            or is_decoder
            or (which == "decoder and batch norm" and is_batch_norm)
        )


def _leaves(model: keras.Model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def save_model(model: keras.Model, path: Path, facts: dict[str, Any]) -> None:
    """Save a model with what it must be told at prediction.

    Args:
        model: Any Keras model.
        path: File that ends in `.keras`; replaced whole if it exists.
        facts: What is known of the model: bands, classes, window, resolution in
            metres, threshold, name.
    """
    with atomic_path(path) as partial:
        model.save(partial)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(METADATA, json.dumps(facts, indent=2))


class Predictor(NamedTuple):
    """A model ready to predict, and what must be known of it.

    Attributes:
        name: What it is called.
        predict: Callable from pixels `(batch, window, window, bands)`, 0..255, to
            probabilities `(batch, window, window, 1)`, as NumPy arrays.
        bands: Number of bands that it takes.
        window: Side of the patches that it was trained on, in pixels.
        multiple: What the side of a window must be a multiple of.
        threshold: Probability from which a pixel is building.
        resolution: Side of a pixel that it was trained on, in metres; None if unknown.
        tta: Test-time augmentation that it was scored with, a name in `tta.MODES`.
        digest: What changes whenever the file changes; empty for no file.
        network: The Keras model that predicts; None for another callable.
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    bands: int
    window: int
    multiple: int
    threshold: float
    resolution: float | None
    tta: str = "none"
    digest: str = ""
    network: keras.Model | None = None

    def check_window(self, window: int) -> None:
        """Refuse a window that the network cannot halve often enough.

        Args:
            window: Side in pixels.

        Raises:
            ValueError: If it is not a multiple of `multiple`.
        """
        if window < 1 or window % self.multiple:
            raise InputError(
                f"window must be a multiple of {self.multiple} pixels for this model, "
                f"got {window}"
            )
        # Pixels and probabilities, in float32, are the least of it.
        needed = 4 * window**2 * (self.bands + 1)
        refuse_beyond_memory(needed, f"a window of {window} x {window} pixels")


def load_predictor(path: Path) -> Predictor:
    """Load a model to predict with.

    Args:
        path: A `.keras` file of this package, or any other of a network from
            `(batch, height, width, bands)` to one map of probabilities.

    Returns:
        The predictor.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Keras model, or not such a network.
    """
    model, facts = load_model(path)
    taken, given = model.input_shape, model.output_shape
    if not isinstance(taken, tuple) or len(taken) != 4 or taken[-1] is None:
        raise InputError(
            f"a model must take images of known bands, got {taken}: {path}"
        )
    if not isinstance(given, tuple) or len(given) != 4 or given[-1] != 1:
        raise InputError(f"a model must give one map of buildings, got {given}: {path}")
    return Predictor(
        name=facts.get("name", path.stem),
        predict=model.predict_on_batch,
        bands=taken[-1],
        window=facts.get("window") or taken[1] or WINDOW,
        multiple=facts.get("multiple", 1),
        threshold=facts.get("threshold", 0.5),
        resolution=facts.get("resolution"),
        tta=facts.get("tta", "none"),
        digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        network=model,
    )


def load_model(path: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Load a model, in Keras's safe mode, and what it says of itself.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled, and its facts (empty for a model that another
        program saved).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Keras model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"not a Keras model: {path}")
    if path.suffix != ".keras":  # or Keras refuses it, in five lines
        raise InputError(f"a model must be a file that ends in .keras, got {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except DAMAGED as error:
        raise DamagedFileError(f"not a Keras model: {path} ({error})") from error
    refuse_beyond_memory(size, f"the model {path}")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # of an odd file Keras raises what it comes to
        reason = str(error).strip().splitlines()
        raise InputError(
            f"not a Keras model: {path} ({reason[0] if reason else error})"
        ) from error
    with zipfile.ZipFile(path) as archive:
        known = METADATA in archive.namelist()
        try:
            facts = json.loads(archive.read(METADATA)) if known else {}
        except DAMAGED as error:
            raise DamagedFileError(
                f"damaged {METADATA} in this model: {path}"
            ) from error
    _check_facts(facts, path)
    return model, facts


def _check_facts(facts: Any, path: Path) -> None:
    """Refuse facts of a model that cannot be."""
    if not isinstance(facts, dict):
        raise InputError(
            f"{METADATA} of a model must be a table, got {facts!r}: {path}"
        )
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (lambda v: isinstance(v, str), "a text"),
        "window": (_is_whole, "a whole number above 0"),
        "multiple": (_is_whole, "a whole number above 0"),
        "threshold": (lambda v: _is_number(v) and 0 <= v <= 1, "in [0, 1]"),
        "resolution": (
            lambda v: v is None or (_is_number(v) and 0 < v < math.inf),
            "a number of metres above 0",
        ),
        "tta": (lambda v: isinstance(v, str), "a text"),
    }
    for key, (holds, rule) in rules.items():
        if key in facts and not holds(facts[key]):
            raise InputError(
                f"{key} of a model must be {rule}, got {facts[key]!r}: {path}"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
