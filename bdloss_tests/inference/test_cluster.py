"""Workers of a Dask cluster make what one process makes, whatever dies meanwhile."""

import dataclasses
import os
import random
import signal
import stat
import threading
from contextlib import ExitStack

import pytest
from click.testing import CliRunner

from bdloss.cli.main import main
from bdloss.errors import InputError
from bdloss.geo.orthophoto import Orthophoto
from bdloss.inference import cluster
from bdloss.inference.cluster import Task, connect, predict_on_workers
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss.models import digest_of, load_predictor
from bdloss_tests.scenes import make_rows, write_raster

pytest.importorskip("distributed")

HOW = {"window": 32, "overlap": 8, "batch": 2, "threshold": 0.5, "engine": "keras"}


@pytest.fixture(scope="module")
def client():
    with connect("local:2") as client:
        yield client


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    for number, size in enumerate([(60, 90), (150, 220), (80, 70)]):
        pixels, _ = make_rows(number, *size)
        write_raster(folder / f"scene{number}.tif", pixels)
    return sorted(folder.iterdir())


def products(folder, image):
    return Products.in_folder(
        folder, image.stem, prob=True, vector="fgb", min_area=1.0, overlay=True
    )


def plan(images, folder, model, **more):
    return [
        Task.plan(
            Orthophoto.read(image),
            products=products(folder, image),
            model=model,
            digest=digest_of(model),
            settings={**HOW, **more},
        )
        for image in images
    ]


def by_one_process(images, folder, model):
    predictor = load_predictor(model)
    for image in images:
        predict_raster(image, predictor, products(folder, image), **HOW)


def predict_all(client, tasks, progress=None):
    """Predict rasters with which nothing may be wrong."""
    results = dict(predict_on_workers(client, tasks, progress))
    for result in results.values():
        if isinstance(result, Exception):
            raise result
    return results


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, town, bright_model):
    folder = tmp_path_factory.mktemp("alone") / "out"
    by_one_process(town, folder, bright_model)
    assert len(contents(folder)) == 4 * len(town)
    return folder


@pytest.mark.parametrize("pixels", [64e6, 5000], ids=["whole", "in parts"])
def test_the_result_is_that_of_one_process_to_the_byte(
    client, town, alone, tmp_path, bright_model, monkeypatch, pixels
):
    monkeypatch.setattr(cluster, "UNIT_PIXELS", pixels)
    out, progress = tmp_path / "out", []
    tasks = plan(town, out, bright_model)
    assert max(task.parts for task in tasks) == (7 if pixels == 5000 else 1)
    results = predict_all(client, tasks, progress.append)
    assert contents(out) == contents(alone)
    for task in tasks:
        assert results[task].files == task.products.paths
        assert results[task].polygons > 0
    assert sum(progress) == pytest.approx(sum(task.megapixels for task in tasks))
    again = predict_all(client, tasks)
    assert all(result.kept for result in again.values())


def test_what_is_wrong_with_a_raster_is_said_and_the_rest_is_done(
    client, town, alone, tmp_path, bright_model
):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(town[0].read_bytes())
    tasks = plan([*town, bad], tmp_path / "out", bright_model)
    bad.write_bytes(b"no raster")
    results = dict(predict_on_workers(client, tasks))
    errors = [result for result in results.values() if isinstance(result, Exception)]
    assert len(errors) == 1
    assert "bad.tif" in str(errors[0])
    assert contents(tmp_path / "out") == contents(alone)


class Poison:
    """In the place of tags, kills the process that looks at them."""

    def keys(self):
        os._exit(1)


def test_a_raster_that_kills_workers_is_named_and_nineteen_are_done(
    client, town, alone, tmp_path, bright_model, monkeypatch
):
    monkeypatch.setattr(cluster, "UNIT_PIXELS", 5000)
    out = tmp_path / "out"
    tasks = plan(town, out, bright_model)
    for number in range(16):
        copy = tmp_path / f"copy{number}.tif"
        copy.write_bytes(town[0].read_bytes())
        tasks += plan([copy], tmp_path / "copies", bright_model)
    poisoned = dataclasses.replace(
        plan(town[1:2], tmp_path / "other", bright_model, tags=Poison())[0], parts=1
    )
    results = dict(predict_on_workers(client, [*tasks[:9], poisoned, *tasks[9:]]))
    error = results.pop(poisoned)
    assert isinstance(error, InputError)
    assert str(error) == "killed the workers that predicted it"
    assert len(results) == 19
    assert not [result for result in results.values() if isinstance(result, Exception)]
    assert contents(out) == contents(alone)
    assert len(contents(tmp_path / "copies")) == 16 * 4


def test_one_that_waited_beside_it_is_not_blamed(town, tmp_path, bright_model):
    """Dask counts the death of a worker against all that it was given."""
    tasks = plan(town[:1], tmp_path / "out", bright_model)
    (poisoned,) = plan(town[2:], tmp_path / "other", bright_model, tags=Poison())
    with connect("local:1") as client:
        results = dict(predict_on_workers(client, [poisoned, *tasks]))
    assert isinstance(results.pop(poisoned), InputError)
    assert results[tasks[0]].polygons


def test_a_lock_of_a_worker_that_is_lost_is_waited_for(
    client, town, tmp_path, bright_model
):
    (task,) = plan(town[:1], tmp_path / "out", bright_model)
    with ExitStack() as held:
        held.enter_context(task.products.store.held())
        threading.Timer(3, held.close).start()
        (result,) = predict_all(client, [task]).values()
    assert result.polygons


def test_a_merge_that_was_not_told_of_is_kept(town, tmp_path, bright_model):
    (task,) = plan(town[1:2], tmp_path / "out", bright_model, overwrite=True)
    task = dataclasses.replace(task, parts=2)
    (tmp_path / "out").mkdir()
    for part in (1, 2):
        cluster._do(cluster._Unit(0, task, part))
    merge = cluster._Unit(0, task, cluster.MERGE)
    assert not cluster._do(merge).kept
    assert cluster._do(merge).kept
    unseen = Products.in_folder(tmp_path / "unseen", "a")
    elsewhere = dataclasses.replace(task, products=unseen)
    with pytest.raises(ValueError, match="a worker does not see the folder"):
        cluster._do(cluster._Unit(0, elsewhere, 1))
    cluster._model_of.cache_clear()


def test_overwriting_starts_over_whatever_was_begun(
    client, town, alone, tmp_path, bright_model
):
    out = tmp_path / "out"
    out.mkdir()
    for settings in ({"threshold": 0.9}, {}):
        (task,) = plan(town[1:2], out, bright_model, overwrite=True, **settings)
        task = dataclasses.replace(task, parts=2)
        if settings:
            cluster._do(cluster._Unit(0, task, 1))
            assert task.products.store.begun
    strange = tmp_path / "strange"
    (other,) = plan(town[:1], strange, bright_model, overwrite=True)
    folder = other.products.store.folder
    folder.mkdir(parents=True)
    (folder / "mine.txt").touch()
    results = dict(predict_on_workers(client, [other, task]))
    assert "got one of other files" in str(results[other])
    name = task.products.mask.name
    assert (out / name).read_bytes() == (alone / name).read_bytes()
    cluster._model_of.cache_clear()


@pytest.mark.parametrize(
    "kills", [2, pytest.param(10, marks=pytest.mark.slow)], ids=["two", "ten"]
)
def test_killed_workers_cost_nothing_but_time(
    client, town, alone, tmp_path, bright_model, monkeypatch, kills
):
    monkeypatch.setattr(cluster, "UNIT_PIXELS", 1500)
    out, killed = tmp_path / "out", []
    dice = random.Random(7)
    done = threading.Event()

    def kill_some():
        while len(killed) < kills and not done.wait(dice.uniform(0.2, 2)):
            nannies = list(client.cluster.workers.values())
            alive = [nanny.pid for nanny in nannies if nanny.pid]
            if alive and client.scheduler_info()["workers"]:
                killed.append(dice.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        while True:  # again, as somebody would who has time for ten kills
            tasks = plan(town, out, bright_model, overwrite=len(killed) < kills)
            predict_all(client, tasks)
            if len(killed) == kills:
                break
    finally:
        done.set()
        killer.join()
    assert contents(out) == contents(alone)


def test_workers_that_lack_something_are_refused_first(
    client, town, tmp_path, bright_model
):
    (task,) = plan(town[:1], tmp_path / "out", bright_model)
    other = dataclasses.replace(task, digest="0123456789abcdef")
    with pytest.raises(ValueError, match=r"worker tcp://\S+ has another model of the"):
        list(predict_on_workers(client, [other]))
    missing = dataclasses.replace(task, model=tmp_path / "no.keras")
    with pytest.raises(ValueError, match="does not see the model"):
        list(predict_on_workers(client, [missing]))
    assert not (tmp_path / "out").exists()
    unseen = tmp_path / "elsewhere" / "token"
    assert cluster._look([unseen], []) == f"does not see the folder {unseen.parent}"


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("local", "how many workers"),
        ("local:0", "must be 1 or more"),
        ("local:two", "must be 1 or more"),
        ("slurm:-1", "must be 1 or more"),
        ("here", "a scheduler is tcp://host:port, local:N or slurm:N"),
        ("slurm", "no SLURM on this machine"),
    ],
)
def test_schedulers_that_are_none(scheduler, message, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=message), connect(scheduler):
        pass


def test_a_scheduler_that_does_not_answer_is_said():
    address = "tcp://127.0.0.1:9"
    said = pytest.raises(OSError, match=f"no scheduler answers at {address}")
    with said, connect(address):
        pass
    assert cluster.SECONDS_TO_CONNECT <= 10


SBATCH = """#!/bin/sh
for script; do :; done
if [ "$1" = --test-only ]; then
  grep -q "no-such" "$script" || exit 0
  echo "sbatch: error: invalid partition specified: no-such" >&2
  exit 1
fi
echo x >> "$JOB.number"
cp "$script" "$JOB.sh"
setsid sh "$JOB.sh" > "$JOB.log" 2>&1 &
echo $! > "$JOB.pid"
echo "Submitted batch job 1"
"""
SCANCEL = """#!/bin/sh
kill -- -$(cat "$JOB.pid")
"""


def test_jobs_of_slurm_predict(town, alone, tmp_path, bright_model, monkeypatch):
    import dask

    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("JOB", str(tmp_path / "job"))
    unknown = dask.config.set(
        {"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}
    )
    need = pytest.raises(ValueError, match="need cores and memory")
    with unknown, need, connect("slurm"):
        pass
    job = {"cores": 2, "processes": 2, "memory": "4GB", "interface": "lo"}
    known = {f"jobqueue.slurm.{key}": job[key] for key in job}
    refused = dask.config.set({**known, "jobqueue.slurm.queue": "no-such"})
    said = pytest.raises(ValueError, match="such jobs: sbatch: error: invalid part")
    with refused, said, connect("slurm"):
        pass
    with dask.config.set(known), connect("slurm:1") as client:
        tasks = plan(town, tmp_path / "out", bright_model)
        predict_all(client, tasks)
    assert contents(tmp_path / "out") == contents(alone)
    assert (tmp_path / "job.number").read_text() == "x\n"  # one of two processes


@pytest.fixture
def threads():
    """A cluster of threads of this process."""
    from distributed import Client, LocalCluster

    settings = {"processes": False, "dashboard_address": None, "memory_limit": 0}
    workers = LocalCluster(n_workers=2, threads_per_worker=1, **settings)
    with workers, Client(workers) as client:
        yield client
    cluster._model_of.cache_clear()


def test_threads_are_workers_too(
    threads, town, alone, tmp_path, bright_model, monkeypatch
):
    monkeypatch.setattr(cluster, "UNIT_PIXELS", 20_000)
    out = tmp_path / "out"
    tasks = plan(town, out, bright_model)
    assert [task.parts for task in tasks] == [1, 2, 1]
    bad = tmp_path / "bad.tif"
    bad.write_bytes(town[1].read_bytes())
    tasks += plan([bad], tmp_path / "out", bright_model)
    bad.unlink()
    results = dict(predict_on_workers(threads, tasks))
    error = results.pop(tasks[-1])
    assert isinstance(error, InputError)
    assert str(error) == f"no such file: {bad}"
    assert contents(out) == contents(alone)
    other = dataclasses.replace(tasks[0], digest="0123456789abcdef")
    with pytest.raises(ValueError, match="has another model of the name"):
        list(predict_on_workers(threads, [other]))
    with pytest.raises(ValueError, match="a worker has another model of this name"):
        cluster._model_of(bright_model, "0123456789abcdef", "keras")


def predict(*words):
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def test_the_command_predicts_on_workers(client, town, tmp_path, bright_model, web):
    words = ("--model", bright_model, "--scheduler", client.scheduler.address)
    folder, address = web
    (folder / "far.tif").write_bytes(town[0].read_bytes())
    done = predict(f"{address}/far.tif", *words, "--out", tmp_path / "far")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "far" / "far_mask.tif").is_file()
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"no raster")
    done = predict(*town, *words, "--out", tmp_path / "out", "--window", 32)
    assert done.exit_code == 0, done.output
    assert "scene1.tif: " in done.output
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(town)
    done = predict(*town, bad, *words, "--out", tmp_path / "out", "--window", 32)
    assert done.exit_code == 1
    assert "scene1.tif: kept: " in done.output
    assert "Error: bad.tif: " in done.output
    assert "1 of 4 rasters failed" in done.output
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(town[1].read_bytes()[:20_000])
    done = predict(damaged, *words, "--out", tmp_path / "one", "--window", 32)
    assert done.exit_code == 2
    assert "Error: damaged raster" in done.output
    elsewhere = ("--aoi", "0,0,1,1", "--out", tmp_path / "none")
    done = predict(*town, *words, *elsewhere)
    assert done.exit_code == 0
    assert "outside of the area of interest" in done.output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "words", [["--report"], ["--shard", "1/2"], ["--no-resume"], ["--masks", "m.tif"]]
)
def test_what_does_not_go_with_a_scheduler(town, tmp_path, bright_model, words):
    where = ("--model", bright_model, "--out", tmp_path, "--scheduler", "local:2")
    done = predict(*town, *where, *words)
    assert done.exit_code == 2
    assert f"{words[0]} does not go with --scheduler" in done.output
