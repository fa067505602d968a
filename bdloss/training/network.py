"""The network of an experiment."""

from collections.abc import Sequence
from typing import Annotated, Literal

import keras
from pydantic import Field, model_validator

from bdloss import models
from bdloss.constants import BUILDING, CONTACT
from bdloss.errors import InputError
from bdloss.settings import Fraction, NonNegative, Settings


class ModelSettings(Settings):
    """Settings of the network, as `models.build_model` takes them."""

    backbone: str = "plain"
    encoder_weights: str = ""  # imagenet | a file | nothing for random weights
    start: str = ""  # a model.keras whose network and weights it begins with
    keep: NonNegative = 0.0  # square metres of labels from which on these count less
    # Beyond these bounds no network would fit into any memory.
    filters: Annotated[int, Field(gt=0, le=1024)] = 16  # of the first block
    blocks: Annotated[int, Field(gt=0, le=10)] = 4  # times the image is halved
    skips: bool = True  # whether convnn has skip connections
    momentum: Fraction = models.BATCH_NORM_MOMENTUM  # of batch norm's moving averages
    activation: Literal["sigmoid", "softmax"] = "sigmoid"  # softmax: one class a pixel

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        if self.encoder_weights and self.backbone in models.WITHOUT_ENCODER_WEIGHTS:
            raise InputError(
                "model.encoder_weights are of networks with an encoder, got "
                f"{self.encoder_weights!r} for {self.backbone}"
            )
        if self.encoder_weights and self.start:
            raise InputError(
                "model.start has weights of the encoder too; leave out "
                f"model.encoder_weights = {self.encoder_weights!r}"
            )
        if not self.skips and self.backbone != "convnn":
            raise InputError(
                "model.skips can be left out of convnn only, got backbone "
                f"{self.backbone!r}"
            )
        return self


def build_network(
    settings: ModelSettings,
    bands: int,
    targets: Sequence[str] = (BUILDING,),
    policy: str = "float32",
    weights: str = "",
) -> keras.Model:
    """Build the network of an experiment.

    Args:
        settings: Its settings; `encoder_weights` are not used.
        bands: Number of bands of an image.
        targets: Names of its maps: classes, then `contact` if it has that map.
        policy: Keras's dtype policy that its layers are made with.
        weights: Weights of its encoder: `imagenet`, a file, or nothing.

    Returns:
        The network, not compiled.

    Raises:
        ValueError: If contact is wanted of classes that exclude each other, or as
            `models.build_model` says.
    """
    if settings.activation == "softmax" and CONTACT in targets:
        raise InputError(
            "a map of contact needs model.activation = sigmoid, got softmax"
        )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return models.build_model(
            settings.backbone,
            bands=bands,
            classes=len(targets),
            filters=settings.filters,
            blocks=settings.blocks,
            encoder_weights=weights or None,
            skips=settings.skips,
            momentum=settings.momentum,
            activation=settings.activation,
        )
    finally:
        keras.config.set_dtype_policy(before)
