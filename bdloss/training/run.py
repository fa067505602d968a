"""Training: from an experiment to a run folder."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bdloss
from bdloss import models, plots
from bdloss.constants import BUILDING, CONTACT, IGNORED
from bdloss.data import cache, check
from bdloss.data.scenes import (
    Scene,
    SceneData,
    Splits,
    at_resolution,
    resolution_of,
)
from bdloss.errors import InputError
from bdloss.evaluation import scoring
from bdloss.evaluation.scores import ClassScores, Scores
from bdloss.files import locked
from bdloss.geo import raster
from bdloss.inference.class_choice import choose_class
from bdloss.inference.sliding_window import predict_array
from bdloss.report.training import write_run_page
from bdloss.training import checkpoints
from bdloss.training.batches import make_batches
from bdloss.training.devices import ALONE, Devices, select_devices
from bdloss.training.experiment import Experiment
from bdloss.training.loss import make_loss
from bdloss.training.network import build_network
from bdloss.training.run_folder import RunFolder, environment
from bdloss.training.savers import (
    CheckpointSaver,
    HistoryWriter,
    TensorBoardEpochs,
)
from bdloss.training.schedules import MOVED, weight_callback
from bdloss.training.start import copy_weights
from bdloss.training.trainer import Trainer
from bdloss.training.weight_search import extra_epochs, search_weights

logger = logging.getLogger(__name__)

OVERLAP = 4  # a quarter of the window overlaps when whole scenes are scored
SAMPLES = 3  # scenes drawn at the end
OF_TRAINING = {"encoder_weights", "start", "keep"}  # settings that no network has


def train(
    experiment: Experiment,
    out: Path,
    *,
    devices: str = "1",
    fresh: bool = False,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_start: Callable[[Trainer], Any] | None = None,
) -> dict[str, Any]:
    """Train a network and write its run folder, or go on with one that was stopped.

    A run that was killed goes on from its last finished epoch and ends, on a CPU, with
    the same weights as one that never stopped. One that is finished is left alone. What
    a person should read on the way is logged.

    Args:
        experiment: What to train, on what, how long.
        out: Folder to write: `model.keras`, `experiment.toml`, `history.csv`,
            `curves.png`, `samples.png`, `metrics.json`, `report.html`, which shows all
            of it, `logs` for TensorBoard; until
            it is finished also `checkpoints`; of a weight search also `search.csv` and
            `search.png`.
        devices: How many devices of this machine train together, or `all`. Several
            processes that have joined (see `devices.py`) train with all they have.
        fresh: Whether to start over what was begun there.
        verbose: Keras's: 1 shows a progress bar, 2 a line an epoch, 0 nothing.
        callbacks: Keras's, of your own; of the branches of a search they see the end
            of the best one only.
        on_start: Called with the trainer before anything is trained or restored.

    Returns:
        What stands in `metrics.json`; nothing in a process that does not lead.

    Raises:
        FileExistsError: If `out` exists and is no run folder.
        ValueError: If the experiment and its data do not go together, `out` is of
            another experiment or another process trains there, or the loss is not
            finite.
    """
    group = select_devices(devices, experiment.patches.batch_size)
    if not group.is_chief:
        logging.getLogger("bdloss").setLevel(logging.WARNING)
        verbose = 0
    with ExitStack() as held:
        run = RunFolder(out)
        return _train(experiment, run, held, group, fresh, verbose, callbacks, on_start)


def _train(
    experiment: Experiment,
    run: RunFolder,
    held: ExitStack,
    group: Devices,
    fresh: bool,
    verbose: int,
    callbacks: Sequence[keras.callbacks.Callback],
    on_start: Callable[[Trainer], Any] | None,
) -> dict[str, Any]:
    """Do what `train` says; what `held` holds is let go when all is done."""
    run.check_is_run()
    if not fresh:
        run.check_settings(experiment)
        if run.result.exists():
            logger.info("finished: %s is not run again; --fresh starts over", run.path)
            return run.read_result()
    newest = checkpoints.newest_epoch(run.checkpoints)
    state = None if fresh else checkpoints.newest_state(run.checkpoints)
    keras.utils.set_random_seed(experiment.seed)
    splits = read_splits(experiment)
    for fault in check.refuse_faults(splits, experiment.dataset.name):
        logger.warning("%s: %s", fault.kind, fault.text)
    scored = at_resolution(splits, experiment.prediction.resolution)
    cached = cache.default_folder()
    training = [cache.load_cached(scene, cached) for scene in splits.train]
    validation = [cache.load_cached(scene, cached) for scene in splits.validation]
    bands = training[0].pixels.shape[-1]
    names = [scene.name for scene in splits.train]
    targets = [
        *experiment.dataset.class_names,
        *([CONTACT] if training[0].contact is not None else []),
    ]
    with group.scope:
        model = build_network(
            experiment.model,
            bands,
            targets,
            "mixed_float16" if experiment.fit.mixed_precision else "float32",
            experiment.model.encoder_weights if state is None else "",
        )
        if experiment.model.start and state is None:
            path, activation = Path(experiment.model.start), experiment.model.activation
            new = ", ".join(copy_weights(model, targets, activation, path))
            but = f", but new heads for {new}" if new else ""
            logger.info("start: the weights of %s%s", path, but)
        if keras.backend.backend() == "tensorflow" and group.number > 1:
            _share_statistics(model)
        trainer = make_trainer(
            experiment, model, training, validation, names, verbose, group, targets
        )
        if on_start is not None:
            on_start(trainer)
        if state:
            trainer.restore(state)
        group.wait()  # until all have read what is there
        if group.is_chief:
            run.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(run.path))
            if fresh:
                run.clear()
            else:
                run.check_epoch(newest)
            run.write_settings(experiment)
        for part, scenes, stored in (
            ("training", splits.train, training),
            ("validation", splits.validation, validation),
        ):
            masks = dict(zip(scenes, (data.mask for data in stored), strict=True))
            classes = experiment.dataset.class_names
            counts = check.count_scenes(scenes, masks.__getitem__, classes)
            logger.info("%s: %s", part, counts)
        for line in _describe(experiment, trainer):
            logger.info(line)
        rows = _fit(trainer, experiment, run, callbacks)
        weights = model.get_weights()

    if not group.is_chief:
        return {}
    # In float32, and without an optimizer.
    model = build_network(experiment.model, bands, targets)
    model.set_weights(weights)
    if experiment.model.start and experiment.model.keep:
        area = sum(map(labelled_area, splits.train, training))
        share = 1.0 / (1.0 + (area / experiment.model.keep) ** 2)
        path, activation = Path(experiment.model.start), experiment.model.activation
        copy_weights(model, targets, activation, path, share)
        text = "a share of %.2f of the first weights, for %.0f square metres of labels"
        logger.info(f"kept: {text}", share, area)
    metadata = _model_metadata(experiment, bands, targets, splits)
    models.save_model(model, run.path / "model.keras", metadata)
    plots.draw_curves(rows, run.path / "curves.png")
    named = {"validation": scored.validation, "test": scored.test}
    scores = {
        name: _score(model, targets, experiment, scenes, cached, run.samples)
        for name, scenes in named.items()
        if scenes
    }
    result = {
        **scores,
        "epochs": len(rows),
        "seconds": round(trainer.seconds, 1),
        "seed": experiment.seed,
        **environment(group.name),
    }
    write_run_page(run.path, result)
    run.write_result(result)
    return result


def labelled_area(scene: Scene, data: SceneData) -> float:
    """Return the square metres of which a scene tells the truth.

    Args:
        scene: The scene; where nobody knows its resolution, a pixel counts as one.
        data: What is loaded of it.
    """
    pixels = np.count_nonzero(np.asarray(data.mask) != IGNORED)
    return pixels * (resolution_of(scene) or 1.0) ** 2


def make_trainer(
    experiment: Experiment,
    model: keras.Model,
    training: list[SceneData],
    validation: list[SceneData],
    names: Sequence[str],
    verbose: int = 1,
    devices: Devices = ALONE,
    targets: Sequence[str] = (BUILDING,),
) -> Trainer:
    """Make what trains the network of an experiment.

    Args:
        experiment: Its loss, patches and schedule are used.
        model: The network.
        training: Scenes to learn from.
        validation: Scenes to validate on.
        names: What the scenes to learn from are called.
        verbose: Keras's.
        devices: The devices that train it; the model was made in its scope.
        targets: Names of its maps: classes, then `contact` if it has that map.

    Raises:
        ValueError: If the schedule looks at a validation that is not there.
    """
    plateaus = any(stage.plateau for stage in experiment.stage)
    needed = experiment.fit.patience or experiment.searches or plateaus
    if needed and not validation:
        raise InputError(
            "weight.policy search, stage.plateau and fit.patience look at validation "
            "scenes; there are none"
        )
    w = weight_callback(experiment.weight, experiment.loss.extra).weight(0)
    classes = len(models.class_names(targets))
    return Trainer(
        model,
        make_batches(
            experiment.patches,
            training,
            validation,
            names,
            experiment.seed,
            devices,
            classes,
        ),
        make_loss(experiment.loss, w, targets),
        experiment.stage,
        experiment.fit,
        threshold=experiment.prediction.threshold,
        classes=classes if len(targets) > 1 else None,
        verbose=verbose,
        devices=devices,
    )


def _share_statistics(model: keras.Model) -> None:
    """Let batch norm see the whole batch, not the part of its device."""
    for layer in models.flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _fit(
    trainer: Trainer,
    experiment: Experiment,
    run: RunFolder,
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[dict[str, float]]:
    """Train to the end, with a checkpoint after each epoch; return the rows."""
    folder, fit = run.checkpoints, experiment.fit
    reports = [HistoryWriter(trainer, run.path / "history.csv")]
    if fit.tensorboard and keras.backend.backend() == "tensorflow":
        reports.append(TensorBoardEpochs(trainer, run.logs))
    elif fit.tensorboard:
        logger.info("logs: none for TensorBoard: they need TensorFlow")
    if trainer.devices.is_chief:
        saver = CheckpointSaver(trainer, folder, keep_best=fit.patience > 0)
        callbacks = [saver, *reports, *callbacks]
        if trainer.rows:  # it may have been killed between checkpoint and report
            for report in reports:
                report.write()
    weight = None
    if experiment.searches:
        search_weights(trainer, experiment.weight, run.path, callbacks)
    else:
        if experiment.loss.extra != "none":
            weight = weight_callback(experiment.weight, experiment.loss.extra)
        trainer.fit_until(experiment.epochs, weight, callbacks)
    rows = trainer.rows
    if fit.patience:
        best = trainer.best_epoch
        logger.info("best: epoch %d of %d is kept", best, len(rows))
        trainer.devices.wait()
        trainer.restore(checkpoints.read_state(checkpoints.state_path(folder, best)))
    return rows


def read_splits(experiment: Experiment) -> Splits:
    """Find the scenes of an experiment.

    Args:
        experiment: Its `dataset` is used.

    Returns:
        Scenes to train with, to validate on and to test.

    Raises:
        ValueError: If the folder of the data set is not given, or as its reader says.
        FileNotFoundError: If its folder does not exist.
    """
    dataset = experiment.dataset
    if not dataset.root:
        raise InputError(f"the {dataset.name} data set needs its folder: --data")
    return dataset.read()


def _describe(experiment: Experiment, trainer: Trainer) -> Iterator[str]:
    """Say what is trained, by what, and how long it may take."""
    model = experiment.model
    yield (
        f"network: {model.backbone}, {trainer.model.count_params():,} parameters, "
        f"{model.encoder_weights or 'random'} weights"
    )
    yield f"device: {trainer.devices.name}, {_compute(experiment)}"
    if experiment.loss.extra not in (*MOVED, "none"):
        yield (
            f"weight: w = {experiment.weight.baseline} throughout: [weight] moves that "
            "of boundary losses only"
        )
    if trainer.epoch:
        yield f"resumed: after epoch {trainer.epoch} of {experiment.epochs}"
    for stage in experiment.stage:
        yield (
            f"stage: {stage.epochs} epochs, learning rate {stage.learning_rate:g} "
            f"({stage.schedule}), {stage.trainable} trains"
        )
    if trainer.finished:
        return
    epochs = experiment.epochs - trainer.epoch
    if experiment.searches:
        epochs += extra_epochs(experiment.weight, trainer.epoch, experiment.epochs)
    steps, validation_steps = trainer.steps()
    step = trainer.measure_step()
    # Validating is the forward third of a training step.
    minutes = epochs * (steps + validation_steps / 3) * step / 60
    yield (
        f"time: about {_duration(minutes)}: {epochs} epochs of {steps} batches, "
        f"{step:.2g} s each"
    )


def _duration(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h"


def _compute(experiment: Experiment) -> str:
    """Say with what and in which precision a step is computed."""
    precision = "float16 and float32" if experiment.fit.mixed_precision else "float32"
    return f"{keras.backend.backend()}, {precision}, XLA {experiment.fit.jit_compile}"


def _model_metadata(
    experiment: Experiment, bands: int, targets: Sequence[str], splits: Splits
) -> dict[str, Any]:
    """Return what the model must be told at prediction."""
    classes = models.class_names(targets)
    colours = list(experiment.dataset.class_colours.values())
    return {
        "name": experiment.model.backbone,
        "network": experiment.model.model_dump(exclude=OF_TRAINING),
        "bands": bands,
        "classes": classes,
        **({"targets": list(targets)} if len(targets) > len(classes) else {}),
        **({"colours": colours} if colours else {}),
        "window": experiment.patches.size,
        "multiple": models.size_multiple(
            experiment.model.backbone, experiment.model.blocks
        ),
        "threshold": experiment.prediction.threshold,
        "tta": experiment.prediction.tta,
        "resolution": experiment.prediction.resolution
        or resolution_of(splits.train[0]),
        "scenes": _learned_from(experiment, splits),
        "bdloss": bdloss.__version__,
    }


def _learned_from(experiment: Experiment, splits: Splits) -> dict[str, str]:
    """Return the digests of the images that a model has learned from, by their names.

    Those of the model that it started from are among them, as `buildings/town`.
    """
    earlier: dict[str, str] = {}
    if experiment.model.start:
        start = Path(experiment.model.start)
        scenes = models.read_metadata(start).get("scenes", {})
        earlier = {f"{start.stem}/{name}": scenes[name] for name in scenes}
    return earlier | {
        scene.name: raster.identify(scene.image)["image"]
        for scene in (*splits.train, *splits.validation)
    }


def predict_mask(
    experiment: Experiment,
    predict: Callable[[np.ndarray], np.ndarray],
    targets: Sequence[str],
    pixels: np.ndarray,
) -> np.ndarray:
    """Return what a network makes of an image, as when the run is scored.

    Args:
        experiment: Its patches and its prediction.
        predict: The network, as `predict_array` takes it.
        targets: Names of its maps: classes, then `contact` if it has that map.
        pixels: Image of shape `(height, width, bands)`, uint8.

    Returns:
        Mask of shape `(height, width)`, uint8, as `choose_class` gives it.
    """
    patches, prediction = experiment.patches, experiment.prediction
    probabilities = predict_array(
        pixels,
        predict,
        window=patches.size,
        overlap=patches.size // OVERLAP,
        batch=patches.batch_size,
        tta=prediction.tta,
        maps=len(targets),
    )
    maps = np.atleast_3d(probabilities)[..., : len(models.class_names(targets))]
    return choose_class(maps, prediction.threshold)


def _score(
    model: keras.Model,
    targets: Sequence[str],
    experiment: Experiment,
    scenes: list[Scene],
    cached: Path,
    picture: Path,
) -> dict[str, Any]:
    """Score a model on whole scenes and draw the first ones."""
    samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    colours = experiment.dataset.class_colours

    def pairs():
        for scene in scenes:
            stored = cache.load_cached(scene, cached)
            pixels, mask = np.asarray(stored.pixels), np.asarray(stored.mask)
            pred = predict_mask(experiment, model.predict_on_batch, targets, pixels)
            if len(samples) < SAMPLES:
                samples.append((scene.name, pixels, mask, pred))
            yield mask, pred

    scores: Scores | ClassScores
    if colours:
        scores = scoring.score_classes(pairs(), list(colours))
    else:
        scores = scoring.score_masks(pairs())
    plots.draw_samples(samples, picture, colours)
    return scores.as_json()
