"""ResNet18 and ResNet34 (He et al. 2016) with the ImageNet weights of torchvision.

They are published as safetensors (`WEIGHTS_URL`), and are read here without PyTorch.
The encoders themselves are those of segmodels-keras.
"""

import re
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy

from bdloss.errors import InputError

WEIGHTS_URL = "https://huggingface.co/timm/{}.tv_in1k/resolve/main/model.safetensors"
BACKBONES = ("resnet18", "resnet34")
STEM_LAYERS = {"conv1_conv": "conv1", "conv1_bn": "bn1"}
VARIABLE_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_weights(model: keras.Model, path: Path) -> None:
    """Put weights from a file into the encoder of a model.

    Args:
        model: A model with the layers of a ResNet18 or ResNet34 of segmodels-keras.
        path: A `.safetensors` file with the names of torchvision (`layer1.0.conv1`).

    Raises:
        ValueError: If it is no such file, or that of another network.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"not a safetensors file: {path} ({error})") from error
    for layer in model.layers:
        prefix = _torchvision_name(layer.name)
        if prefix is None or not layer.weights:
            continue
        arrays = []
        for weight in layer.weights:
            name = f"{prefix}.{VARIABLE_NAMES[weight.name]}"
            if name not in tensors:
                raise InputError(f"no weights of such a ResNet: {path} (no {name})")
            array = tensors[name]
            if array.ndim == 4:  # filters, channels, rows, columns
                array = array.transpose(2, 3, 1, 0)
            arrays.append(array.astype(np.float32))
        layer.set_weights(arrays)


def _torchvision_name(layer: str) -> str | None:
    """Return the name that torchvision gives a layer, if it is one of the encoder.

    Example:
        >>> _torchvision_name("conv3_block2_1_bn")
        'layer2.1.bn1'
        >>> _torchvision_name("conv3_block1_0_conv")
        'layer2.0.downsample.0'
    """
    if layer in STEM_LAYERS:
        return STEM_LAYERS[layer]
    block = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer)
    if not block:
        return None
    stage, number, index, kind = block.groups()
    where = f"layer{int(stage) - 1}.{int(number) - 1}"
    if index == "0":
        return f"{where}.downsample.{0 if kind == 'conv' else 1}"
    return f"{where}.{kind}{index}"
