"""TensorBoard logs: an event file an epoch, whole or not there, never written twice."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

RUNS = ("train", "validation")
PARTIAL = ".partial"  # folder in which a file is written
EXAMPLES = "image, truth, prediction"  # name of the pictures


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
