"""The paper's tables and figures: every loss on every data set with every seed.

    python benchmarks/tables.py run benchmarks/study/paper.toml --out runs/study
    python benchmarks/tables.py draw benchmarks/study/paper.toml --runs runs/study

The first trains, a process a run, and goes on where it was stopped; `--only synthetic
--only boundary --seed 0` does a part of it, `--shard 2/8` one of eight equal parts; on
one machine, give the command once for each core. The second makes Tables 1 and 2,
curves and windows side by side out of what is finished. `tables.py cost`, on a machine
with nothing else to do, measures the seconds a step of each loss before.

A study file names data sets, losses and ablations. A data set is an experiment as
`train.py` takes it, a loss the `--set` assignments that make it.
"""

import argparse
import copy
import csv
import fcntl
import hashlib
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

START = "start.json"  # of a run folder: digests of what every loss must start from
RANDOM = "random"  # as loss.vgg: features of a VGG19 that has learned nothing
RANDOM_WEIGHTS = "random_vgg19.weights.h5"
CONFIDENCE = 0.95
SIDE = 128  # pixels of the windows that are drawn
DRAWN = 4
NARROWING = (15, 11, 7)  # theta of two epochs each, then the experiment's own
NARROWED_AFTER = 2  # epochs
SCORES = {  # in percent, as `metrics.json` names them
    "iou": "IoU",
    "bf1_3": "BF1, 3 px",
    "bf1_5": "BF1, 5 px",
    "precision_3": "precision, 3 px",
    "recall_3": "recall, 3 px",
    "boundary_ratio": "boundary, of the true",
}
ABLATED = ("iou", "bf1_3", "bf1_5", "boundary_ratio")  # what their table shows
INSTANCES = ("buildings", "found", "missed", "split", "merged", "invented")
COST = "cost.json"  # of a study: seconds a step
ROUNDS = 7  # of measuring them


class Variant(NamedTuple):
    """A loss, or an ablation.

    Attributes:
        name: Of its folder.
        label: Of its rows and lines.
        changes: What `--set` would say.
        special: What no setting says: one of `SPECIALS`, or nothing.
        seeds: Those it is run with.
        datasets: Those it is run on.
    """

    name: str
    label: str
    changes: list[str]
    special: str
    seeds: list[int]
    datasets: list[str]


class Study(NamedTuple):
    """A study file: see `benchmarks/study/paper.toml`.

    Attributes:
        datasets: Settings of the experiment on each.
        labels: What each is called in tables.
        losses: Those of the paper's tables.
        ablations: What differs from `compared` in one thing each.
        reference: The loss that differences are taken to.
        compared: The loss that is drawn beside it.
        threads: Of each run.
    """

    datasets: dict[str, dict[str, Any]]
    labels: dict[str, str]
    losses: list[Variant]
    ablations: list[Variant]
    reference: str
    compared: str
    threads: int


class Run(NamedTuple):
    """One training of a study."""

    dataset: str
    variant: Variant
    seed: int

    def folder(self, out: Path) -> Path:
        """Return where it is, in the folder of the study."""
        return out / self.dataset / self.variant.name / f"seed{self.seed}"


def read_study(path: Path) -> Study:
    """Read a study file."""
    table = tomllib.loads(path.read_text())
    datasets = table["datasets"]
    labels = {name: one.pop("label", name) for name, one in datasets.items()}

    def variants(part: str) -> list[Variant]:
        return [
            Variant(
                name,
                one.get("label", name),
                one.get("set", []),
                one.get("special", ""),
                one.get("seeds", table["seeds"]),
                one.get("datasets", list(datasets)),
            )
            for name, one in table.get(part, {}).items()
        ]

    study = Study(
        datasets,
        labels,
        variants("losses"),
        variants("ablations"),
        table["reference"],
        table["compared"],
        table["threads"],
    )
    names = [variant.name for variant in study.losses]
    for name in (study.reference, study.compared):
        if name not in names:
            raise ValueError(f"a study compares two of its losses, got {name!r}")
    for variant in [*study.losses, *study.ablations]:
        random = f"loss.vgg={RANDOM}" in variant.changes
        if random and "random features" not in variant.label:
            raise ValueError(
                f"its label says that {variant.name} has random features, "
                f"got {variant.label!r}"
            )
        if variant.special not in ("", *SPECIALS):
            raise ValueError(
                f"special must be one of {', '.join(SPECIALS)}, got {variant.special!r}"
            )
    return study


def list_runs(study: Study) -> list[Run]:
    """Return all runs: losses before ablations, and seed by seed."""
    runs = []
    for part in (study.losses, study.ablations):
        for dataset in study.datasets:
            seeds = sorted({seed for variant in part for seed in variant.seeds})
            runs += [
                Run(dataset, variant, seed)
                for seed in seeds
                for variant in part
                if seed in variant.seeds and dataset in variant.datasets
            ]
    return runs


def choose_runs(
    study: Study,
    only: Sequence[str] = (),
    seed: int | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Run]:
    """Return the runs that are asked for.

    Args:
        study: The study.
        only: Names of data sets and of losses, or "losses", or "ablations"; a run is
            taken if all of them are its own.
        seed: The only seed.
        shard: Which part, from 1, of how many.
    """
    chosen = []
    for run in list_runs(study):
        part = "losses" if run.variant in study.losses else "ablations"
        named = {run.dataset, run.variant.name, part}
        if named.issuperset(only) and seed in (None, run.seed):
            chosen.append(run)
    if not chosen:
        raise ValueError(f"no run of the study is of {', '.join(only)} and seed {seed}")
    return chosen[shard[0] - 1 :: shard[1]]


def make_settings(study: Study, run: Run, out: Path) -> dict[str, Any]:
    """Return the settings of a run's experiment, as they would stand in a file."""
    from bdloss.run import config

    settings = copy.deepcopy(study.datasets[run.dataset])
    settings["seed"] = run.seed
    for assignment in run.variant.changes:
        config.change(settings, assignment)
    if settings.get("loss", {}).get("vgg") == RANDOM:
        settings["loss"]["vgg"] = str(out / RANDOM_WEIGHTS)
    return settings


def run_study(study: Study, runs: Sequence[Run], out: Path) -> list[Run]:
    """Train, one process after another; return the runs that failed.

    A run that another process is training is left to it, so the same command may be
    given once for each core.
    """
    _take_threads(study.threads)
    context = multiprocessing.get_context("spawn")
    failed = []
    for number, run in enumerate(runs, 1):
        folder = run.folder(out)
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
    from bdloss.run import training
    from bdloss.run.config import make_experiment

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
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def write_random_features(path: Path) -> None:
    """Write a VGG19 that has learned nothing, always the same one."""
    import keras

    from bdloss.perceptual import VGGFeatures

    if not path.exists():
        keras.utils.set_random_seed(0)
        partial = path.with_name(f"partial_{path.name}")
        VGGFeatures(None).network.save_weights(partial)
        partial.replace(path)


def _record_starts(path: Path) -> None:
    """Have a run write down what it starts from: see `check_starts`."""
    from bdloss.run import training

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


def _give_ties_to_the_first() -> None:
    """Pool as Keras does, whose gradient goes to one of the pixels that tie."""
    from keras import ops

    from bdloss import boundary

    def max_pool(y, side: int):
        return ops.max_pool(y, side, 1, "same", data_format="channels_last")

    boundary.max_pool = max_pool


def _narrow_theta() -> None:
    """Let theta begin wide, where bands that lie apart still meet."""
    from bdloss.callbacks import BoundaryWeight
    from bdloss.run import training

    class Narrowing(BoundaryWeight):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            step = epoch // NARROWED_AFTER
            extra = self.model.loss.extra
            theta = NARROWING[step] if step < len(NARROWING) else self.theta
            if theta != extra.theta:
                extra.theta = theta
                self.model.make_train_function(force=True)
                self.model.make_test_function(force=True)

    def weight_callback(experiment):
        weight = experiment.weight
        narrowing = Narrowing(weight.start, weight.end, weight.first, weight.last)
        narrowing.theta = experiment.loss.theta
        return narrowing

    training.weight_callback = weight_callback


SPECIALS: dict[str, Callable[[], None]] = {
    "first of ties": _give_ties_to_the_first,
    "narrowing theta": _narrow_theta,
}


def measure_costs(study: Study, out: Path) -> None:
    """Measure the seconds a step of each loss takes on each data set.

    In each of several rounds every loss takes its turn, so that what else the machine
    does falls on all alike. Medians are written to `cost.json`.
    """
    _take_threads(study.threads)
    from bdloss.run.config import make_experiment

    out.mkdir(parents=True, exist_ok=True)
    costs: dict[str, dict[str, list[float]]] = {}
    for dataset in study.datasets:
        steps = {}
        for variant in study.losses:
            run = Run(dataset, variant, variant.seeds[0])
            experiment = make_experiment(make_settings(study, run, out))
            if experiment.loss.vgg.endswith(RANDOM_WEIGHTS):
                write_random_features(Path(experiment.loss.vgg))
            steps[variant.name] = _make_step(experiment)
        rounds = [{name: step() for name, step in steps.items()} for _ in range(ROUNDS)]
        costs[dataset] = {
            name: [
                statistics.median(turn[name] for turn in rounds),
                statistics.median(
                    turn[name] / turn[study.reference] for turn in rounds
                ),
            ]
            for name in steps
        }
    (out / COST).write_text(json.dumps(costs, indent=2) + "\n")


def _make_step(experiment: Any) -> Callable[[], float]:
    """Return what trains a step and says how many seconds it took."""
    import keras

    from bdloss import models
    from bdloss.run.fitting import make_loss

    model = models.build_model(
        experiment.backbone, filters=experiment.filters, blocks=experiment.blocks
    )
    model.compile("adam", make_loss(experiment), jit_compile=False)
    shape = (experiment.batch, experiment.patch, experiment.patch)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*shape, 3), np.uint8)
    squares = random.random((*shape[:1], *(side // 16 for side in shape[1:]), 1)) > 0.8
    masks = squares.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    model.train_on_batch(pixels, masks)  # traces it

    def step() -> float:
        started = time.perf_counter()
        keras.ops.convert_to_numpy(model.train_on_batch(pixels, masks))
        return time.perf_counter() - started

    return step


class Finished(NamedTuple):
    """What is read of a finished run.

    Attributes:
        scores: Of the test scenes, as `metrics.json` has them.
        history: A row an epoch.
        machine: What it ran on.
    """

    scores: dict[str, Any]
    history: list[dict[str, float]]
    machine: str


Results = Mapping[tuple[str, str, int], Finished]  # by data set, loss and seed


def read_results(study: Study, out: Path) -> tuple[dict, list[str]]:
    """Return what is finished, and the names of the runs that are not."""
    found, missing = {}, []
    for run in list_runs(study):
        folder = run.folder(out)
        if not (folder / "metrics.json").is_file():
            missing.append(str(folder.relative_to(out)))
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        with (folder / "history.csv").open(newline="") as file:
            history = [
                {key: float(value) for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        found[run.dataset, run.variant.name, run.seed] = Finished(
            metrics["test"],
            history,
            f"{metrics['machine']}, bdloss {metrics['git']}",
        )
    return found, missing


def check_starts(study: Study, out: Path) -> None:
    """Refuse runs of one seed that began with other weights or another batch."""
    seen: dict[tuple[str, int], tuple[Path, str]] = {}
    for run in list_runs(study):
        folder = run.folder(out)
        path = folder.with_name(f"{folder.name}.{START}")
        if path.is_file():
            first, text = seen.setdefault(
                (run.dataset, run.seed), (path, path.read_text())
            )
            if path.read_text() != text:
                raise ValueError(
                    "all losses of a seed start from the same weights and batch; "
                    f"{path} and {first} differ"
                )


class Difference(NamedTuple):
    """A mean difference over seeds, and its confidence interval; NaN for one seed."""

    mean: float
    low: float
    high: float
    pairs: int


def paired_difference(
    ours: Mapping[int, float], theirs: Mapping[int, float]
) -> Difference:
    """Return how much more one loss scores than another, seed by seed.

    Args:
        ours: Score of each seed.
        theirs: Score of each seed of what it is compared with.

    Returns:
        Over the seeds of both, with the interval of Student's t at 95 %.

    Example:
        >>> paired_difference({0: 3.0, 1: 5.0, 2: 7.0}, {0: 1.0, 1: 3.0, 2: 5.0})
        Difference(mean=2.0, low=2.0, high=2.0, pairs=3)
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return Difference(math.nan, math.nan, math.nan, 0)
    gains = np.array([ours[seed] - theirs[seed] for seed in seeds])
    mean = float(gains.mean())
    if len(seeds) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    spread = float(gains.std(ddof=1)) / math.sqrt(len(seeds))
    reach = spread * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1))
    return Difference(mean, mean - reach, mean + reach, len(seeds))


def scores_by_seed(
    results: Results, dataset: str, name: str, score: str
) -> dict[int, float]:
    """Return a score of a loss, in percent, for each seed that has one."""
    return {
        seed: 100 * one.scores[score]
        for (where, which, seed), one in results.items()
        if (where, which) == (dataset, name) and one.scores[score] is not None
    }


def tabulate(
    study: Study,
    results: Results,
    variants: Sequence[Variant],
    base: str,
    datasets: Sequence[str],
    scores: Mapping[str, str],
) -> list[list[str]]:
    """Return a row a loss, with each score and what it is more than that of one loss.

    Args:
        study: The study.
        results: Its finished runs.
        variants: Losses or ablations; one that was not run has no row.
        base: The loss that differences are taken to.
        datasets: Data sets to show beside each other.
        scores: What to show, as `metrics.json` names it, and its heading.
    """
    head = [""]
    for dataset in datasets:
        place = f"{study.labels[dataset]}: " if len(datasets) > 1 else ""
        for heading in scores.values():
            head += [f"{place}{heading}", "difference [95 %]"]
    table = [head]
    for variant in variants:
        row = [variant.label]
        for dataset in datasets:
            for score in scores:
                ours = scores_by_seed(results, dataset, variant.name, score)
                theirs = scores_by_seed(results, dataset, base, score)
                gain = show_difference(paired_difference(ours, theirs))
                row += [show_mean(ours), "" if variant.name == base else gain]
        if any(_runs_of(results, dataset, variant.name) for dataset in datasets):
            table.append(row)
    return table


def tabulate_buildings(study: Study, results: Results, dataset: str) -> list[list[str]]:
    """Return how many buildings were found, missed, split and merged, on average."""
    table = [["loss", *INSTANCES]]
    for variant in study.losses:
        runs = _runs_of(results, dataset, variant.name)
        if runs:
            means = [np.mean([one.scores[key] for one in runs]) for key in INSTANCES]
            table.append([variant.label, *(f"{mean:.1f}" for mean in means)])
    return table


def tabulate_costs(study: Study, path: Path, dataset: str) -> list[list[str]]:
    """Return the seconds a step of each loss, if they were measured."""
    labels = {variant.name: variant.label for variant in study.losses}
    table = [["loss", "seconds a step", f"of {labels[study.reference]}'s"]]
    if path.is_file():
        costs = json.loads(path.read_text())[dataset]
        table += [
            [labels[name], f"{seconds:.3f}", f"{ratio:.2f}"]
            for name, (seconds, ratio) in costs.items()
        ]
    return table


def describe_test(results: Results, dataset: str) -> str:
    """Say over how many images and pixels the scores of a data set are taken."""
    scores = next(one.scores for key, one in results.items() if key[0] == dataset)
    seen = scores["images_with_boundary"]
    return (
        f"{scores['images']} test scenes, {scores['pixels'] / 1e6:.2f} megapixels. IoU "
        f"is pooled over the pixels, BF1 a mean over the {seen} scenes that have a "
        "boundary in truth or prediction."
    )


def _runs_of(results: Results, dataset: str, name: str) -> list[Finished]:
    return [one for key, one in results.items() if key[:2] == (dataset, name)]


def show_mean(values: Mapping[int, float]) -> str:
    """Return mean and standard deviation over seeds, and over how many."""
    numbers = list(values.values())
    if not numbers:
        return "not run"
    if len(numbers) == 1:
        return f"{numbers[0]:.2f} (1 seed)"
    spread = np.std(numbers, ddof=1)
    return f"{np.mean(numbers):.2f} ± {spread:.2f} ({len(numbers)} seeds)"


def show_difference(gain: Difference) -> str:
    """Return a difference and its interval."""
    if not gain.pairs:
        return ""
    if gain.pairs == 1:
        return f"{gain.mean:+.2f} (1 seed)"
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def draw_study(study: Study, runs: Path, out: Path) -> None:
    """Write `tables.md` and its pictures from the runs that are finished."""
    from bdloss.run import report

    check_starts(study, runs)
    results, missing = read_results(study, runs)
    if not results:
        raise ValueError(f"no finished run of the study in {runs}")
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        "Made by `benchmarks/tables.py draw`; do not edit. Scores are of the test "
        "scenes, in percent: mean ± standard deviation over seeds. A difference is "
        "taken seed by seed, with the 95 % interval of Student's t."
    ]

    def add(heading: str, table: list[list[str]]) -> None:
        if len(table) > 1:
            parts.append(f"## {heading}\n\n{report.as_markdown(table)}")

    def add_losses(heading: str, datasets: Sequence[str], scores: list[str]) -> None:
        shown = {score: SCORES[score] for score in scores}
        losses, base = study.losses, study.reference
        add(heading, tabulate(study, results, losses, base, datasets, shown))

    add_losses("Table 1: IoU", list(study.datasets), ["iou"])
    add_losses("Table 2: BF1", list(study.datasets), ["bf1_3", "bf1_5"])
    compared = [variant for variant in study.losses if variant.name == study.compared]
    for dataset, label in study.labels.items():
        if not any(key[0] == dataset for key in results):
            continue
        parts.append(f"{label}: {describe_test(results, dataset)}")
        edges = ["precision_3", "recall_3", "boundary_ratio"]
        add_losses(f"Boundaries, {label}", [dataset], edges)
        add(f"Buildings, {label}", tabulate_buildings(study, results, dataset))
        add(f"Cost, {label}", tabulate_costs(study, runs / COST, dataset))
        add(
            f"Ablations, {label}: differences to {compared[0].label}",
            tabulate(
                study,
                results,
                [*compared, *study.ablations],
                study.compared,
                [dataset],
                {score: SCORES[score] for score in ABLATED},
            ),
        )
        names = draw_curves(study, results, dataset, out)
        names += draw_windows(study, results, dataset, runs, out)
        parts += [f"![{name}]({name})" for name in names]
    machines = sorted({one.machine for one in results.values()})
    parts.append("Run on: " + "; ".join(machines))
    if missing:
        parts.append(f"Not finished: {', '.join(missing)}")
    (out / "tables.md").write_text("\n\n".join(parts) + "\n")
    print(f"{out / 'tables.md'}: {len(results)} runs; {len(missing)} are not finished")


def draw_curves(study: Study, results: Results, dataset: str, out: Path) -> list[str]:
    """Draw validation IoU and BF1 over epochs; return the files (Figs. 3, 4, 7, 8)."""
    from bdloss.run import report

    names = []
    labels = {"val_iou": "IoU", "val_bf1": "BF1, 3 px"}
    for key, label in labels.items():
        histories = {
            variant.label: [
                one.history for one in _runs_of(results, dataset, variant.name)
            ]
            for variant in study.losses
        }
        histories = {name: some for name, some in histories.items() if some}
        names.append(f"{dataset}_{key}.png")
        report.draw_comparison(
            histories, key, out / names[-1], f"{label}, patches of validation"
        )
    return names


def draw_windows(
    study: Study, results: Results, dataset: str, runs: Path, out: Path
) -> list[str]:
    """Draw what the two losses make of windows where they differ most (Figs. 2, 5 ...).

    Of the first seed that both have; which windows, `choose_windows` says. Returns the
    file, if there is one.
    """
    from bdloss.data import datasets
    from bdloss.models import load_predictor
    from bdloss.run import report, training
    from bdloss.run.config import make_experiment, read_file
    from bdloss.run.prediction import predict_array

    pair = (study.reference, study.compared)
    seeds = [{key[2] for key in results if key[:2] == (dataset, name)} for name in pair]
    if not seeds[0] & seeds[1]:
        return []
    seed = min(seeds[0] & seeds[1])
    variants = [next(v for v in study.losses if v.name == name) for name in pair]
    folders = [Run(dataset, variant, seed).folder(runs) for variant in variants]
    experiment = make_experiment(read_file(folders[0] / "experiment.toml"))
    predictors = [load_predictor(folder / "model.keras") for folder in folders]
    scenes = training.read_splits(experiment).test
    masks = []
    for scene in scenes:
        data = datasets.load_scene(scene)
        preds = [
            predict_array(
                data.pixels,
                predictor.predict,
                experiment.patch,
                experiment.patch // training.OVERLAP,
                experiment.batch,
            )
            >= predictor.threshold
            for predictor in predictors
        ]
        masks.append((data.mask, *preds))
    chosen = choose_windows(masks)
    samples = []
    for place, window in chosen:
        data = datasets.load_scene(scenes[place])
        title = f"{scenes[place].name}\nrow {window.row}, column {window.col}"
        true, *preds = (mask[window.slices] for mask in masks[place])
        samples.append((title, data.pixels[window.slices], true, preds))
    name = f"{dataset}_windows.png"
    labels = [variant.label for variant in variants]
    report.draw_side_by_side(samples, labels, out / name)
    return [name]


def choose_windows(
    masks: Sequence[Sequence[np.ndarray]], side: int = SIDE, number: int = DRAWN
) -> list[tuple[int, Any]]:
    """Return the windows in which two predictions differ in most pixels.

    Args:
        masks: Truth and two predictions of each scene; 255 in the truth is ignored.
        side: Of the windows of a grid, in pixels.
        number: How many to return, none of which overlap.

    Returns:
        Place of the scene and window, those of most pixels first.
    """
    from bdloss.orthophotos.raster import IGNORED
    from bdloss.orthophotos.windows import grid
    from bdloss.run.evaluation import choose_apart

    places = []
    for place, (true, first, second) in enumerate(masks):
        differ = (first != second) & (true != IGNORED)
        for window in grid(*true.shape, side, side):
            count = int(np.count_nonzero(differ[window.slices]))
            if count:
                places.append((-count, place, window))
    chosen = choose_apart(sorted(places), number)
    return [(place, window) for _, place, window in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what is not trained yet")
    running.add_argument("study", type=Path)
    running.add_argument("--out", type=Path, default=Path("runs/study"))
    running.add_argument("--only", action="append", default=[], metavar="NAME")
    running.add_argument("--seed", type=int)
    running.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N")
    costing = commands.add_parser("cost", help="measure the seconds a step")
    costing.add_argument("study", type=Path)
    costing.add_argument("--out", type=Path, default=Path("runs/study"))
    drawing = commands.add_parser("draw", help="make tables and figures")
    drawing.add_argument("study", type=Path)
    drawing.add_argument("--runs", type=Path, default=Path("runs/study"))
    drawing.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    study = read_study(given.study)
    if given.command == "draw":
        draw_study(study, given.runs, given.out)
        return
    if given.command == "cost":
        measure_costs(study, given.out)
        return
    runs = choose_runs(study, given.only, given.seed, given.shard)
    failed = run_study(study, runs, given.out)
    if failed:
        sys.exit(f"failed: {', '.join(str(run.folder(given.out)) for run in failed)}")


def _shard(text: str) -> tuple[int, int]:
    part, parts = (int(word) for word in text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError(f"a shard is from 1/N to N/N, got {text}")
    return part, parts


if __name__ == "__main__":
    main()
