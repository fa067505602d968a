"""TensorBoard logs: an event file an epoch, whole or not there, never written twice."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from bdloss.constants import IGNORED
from bdloss.plots import as_rgb

if TYPE_CHECKING:
    from bdloss.training.trainer import Trainer

RUNS = ("train", "validation")
PARTIAL = ".partial"  # folder in which a file is written
EXAMPLES = "image, truth, prediction"  # name of the pictures


class TensorBoardEpochs(keras.callbacks.Callback):
    """Log each epoch, with some patches of the validation beside their prediction.

    Args:
        trainer: What is trained.
        folder: As in `log_epochs`.
    """

    def __init__(self, trainer: "Trainer", folder: Path):
        super().__init__()
        self.trainer, self.folder = trainer, folder

    def write(self) -> None:
        """Log the epochs that are not logged yet."""
        log_epochs(self.trainer.rows, self.trainer.examples, self.folder)

    def on_epoch_end(self, epoch, logs=None):
        """Log the epoch."""
        self.write()


def log_epochs(
    rows: Sequence[Mapping[str, float]],
    examples: Callable[[], np.ndarray | None],
    folder: Path,
) -> None:
    """Log the epochs that are not logged yet. Needs TensorFlow, not `tensorboard`.

    Args:
        rows: A row an epoch, as Keras logs them, from the first on.
        examples: Returns pictures `(number, height, width, 3)`, uint8, of the last
            epoch, or None; it is called if that is to be logged.
        folder: Where `train` and `validation` are written, which TensorBoard lays over
            each other.

    Raises:
        OSError: If they cannot be written.
    """
    for run in RUNS:  # what a run that was killed has left
        shutil.rmtree(folder / run / PARTIAL, ignore_errors=True)
    for row in rows:
        epoch = int(row["epoch"])
        ending = f".epoch-{epoch:05d}"
        for run in RUNS:
            values = {
                name.removeprefix("val_"): value
                for name, value in row.items()
                if name.startswith("val_") == (run == "validation") and name != "epoch"
            }
            if values and not list((folder / run).glob(f"*{ending}")):
                last = run == "validation" and row is rows[-1]
                pictures = examples() if last else None
                _write(values, pictures, epoch, folder / run, ending)


def _write(
    values: Mapping[str, float],
    pictures: np.ndarray | None,
    epoch: int,
    folder: Path,
    ending: str,
) -> None:
    """Write an epoch as TensorBoard's own `scalar` and `image` do."""
    import tensorflow as tf

    partial = folder / PARTIAL
    partial.mkdir(parents=True)
    try:
        writer = tf.summary.create_file_writer(str(partial), filename_suffix=ending)
        with writer.as_default(epoch):
            for name, value in values.items():
                tf.summary.write(name, np.float32(value), metadata=_kind("scalars"))
            if pictures is not None:
                _, height, width, _ = pictures.shape
                files = [tf.io.encode_png(picture).numpy() for picture in pictures]
                # The images plugin takes width, height, and PNG files.
                tensor = tf.constant([str(width), str(height), *files])
                tf.summary.write(EXAMPLES, tensor, metadata=_kind("images"))
        writer.close()
        (written,) = partial.iterdir()
        written.rename(folder / written.name)
    except tf.errors.OpError as error:  # TensorFlow's for a full disk, among others
        reason = error.message.splitlines()[0].rpartition("; ")[-1]
        raise OSError(f"cannot write the logs in {folder}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kind(plugin: str):
    from tensorflow.compat.v1 import SummaryMetadata

    return SummaryMetadata(plugin_data={"plugin_name": plugin})


def draw_examples(pixels: np.ndarray, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Draw patches beside their truth and prediction.

    Args:
        pixels: Patches `(number, height, width, bands)`, 0..255.
        true: Masks `(number, height, width, 1)`; 255, ignored, is drawn grey.
        pred: Probabilities of the same shape, in [0, 1].

    Returns:
        Pictures of shape `(number, height, 3 * width, 3)`, uint8.

    Example:
        >>> grey, mask = np.full((1, 1, 1, 1), 9), np.ones((1, 1, 1, 1))
        >>> draw_examples(grey, mask, mask)[0, 0, :, 0].tolist()
        [9, 255, 255]
    """
    truth = np.where(true == 1, 255, (true == IGNORED) * 127)
    parts = [*map(as_rgb, (pixels, truth, 255 * pred))]
    return np.concatenate(parts, axis=2).round().astype(np.uint8)
