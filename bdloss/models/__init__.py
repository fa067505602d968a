"""Networks: pixels 0..255 in, probabilities out; what trains in which stage.

    build_model -> scale_pixels -> encoder -> decoder -> save_model -> load_predictor

`unet` builds them, `encoders` those of segmodels-keras, `efficientnet_lite` the one
whose weights come with the package; `torchvision` reads weights of ResNet. `files`
saves a model together with what must be known of it to predict.
"""

from bdloss.models.unet import (
    METADATA,
    MOMENTUM,
    TRAINABLE,
    WITHOUT_ENCODER,
    Caffe,
    Predictor,
    ScaledSum,
    build_model,
    encoder_names,
    load_model,
    load_predictor,
    save_model,
    set_trainable,
    size_multiple,
)

__all__ = [
    "METADATA",
    "MOMENTUM",
    "TRAINABLE",
    "WITHOUT_ENCODER",
    "Caffe",
    "Predictor",
    "ScaledSum",
    "build_model",
    "encoder_names",
    "load_model",
    "load_predictor",
    "save_model",
    "set_trainable",
    "size_multiple",
]
