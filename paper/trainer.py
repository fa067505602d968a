"""Training the runs of a study, and what a step of each loss costs."""

import fcntl
import functools
import hashlib
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdloss.errors import InputError
from paper.ablations import SPECIALS
from paper.features import write_features
from paper.plan import Run, Study, list_runs, make_settings

if TYPE_CHECKING:
    from bdloss.training.experiment import Experiment
    from bdloss.training.trainer import Trainer

START = "start.json"  # of a run folder: digests of what every loss must start from
COST = "cost.json"  # of a study: seconds a step
NETWORK = ("backbone", "skips", "blocks", "filters")  # what first weights follow
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
            process = context.Process(target=_train_alone, args=(study, run, out))
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


def _train_alone(study: Study, run: Run, out: Path) -> None:
    """Train one run, in this process: what is logged, and an error, is a line."""
    from bdloss.cli.command import LineHandler

    logger = logging.getLogger("bdloss")
    logger.setLevel(logging.INFO)
    logger.addHandler(LineHandler())
    try:
        train_one(study, run, out)
    except (InputError, OSError) as error:
        sys.exit(f"Error: {error}")


def train_one(study: Study, run: Run, out: Path) -> None:
    """Train one run, and score what lies near the edges."""
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
        write_features(Path(experiment.loss.vgg))
    special = run.variant.special
    start = folder.with_name(f"{folder.name}.{START}")
    training.train(
        experiment,
        folder,
        verbose=2,
        callbacks=[SPECIALS[special]()] if special else [],
        on_start=functools.partial(record_start, path=start),
    )
    score_edges(experiment, folder)


def score_edges(experiment: "Experiment", folder: Path) -> None:
    """Write scores of what lies near the edges of the test scenes: `edge.json`.

    The predicted masks are kept beside it, for scores to come: `test_masks.npz`.
    """
    from bdloss.constants import IGNORED
    from bdloss.data.scenes import load_scene
    from bdloss.evaluation import scoring
    from bdloss.models import load_predictor
    from bdloss.training.run import predict_mask, read_splits

    if (folder / "edge.json").is_file():
        return
    predictor = load_predictor(folder / "model.keras")
    masks: dict[str, Any] = {}
    pairs = []
    for scene in read_splits(experiment).test:
        data = load_scene(scene)
        pred = predict_mask(
            experiment, predictor.predict, predictor.targets, data.pixels
        )
        masks[scene.name] = pred
        near = data.mask.copy()
        near[EDGE:-EDGE, EDGE:-EDGE] = IGNORED
        pairs.append((near, pred))
    np.savez_compressed(folder / "test_masks.npz", **masks)
    scores = scoring.score_masks(pairs)
    (folder / "edge.json").write_text(json.dumps(scores.as_json(), indent=2) + "\n")


def record_start(trainer: "Trainer", path: Path) -> None:
    """Write down what a run starts from, once: see `check_starts`."""
    import keras

    if not path.exists():
        weights = [keras.ops.convert_to_numpy(w) for w in trainer.model.weights]
        first = {"weights": weights, "batch": trainer.batches.train[0]}
        digests = {name: digest(arrays) for name, arrays in first.items()}
        path.write_text(json.dumps(digests) + "\n")


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a short text that differs where arrays do."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def check_starts(study: Study, out: Path) -> None:
    """Refuse runs of one seed that began with another batch, or other weights.

    Networks that differ, as with and without skips, have weights of their own; what
    learns contact has batches of its own too.
    """
    seen: dict[tuple[object, ...], tuple[Path, str]] = {}
    for run in list_runs(study):
        folder = run.folder(out)
        path = folder.with_name(f"{folder.name}.{START}")
        if not path.is_file():
            continue
        settings = make_settings(study, run, out)
        maps = (settings.get("dataset", {}).get("contact", 0),)
        network = tuple(settings.get("model", {}).get(key) for key in NETWORK)
        found = json.loads(path.read_text())
        for part, which in (("batch", maps), ("weights", maps + network)):
            key = (run.dataset, run.seed, part, *which)
            first, digest = seen.setdefault(key, (path, found.get(part)))
            if found.get(part) != digest:
                raise InputError(
                    "all losses of a seed start from the same weights and batch; "
                    f"{path} and {first} differ"
                )


def measure_costs(study: Study, out: Path) -> None:
    """Measure the seconds a step of each loss takes on each data set.

    The losses take turns, so that what else the machine does falls on all alike.
    Medians are written to `cost.json`.
    """
    _take_threads(study.threads)
    from bdloss.training.experiment import make_experiment
    from benchmarks.timing import time_steps

    out.mkdir(parents=True, exist_ok=True)
    costs = {}
    for dataset, (fold, *_) in study.folds.items():
        steps = {}
        for variant in study.losses:
            if fold not in variant.seeds:
                continue
            run = Run(fold, variant, variant.seeds[fold][0])
            experiment = make_experiment(make_settings(study, run, out))
            write_features(Path(experiment.loss.vgg))
            steps[variant.name] = _make_step(experiment)
        ms = time_steps(steps, ROUNDS)
        costs[dataset] = {name: time / 1000 for name, time in ms.items()}
    (out / COST).write_text(json.dumps(costs, indent=2) + "\n")


def _make_step(experiment: "Experiment") -> Callable[[], object]:
    """Return what trains a step with the loss of an experiment."""
    from bdloss.training.loss import make_loss
    from bdloss.training.network import build_network

    model = build_network(experiment.model, bands=3)
    loss = make_loss(experiment.loss, experiment.weight.start)
    model.compile("adam", loss, jit_compile=False)
    patches = experiment.patches
    shape = (patches.batch_size, patches.size, patches.size)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*shape, 3), np.uint8)
    squares = random.random((*shape[:1], *(side // 16 for side in shape[1:]), 1)) > 0.8
    masks = squares.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    return lambda: model.train_on_batch(pixels, masks)
