"""Training the runs of a study, and what a step of each loss costs."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study.plan import RANDOM_WEIGHTS, Run, Study, list_runs, make_settings
from study.specials import SPECIALS

START = "start.json"  # of a run folder: digests of what every loss must start from
COST = "cost.json"  # of a study: seconds a step
NETWORK = ("backbone", "skips", "blocks", "filters")  # what its first weights follow
ROUNDS = 7  # of measuring them
EDGE = 32  # pixels from the image's edge, of the scores of `edge.json`


def run_study(
    study: Study, runs: Sequence[Run], out: Path, kept: Container[Run] = ()
) -> list[Run]:
    """Train, one process after another; return the runs that failed.

    Args:
        study: The study.
        runs: What to train.
        out: Folder of all run folders.
        kept: Runs that were trained before, and are not again.

    A run that another process is training is left to it, so the same command may be
    given once for each core.
    """
    _take_threads(study.threads)
    context = multiprocessing.get_context("spawn")
    failed = []
    for number, run in enumerate(runs, 1):
        folder = run.folder(out)
        if run in kept:
            print(f"\n== {number} of {len(runs)}: {folder} is kept")
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"\n== {number} of {len(runs)}: {folder} is in training")
                continue
            print(f"\n== {number} of {len(runs)}: {folder}", flush=True)
            process = context.Process(target=train_one, args=(study, run, out))
            process.start()
            process.join()
            if process.exitcode:
                failed.append(run)
    return failed


def _take_threads(threads: int) -> None:
    """Let TensorFlow, once it is loaded, take so many threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def train_one(study: Study, run: Run, out: Path) -> None:
    """Train one run, in a process of its own."""
    from bdloss.training import run as training
    from bdloss.training.experiment import make_experiment

    settings = make_settings(study, run, out)
    experiment = make_experiment(settings)
    folder = run.folder(out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # One process at a time makes what all of them share, and the others wait.
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        training.read_splits(experiment)
        if experiment.loss.vgg.endswith(RANDOM_WEIGHTS):
            write_random_features(Path(experiment.loss.vgg))
    if run.variant.special:
        SPECIALS[run.variant.special]()
    _record_starts(folder.with_name(f"{folder.name}.{START}"))
    try:
        training.train(
            experiment, folder, say=lambda line: print(line, flush=True), verbose=2
        )
        score_edges(experiment, folder)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def score_edges(experiment: Any, folder: Path) -> None:
    """Write scores of what lies near the edges of the test scenes: `edge.json`.

    The predicted masks are kept beside it, for scores to come: `test_masks.npz`.
    """
    from bdloss.constants import IGNORED
    from bdloss.data.scenes import load_scene
    from bdloss.evaluation import scoring
    from bdloss.inference.sliding_window import predict_array
    from bdloss.models import load_predictor
    from bdloss.training import run as training

    if (folder / "edge.json").is_file():
        return
    predictor = load_predictor(folder / "model.keras")
    masks: dict[str, Any] = {}
    pairs = []
    for scene in training.read_splits(experiment).test:
        data = load_scene(scene)
        probabilities = predict_array(
            data.pixels,
            predictor.predict,
            experiment.patch,
            experiment.patch // training.OVERLAP,
            experiment.batch,
            experiment.tta,
        )
        pred = (probabilities >= predictor.threshold).astype(np.uint8)
        masks[scene.name] = pred
        near = data.mask.copy()
        near[EDGE:-EDGE, EDGE:-EDGE] = IGNORED
        pairs.append((near, pred))
    np.savez_compressed(folder / "test_masks.npz", **masks)
    scores = scoring.score_masks(pairs)
    (folder / "edge.json").write_text(json.dumps(scores.as_json(), indent=2) + "\n")


def write_random_features(path: Path) -> None:
    """Write a VGG19 that has learned nothing, always the same one."""
    import keras

    from bdloss.losses import VGGFeatures

    if not path.exists():
        keras.utils.set_random_seed(0)
        partial = path.with_name(f"partial_{path.name}")
        VGGFeatures(None).network.save_weights(partial)
        partial.replace(path)


def _record_starts(path: Path) -> None:
    """Have a run write down what it starts from: see `check_starts`."""
    from bdloss.training import run as training

    class Recorded(training.Fitting):
        def __init__(self, model, *settings):
            super().__init__(model, *settings)
            if not path.exists():
                weights = [weight.numpy() for weight in model.weights]
                first = {"weights": weights, "batch": self._training[0]}
                digests = {name: digest(arrays) for name, arrays in first.items()}
                path.write_text(json.dumps(digests) + "\n")

    training.Fitting = Recorded  # type: ignore[misc]


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a short text that differs where arrays do."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def check_starts(study: Study, out: Path) -> None:
    """Refuse runs of one seed that began with another batch, or other weights.

    Networks that differ, as with and without skips, have weights of their own.
    """
    seen: dict[tuple[object, ...], tuple[Path, str]] = {}
    for run in list_runs(study):
        folder = run.folder(out)
        path = folder.with_name(f"{folder.name}.{START}")
        if not path.is_file():
            continue
        settings = make_settings(study, run, out)
        network = tuple(settings.get(key) for key in NETWORK)
        found = json.loads(path.read_text())
        for part, which in (("batch", ()), ("weights", network)):
            key = (run.dataset, run.seed, part, *which)
            first, digest = seen.setdefault(key, (path, found.get(part)))
            if found.get(part) != digest:
                raise ValueError(
                    "all losses of a seed start from the same weights and batch; "
                    f"{path} and {first} differ"
                )


def measure_costs(study: Study, out: Path) -> None:
    """Measure the seconds a step of each loss takes on each data set.

    The losses take turns, so that what else the machine does falls on all alike.
    Medians are written to `cost.json`.
    """
    _take_threads(study.threads)
    from timing import time_steps

    from bdloss.training.experiment import make_experiment

    out.mkdir(parents=True, exist_ok=True)
    costs = {}
    for dataset in study.datasets:
        steps = {}
        for variant in study.losses:
            run = Run(dataset, variant, variant.seeds[dataset][0])
            experiment = make_experiment(make_settings(study, run, out))
            if experiment.loss.vgg.endswith(RANDOM_WEIGHTS):
                write_random_features(Path(experiment.loss.vgg))
            steps[variant.name] = _make_step(experiment)
        ms = time_steps(steps, ROUNDS)
        costs[dataset] = {name: time / 1000 for name, time in ms.items()}
    (out / COST).write_text(json.dumps(costs, indent=2) + "\n")


def _make_step(experiment: Any) -> Callable[[], object]:
    """Return what trains a step with the loss of an experiment."""
    from bdloss import models
    from bdloss.training.trainer import make_loss

    model = models.build_model(
        experiment.backbone, filters=experiment.filters, blocks=experiment.blocks
    )
    model.compile("adam", make_loss(experiment), jit_compile=False)
    shape = (experiment.batch, experiment.patch, experiment.patch)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*shape, 3), np.uint8)
    squares = random.random((*shape[:1], *(side // 16 for side in shape[1:]), 1)) > 0.8
    masks = squares.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    return lambda: model.train_on_batch(pixels, masks)
