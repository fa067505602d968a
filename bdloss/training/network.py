"""The network of an experiment."""

from typing import Annotated

import keras
from pydantic import Field, model_validator

from bdloss import models
from bdloss.errors import InputError
from bdloss.settings import Fraction, Settings


class ModelSettings(Settings):
    """Settings of the network, as `models.build_model` takes them."""

    backbone: str = "plain"
    encoder_weights: str = ""  # imagenet | a file | nothing for random weights
    # Beyond these bounds no network would fit into any memory.
    filters: Annotated[int, Field(gt=0, le=1024)] = 16  # of the first block
    blocks: Annotated[int, Field(gt=0, le=10)] = 4  # times the image is halved
    skips: bool = True  # whether convnn has skip connections
    momentum: Fraction = models.BATCH_NORM_MOMENTUM  # of batch norm's moving averages

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        if self.encoder_weights and self.backbone in models.WITHOUT_ENCODER_WEIGHTS:
            raise InputError(
                "model.encoder_weights are of networks with an encoder, got "
                f"{self.encoder_weights!r} for {self.backbone}"
            )
        if not self.skips and self.backbone != "convnn":
            raise InputError(
                "model.skips can be left out of convnn only, got backbone "
                f"{self.backbone!r}"
            )
        return self


def build_network(
    settings: ModelSettings, bands: int, policy: str = "float32", weights: str = ""
) -> keras.Model:
    """Build the network of an experiment.

    Args:
        settings: Its settings; `encoder_weights` are not used.
        bands: Number of bands of an image.
        policy: Keras's dtype policy that its layers are made with.
        weights: Weights of its encoder: `imagenet`, a file, or nothing.

    Returns:
        The network, not compiled.

    Raises:
        ValueError: As `models.build_model` does.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return models.build_model(
            settings.backbone,
            bands=bands,
            filters=settings.filters,
            blocks=settings.blocks,
            encoder_weights=weights or None,
            skips=settings.skips,
            momentum=settings.momentum,
        )
    finally:
        keras.config.set_dtype_policy(before)
