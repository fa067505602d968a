"""Keras callbacks that save a training and report it, after each epoch."""

from pathlib import Path

import keras

from bdloss.training import checkpoints
from bdloss.training.history import write_history
from bdloss.training.tensorboard import log_epochs
from bdloss.training.trainer import Trainer


class CheckpointSaver(keras.callbacks.Callback):
    """Write a checkpoint after each epoch.

    Args:
        trainer: What is trained.
        folder: Folder of checkpoints; made if need be.
        keep_best: Whether that of the best epoch stays, beside the newest two.
    """

    def __init__(self, trainer: Trainer, folder: Path, keep_best: bool = False):
        super().__init__()
        self.trainer, self.folder, self.keep_best = trainer, folder, keep_best

    def on_epoch_end(self, epoch, logs=None):
        """Save where the training stands."""
        best = [self.trainer.best_epoch] if self.keep_best else []
        checkpoints.save_state(self.trainer.state(), self.folder, keep_epochs=best)


class HistoryWriter(keras.callbacks.Callback):
    """Write the rows of a training after each epoch.

    Args:
        trainer: What is trained.
        path: As in `write_history`.
    """

    def __init__(self, trainer: Trainer, path: Path):
        super().__init__()
        self.trainer, self.path = trainer, path

    def write(self) -> None:
        """Write the rows that there are."""
        write_history(self.trainer.rows, self.path)

    def on_epoch_end(self, epoch, logs=None):
        """Write the row of the epoch too."""
        self.write()


class TensorBoardEpochs(keras.callbacks.Callback):
    """Log each epoch, with some patches of the validation beside their prediction.

    Args:
        trainer: What is trained.
        folder: As in `log_epochs`.
    """

    def __init__(self, trainer: Trainer, folder: Path):
        super().__init__()
        self.trainer, self.folder = trainer, folder

    def write(self) -> None:
        """Log the epochs that are not logged yet."""
        log_epochs(self.trainer.rows, self.trainer.examples, self.folder)

    def on_epoch_end(self, epoch, logs=None):
        """Log the epoch."""
        self.write()
