"""A network in training: through its stages, stopped and gone on with at any epoch."""

import csv
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bdloss import callbacks, losses, metrics, models
from bdloss.constants import IGNORED
from bdloss.data import augment, patches
from bdloss.data.scenes import SceneData
from bdloss.errors import InputError
from bdloss.files import atomic_path
from bdloss.training.checkpoints import State
from bdloss.training.devices import ALONE, Devices
from bdloss.training.experiment import COMPILED, Experiment, Stage
from bdloss.training.tensorboard import draw_examples

EXAMPLES = 4  # patches that TensorBoard shows
MIN_DELTA = 1e-4  # what a validation loss must fall by to count, as in Keras


class Fitting:
    """A network, the patches it learns from, and how far it is.

    Attributes:
        model: The network.
        rows: A row an epoch, as Keras logs them, with the epoch counted from 1.
        verbose: Keras's.
        devices: The devices that train.
    """

    def __init__(
        self,
        model: keras.Model,
        experiment: Experiment,
        training: list[SceneData],
        validation: list[SceneData],
        names: Sequence[str],
        verbose: int = 1,
        devices: Devices = ALONE,
        min_delta: float = MIN_DELTA,
    ):
        """Prepare a training.

        Args:
            model: A network of `bdloss.models`.
            experiment: Its schedule, loss, patches and seed are used.
            training: Scenes to learn from.
            validation: Scenes to validate on, the same grid of patches every epoch.
            names: What the scenes to learn from are called.
            verbose: Keras's.
            devices: The devices that train it; the model was made in its scope.
            min_delta: What a validation loss must fall by, on a plateau, to count.

        Raises:
            ValueError: If the schedule looks at a validation that is not there.
        """
        if not validation and _needs_validation(experiment):
            raise InputError(
                "weight.policy search, stage.plateau and patience look at validation "
                "scenes; there are none"
            )
        common: dict[str, Any] = {
            "patch": experiment.patch,
            "batch": experiment.batch,
            "workers": experiment.workers,
            "process": devices.process,
            "processes": devices.processes,
        }
        self.model = model
        self.verbose = verbose
        self.rows: list[dict[str, float]] = []
        self._experiment = experiment
        self._names = names
        in_grid = experiment.sampling == "grid"
        all_pixels = None if in_grid else _steps_to_cover(training, experiment)
        self._training = patches.Patches(
            training,
            steps=experiment.steps or all_pixels,
            shuffled_grid=in_grid,
            augment=augment.augmentation(experiment.augment),
            seed=experiment.seed,
            building_bias=experiment.building_bias,
            **common,
        )
        self.devices = devices
        self._validation: patches.Patches | None = None
        self._padding = 1.0  # what a validation loss is too small by
        if validation:
            number = len(patches.Patches(validation, experiment.patch, batch=1))
            blanks = [_blank(validation[0], experiment.patch)] * (
                -number % devices.number
            )
            self._validation = patches.Patches([*validation, *blanks], **common)
            self._padding = (number + len(blanks)) / number
        self._loss = make_loss(experiment)
        self._min_delta = min_delta
        self._stage: Stage | None = None  # the one that the model is compiled for
        self._started = time.monotonic()

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
        last = self._experiment.stage[-1].epochs
        waited = self.epoch - max(self.best_epoch, self._experiment.epochs - last)
        patience = self._experiment.patience
        return self.epoch >= self._experiment.epochs or 0 < patience <= waited

    def go_on(
        self,
        last: int,
        keep: Callable[[], None],
        weight: keras.callbacks.Callback | None = None,
        stops_early: bool = True,
    ) -> None:
        """Train up to an epoch.

        Args:
            last: Epochs that shall be finished then.
            keep: Called after each epoch.
            weight: Callback that sets w; None leaves it.
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
                self._training,
                validation_data=self._validation,
                initial_epoch=self.epoch,
                epochs=min(end, last),
                callbacks=[*([weight] if weight else []), _Epochs(self, keep)],
                shuffle=False,  # patches are random by themselves, and by their seed
                verbose=self.verbose,
            )

    def examples(self) -> np.ndarray | None:
        """Return pictures of some patches of the validation beside the prediction."""
        if not self._validation:
            return None
        batch = self._validation[len(self._validation) // 2]
        pixels, masks = (part[:EXAMPLES] for part in batch)
        # Mirrored devices predict the same patches, one after another.
        probabilities = self.model.predict_on_batch(pixels)[: len(pixels)]
        return draw_examples(pixels, masks, probabilities)

    def measure_step(self) -> float:
        """Return the seconds that a batch takes, and leave everything as it was."""
        self._compile(self._stage_at(self.epoch)[0])
        variables = [*self.model.variables, *self.model.optimizer.variables]
        before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
        pixels, masks = self._training[0]
        if keras.backend.backend() == "tensorflow":  # which gives all of it to each
            pixels, masks = (part[:: self.devices.number] for part in (pixels, masks))
        self.model.train_on_batch(pixels, masks)  # this one also traces
        started = time.monotonic()
        self.model.train_on_batch(pixels, masks)
        seconds = time.monotonic() - started
        _assign(variables, before)
        return seconds

    def steps(self) -> tuple[int, int]:
        """Return the batches of an epoch, to train with and to validate on."""
        return len(self._training), len(self._validation or ())

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

    def _stage_at(self, epoch: int) -> tuple[Stage, int]:
        """Return the stage that an epoch (from 0) belongs to, and where it ends."""
        end = 0
        for stage in self._experiment.stage:
            end += stage.epochs
            if epoch < end:
                break
        return stage, end

    def _compile(self, stage: Stage) -> None:
        if self._stage is stage:
            return
        experiment = self._experiment
        models.set_trainable(self.model, stage.trainable)
        self.model.compile(
            keras.optimizers.Adam(
                _learning_rate(stage, len(self._training)),
                global_clipnorm=experiment.clip or None,
            ),
            self._loss,
            metrics=[
                metrics.IoU(experiment.threshold, ignore=IGNORED),
                metrics.BoundaryF1(
                    experiment.tolerance, experiment.threshold, ignore=IGNORED
                ),
            ],
            jit_compile=COMPILED[experiment.jit_compile],
        )
        # Not Adam itself: in mixed precision Keras wraps it, to scale the loss.
        self.model.optimizer.build(self.model.trainable_variables)
        if keras.backend.backend() == "jax" and experiment.loss.extra != "none":
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
        self._training.epoch = self.epoch
        stage, end = self._stage_at(self.epoch)
        if stage.plateau:
            rows = self.rows[end - stage.epochs :]
            self.model.optimizer.learning_rate = reduced_rate(
                stage, rows, self._min_delta
            )

    def _end_epoch(self, logs: dict[str, Any]) -> None:
        row = {name: float(value) for name, value in logs.items()}
        row.pop("val_w", None)  # on JAX, where w is carried as a metric
        if "val_loss" in row:
            row["val_loss"] *= self._padding
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
            patches = [
                f"{self._names[scene]}[{row}:{row + height}, {col}:{col + width}]"
                for scene, (row, col, height, width) in self._training.windows(batch)
            ]
            where = f"batch {batch + 1} of patches {', '.join(patches)}"
        clip = "" if self._experiment.clip else ", or clip = 1.0,"
        return (
            f"the loss is not finite in epoch {self.epoch + 1}, {where}; the last good "
            f"checkpoint is kept; a lower learning rate{clip} may help"
        )


class _Epochs(keras.callbacks.Callback):
    """Keep the rows of a fitting, and stop where it shall not go on."""

    def __init__(self, fitting: Fitting, keep: Callable[[], None]):
        super().__init__()
        self.fitting, self.keep = fitting, keep

    def on_epoch_begin(self, epoch, logs=None):
        self.fitting._begin_epoch()

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise InputError(self.fitting._not_finite(batch))

    def on_epoch_end(self, epoch, logs=None):
        self.fitting._end_epoch(logs or {})
        self.keep()
        if self.fitting.finished:
            self.model.stop_training = True


def write_history(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write rows as CSV, aside and renamed.

    Args:
        rows: At least one. A column that a row lacks is empty there, as in a run that
            an older version began.
        path: File to write; replaced if it exists.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as partial,
        partial.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def make_loss(experiment: Experiment) -> losses.CombinedLoss:
    """Make the loss that an experiment minimises.

    Args:
        experiment: Its `loss` and `weight` are used.

    Returns:
        Combined loss that knows ignored pixels.
    """
    settings = experiment.loss
    own: dict[str, dict[str, Any]] = {
        "boundary": {
            "theta0": settings.theta0,
            "theta": settings.theta,
            "smooth": settings.smooth,
            "boundary": settings.boundary,
        },
        "dice": {"smooth": settings.smooth},
        "ss": {"lam": settings.lam},
        "vgg": {"extractor": settings.vgg},
    }
    extra = None
    if settings.extra != "none":
        extra = losses.EXTRAS[settings.extra](**own[settings.extra])
    weight = experiment.weight
    w = weight.start if settings.extra == "boundary" else weight.baseline
    return losses.CombinedLoss(extra, w=w, bce=settings.bce, ignore=IGNORED)


def weight_callback(experiment: Experiment) -> keras.callbacks.Callback | None:
    """Return the callback that sets w over epochs, unless it is searched.

    The paper adjusts that of the boundary loss alone (Section 4.2).
    """
    weight = experiment.weight
    if experiment.loss.extra == "none":
        return None
    if experiment.loss.extra != "boundary":
        return callbacks.ConstantWeight(weight.baseline)
    if weight.policy == "ramp":
        return callbacks.BoundaryWeight(
            weight.start, weight.end, weight.first, weight.last
        )
    if weight.policy == "steps":
        return callbacks.SteppedWeight(
            weight.start, weight.values, weight.first, weight.every
        )
    return callbacks.ConstantWeight(weight.start)


def reduced_rate(
    stage: Stage, rows: Sequence[dict[str, float]], min_delta: float = MIN_DELTA
) -> float:
    """Return the learning rate after some epochs of a stage.

    It falls by `stage.factor` after each `stage.plateau` epochs without a better
    validation loss. A loss of another w is another loss: when w changes, waiting for a
    better one begins anew.

    Args:
        stage: A stage with a `plateau`.
        rows: Those of the epochs of the stage: `val_loss`, and `w` if there is one.
        min_delta: What a validation loss must fall by to be a better one.

    Example:
        >>> stage = Stage(learning_rate=0.1, plateau=2, factor=0.5)
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


def _learning_rate(stage: Stage, steps: int) -> Any:
    if stage.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            stage.learning_rate, stage.epochs * steps
        )
    return stage.learning_rate


def _steps_to_cover(scenes: list[SceneData], experiment: Experiment) -> int:
    """Return how many batches see about as many pixels as there are."""
    pixels = sum(scene.mask.size for scene in scenes)
    return max(1, round(pixels / experiment.patch**2 / experiment.batch))


def _blank(scene: SceneData, patch: int) -> SceneData:
    """Return a scene of one patch that counts for nothing, but in a mean loss."""
    pixels = np.zeros((patch, patch, scene.pixels.shape[2]), np.uint8)
    return SceneData(pixels, np.full((patch, patch), IGNORED, np.uint8))


def _needs_validation(experiment: Experiment) -> bool:
    return bool(
        experiment.patience
        or experiment.searches
        or any(stage.plateau for stage in experiment.stage)
    )


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if [tuple(v.shape) for v in variables] != [value.shape for value in values]:
        raise InputError(
            "the checkpoint is that of another network; give another --out or --fresh"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
