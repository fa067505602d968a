"""The whole schedule of Section 4.2, at a tiny size.

`INRIA=AerialImageDataset make test-slow` trains on tiles of the data set itself.
"""

import csv
import os

import keras
import pytest
from click.testing import CliRunner

from bdloss import models
from bdloss.cli import main as cli
from bdloss_tests.archives import write_inria

TINY = {
    "model.backbone": "lite",
    "patches.size": 64,
    "patches.batch_size": 16,
    "patches.steps": 1,
    "patches.workers": 1,
    "weight.values": [0.1, 0.5],
}


@pytest.mark.slow
def test_schedule_of_inria_is_trained_to_its_end(tmp_path):
    data = os.environ.get("INRIA") or write_inria(tmp_path)
    words = ["train", "--dataset", "inria", "--data", str(data)]
    for key, value in TINY.items():
        words += ["--set", f"{key}={value}"]
    done = CliRunner().invoke(cli.main, [*words, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.keras", "metrics.json", "history.csv", "search.csv"} <= names
    assert "checkpoints" not in names
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    model = models.load_model(tmp_path / "run" / "model.keras")[0]
    stages = [
        (3, 3e-3, "decoder"),
        (5, 1e-3, "decoder and batch norm"),
        (100, 1e-4, "all"),
        (60, 1e-5, "all"),
    ]
    expected = []
    for epochs, rate, trainable in stages:
        models.set_trainable(model, trainable)
        count = sum(keras.ops.size(w) for w in model.trainable_variables)
        expected += [(pytest.approx(rate), int(count))] * epochs
    found = [
        (float(row["learning_rate"]), int(row["trainable_parameters"])) for row in rows
    ]
    assert found == expected
    assert len({count for _, count in found}) == 3
    assert [int(row["epoch"]) for row in rows] == list(range(1, 169))
    with (tmp_path / "run" / "search.csv").open(newline="") as file:
        branches = list(csv.DictReader(file))
    searches = [int(row["search"]) for row in branches]
    assert sorted(set(searches)) == [8, 38, 68, 98, 128, 158]
    assert [searches.count(start) for start in (8, 158)] == [60, 20]
    assert [float(row["w"]) for row in rows[:8]] == pytest.approx([0.1] * 8)
