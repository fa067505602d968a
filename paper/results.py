"""What the finished runs of a study came to: read from their folders, kept in a file.

The file (`runs.json`, a line a run) is what tables and curves are drawn from where the
run folders are not at hand. A run of other settings than the study's is not read.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bdloss.errors import DamagedFileError
from bdloss.files import DAMAGED
from paper.features import FILES
from paper.plan import Run, Study, list_runs, make_settings

KEPT = ("epoch", "val_iou", "val_bf1", "w")  # columns of a history
DIGITS = 5  # of what is kept of a history
REACHED = 0.95  # of the last validation score, that convergence is measured by


class Finished(NamedTuple):
    """What is known of a finished run.

    Attributes:
        scores: Of the test scenes, as `metrics.json` has them.
        edge: The same, of the pixels near the edges of the images.
        history: A row an epoch, of the columns `KEPT`.
        machine: What it ran on.
        settings: What changes with the settings of the run.
    """

    scores: dict[str, Any]
    edge: dict[str, Any]
    history: list[dict[str, float]]
    machine: str
    settings: str


Key = tuple[str, str, int]  # data set, loss and seed
Results = Mapping[Key, Finished]


def read_results(
    study: Study, runs: Path, store: Path
) -> tuple[dict[Key, Finished], list[str]]:
    """Return what is finished, and the names of the runs that are not.

    Args:
        study: The study.
        runs: Its run folders; what they hold counts before what was kept.
        store: File of runs that were kept; it need not exist.
    """
    kept = _read_store(store)
    found, missing = {}, []
    for run in list_runs(study):
        key = (run.dataset, run.variant.name, run.seed)
        settings = digest_settings(study, run)
        one = kept.get(key)
        if _is_of_study(study, run, runs):
            one = _read_folder(run.folder(runs), settings) or one
        if one and one.settings == settings:
            found[key] = one
        else:
            missing.append(f"{run.dataset}/{run.variant.name}/seed{run.seed}")
    return found, missing


def kept_runs(study: Study, store: Path) -> list[Run]:
    """Return the runs of a study that a file of results has, of the same settings."""
    kept = _read_store(store)
    return [
        run
        for run in list_runs(study)
        if (one := kept.get((run.dataset, run.variant.name, run.seed)))
        and one.settings == digest_settings(study, run)
    ]


def write_results(results: Results, store: Path) -> None:
    """Keep what is finished, a run a line, beside what was kept before."""
    lines = [
        json.dumps({"run": key, **one._asdict()}, separators=(",", ":"))
        for key, one in sorted({**_read_store(store), **results}.items())
    ]
    store.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def digest_settings(study: Study, run: Run) -> str:
    """Return a short text that changes with the settings of a run."""
    settings = make_settings(study, run, Path("random"))  # of kept runs too
    whole = json.dumps([settings, run.variant.special], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _is_of_study(study: Study, run: Run, runs: Path) -> bool:
    """Return whether a run folder has just the settings of the study."""
    from bdloss.training.experiment import make_experiment, read_file

    path = run.folder(runs) / "experiment.toml"
    if not path.is_file():
        return False
    made = [read_file(path), make_settings(study, run, runs)]
    for settings in made:  # where features lie is not what they are
        loss = settings.setdefault("loss", {})
        if (file := Path(loss.get("vgg", "")).name) in FILES:
            loss["vgg"] = file
    first, second = map(make_experiment, made)
    return first == second


def _read_folder(folder: Path, settings: str) -> Finished | None:
    paths = [folder / name for name in ("metrics.json", "edge.json", "history.csv")]
    if not all(path.is_file() for path in paths):
        return None
    metrics, edge = (json.loads(path.read_text()) for path in paths[:2])
    with paths[2].open(newline="") as file:
        history = [
            {key: round(float(row[key]), DIGITS) for key in KEPT if key in row}
            for row in csv.DictReader(file)
        ]
    machine = f"{metrics['machine']}, bdloss {metrics['git']}"
    return Finished(metrics["test"], edge, history, machine, settings)


def _read_store(store: Path) -> dict[Key, Finished]:
    if not store.is_file():
        return {}
    try:
        rows = json.loads(store.read_text())
        return {tuple(row.pop("run")): Finished(**row) for row in rows}
    except DAMAGED as error:
        raise DamagedFileError(f"damaged: {store}") from error


def epochs_to_reach(history: Sequence[Mapping[str, float]], key: str) -> int:
    """Return the epochs until a score is, for the first time, 95 % of its last value.

    Example:
        >>> epochs_to_reach([{"iou": v} for v in (0.2, 0.5, 0.78, 0.7, 0.8)], "iou")
        3
    """
    scores = [row[key] for row in history]
    return 1 + next(i for i, v in enumerate(scores) if v >= REACHED * scores[-1])


def noise_of(history: Sequence[Mapping[str, float]], key: str) -> float | None:
    """Return how much a score changes from an epoch to the next, in percent points.

    The mean over the second half of the epochs, up or down; None for a single epoch.

    Example:
        >>> round(noise_of([{"iou": v} for v in (0, 0, 0.5, 0.6, 0.5)], "iou"), 1)
        10.0
    """
    if len(history) < 2:
        return None
    scores = [row[key] for row in history][(len(history) - 1) // 2 :]
    return 100 * float(np.abs(np.diff(scores)).mean())


class Measure(NamedTuple):
    """A column of a table: its heading, and its value for a run (None if unknown)."""

    label: str
    of: Callable[[Finished], float | None]


def _percent(part: str, score: str) -> Callable[[Finished], float | None]:
    def read(one: Finished) -> float | None:
        value = getattr(one, part).get(score)  # older runs know fewer scores
        return None if value is None else 100 * value

    return read


MEASURES: dict[str, Measure] = {
    "iou": Measure("IoU", _percent("scores", "iou")),
    "bf1_3": Measure("BF1, 3 px", _percent("scores", "bf1_3")),
    "bf1_5": Measure("BF1, 5 px", _percent("scores", "bf1_5")),
    "precision_3": Measure("precision, 3 px", _percent("scores", "precision_3")),
    "recall_3": Measure("recall, 3 px", _percent("scores", "recall_3")),
    "boundary_ratio": Measure(
        "boundary, of the true", _percent("scores", "boundary_ratio")
    ),
    "boundary_iou": Measure("Boundary IoU, 3 px", _percent("scores", "boundary_iou")),
    "matched_f1_3": Measure("one-to-one F, 3 px", _percent("scores", "matched_f1_3")),
    "building_f1": Measure("F1 of buildings", _percent("scores", "building_f1")),
    "merged": Measure("merged buildings", lambda one: one.scores["merged"]),
    "edge_iou": Measure("IoU near the edge", _percent("edge", "iou")),
    "edge_bf1_3": Measure("BF1 near the edge, 3 px", _percent("edge", "bf1_3")),
    "epochs_iou": Measure(
        "epochs to 95 % of IoU", lambda one: epochs_to_reach(one.history, "val_iou")
    ),
    "epochs_bf1": Measure(
        "epochs to 95 % of BF1", lambda one: epochs_to_reach(one.history, "val_bf1")
    ),
    "noise_iou": Measure(
        "change of IoU, an epoch", lambda one: noise_of(one.history, "val_iou")
    ),
    "noise_bf1": Measure(
        "change of BF1, an epoch", lambda one: noise_of(one.history, "val_bf1")
    ),
}
