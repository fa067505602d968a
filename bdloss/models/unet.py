"""Networks: pixels 0..255 in, probabilities out; what trains in which stage.

Each network scales its pixels itself, in its first layer, so that training and
prediction cannot disagree.
"""

from collections.abc import Iterator

import keras
from keras import layers, ops

from bdloss.errors import InputError
from bdloss.models import efficientnet_lite, encoders

# With a few hundred steps the moving averages would lag at Keras's 0.99.
BATCH_NORM_MOMENTUM = 0.9
ACTIVATIONS = ("sigmoid", "softmax")
TRAINABLE = ("decoder", "decoder and batch norm", "all")
OWN_NETWORKS = ("plain", "convnn", "lite")  # the others are of segmodels-keras
WITHOUT_ENCODER_WEIGHTS = ("plain", "convnn")  # they train from random ones
DECODER_PREFIXES = ("bands", "decoder", "center", "final")  # of names of layers


def size_multiple(backbone: str, blocks: int) -> int:
    """Return what height and width of a patch must be multiples of, in pixels.

    Args:
        backbone: Name of a network, as in `build_model`.
        blocks: Times that `plain` and `convnn` halve the image.
    """
    if backbone == "lite":
        return efficientnet_lite.COARSEST_STRIDE
    return 2**blocks if backbone in OWN_NETWORKS else 32


def build_model(
    backbone: str = "plain",
    bands: int = 3,
    classes: int = 1,
    filters: int = 16,
    blocks: int = 4,
    encoder_weights: str | None = None,
    skips: bool = True,
    momentum: float = BATCH_NORM_MOMENTUM,
    activation: str = "sigmoid",
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
        activation: `sigmoid`, each map by itself, or `softmax` for classes that exclude
            each other: with that of the background, which is not given out, their
            probabilities add to 1.

    Returns:
        Model of pixels `(batch, height, width, bands)`, 0..255, to float32
        probabilities `(batch, height, width, classes)`. Height and width must be
        multiples of `size_multiple`.

    Raises:
        ValueError: If no network has this name, the file holds other weights, there is
            no encoder to give them to, or the activation is neither of the two.
        FileNotFoundError: If there is no file of weights, or it cannot be fetched.
    """
    if encoder_weights and backbone in WITHOUT_ENCODER_WEIGHTS:
        raise InputError(
            "encoder_weights are of networks with an encoder, got "
            f"{encoder_weights!r} for {backbone}"
        )
    if backbone not in OWN_NETWORKS and backbone not in encoders.encoder_names():
        known = [*OWN_NETWORKS, *encoders.encoder_names()]
        raise InputError(
            f"backbone must be one of {', '.join(known)}, got {backbone!r}"
        )
    if activation not in ACTIVATIONS:
        raise InputError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )
    logit_maps = classes + (activation == "softmax")
    pixels = keras.Input((None, None, bands), name="pixels")
    x = pixels
    if bands != 3 and backbone not in WITHOUT_ENCODER_WEIGHTS:
        x = layers.Conv2D(3, 1, name="bands")(x)
    x = _scale_pixels(backbone)(x)
    if backbone in OWN_NETWORKS:
        if backbone == "lite":
            maps = _lite(x, filters, momentum)
        elif backbone == "plain":
            maps = _plain(x, filters, blocks, momentum)
        else:
            maps = _convnn(x, filters, blocks, skips, momentum)
        logits = layers.Conv2D(logit_maps, 1, dtype="float32", name="final")(maps)
    else:
        unet = encoders.build_encoder_unet(
            backbone, logit_maps, encoder_weights, momentum
        )
        logits = unet(x)
    # In half precision a probability near one would be rounded to it.
    if activation == "softmax":
        probability = ForegroundSoftmax(dtype="float32", name="probability")
    else:
        probability = layers.Activation("sigmoid", dtype="float32", name="probability")
    maps = probability(logits)
    model = keras.Model(pixels, maps, name=backbone)
    if backbone == "lite":
        _load_lite_weights(model, encoder_weights)
    return model


# Saved models name this class: it keeps its name and its package.
@keras.saving.register_keras_serializable("bdloss")
class ForegroundSoftmax(layers.Layer):
    """Softmax over the background, which comes first, and classes; returns these."""

    def call(self, logits):
        """Return `(..., classes)` of logits of shape `(..., 1 + classes)`."""
        return ops.softmax(logits, axis=-1)[..., 1:]


def _scale_pixels(backbone: str) -> layers.Layer:
    """Return the scaling of the encoder; networks without one take any."""
    if backbone == "lite":
        return efficientnet_lite.scale_pixels()
    return encoders.scale_pixels(backbone)


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
    for layer in flatten_layers(model):
        is_decoder = layer.name.startswith(DECODER_PREFIXES)
        is_batch_norm = isinstance(layer, layers.BatchNormalization)
        layer.trainable = (
            which == "all"
            or is_decoder
            or (which == "decoder and batch norm" and is_batch_norm)
        )


def flatten_layers(model: keras.Model) -> Iterator[layers.Layer]:
    """Yield the layers of a model, and those of models inside it in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flatten_layers(layer)
        else:
            yield layer
