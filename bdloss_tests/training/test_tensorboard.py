import numpy as np
import pytest
import tensorflow as tf
from tensorflow import make_ndarray
from tensorflow.compat.v1.train import summary_iterator
from tensorflow.io import decode_png

from bdloss.plots import draw_examples
from bdloss.training.tensorboard import log_epochs

ROWS = [
    {"epoch": n, "loss": 1 / n, "val_loss": 2 / n, "iou": n / 10, "w": 0.1}
    for n in (1, 2, 3)
]


def read(folder):
    """Return what stands in the logs of a run, in the order of files and events."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name[-5:]):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                found.append((event.step, value.tag, make_ndarray(value.tensor)))
    return found


def test_epochs_are_logged_once_however_often_a_run_is_killed(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (2, 8, 12, 3)).astype(np.uint8)
    for rows in (ROWS[:1], ROWS[:1], ROWS):
        log_epochs(rows, lambda: pictures, tmp_path)
    train, validation = (read(tmp_path / run) for run in ("train", "validation"))
    assert [(step, tag, float(value)) for step, tag, value in train] == [
        (n, tag, np.float32(ROWS[n - 1][tag]))
        for n in (1, 2, 3)
        for tag in ("loss", "iou", "w")
    ]
    losses = [(step, float(value)) for step, tag, value in validation if tag == "loss"]
    assert losses == [(n, np.float32(2 / n)) for n in (1, 2, 3)]
    drawn = {step: value for step, tag, value in validation if "prediction" in tag}
    assert list(drawn) == [1, 3]  # epoch 2 was over when it was logged
    for picture, data in zip(pictures, drawn[3][2:], strict=True):
        np.testing.assert_array_equal(decode_png(data), picture)


def test_interrupted_log_is_none(tmp_path):
    def examples():
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            log_epochs(ROWS, examples, tmp_path)
    assert len(read(tmp_path / "validation")) == 2
    left = tmp_path / "validation" / ".partial"
    left.mkdir()
    (left / "half").write_text("as when it is killed")
    log_epochs(ROWS, lambda: None, tmp_path)
    assert [step for step, *_ in read(tmp_path / "validation")] == [1, 2, 3]


def test_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    def fail(*_, **__):
        said = "events.1; No space left on device\n\tFailed to flush"
        raise tf.errors.ResourceExhaustedError(None, None, said)

    monkeypatch.setattr(tf.summary, "create_file_writer", fail)
    with pytest.raises(
        OSError, match=r"cannot write the logs .*: No space left on dev"
    ):
        log_epochs(ROWS, lambda: None, tmp_path)
    assert not list((tmp_path / "train").iterdir())


def test_examples_lie_side_by_side():
    pixels = np.full((1, 2, 3, 4), 50, np.uint8)
    true = np.array([0, 1, 255, 0, 0, 1]).reshape(1, 2, 3, 1)
    picture = draw_examples(pixels, true, np.full(true.shape, 0.4, np.float32))[0]
    assert picture.shape == (2, 9, 3)
    assert picture[0, :, 1].tolist() == [50, 50, 50, 0, 255, 127, 102, 102, 102]
