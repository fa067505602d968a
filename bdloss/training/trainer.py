"""A network in training: through its stages, resumable after any epoch."""

import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import keras
import numpy as np
from pydantic import Field

from bdloss import callbacks, losses, metrics, models
from bdloss.constants import IGNORED
from bdloss.errors import InputError
from bdloss.plots import draw_examples
from bdloss.settings import Count, Settings
from bdloss.training.batches import Batches
from bdloss.training.checkpoints import State
from bdloss.training.devices import ALONE, Devices
from bdloss.training.schedules import (
    MIN_DELTA,
    StageSettings,
    learning_rate,
    reduced_rate,
)

EXAMPLES = 4  # patches that TensorBoard shows
JIT_COMPILE = {"auto": "auto", "on": True, "off": False}  # as Keras takes it


class FitSettings(Settings):
    """How a network is fitted."""

    clipnorm: Annotated[float, Field(ge=0)] = 0.0  # of all gradients; 0 leaves them
    patience: Count = 0  # epochs without a better validation IoU that end it; 0: never
    tolerance: Annotated[float, Field(gt=0, le=100)] = 3.0  # pixels, of BF1
    mixed_precision: bool = False  # float16 inside, for GPUs with tensor cores
    jit_compile: Literal["auto", "on", "off"] = "auto"  # XLA: on one GPU, and on JAX
    tensorboard: bool = True  # whether logs are written, with TensorFlow


class Trainer:
    """A network, the patches it learns from, and how far it is.

    Attributes:
        model: The network.
        batches: What it learns from.
        rows: A row an epoch, as Keras logs them, with the epoch counted from 1.
        verbose: Keras's.
        devices: The devices that train.
        min_delta: What a validation loss must fall by to count on a plateau.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        loss: losses.CombinedLoss,
        stages: Sequence[StageSettings],
        settings: FitSettings | None = None,
        *,
        threshold: float = 0.5,
        classes: int | None = None,
        verbose: int = 1,
        devices: Devices = ALONE,
    ):
        """Prepare a training.

        Args:
            model: A network of `bdloss.models`.
            batches: What it learns from, and is validated on.
            loss: What is minimised.
            stages: Its schedule; validation may be missing unless one has a plateau.
            settings: How it is fitted.
            threshold: Probability from which a pixel is building, of the metrics.
            classes: How many maps of the network, from the first, are classes, over
                which the metrics take the mean; None if it has one map only.
            verbose: Keras's.
            devices: The devices that train it; the model was made in its scope.
        """
        self.model = model
        self.batches = batches
        self.verbose = verbose
        self.devices = devices
        self.rows: list[dict[str, float]] = []
        self.min_delta = MIN_DELTA
        self._loss = loss
        self._stages = stages
        self._settings = settings or FitSettings()
        self._threshold = threshold
        self._classes = classes
        self._stage: StageSettings | None = None  # the one it is compiled for
        self._started = time.monotonic()

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self._stages)

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return len(self.rows)

    @property
    def seconds(self) -> float:
        """Time spent, that of earlier runs included."""
        return time.monotonic() - self._started

    @property
    def best_epoch(self) -> int:
        """Epoch of the best validation IoU, or the last one, counted from 1."""
        scores = [row.get("val_iou", row["epoch"]) for row in self.rows]
        return 1 + int(np.argmax(scores)) if scores else 0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` is over in the last stage."""
        before = self.epochs - self._stages[-1].epochs
        waited = self.epoch - max(self.best_epoch, before)
        return self.epoch >= self.epochs or 0 < self._settings.patience <= waited

    def fit_until(
        self,
        last: int,
        weight: keras.callbacks.Callback | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        stops_early: bool = True,
    ) -> None:
        """Train up to an epoch.

        Args:
            last: Epochs that shall be finished then.
            weight: Callback that sets w; None leaves it.
            callbacks: Others; at the end of an epoch they find its row in `rows`.
            stops_early: Whether `patience` may end it before.

        Raises:
            ValueError: If the loss is not finite.
        """
        while self.epoch < last and not (stops_early and self.finished):
            stage, end = self._stage_at(self.epoch)
            self._compile(stage)
            if self.epoch == end - stage.epochs:
                self._renew_optimizer()
            self.model.fit(
                self.batches.train,
                validation_data=self.batches.validation,
                initial_epoch=self.epoch,
                epochs=min(end, last),
                callbacks=[*([weight] if weight else []), _Epochs(self), *callbacks],
                shuffle=False,  # patches are random by themselves, and by their seed
                verbose=self.verbose,
            )

    def examples(self) -> np.ndarray | None:
        """Return pictures of some patches of the validation beside the prediction."""
        validation = self.batches.validation
        if not validation:
            return None
        batch = validation[len(validation) // 2]
        pixels, masks = (part[:EXAMPLES] for part in batch)
        # Mirrored devices predict the same patches, one after another.
        probabilities = self.model.predict_on_batch(pixels)[: len(pixels)]
        return draw_examples(pixels, masks, probabilities)

    def measure_step(self) -> float:
        """Return the seconds that a batch takes, and leave everything as it was."""
        self._compile(self._stage_at(self.epoch)[0])
        variables = [*self.model.variables, *self.model.optimizer.variables]
        before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
        timer = _StepTimer()
        # As the training itself, which so finds its step compiled.
        self.model.fit(_SameBatch(self.batches.train[0]), callbacks=[timer], verbose=0)
        _assign(variables, before)
        return timer.seconds

    def steps(self) -> tuple[int, int]:
        """Return the batches of an epoch, to train with and to validate on."""
        return len(self.batches.train), len(self.batches.validation or ())

    def state(self) -> State:
        """Return a copy of all that is needed to go on from here."""
        optimizer = self.model.optimizer.variables if self._stage else []
        return State(
            list(self.rows),
            self.seconds,
            [keras.ops.convert_to_numpy(v).copy() for v in self.model.variables],
            [keras.ops.convert_to_numpy(v).copy() for v in optimizer],
        )

    def restore(self, state: State) -> None:
        """Go back, or on, to where `state` was taken. Time does not run back.

        Raises:
            ValueError: If it is that of another network.
        """
        _assign(self.model.variables, state.network)
        self.rows = list(state.rows)
        self._started -= max(0.0, state.seconds - self.seconds)
        if self.rows and "w" in self.rows[-1]:
            self._loss.w.assign(self.rows[-1]["w"])
        stage, end = self._stage_at(state.epoch)
        if state.optimizer and state.epoch > end - stage.epochs:
            self._compile(stage)
            _assign(self.model.optimizer.variables, state.optimizer)

    def _stage_at(self, epoch: int) -> tuple[StageSettings, int]:
        """Return the stage that an epoch (from 0) belongs to, and where it ends."""
        end = 0
        for stage in self._stages:
            end += stage.epochs
            if epoch < end:
                break
        return stage, end

    def _compile(self, stage: StageSettings) -> None:
        if self._stage is stage:
            return
        settings = self._settings
        counted: dict[str, Any] = {"ignore": IGNORED, "classes": self._classes}
        models.set_trainable(self.model, stage.trainable)
        self.model.compile(
            keras.optimizers.Adam(
                learning_rate(stage, len(self.batches.train)),
                global_clipnorm=settings.clipnorm or None,
            ),
            self._loss,
            metrics=[
                metrics.IoU(self._threshold, **counted),
                metrics.BoundaryF1(settings.tolerance, self._threshold, **counted),
                metrics.BoundaryIoU(self._threshold, **counted),
            ],
            jit_compile=JIT_COMPILE[settings.jit_compile],
        )
        # Not Adam itself: in mixed precision Keras wraps it, to scale the loss.
        self.model.optimizer.build(self.model.trainable_variables)
        if keras.backend.backend() == "jax" and self._loss.extra is not None:
            callbacks.carry_weight(self.model)  # before the first step is traced
        self._stage = stage

    def _renew_optimizer(self) -> None:
        """Forget what an earlier branch, or a measured step, has left in it."""
        optimizer = self.model.optimizer
        for variable in optimizer.variables:
            if variable is not optimizer.learning_rate:
                variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer.dynamic_scale.assign(optimizer.initial_scale)

    def _begin_epoch(self) -> None:
        """Set the patches of the epoch, and the rate that its stage has come to."""
        self.batches.train.epoch = self.epoch
        stage, end = self._stage_at(self.epoch)
        if stage.plateau:
            rows = self.rows[end - stage.epochs :]
            rate = reduced_rate(stage, rows, self.min_delta)
            self.model.optimizer.learning_rate = rate

    def _end_epoch(self, logs: dict[str, Any]) -> None:
        row = {name: float(value) for name, value in logs.items()}
        row.pop("val_w", None)  # on JAX, where w is carried as a metric
        if "val_loss" in row and not self._loss.batch:  # else blanks have a share
            row["val_loss"] *= self.batches.padding
        if not all(math.isfinite(row.get(name, 0.0)) for name in ("loss", "val_loss")):
            raise InputError(self._not_finite())
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        trained = sum(math.prod(w.shape) for w in self.model.trainable_variables)
        self.rows.append(
            {
                "epoch": self.epoch + 1,
                **row,
                "learning_rate": rate,
                "trainable_parameters": trained,
            }
        )

    def _not_finite(self, batch: int | None = None) -> str:
        """Say where the loss was not finite: in a batch, or while validating."""
        where = "validation"
        if batch is not None:
            names, windows = self.batches.names, self.batches.train.windows(batch)
            patches = [
                f"{names[scene]}[{row}:{row + height}, {col}:{col + width}]"
                for scene, (row, col, height, width) in windows
            ]
            where = f"batch {batch + 1} of patches {', '.join(patches)}"
        clip = "" if self._settings.clipnorm else ", or fit.clipnorm = 1.0,"
        return (
            f"the loss is not finite in epoch {self.epoch + 1}, {where}; the last good "
            f"checkpoint is kept; a lower learning rate{clip} may help"
        )


class _Epochs(keras.callbacks.Callback):
    """Add the row of each epoch, and stop where the training is finished."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer

    def on_epoch_begin(self, epoch, logs=None):
        self.trainer._begin_epoch()

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise InputError(self.trainer._not_finite(batch))

    def on_epoch_end(self, epoch, logs=None):
        self.trainer._end_epoch(logs or {})
        if self.trainer.finished:
            self.model.stop_training = True


class _SameBatch(keras.utils.PyDataset):
    """A batch twice: once to compile a step, once to time it."""

    def __init__(self, batch: Any):
        super().__init__()
        self._batch = batch

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return self._batch


class _StepTimer(keras.callbacks.Callback):
    """Knows the seconds that the last step took."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self._began = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.monotonic() - self._began


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if [tuple(v.shape) for v in variables] != [value.shape for value in values]:
        raise InputError(
            "the checkpoint is that of another network; give another --out or --fresh"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
