"""Training: from an experiment to a run folder."""

import csv
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bdloss
from bdloss import callbacks, losses, metrics, models
from bdloss.data import augment, datasets, patches
from bdloss.orthophotos.raster import grid_of, open_raster
from bdloss.run import evaluation, report
from bdloss.run.config import Experiment, Stage, write_experiment
from bdloss.run.prediction import predict_array

OVERLAP = 4  # a quarter of the window overlaps when whole scenes are scored
SAMPLES = 3  # scenes drawn at the end
PACKAGES = ("bdloss", "keras", "tensorflow", "segmodels-keras", "numpy", "rasterio")


def train(
    experiment: Experiment,
    out: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
    verbose: int = 1,
) -> dict[str, Any]:
    """Train a network and write its run folder.

    Args:
        experiment: What to train, on what, how long.
        out: Folder to write: `model.keras`, `experiment.toml`, `history.csv`,
            `curves.png`, `samples.png`, `metrics.json`.
        overwrite: Whether a folder that exists may be replaced file by file.
        say: Takes the lines that a person should read.
        verbose: Keras's: 1 shows a progress bar, 2 a line an epoch, 0 nothing.

    Returns:
        What stands in `metrics.json`.

    Raises:
        FileExistsError: If `out` exists and may not be replaced.
        ValueError: If the experiment and its data do not go together.
    """
    if out.exists() and (not overwrite or not out.is_dir()):
        raise FileExistsError(f"{out} exists; give another --out or --overwrite")
    started = time.monotonic()
    keras.utils.set_random_seed(experiment.seed)
    splits = read_splits(experiment)
    training = [datasets.load_scene(scene) for scene in splits.train]
    validation = [datasets.load_scene(scene) for scene in splits.validation]
    bands = _common_bands(splits.train + splits.validation, training + validation)
    model = models.build_model(
        experiment.backbone,
        bands=bands,
        filters=experiment.filters,
        blocks=experiment.blocks,
        encoder_weights=experiment.encoder_weights or None,
    )
    say(_describe("training", training))
    say(_describe("validation", validation))
    say(
        f"network     {experiment.backbone}, {model.count_params():,} parameters, "
        f"{keras.backend.backend()}"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "experiment.toml").write_text(write_experiment(experiment))

    history = fit(model, experiment, training, validation, out / "history.csv", verbose)

    models.save_model(model, out / "model.keras", _facts(experiment, bands, splits))
    report.draw_curves(history, out / "curves.png")
    named = {"validation": splits.validation, "test": splits.test}
    scores = {
        name: _score(model, experiment, scenes, out / "samples.png")
        for name, scenes in named.items()
        if scenes
    }
    result = {
        **scores,
        "epochs": experiment.epochs,
        "seconds": round(time.monotonic() - started, 1),
        "seed": experiment.seed,
        "versions": {name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, {keras.backend.backend()}",
    }
    (out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def read_splits(experiment: Experiment) -> datasets.Splits:
    """Find the scenes of an experiment.

    Args:
        experiment: Its `dataset`, `data`, `validation` and `test` are used.

    Returns:
        Scenes to train with, to validate on and to test.

    Raises:
        ValueError: If the data set is unknown or its folder is not given.
        FileNotFoundError: If its folder does not exist.
    """
    known = datasets.READERS
    if experiment.dataset not in known:
        raise ValueError(
            f"dataset must be one of {', '.join(known)}, got {experiment.dataset!r}"
        )
    if not experiment.data:
        raise ValueError(f"the {experiment.dataset} data set needs its folder: --data")
    root = Path(experiment.data)
    if experiment.dataset == "folder":
        return datasets.read_folder(root, experiment.validation, experiment.test)
    return known[experiment.dataset](root)


def fit(
    model: keras.Model,
    experiment: Experiment,
    training: list[datasets.SceneData],
    validation: list[datasets.SceneData],
    history_path: Path,
    verbose: int = 1,
) -> list[dict[str, float]]:
    """Train a network through all stages of an experiment.

    Args:
        model: A network of `bdloss.models`.
        experiment: Its schedule, loss, patches and seed are used.
        training: Scenes to learn from.
        validation: Scenes to validate on, the same grid of patches every epoch.
        history_path: CSV file that gets a line after each epoch.
        verbose: Keras's.

    Returns:
        A row an epoch, as Keras logs them, with the epoch counted from 1.
    """
    common: dict[str, Any] = {
        "patch": experiment.patch,
        "batch": experiment.batch,
        "workers": experiment.workers,
    }
    train_patches = patches.Patches(
        training,
        steps=experiment.steps or _steps_to_cover(training, experiment),
        augment=augment.augmentation(experiment.augment),
        seed=experiment.seed,
        building_bias=experiment.building_bias,
        **common,
    )
    validation_patches = patches.Patches(validation, **common) if validation else None
    loss = make_loss(experiment)
    history = History(history_path)
    epoch = 0
    for stage in experiment.stage:
        models.set_trainable(model, stage.trainable)
        model.compile(
            keras.optimizers.Adam(_learning_rate(stage, len(train_patches))),
            loss,
            metrics=[metrics.IoU(experiment.threshold, ignore=datasets.IGNORED)],
            jit_compile=False,
        )
        model.fit(
            train_patches,
            validation_data=validation_patches,
            initial_epoch=epoch,
            epochs=epoch + stage.epochs,
            callbacks=[*_weight_callbacks(experiment), history],
            verbose=verbose,
        )
        epoch += stage.epochs
    return history.rows


class History(keras.callbacks.Callback):
    """Keep the logs of every epoch, over several fits, and write them as they come."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch, logs=None):
        """Add a row and write the file anew."""
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **row})
        partial = self.path.with_name(f"{self.path.name}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)


def make_loss(experiment: Experiment) -> losses.CombinedLoss:
    """Make the loss that an experiment minimises.

    Args:
        experiment: Its `loss` and `weight` are used.

    Returns:
        Combined loss that knows ignored pixels.
    """
    shared: dict[str, Any] = {"ignore": datasets.IGNORED}
    settings = experiment.loss
    extra = None
    if settings.extra == "boundary":
        extra = losses.BoundaryLoss(
            settings.theta0, settings.theta, settings.smooth, **shared
        )
    return losses.CombinedLoss(extra, w=experiment.weight.start, **shared)


def _weight_callbacks(experiment: Experiment) -> list[keras.callbacks.Callback]:
    weight = experiment.weight
    if experiment.loss.extra == "none" or weight.policy == "constant":
        return []
    return [
        callbacks.BoundaryWeight(weight.start, weight.end, weight.first, weight.last)
    ]


def _learning_rate(stage: Stage, steps: int) -> Any:
    if stage.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            stage.learning_rate, stage.epochs * steps
        )
    return stage.learning_rate


def _steps_to_cover(scenes: list[datasets.SceneData], experiment: Experiment) -> int:
    """Return how many batches see about as many pixels as there are."""
    pixels = sum(scene.mask.size for scene in scenes)
    return max(1, round(pixels / experiment.patch**2 / experiment.batch))


def _common_bands(
    scenes: list[datasets.Scene], loaded: list[datasets.SceneData]
) -> int:
    """Return the number of bands that all scenes have."""
    bands = loaded[0].pixels.shape[-1]
    for scene, data in zip(scenes, loaded, strict=True):
        if data.pixels.shape[-1] != bands:
            raise ValueError(
                f"all scenes must have as many bands as {scenes[0].name} ({bands}), "
                f"{scene.name} has {data.pixels.shape[-1]}"
            )
    return bands


def _describe(name: str, scenes: list[datasets.SceneData]) -> str:
    pixels = sum(scene.mask.size for scene in scenes)
    building = sum(np.count_nonzero(scene.mask == 1) for scene in scenes)
    share = building / max(1, pixels)
    return (
        f"{name:<11} {len(scenes)} scene{'s' * (len(scenes) != 1)}, "
        f"{pixels / 1e6:.2f} megapixels, {share:.0%} building"
    )


def _facts(
    experiment: Experiment, bands: int, splits: datasets.Splits
) -> dict[str, Any]:
    """Return what the model must be told at prediction."""
    with open_raster(splits.train[0].image) as source:
        resolution = grid_of(source).resolution
    return {
        "name": experiment.backbone,
        "bands": bands,
        "classes": ["building"],
        "window": experiment.patch,
        "multiple": models.size_multiple(experiment.backbone, experiment.blocks),
        "threshold": experiment.threshold,
        "resolution": resolution,
        "bdloss": bdloss.__version__,
    }


def _score(
    model: keras.Model,
    experiment: Experiment,
    scenes: list[datasets.Scene],
    picture: Path,
) -> dict[str, Any]:
    """Score a model on whole scenes and draw the first ones."""
    samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def pairs():
        for scene in scenes:
            data = datasets.load_scene(scene)
            probabilities = predict_array(
                data.pixels,
                model.predict_on_batch,
                window=experiment.patch,
                overlap=experiment.patch // OVERLAP,
                batch=experiment.batch,
            )
            pred = (probabilities >= experiment.threshold).astype(np.uint8)
            if len(samples) < SAMPLES:
                samples.append((scene.name, data.pixels, data.mask, pred))
            yield data.mask, pred

    scores = evaluation.score_masks(pairs())
    report.draw_samples(samples, picture)
    return scores
