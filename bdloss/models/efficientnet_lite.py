"""EfficientNet-Lite0 (Tan & Le 2019) with ImageNet weights that need no download.

The encoder is cut at stride 16, after its eleventh block. Its weights travel with the
package (`bdloss/weights/`, with their source and licence) in half precision.
"""

from importlib import resources
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

WEIGHTS_FILE = "efficientnet_lite0.npz"
BATCH_NORM_EPSILON = 1e-3  # as it was trained
STEM_FILTERS = 32
COARSEST_STRIDE = 16  # pixels


class Block(NamedTuple):
    """One inverted bottleneck (Sandler et al. 2018)."""

    kernel: int
    stride: int
    expansion: int
    filters: int


BLOCKS = (
    Block(3, 1, 1, 16),
    Block(3, 2, 6, 24),
    Block(3, 1, 6, 24),
    Block(5, 2, 6, 40),
    Block(5, 1, 6, 40),
    Block(3, 2, 6, 80),
    Block(3, 1, 6, 80),
    Block(3, 1, 6, 80),
    Block(5, 1, 6, 112),
    Block(5, 1, 6, 112),
    Block(5, 1, 6, 112),
)


def scale_pixels() -> keras.layers.Layer:
    """Return the scaling that the weights were trained with: (x - 127) / 128."""
    return layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")


def encode(x, momentum: float = 0.99) -> list:
    """Build the encoder on scaled pixels.

    Args:
        x: Keras tensor of shape `(batch, height, width, 3)`, as `scale_pixels` gives.
        momentum: Of batch norm.

    Returns:
        Features at strides 2, 4, 8 and 16, with 16, 24, 40 and 112 channels.
    """
    x = _convolve(x, "lite_stem", STEM_FILTERS, 3, 2, momentum)
    features = []
    for number, block in enumerate(BLOCKS):
        if block.stride == 2:
            features.append(x)
        x = _bottleneck(x, f"lite_block{number}", block, momentum)
    return [*features, x]


def load_weights(model: keras.Model) -> None:
    """Put the ImageNet weights into the encoder of a model.

    Args:
        model: A model that was built on `encode`.
    """
    file = resources.files("bdloss") / "weights" / WEIGHTS_FILE
    with file.open("rb") as stream, np.load(stream) as weights:
        for name in {key.split("/")[0] for key in weights.files}:
            layer = model.get_layer(name)
            layer.set_weights(
                [
                    weights[f"{name}/{weight.name}"].astype(np.float32)
                    for weight in layer.weights
                ]
            )


def _bottleneck(x, name: str, block: Block, momentum: float):
    channels = x.shape[-1]
    y = x
    if block.expansion > 1:
        filters = channels * block.expansion
        y = _convolve(y, f"{name}_expand", filters, 1, 1, momentum)
    y = layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise",
    )(y)
    y = _normalise(y, f"{name}_depthwise", momentum)
    y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(y)
    y = layers.Conv2D(block.filters, 1, use_bias=False, name=f"{name}_project")(y)
    y = _normalise(y, f"{name}_project", momentum)
    if block.stride == 1 and channels == block.filters:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def _convolve(x, name: str, filters: int, kernel: int, stride: int, momentum: float):
    x = layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, name=name
    )(x)
    x = _normalise(x, name, momentum)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _normalise(x, name: str, momentum: float):
    return layers.BatchNormalization(
        epsilon=BATCH_NORM_EPSILON, momentum=momentum, name=f"{name}_bn"
    )(x)
