"""Commands that are killed again and again end as if they never were, each in turn."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import re
import shutil
import time
import zipfile

import numpy as np
import pyogrio
import pytest

from bdloss.cli import main as cli
from bdloss_tests.scenes import make_scene, write_folder, write_raster

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "30"))  # of each command
# Forks of a server that has imported TensorFlow: real processes, without its start-up.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bdloss.cli.main", "bdloss.training.run"])
TRAINING = {
    "dataset.validation": "0.4",
    "model.filters": "2",
    "model.blocks": "1",
    "patches.size": "32",
    "patches.batch_size": "2",
    "patches.steps": "4",
    "patches.workers": "1",
    "patches.augment": "none",
    "stage": "[{epochs=3, learning_rate=1e-2}]",
}
TUNING = {key: TRAINING[key] for key in TRAINING if "model." not in key}
SEARCH = {
    "weight.policy": "search",
    "weight.first": "2",
    "weight.every": "1",
    "weight.values": "[0.1, 0.9]",
}


def run(words):
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main([str(word) for word in words])


def start(words):
    process = PROCESSES.Process(target=run, args=(words,))
    process.start()
    return process


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A town that takes some seconds to map, its truth and its map."""
    folder = tmp_path_factory.mktemp("town")
    pixels, mask = make_scene(5, 1400, 1100)
    write_raster(folder / "town.tif", pixels, tiled=True)
    write_raster(folder / "truth" / "town.tif", mask)
    write_raster(folder / "masks" / "town_mask.tif", np.roll(mask, 2, axis=1))
    write_folder(folder / "small")
    return folder


def set_all(settings):
    return [word for pair in settings.items() for word in ("--set", "=".join(pair))]


def words_of(command, town, model, out):
    """Return the words of a command that writes into a folder and nowhere else."""
    predict = ("--model", model, "--out", out, "--window", 32, "--overlap", 8)
    data = ("--dataset", "folder_from_nothing", "--data", town / "small")
    return {
        "predict": [
            *("predict", town / "town.tif", *predict, "--prob", "--overlay"),
            *("--overviews", "--batch", 16),
        ],
        "predict --cog": [
            *("predict", town / "town.tif", *predict, "--cog", "--tta", "flips"),
            *("--vector", "geojson", "--batch", 16),
        ],
        "shard": ["predict", town / "town.tif", *predict, "--shard"],
        "merge": ["merge", town / "town.tif", "--out", out, "--prob"],
        "score": ["score", town / "masks", town / "truth", "--out", out / "scores"],
        "data check": ["data", "check", *data],
        "export": ["export", model, "--out", out / "model.onnx", "--window", 32],
        "train": ["train", *data, "--out", out / "run", *set_all(TRAINING)],
        "fine-tune": [
            *("train", "--dataset", "folder", "--data", town / "small"),
            *("--out", out / "run", *set_all(TUNING)),
        ],
        "search": ["train", *data, "--out", out / "run", *set_all(TRAINING | SEARCH)],
    }[command]


def prepare(command, town, model, out):
    """Lay out what a command needs in the folder that it writes into."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if command == "merge":
        if not (town / "shards").exists():
            for shard in ("1/2", "2/2"):
                words = words_of("shard", town, model, town / "shards")
                process = start([*words, shard])
                process.join()
                assert process.exitcode == 0
        shutil.copytree(town / "shards", out, dirs_exist_ok=True)


def content(path):
    """Return what must be equal of a file."""
    data = path.read_bytes()
    if path.suffix == ".gpkg":  # has the time of its last change
        meta, _, shapes, columns = pyogrio.raw.read(path)
        return meta["crs"], list(shapes), [list(column) for column in columns]
    if path.suffix == ".keras":  # has the time when it was saved, and addresses
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist()) - {"metadata.json"}
            parts = {name: archive.read(name) for name in names}
        config = re.sub(rb'"shared_object_id": \d+', b"", parts.pop("config.json"))
        return config, parts
    if path.suffix in (".json", ".html") and b"seconds" in data:
        return "a duration"
    return hashlib.sha256(data).hexdigest()


def tree(out):
    """Return all files and their contents; event files, which have times, as names."""
    files = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if "logs/" in name:
            name, value = name.rpartition(".")[2], None
        elif path.is_dir() or path.name in ("checkpoints.npz", ".lock"):
            value = None
        else:
            value = content(path)
        files[name] = value
    return files


@pytest.mark.parametrize(
    "command",
    [
        *("predict", "predict --cog", "merge", "score", "data check", "export"),
        *("train", "fine-tune", "search"),
    ],
)
def test_killed_at_random_it_ends_as_if_it_never_was(
    command,
    town,
    bright_model,
    tmp_path,
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    start(["--version"]).join()  # and the server with it
    prepare(command, town, bright_model, whole)
    begun = time.monotonic()
    process = start(words_of(command, town, bright_model, whole))
    process.join()
    lasts = time.monotonic() - begun
    assert process.exitcode == 0
    expected = tree(whole)
    draw, kills = random.Random(4), 0
    prepare(command, town, bright_model, out)
    while True:
        process = start(words_of(command, town, bright_model, out))
        process.join(draw.uniform(0, 1.1 * lasts) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            continue
        exists = command in ("score", "export") and process.exitcode == 2
        assert process.exitcode == 0 or exists  # killed after its last file
        assert tree(out) == expected
        if kills == KILLS:
            break
        prepare(command, town, bright_model, out)
