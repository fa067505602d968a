"""The weight search (Section 4.2): a branch per w, the best of them goes on.

At epoch `first` and every `every` epochs a branch is trained for each of `values`, all
from one snapshot of weights, optimizer and random state. The one of the best validation
IoU goes on from where it ended. With `probe_epochs` a branch is that short, and the
best one goes on with its w until the next search.
"""

import csv
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from matplotlib.figure import Figure

from bdloss.callbacks import ConstantWeight
from bdloss.errors import DamagedFileError
from bdloss.training.checkpoints import (
    newest_state,
    read_state,
    state_path,
)
from bdloss.training.history import write_history
from bdloss.training.savers import CheckpointSaver
from bdloss.training.schedules import WeightSettings
from bdloss.training.trainer import Trainer

logger = logging.getLogger(__name__)


def search_weights(
    trainer: Trainer,
    weight: WeightSettings,
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train to the end, searching w on the way.

    Args:
        trainer: What is trained; it may stand at any epoch.
        weight: Its start, first, every, values and probe_epochs are used.
        folder: Run folder: gets `search.csv` and `search.png`, and `checkpoints` of
            branches that are removed when the search is over.
        callbacks: Keras's, of the epochs that are no branch's, and of the last one of
            each branch that goes on.

    Raises:
        ValueError: If the loss is not finite.
    """
    epochs = trainer.epochs
    first = ConstantWeight(weight.start)
    trainer.fit_until(min(weight.first, epochs), first, callbacks)
    while not trainer.finished:
        start = trainer.epoch
        passed = (start - weight.first) % weight.every
        if passed == 0:
            end = min(start + (weight.probe_epochs or weight.every), epochs)
            best = _search_once(trainer, weight, end, folder)
            for callback in callbacks:
                callback.set_model(trainer.model)
                callback.on_epoch_end(end - 1, dict(trainer.rows[-1]))
            trainer.devices.wait()
            if trainer.devices.is_chief:
                shutil.rmtree(_branches(folder))
            logger.info(
                "search: w = %s is best in epochs %d to %d", best, start + 1, end
            )
        chosen = ConstantWeight(trainer.rows[-1]["w"])
        trainer.fit_until(min(start - passed + weight.every, epochs), chosen, callbacks)


def extra_epochs(weight: WeightSettings, epoch: int, epochs: int) -> int:
    """Return how many epochs the branches that are not chosen will take.

    Args:
        weight: Its first, every, values and probe_epochs are used.
        epoch: Epochs that are finished.
        epochs: Epochs of the whole training.

    Example:
        >>> extra_epochs(WeightSettings(first=8, every=30, values=[0.1, 0.9]), 0, 48)
        40
    """
    starts = range(weight.first, epochs, weight.every)
    probe = weight.probe_epochs or weight.every
    ahead = sum(min(probe, epochs - start) for start in starts if start >= epoch)
    return (len(weight.values) - 1) * ahead


def _search_once(
    trainer: Trainer, weight: WeightSettings, end: int, folder: Path
) -> float:
    """Train all branches from here; leave the trainer where the best one ended."""
    snapshot = trainer.state()
    folders = [
        _branches(folder) / f"{snapshot.epoch:05d}-{value}" for value in weight.values
    ]
    branches = []
    for value, branch in zip(weight.values, folders, strict=True):
        trainer.restore(newest_state(branch) or snapshot)
        chief = trainer.devices.is_chief
        savers = [CheckpointSaver(trainer, branch)] if chief else []
        trainer.fit_until(end, ConstantWeight(value), savers, stops_early=False)
        branches.append(trainer.rows[snapshot.epoch :])
    scores = [branch[-1]["val_iou"] for branch in branches]
    best = scores.index(max(scores))
    rows = [
        {
            "search": snapshot.epoch,
            "weight": value,
            "epoch": row["epoch"],
            "val_iou": row["val_iou"],
            "val_loss": row["val_loss"],
            "chosen": int(i == best),
        }
        for i, value in enumerate(weight.values)
        for row in branches[i]
    ]
    if trainer.devices.is_chief:
        path = folder / "search.csv"
        before = [row for row in read_search(path) if row["search"] < snapshot.epoch]
        write_history(before + rows, path)
        draw_search(before + rows, folder / "search.png")
    trainer.devices.wait()
    trainer.restore(read_state(state_path(folders[best], end)))
    return weight.values[best]


def _branches(folder: Path) -> Path:
    return folder / "checkpoints" / "branches"


def read_search(path: Path) -> list[dict[str, Any]]:
    """Read what each branch scored.

    Args:
        path: `search.csv` of a run; it need not exist.

    Returns:
        A row an epoch of a branch: the epoch at which its search began, its weight, the
        epoch, its validation IoU and loss, and whether it was chosen (1) or not (0).
    """
    if not path.is_file():
        return []
    whole = ("search", "epoch", "chosen")
    try:
        with path.open(newline="") as file:
            return [
                {key: int(v) if key in whole else float(v) for key, v in row.items()}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError) as error:
        raise DamagedFileError(
            f"damaged; give --fresh to start over: {path}"
        ) from error


def draw_search(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the validation IoU of every branch, the chosen ones bold.

    Args:
        rows: What `read_search` returns, at least one.
        path: PNG file to write.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    weights = sorted({row["weight"] for row in rows})
    for i, weight in enumerate(weights):
        label: str | None = f"w = {weight}"
        for start in sorted({row["search"] for row in rows}):
            branch = [
                row for row in rows if (row["search"], row["weight"]) == (start, weight)
            ]
            if branch:
                axes.plot(
                    [row["epoch"] for row in branch],
                    [row["val_iou"] for row in branch],
                    marker=".",
                    color=f"C{i}",
                    linewidth=3 if branch[0]["chosen"] else 1,
                    label=label,
                )
                label = None
    axes.set(xlabel="epoch", ylabel="validation IoU", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.locator_params(axis="x", integer=True)
    axes.legend(title="the bold branch goes on")
    figure.savefig(path, dpi=120)
