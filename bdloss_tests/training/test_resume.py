"""A training that is killed again and again ends as one that never was."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from bdloss import models
from bdloss.training import run as training
from bdloss.training import weight_search
from bdloss.training.experiment import make_experiment
from bdloss_tests.scenes import write_folder

# Each process but the last is killed: some moment after it has started, after it has
# finished an epoch, or by itself between `search.csv` and the checkpoint of the search.
EARLY, AFTER, SEARCH = "early", "after an epoch", "search"
FEW = (EARLY, AFTER, SEARCH)
MANY = (*FEW, *[EARLY] * 6, *[AFTER] * 3)
LONGEST = {EARLY: 1.5, AFTER: 0.1}  # seconds
# Forks of a server that has imported TensorFlow: real processes, without its start-up.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bdloss.training.run"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {
        "dataset": {
            "root": str(write_folder(tmp_path_factory.mktemp("town"))),
            "validation": 0.4,
            "test": ["b"],
        },
        "model": {"filters": 2, "blocks": 1},
        "patches": {
            "size": 32,
            "batch_size": 2,
            "steps": 4,
            "workers": 1,
            "augment": "none",
        },
        "weight": {"policy": "search", "first": 2, "every": 2, "values": [0.1, 0.9]},
        "stage": [
            {"epochs": 3, "learning_rate": 1e-2, "plateau": 1},
            {"epochs": 2, "learning_rate": 5e-3, "schedule": "cosine"},
        ],
    }


def train(settings, out, kill=None):
    if kill == SEARCH:
        write = weight_search.write_history

        def write_and_die(rows, path):
            write(rows, path)
            os.kill(os.getpid(), signal.SIGKILL)

        weight_search.write_history = write_and_die
    training.train(make_experiment(settings), out, verbose=0)


def start(settings, out, kill=None):
    process = PROCESSES.Process(target=train, args=(settings, out, kill))
    process.start()
    return process


def checkpoints(out):
    return {path.name + path.parent.name for path in out.rglob("epoch-*.npz")}


def train_and_kill(settings, out, kills):
    """Train until it is done; return how often it was killed."""
    draw, killed = random.Random(4), 0
    for kill in [*kills, None]:
        before = checkpoints(out)
        process = start(settings, out, kill)
        if kill in (EARLY, AFTER):
            while kill == AFTER and process.is_alive() and checkpoints(out) <= before:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, LONGEST[kill]))
            process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    return killed


@pytest.mark.parametrize(
    ("kills", "least"),
    [(FEW, 3), pytest.param(MANY, 10, marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_killed_training_ends_as_if_it_had_never_stopped(
    settings, tmp_path, kills, least
):
    process = start(settings, tmp_path / "whole")
    killed = train_and_kill(settings, tmp_path / "killed", kills)
    process.join()
    assert process.exitcode == 0
    assert killed >= least
    same(tmp_path / "whole", tmp_path / "killed")


def test_killed_fine_tuning_ends_so_too(settings, tmp_path):
    from bdloss.training.start import network_of

    settings = {**settings, "weight": {"policy": "ramp", "first": 1, "last": 3}}
    plain = {**settings, "stage": [{"epochs": 1}], "seed": 7}
    training.train(make_experiment(plain), tmp_path / "first", verbose=0)
    path = tmp_path / "first" / "model.keras"
    settings["model"] = network_of(path, {"start": str(path)})
    process = start(settings, tmp_path / "whole")
    killed = train_and_kill(settings, tmp_path / "killed", (AFTER, EARLY))
    process.join()
    assert process.exitcode == 0
    assert killed == 2
    same(tmp_path / "whole", tmp_path / "killed")


def same(one, other):
    assert {path.name for path in one.iterdir()} == {
        path.name for path in other.iterdir()
    }
    for run in ("train", "validation"):  # each epoch is logged once
        epochs = sorted(path.suffix for path in (other / "logs" / run).iterdir())
        assert epochs == [f".epoch-{n:05d}" for n in (1, 2, 3, 4, 5)]
    for path in one.glob("*.csv"):
        assert path.read_text() == (other / path.name).read_text()
    first, second = (
        models.load_model(out / "model.keras")[0].get_weights() for out in (one, other)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
