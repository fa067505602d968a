"""Training: from an experiment to a run folder."""

import dataclasses
import json
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bdloss
from bdloss import models, plots
from bdloss.data import cache, check, datasets
from bdloss.data.scenes import Scene, Splits, resolution_of
from bdloss.errors import DamagedFileError, InputError, OutputExistsError
from bdloss.evaluation import scoring
from bdloss.files import ASIDE, DAMAGED, atomic_path, locked
from bdloss.inference.sliding_window import predict_array
from bdloss.training import checkpoints
from bdloss.training.devices import select_devices
from bdloss.training.experiment import (
    Experiment,
    flatten,
    make_experiment,
    read_file,
    write_experiment,
)
from bdloss.training.tensorboard import log_epochs
from bdloss.training.trainer import Fitting, weight_callback, write_history
from bdloss.training.weight_search import extra_epochs, search_weights

SETTINGS, RESULT = "experiment.toml", "metrics.json"
CHECKPOINTS, LOGS = "checkpoints", "logs"
PRODUCTS = (
    *("model.keras", "history.csv", "curves.png", "samples.png"),
    *("search.csv", "search.png"),
)
FREE = ("workers", "tensorboard")  # settings that another go may change
OVERLAP = 4  # a quarter of the window overlaps when whole scenes are scored
SAMPLES = 3  # scenes drawn at the end
PACKAGES = ("keras", "segmodels-keras", "numpy", "rasterio")


def _say_nothing(line: str) -> None:
    """Take a line and say nothing."""


def train(
    experiment: Experiment,
    out: Path,
    *,
    devices: str = "1",
    fresh: bool = False,
    say: Callable[[str], None] = _say_nothing,
    verbose: int = 1,
) -> dict[str, Any]:
    """Train a network and write its run folder, or go on with one that was stopped.

    A run that was killed goes on from its last finished epoch and ends, on a CPU, with
    the same weights as one that never stopped. One that is finished is left alone.

    Args:
        experiment: What to train, on what, how long.
        out: Folder to write: `model.keras`, `experiment.toml`, `history.csv`,
            `curves.png`, `samples.png`, `metrics.json`, `logs` for TensorBoard; until
            it is finished also `checkpoints`; of a weight search also `search.csv` and
            `search.png`.
        devices: How many devices of this machine train together, or `all`. Several
            processes that have joined (see `devices.py`) train with all they have.
        fresh: Whether to start over what was begun there.
        say: Takes the lines that a person should read.
        verbose: Keras's: 1 shows a progress bar, 2 a line an epoch, 0 nothing.

    Returns:
        What stands in `metrics.json`; nothing in a process that does not lead.

    Raises:
        FileExistsError: If `out` exists and is no run folder.
        ValueError: If the experiment and its data do not go together, `out` is of
            another experiment or another process trains there, or the loss is not
            finite.
    """
    with ExitStack() as held:
        return _train(experiment, out, held, devices, fresh, say, verbose)


def _train(
    experiment: Experiment,
    out: Path,
    held: ExitStack,
    devices: str,
    fresh: bool,
    say: Callable[[str], None],
    verbose: int,
) -> dict[str, Any]:
    """Do what `train` says; what `held` holds is let go when all is done."""
    group = select_devices(devices, experiment.batch)
    if not group.is_chief:
        say, verbose = _say_nothing, 0
    _check_is_run(out)
    if not fresh:
        _check_settings(experiment, out)
        if (out / RESULT).exists():
            say(f"finished    {out} is not run again; --fresh starts over")
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
            return _read_result(out / RESULT)
    newest = checkpoints.newest_epoch(out / CHECKPOINTS)
    state = None if fresh else checkpoints.newest_state(out / CHECKPOINTS, say)
    keras.utils.set_random_seed(experiment.seed)
    splits = read_splits(experiment)
    for fault in check.refuse_faults(splits, experiment.dataset):
        say(f"{fault.kind:<11} {fault.text}")
    cached = cache.default_folder()
    training = [cache.load_cached(scene, cached) for scene in splits.train]
    validation = [cache.load_cached(scene, cached) for scene in splits.validation]
    bands = training[0].pixels.shape[-1]
    names = [scene.name for scene in splits.train]
    with group.scope:
        model = _build_network(
            experiment,
            bands,
            "mixed_float16" if experiment.mixed_precision else "float32",
            experiment.encoder_weights if state is None else "",
        )
        if keras.backend.backend() == "tensorflow" and group.number > 1:
            _share_statistics(model)
        fitting = Fitting(
            model, experiment, training, validation, names, verbose, group
        )
        if state:
            fitting.restore(state)
        group.wait()  # until all have read what is there
        if group.is_chief:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(out))
            if not fresh:
                _check_still(out, newest)
            if fresh:
                _clear(out)
            _write(out / SETTINGS, write_experiment(experiment))
        for part, scenes, stored in (
            ("training", splits.train, training),
            ("validation", splits.validation, validation),
        ):
            masks = dict(zip(scenes, (data.mask for data in stored), strict=True))
            say(f"{part:<11} {check.count_scenes(scenes, masks.__getitem__)}")
        say(
            f"network     {experiment.backbone}, {model.count_params():,} parameters, "
            f"{experiment.encoder_weights or 'random'} weights"
        )
        say(f"device      {group.name}, {_compute(experiment)}")
        if experiment.loss.extra not in ("boundary", "none"):
            say(
                f"weight      w = {experiment.weight.baseline} throughout: [weight] "
                "moves that of the boundary loss only"
            )
        if state:
            say(f"goes on     after epoch {state.epoch} of {experiment.epochs}")
        for line in _describe_stages(experiment, fitting):
            say(line)
        rows = _fit(fitting, experiment, out, say)
        weights = model.get_weights()

    if not group.is_chief:
        return {}
    model = _build_network(experiment, bands)  # float32, and without an optimizer
    model.set_weights(weights)
    models.save_model(model, out / "model.keras", _facts(experiment, bands, splits))
    plots.draw_curves(rows, out / "curves.png")
    named = {"validation": splits.validation, "test": splits.test}
    scores = {
        name: _score(model, experiment, scenes, cached, out / "samples.png")
        for name, scenes in named.items()
        if scenes
    }
    result = {
        **scores,
        "epochs": len(rows),
        "seconds": round(fitting.seconds, 1),
        "memory_mb": round(_peak_memory() / 1e6),
        "seed": experiment.seed,
        "versions": {
            "bdloss": bdloss.__version__,  # which need not be installed
            **{name: version(name) for name in (*PACKAGES, keras.backend.backend())},
        },
        "git": _git_state(),
        "machine": f"{platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, {group.name}",
    }
    _write(out / RESULT, json.dumps(result, indent=2) + "\n")
    shutil.rmtree(out / CHECKPOINTS)
    return result


def _build_network(
    experiment: Experiment, bands: int, policy: str = "float32", weights: str = ""
) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return models.build_model(
            experiment.backbone,
            bands=bands,
            filters=experiment.filters,
            blocks=experiment.blocks,
            encoder_weights=weights or None,
            skips=experiment.skips,
            momentum=experiment.momentum,
        )
    finally:
        keras.config.set_dtype_policy(before)


def _share_statistics(model: keras.Model) -> None:
    """Let batch norm see the whole batch, not the part of its device."""
    for layer in models.flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _check_is_run(out: Path) -> None:
    """Refuse a folder of something else, to go on with or to clear."""
    if not out.exists() or (out / SETTINGS).is_file():
        return
    # Killed while it wrote its first file, a run is nothing but a part of that.
    if not out.is_dir() or any(ASIDE not in p.name for p in out.iterdir()):
        raise OutputExistsError(f"{out} exists and is no run; give another --out")


def _check_still(out: Path, newest: int) -> None:
    """Refuse to go on from what another process has gone on from meanwhile."""
    now = checkpoints.newest_epoch(out / CHECKPOINTS)
    if (out / RESULT).exists() or now != newest:
        raise InputError(
            f"another process has trained meanwhile; give the command again: {out}"
        )


def _check_settings(experiment: Experiment, out: Path) -> None:
    """Refuse a run that was begun with other settings."""
    path = out / SETTINGS
    if not path.is_file():
        return
    begun = flatten(dataclasses.asdict(make_experiment(read_file(path))))
    now = flatten(dataclasses.asdict(experiment))
    for key in {**begun, **now}:
        if begun.get(key) != now.get(key) and key not in FREE:
            raise InputError(
                f"{out} was begun with {key} = {begun.get(key)}, not {now.get(key)}; "
                "give another --out, or --fresh to start over"
            )


def _clear(out: Path) -> None:
    """Remove what an earlier run has left, the settings last."""
    for folder in (CHECKPOINTS, LOGS):
        shutil.rmtree(out / folder, ignore_errors=True)
    for name in (RESULT, *PRODUCTS, SETTINGS):
        (out / name).unlink(missing_ok=True)


def _read_result(path: Path) -> dict[str, Any]:
    """Read the scores of a run that is finished."""
    try:
        result = dict(json.loads(path.read_text()).items())
        parts = [result[part] for part in ("validation", "test") if part in result]
        if all({"iou", "bf1_3", "bf1_5"} <= part.keys() for part in parts):
            return result
    except DAMAGED:
        pass
    raise DamagedFileError(f"damaged; give --fresh to start over: {path}")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text)


def _fit(
    fitting: Fitting, experiment: Experiment, out: Path, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Train to the end, with a checkpoint after each epoch; return the rows."""
    folder = out / CHECKPOINTS

    def keep() -> None:
        if not fitting.devices.is_chief:
            return
        best = [fitting.best_epoch] if experiment.patience else []
        checkpoints.save_state(fitting.state(), folder, keep=best)
        report_epochs()

    def report_epochs() -> None:
        write_history(fitting.rows, out / "history.csv")
        if logged:
            log_epochs(fitting.rows, fitting.examples, out / LOGS)

    logged = experiment.tensorboard and keras.backend.backend() == "tensorflow"
    if experiment.tensorboard and not logged:
        say("logs        none for TensorBoard: they need TensorFlow")
    if fitting.rows and fitting.devices.is_chief:
        report_epochs()  # it may have been killed between checkpoint and report
    if experiment.searches:
        search_weights(fitting, experiment.weight, experiment.epochs, out, keep, say)
    else:
        fitting.go_on(experiment.epochs, keep, weight_callback(experiment))
    rows = fitting.rows
    if experiment.patience:
        say(f"best        epoch {fitting.best_epoch} of {len(rows)} is kept")
        fitting.devices.wait()
        fitting.restore(
            checkpoints.read_state(checkpoints.state_path(folder, fitting.best_epoch))
        )
    return rows


def read_splits(experiment: Experiment) -> Splits:
    """Find the scenes of an experiment.

    Args:
        experiment: Its `dataset`, `data`, `validation` and `test` are used.

    Returns:
        Scenes to train with, to validate on and to test.

    Raises:
        ValueError: If the data set is unknown or its folder is not given.
        FileNotFoundError: If its folder does not exist.
    """
    taken = datasets.settings_of(experiment.dataset)
    if not experiment.data:
        raise InputError(f"the {experiment.dataset} data set needs its folder: --data")
    settings = {name: getattr(experiment, name) for name in taken}
    return datasets.read_dataset(experiment.dataset, experiment.data, **settings)


def _describe_stages(experiment: Experiment, fitting: Fitting) -> Iterator[str]:
    """Say what comes, and how long it may take."""
    for stage in experiment.stage:
        yield (
            f"stage       {stage.epochs} epochs, learning rate {stage.learning_rate:g} "
            f"({stage.schedule}), {stage.trainable} trains"
        )
    if fitting.finished:
        return
    epochs = experiment.epochs - fitting.epoch
    if experiment.searches:
        epochs += extra_epochs(experiment.weight, fitting.epoch, experiment.epochs)
    steps, validation_steps = fitting.steps()
    step = fitting.measure_step()
    # Validating is the forward third of a training step.
    minutes = epochs * (steps + validation_steps / 3) * step / 60
    yield (
        f"time        about {_duration(minutes)}: {epochs} epochs of {steps} batches, "
        f"{step:.2g} s each"
    )


def _duration(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h"


def _compute(experiment: Experiment) -> str:
    """Say with what and in which precision a step is computed."""
    precision = "float16 and float32" if experiment.mixed_precision else "float32"
    return f"{keras.backend.backend()}, {precision}, XLA {experiment.jit_compile}"


def _git_state() -> str | None:
    """Return commit and state of the checkout that this runs from, if it is one."""
    root = Path(bdloss.__file__).parents[1]
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _peak_memory() -> int:
    """Return the most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _facts(experiment: Experiment, bands: int, splits: Splits) -> dict[str, Any]:
    """Return what the model must be told at prediction."""
    return {
        "name": experiment.backbone,
        "bands": bands,
        "classes": ["building"],
        "window": experiment.patch,
        "multiple": models.size_multiple(experiment.backbone, experiment.blocks),
        "threshold": experiment.threshold,
        "tta": experiment.tta,
        "resolution": resolution_of(splits.train[0]),
        "bdloss": bdloss.__version__,
    }


def _score(
    model: keras.Model,
    experiment: Experiment,
    scenes: list[Scene],
    cached: Path,
    picture: Path,
) -> dict[str, Any]:
    """Score a model on whole scenes and draw the first ones."""
    samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def pairs():
        for scene in scenes:
            stored = cache.load_cached(scene, cached)
            pixels, mask = np.asarray(stored.pixels), np.asarray(stored.mask)
            probabilities = predict_array(
                pixels,
                model.predict_on_batch,
                window=experiment.patch,
                overlap=experiment.patch // OVERLAP,
                batch=experiment.batch,
                tta=experiment.tta,
            )
            pred = (probabilities >= experiment.threshold).astype(np.uint8)
            if len(samples) < SAMPLES:
                samples.append((scene.name, pixels, mask, pred))
            yield mask, pred

    scores = scoring.score_masks(pairs())
    plots.draw_samples(samples, picture)
    return scores
