"""Networks: pixels 0..255 in, probabilities out; what trains in which stage.

    build_model -> save_model -> load_predictor

`unet` builds them: on no encoder, on `efficientnet_lite`, whose weights come with the
package, or on one of `encoders`, those of segmodels-keras; `torchvision` reads weights
of ResNet for these. `files` saves a model with the metadata that prediction needs;
`targets` names its maps.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bdloss.models.files import (
    METADATA_FILE,
    SHIPPED,
    Predictor,
    digest_of,
    find_model,
    load_model,
    load_predictor,
    read_metadata,
    save_model,
)
from bdloss.models.targets import class_names

if TYPE_CHECKING:
    from bdloss.models.encoders import Caffe, ScaledSum, encoder_names
    from bdloss.models.unet import (
        BATCH_NORM_MOMENTUM,
        TRAINABLE,
        WITHOUT_ENCODER_WEIGHTS,
        ForegroundSoftmax,
        build_model,
        flatten_layers,
        set_trainable,
        size_multiple,
    )

__all__ = [
    "BATCH_NORM_MOMENTUM",
    "METADATA_FILE",
    "SHIPPED",
    "TRAINABLE",
    "WITHOUT_ENCODER_WEIGHTS",
    "Caffe",
    "ForegroundSoftmax",
    "Predictor",
    "ScaledSum",
    "build_model",
    "class_names",
    "digest_of",
    "encoder_names",
    "find_model",
    "flatten_layers",
    "load_model",
    "load_predictor",
    "read_metadata",
    "save_model",
    "set_trainable",
    "size_multiple",
]


def __getattr__(name: str) -> Any:
    """Return what builds networks; Keras is imported when it is asked for."""
    if name in __all__:
        for module in ("unet", "encoders"):
            found = importlib.import_module(f"bdloss.models.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
