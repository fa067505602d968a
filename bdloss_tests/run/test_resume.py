"""A training that is killed again and again ends as one that never was."""

import multiprocessing
import random
import signal
import time

import numpy as np
import pytest

from bdloss import models
from bdloss.run import training
from bdloss.run.config import make_experiment
from bdloss_tests.scenes import write_folder

KILLS = 5
# Forks of a server that has imported TensorFlow: real processes, without its start-up.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bdloss.run.training"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {
        "data": str(write_folder(tmp_path_factory.mktemp("town"))),
        "validation": 0.4,
        "test": ["b"],
        "filters": 2,
        "blocks": 1,
        "patch": 32,
        "batch": 2,
        "steps": 4,
        "workers": 1,
        "augment": "none",
        "weight": {"policy": "search", "first": 2, "every": 2, "values": [0.1, 0.9]},
        "stage": [
            {"epochs": 3, "learning_rate": 1e-2, "plateau": 1},
            {"epochs": 2, "learning_rate": 5e-3, "schedule": "cosine"},
        ],
    }


def train(settings, out):
    training.train(make_experiment(settings), out, verbose=0)


def start(settings, out):
    process = PROCESSES.Process(target=train, args=(settings, out))
    process.start()
    return process


def checkpoints(out):
    return {path.name + path.parent.name for path in out.rglob("epoch-*.npz")}


def train_and_kill(settings, out, moments):
    """Train until it is done, killed some moment after each next finished epoch."""
    kills = 0
    while True:
        before = checkpoints(out)
        process = start(settings, out)
        moment = next(moments, None)
        if moment is not None:
            while process.is_alive() and not checkpoints(out) - before:
                time.sleep(0.005)
            time.sleep(moment)
            process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        kills += 1


def test_killed_training_ends_as_if_it_had_never_stopped(settings, tmp_path):
    draw = random.Random(4)
    moments = (draw.uniform(0, 0.15) for _ in range(KILLS))
    process = start(settings, tmp_path / "whole")
    kills = train_and_kill(settings, tmp_path / "killed", moments)
    process.join()
    assert process.exitcode == 0
    assert kills >= 3
    same(tmp_path / "whole", tmp_path / "killed")


def same(one, other):
    assert {path.name for path in one.iterdir()} == {
        path.name for path in other.iterdir()
    }
    for name in ("history.csv", "search.csv"):
        assert (one / name).read_text() == (other / name).read_text()
    first, second = (
        models.load_model(out / "model.keras")[0].get_weights() for out in (one, other)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
