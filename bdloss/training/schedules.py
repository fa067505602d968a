"""What changes over the epochs: the weight w, the stages and their learning rates."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import keras
from pydantic import Field, model_validator

from bdloss import callbacks
from bdloss.errors import InputError
from bdloss.settings import Count, Fraction, Positive, Settings

MIN_DELTA = 1e-4  # what a validation loss must fall by to count, as in Keras
MOVED = ("boundary", "oriented", "edge")  # losses whose weight moves


class WeightSettings(Settings):
    """The weight w of the extra loss; that of boundary losses moves over epochs.

    It is `start` until epoch `first`. The others "did not require any adjustments while
    training" (Section 4.2): theirs is `baseline` throughout.
    """

    baseline: Fraction = 0.5  # w of dice, ss and vgg
    policy: Literal["search", "ramp", "steps", "constant"] = "ramp"
    start: Fraction = 0.1
    end: Fraction = 0.5  # of a ramp
    first: Count = 0  # epoch at which w begins to change, counted from 0
    last: int = 10  # epoch at which a ramp has reached its end
    values: list[Fraction] = Field(default=[0.1, 0.3, 0.5, 0.7, 0.9], min_length=1)
    every: Positive = 30  # epochs between two steps, or two searches among `values`
    probe_epochs: Count = 0  # epochs a branch of a search is tried for; 0: all of them

    @model_validator(mode="after")
    def _check(self) -> "WeightSettings":
        if self.probe_epochs > self.every:
            raise InputError(
                f"weight.probe_epochs must lie in [0, every = {self.every}], "
                f"got {self.probe_epochs}"
            )
        if self.policy == "ramp" and not self.first < self.last:
            raise InputError(
                "weight.last must come after weight.first, "
                f"got first = {self.first}, last = {self.last}"
            )
        return self


class StageSettings(Settings):
    """A part of the training."""

    epochs: Annotated[int, Field(gt=0, le=100_000)] = 20
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: down to zero
    trainable: Literal["decoder", "decoder and batch norm", "all"] = "all"
    plateau: Count = 0  # epochs without a better validation loss that lower the rate
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # what they multiply it by

    @model_validator(mode="after")
    def _check(self) -> "StageSettings":
        if self.plateau and self.schedule != "constant":
            raise InputError(
                "stage.plateau needs schedule = constant, got " + self.schedule
            )
        return self


def weight_callback(settings: WeightSettings, extra: str) -> callbacks.ConstantWeight:
    """Return the callback that sets w over epochs.

    The paper adjusts that of the boundary loss alone (Section 4.2), we also those
    of the oriented one and of the cross-entropy near edges.

    Args:
        settings: How w moves; a search moves it by itself.
        extra: Which loss w is the weight of.
    """
    if extra not in MOVED:
        return callbacks.ConstantWeight(settings.baseline)
    if settings.policy == "ramp":
        return callbacks.BoundaryWeight(
            settings.start, settings.end, settings.first, settings.last
        )
    if settings.policy == "steps":
        return callbacks.SteppedWeight(
            settings.start, settings.values, settings.first, settings.every
        )
    return callbacks.ConstantWeight(settings.start)


def learning_rate(stage: StageSettings, steps: int) -> Any:
    """Return the learning rate of a stage, as an optimizer takes it.

    Args:
        stage: The stage.
        steps: Batches of an epoch.
    """
    if stage.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            stage.learning_rate, stage.epochs * steps
        )
    return stage.learning_rate


def reduced_rate(
    stage: StageSettings,
    rows: Sequence[dict[str, float]],
    min_delta: float = MIN_DELTA,
) -> float:
    """Return the learning rate after some epochs of a stage.

    It falls by `stage.factor` after each `stage.plateau` epochs without a better
    validation loss. A loss of another w is another loss: when w changes, waiting for a
    better one begins anew.

    Args:
        stage: A stage with a `plateau`.
        rows: Those of the epochs of the stage: `val_loss`, and `w` if there is one.
        min_delta: What a validation loss must fall by to be better.

    Example:
        >>> stage = StageSettings(learning_rate=0.1, plateau=2, factor=0.5)
        >>> rows = [{"val_loss": loss} for loss in (3.0, 2.0, 2.0, 2.0, 1.0)]
        >>> [reduced_rate(stage, rows[:n]) for n in range(6)]
        [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    """
    rate, best, waited = stage.learning_rate, math.inf, 0
    for before, row in zip([{}, *rows], rows, strict=False):
        if row.get("w") != before.get("w"):
            best, waited = math.inf, 0
        waited += 1
        if row["val_loss"] < best - min_delta:
            best, waited = row["val_loss"], 0
        if waited == stage.plateau:
            rate, waited = rate * stage.factor, 0
    return rate
