"""Features of VGG19 and their distance, as in Mosinska et al. (2018).

*Beyond the Pixel-Wise Loss for Topology-Aware Delineation* (CVPR 2018) compares
ground truth and prediction by their features in three layers of VGG19.
`bdloss.losses.VGGLoss` is the loss; this module is the network and the distance.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from bdloss.errors import InputError
from bdloss.losses.inputs import mean_over_images

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv4")
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions, filters
WHITE = 255.0  # the pixel value that VGG19 is given for a 1 in a map
MEAN = np.array([103.939, 116.779, 123.68], "float32")  # of ImageNet: blue, green, red
FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{FILE}"
MD5 = "253f8cb515780f3b799900260a226db6"


@keras.saving.register_keras_serializable("bdloss")
class VGGFeatures:
    """Features of VGG19: a frozen float32 network, up to the deepest layer asked for.

    A map is given to the network as a grey image of values 0..255, the range it was
    trained on; features are divided by 255. A model that is trained with it is saved
    without its weights: only `weights` and `layers` are, so a file given by path must
    be there on loading.

    Args:
        weights: `"imagenet"` (fetched once, 80 MB), the path of a weights file
            (`.h5`, `.weights.h5` or `.keras` of Keras's VGG19, with or without its
            dense layers), or None for random weights, which are not saved at all.
        layers: Names of the convolutions whose features are returned, as Keras has
            them, `"block1_conv1"` to `"block5_conv4"`.

    Raises:
        FileNotFoundError: If there is no such file, or the ImageNet weights can be
            neither found nor fetched.
        ValueError: If a layer is not known, or the file holds other weights.
    """

    def __init__(
        self,
        weights: str | os.PathLike | None = "imagenet",
        layers: Sequence[str] = LAYERS,
    ):
        self.weights = None if weights is None else os.fspath(weights)
        self.layers = list(layers)
        # Weights still zero after loading show that the file holds something else.
        self.network = _build(
            self.layers, "zeros" if weights is not None else "glorot_uniform"
        )
        self.network.trainable = False
        if self.weights is not None:
            _load(self.network, self.weights)

    def __call__(self, maps):
        """Return the features of maps.

        Args:
            maps: Tensor of shape `(batch, height, width, 1)`, values in [0, 1].

        Returns:
            One tensor of shape `(batch, rows, columns, filters)` for each layer.

        Raises:
            ValueError: If a map is too small for the deepest layer.
        """
        smallest = 2 ** (_block_of(self.layers) - 1)
        if any(side is not None and side < smallest for side in maps.shape[1:3]):
            raise InputError(
                f"{', '.join(self.layers)} need at least {smallest} x {smallest} "
                f"pixels, got shape {tuple(maps.shape)}"
            )
        mean = ops.convert_to_tensor(MEAN, dtype="float32")
        maps = ops.convert_to_tensor(maps, dtype="float32")
        features = self.network(WHITE * maps - mean, training=False)
        features = [features] if len(self.layers) == 1 else features
        return [ops.cast(feature, "float32") / WHITE for feature in features]

    def get_config(self) -> dict:
        """Return the settings, from which Keras can make the features again."""
        return {"weights": self.weights, "layers": self.layers}

    @classmethod
    def from_config(cls, config: dict) -> "VGGFeatures":
        """Return the features that `get_config` described."""
        return cls(**config)


def feature_distance(y_true, y_pred, extractor: Callable, batch: bool = False):
    """Return the squared difference of features, of each image and class.

    Args:
        y_true: Mask of shape `(batch, height, width, classes)`.
        y_pred: Map of the same shape.
        extractor: Takes maps of shape `(n, height, width, 1)`, returns a sequence of
            tensors `(n, rows, columns, filters)`.
        batch: Whether the mean is over all images.

    Returns:
        Values of shape `(batch, classes)`: means over pixels and filters, summed over
        layers. Each class is a grey image of its own.
    """
    images, _, _, classes = ops.shape(y_true)
    features = (extractor(_as_pictures(y)) for y in (y_true, y_pred))
    distance = 0.0
    for true, pred in zip(*features, strict=True):
        distance = distance + ops.mean(ops.square(pred - true), axis=(1, 2, 3))
    return mean_over_images(ops.reshape(distance, (images, classes)), batch)


def _as_pictures(maps):
    """Return `(batch, height, width, classes)` as `(batch * classes, ..., 1)`."""
    _, height, width, _ = ops.shape(maps)
    return ops.reshape(ops.transpose(maps, (0, 3, 1, 2)), (-1, height, width, 1))


def _build(layers: Sequence[str], initial: str) -> keras.Model:
    """Return VGG19 up to the deepest of the layers."""
    # Not keras.applications: it takes precision and layout from global settings.
    known = {}
    x = image = keras.Input((None, None, 3), dtype="float32")
    for block, (convolutions, filters) in enumerate(BLOCKS, 1):
        for number in range(1, convolutions + 1):
            name = f"block{block}_conv{number}"
            x = known[name] = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=initial,
                data_format="channels_last",
                dtype="float32",
                name=name,
            )(x)
        if layers and set(layers) <= set(known):
            break
        x = keras.layers.MaxPooling2D(
            data_format="channels_last", dtype="float32", name=f"block{block}_pool"
        )(x)
    if not layers or not set(layers) <= set(known):
        raise InputError(
            f"layers must be among {', '.join(known)}, "
            f"got {', '.join(layers) or 'none'}"
        )
    return keras.Model(image, [known[name] for name in layers], name="vgg19")


def _block_of(layers: Sequence[str]) -> int:
    """Return the number of the deepest block, from 1."""
    return max(int(name[len("block")]) for name in layers)


def _load(network: keras.Model, weights: str) -> None:
    """Load weights from a file, or from ImageNet's."""
    path = _fetch() if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of VGG19 weights: {path}")
    named = path.suffix in (".h5", ".hdf5") and not path.name.endswith(".weights.h5")
    try:
        with warnings.catch_warnings(action="ignore"):  # of weights not found
            network.load_weights(path, **({"by_name": True} if named else {}))
        loaded = all(np.any(ops.convert_to_numpy(w)) for w in _kernels(network))
    except (ValueError, OSError, KeyError):
        loaded = False
    if not loaded:
        raise InputError(f"not a Keras file of VGG19 weights: {path}")


def _kernels(network: keras.Model) -> list:
    return [layer.kernel for layer in network.layers if hasattr(layer, "kernel")]


def _fetch() -> Path:
    """Return the file of the ImageNet weights, downloaded if it is not there."""
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    try:
        return Path(
            keras.utils.get_file(FILE, URL, cache_subdir="models", file_hash=MD5)
        )
    except Exception as error:  # Keras raises a bare Exception
        raise FileNotFoundError(
            f"cannot fetch the ImageNet weights of VGG19: put {URL} into {folder}, "
            "or give the path of a weights file"
        ) from error
