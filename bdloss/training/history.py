"""History: a row an epoch, as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from bdloss.files import atomic_path

if TYPE_CHECKING:
    from bdloss.training.trainer import Trainer


class HistoryWriter(keras.callbacks.Callback):
    """Write the rows of a training after each epoch.

    Args:
        trainer: What is trained.
        path: As in `write_history`.
    """

    def __init__(self, trainer: "Trainer", path: Path):
        super().__init__()
        self.trainer, self.path = trainer, path

    def write(self) -> None:
        """Write the rows that there are."""
        write_history(self.trainer.rows, self.path)

    def on_epoch_end(self, epoch, logs=None):
        """Write the row of the epoch too."""
        self.write()


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
