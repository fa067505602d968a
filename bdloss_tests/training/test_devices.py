"""Several devices train as one does; each test needs processes of its own."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from bdloss.training.devices import join_processes, select_devices
from bdloss_tests.scenes import write_folder

# Trains in two epochs; arguments: settings as JSON, run folder, number of devices.
TRAIN = """
import json, sys
from pathlib import Path
import keras
from bdloss.training import devices
from bdloss.training import run as training
from bdloss.training.experiment import make_experiment
devices.join_processes()
settings, out, number = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def train(out, devices):
    training.train(make_experiment(settings), out, devices=devices, verbose=0)
"""
LOGICAL_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
"""
PROCESS = """
import numpy as np
fit = training._fit
def fit_and_save(trainer, *rest):
    rows = fit(trainer, *rest)
    name = f"weights-{trainer.devices.process}.npz"
    np.savez(out / name, *trainer.model.get_weights())
    return rows
training._fit = fit_and_save
train(out / number, "1")
"""
STOPPED = """
import bdloss.training.checkpoints as checkpoints
save = checkpoints.save_state
def stop(*args, **kwargs):
    save(*args, **kwargs)
    raise KeyboardInterrupt
checkpoints.save_state = stop
try:
    train(out / "two", number)
except KeyboardInterrupt:
    checkpoints.save_state = save
train(out / "two", number)
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    # 90 x 130 and, of each, some rows to validate on: 9 patches, which two cannot share
    root = write_folder(tmp_path_factory.mktemp("town"), [(90, 130)])
    return {
        "dataset": {"root": str(root), "validation": 0.3},
        "model": {"filters": 2, "blocks": 1},
        "patches": {
            "size": 32,
            "batch_size": 4,
            "steps": 2,
            "workers": 1,
            "augment": "none",
        },
        "loss": {"extra": "dice", "batch": True},  # which is traced faster
        "weight": {"policy": "constant", "start": 0.5},
        "stage": [{"epochs": 2}],
    }


def run(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def succeed(process):
    _, said = process.communicate()
    assert process.returncode == 0, said


def read(out):
    """Return losses and scores of each epoch, and the weights at the end."""
    from bdloss.models import load_model

    rows = np.genfromtxt(out / "history.csv", delimiter=",", names=True)
    weights = load_model(out / "model.keras")[0].get_weights()
    return rows, weights


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's way")
def test_two_devices_train_as_one_when_stopped_too(settings, tmp_path):
    script = LOGICAL_CPUS + TRAIN + "train(out / 'one', '1')" + STOPPED
    succeed(run(script, json.dumps(settings), tmp_path, "2"))
    same(tmp_path / "one", tmp_path / "two")
    result = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert result["machine"].endswith("2 CPUs")


def same(one, two):
    (rows, weights), (rows2, weights2) = read(one), read(two)
    # The validation loss of a batch is that of blank patches too.
    for name in set(rows.dtype.names) - {"val_loss"}:
        np.testing.assert_allclose(rows2[name], rows[name], atol=1e-5, err_msg=name)
    for one, two in zip(weights, weights2, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-3)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the way of JAX")
def test_two_processes_train_as_one(settings, tmp_path):
    settings = settings | {"weight": {"policy": "search", "first": 1, "every": 1}}
    settings["weight"]["values"] = [0.1, 0.9]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script, given = TRAIN + PROCESS, json.dumps(settings)
    processes = [
        run(
            script,
            *(given, tmp_path, "two"),
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(process),
        )
        for process in (0, 1)
    ]
    for process in processes:
        succeed(process)
    with np.load(tmp_path / "weights-0.npz") as one:
        first = dict(one)
    with np.load(tmp_path / "weights-1.npz") as other:
        for name, array in other.items():
            np.testing.assert_array_equal(array, first[name])
    succeed(run(script, given, tmp_path, "one"))
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("devices", "batch", "rule"),
    [
        ("-1", 4, "devices must be a number above 0, or all, got -1"),
        ("0", 4, "devices must be a number above 0, or all, got 0"),
        ("two", 4, "devices must be a number above 0, or all, got two"),
        ("999", 4, "devices must be at most the 1 here, got 999"),
    ],
)
def test_devices_that_cannot_train(devices, batch, rule):
    with pytest.raises(ValueError, match=rule):
        select_devices(devices, batch)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="one device")
def test_devices_share_a_batch_equally(monkeypatch):
    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["cpu:0", "cpu:1"])
    with pytest.raises(ValueError, match="2 devices must share a batch equally, got 3"):
        select_devices("all", 3)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_several_processes_need_jax(monkeypatch):
    join_processes()
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="on KERAS_BACKEND=jax, got "):
        join_processes()
