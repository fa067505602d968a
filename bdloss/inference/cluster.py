"""Prediction by the workers of a Dask cluster.

    tasks -> units -> workers -> rows on disk -> merged by a worker

A unit is a raster, or a part of a large one. Its finished rows lie in the output's
folder, which all workers see, as those of shards do: so a unit that is done again goes
on where it was, and so does the whole command. The client sends names and settings
alone; workers load the model once.
"""

import dataclasses
import functools
import importlib.util
import logging
import math
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bdloss.constants import AUTO
from bdloss.errors import InputError, InUseError, first_line
from bdloss.files import remove_empty
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.windows import share
from bdloss.inference.engines import count_cores, is_at_hand
from bdloss.inference.predict import PredictionResult, merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.memory import keep_freed_memory
from bdloss.models import Predictor, digest_of, find_model, load_predictor

logger = logging.getLogger(__name__)

LOCAL, SLURM = "local", "slurm"
UNIT_PIXELS = 64e6  # of a raster, about, that a worker predicts at a time
SECONDS_TO_CONNECT = 5
SECONDS_TO_START = 300  # of workers on this machine
SECONDS_OF_A_LOCK = 300  # of a worker that the scheduler has lost
MERGE = 0  # in the place of the number of a part
THREADS = "TF_NUM_INTRAOP_THREADS"
GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"  # else a process takes all of a GPU's memory
_ONE_AT_A_TIME = threading.Lock()  # units of a worker, whatever threads it has


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A raster to predict, as a worker is told of it.

    Attributes:
        orthophoto: The raster.
        products: What to make of it.
        model: Path or name of the model, as `models.find_model` takes it.
        digest: The model's.
        settings: Other arguments of `predict.predict_raster`.
        parts: How many units it is.
    """

    orthophoto: Orthophoto
    products: Products
    model: Path
    digest: str
    settings: Mapping[str, Any]
    parts: int = 1

    @classmethod
    def plan(cls, orthophoto: Orthophoto, **more: Any) -> "Task":
        """Return the task of a raster, in units of about `UNIT_PIXELS`.

        Args:
            orthophoto: The raster.
            **more: The other attributes.
        """
        whole = cls(orthophoto=orthophoto, **more)
        parts = math.ceil(1e6 * whole.megapixels / UNIT_PIXELS)
        return dataclasses.replace(whole, parts=parts)

    @property
    def megapixels(self) -> float:
        """Its size, in megapixels."""
        window = self.orthophoto.window
        return window.height * window.width / 1e6


@contextmanager
def connect(scheduler: str, keras: bool = True) -> Iterator[Any]:
    """Give a client of a Dask scheduler.

    Args:
        scheduler: `tcp://host:port` of a scheduler that runs; `local:N` for N processes
            on this machine; `slurm` or `slurm:N` for N jobs of SLURM, one unless said,
            as Dask's own configuration (`jobqueue.slurm`) describes them.
        keras: Whether processes on this machine load Keras when they start.

    Yields:
        A `distributed.Client`.

    Raises:
        OSError: If no scheduler answers, or there is no SLURM.
        ValueError: If Dask is not installed, or the name is none of these.
    """
    if not importlib.util.find_spec("distributed"):
        raise InputError("--scheduler needs Dask: pip install 'bdloss[dask]'")
    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is raised, and said in a line
    try:
        with _start(scheduler, keras) as client:
            yield client
    finally:
        log.setLevel(level)


@contextmanager
def _start(scheduler: str, keras: bool) -> Iterator[Any]:
    """Give a client, as `connect` does."""
    from distributed import Client

    kind, _, number = scheduler.partition(":")
    if kind in (LOCAL, SLURM):
        if not (number or (kind == SLURM and scheduler == kind)):
            raise InputError(f"how many workers? {kind}:N, got {scheduler!r}")
        if number and not (number.isdecimal() and int(number)):
            raise InputError(f"workers must be 1 or more, got {scheduler!r}")
        most = int(number or 1)
        # Those that end, as jobs do at their time limit, are started anew.
        if kind == LOCAL:
            cluster, seconds = _start_local(most, keras), SECONDS_TO_START
            limits = {"minimum": most, "maximum": most}
        else:
            cluster, seconds = _start_slurm(), None
            limits = {"minimum_jobs": most, "maximum_jobs": most}
        with cluster, Client(cluster) as client:
            cluster.adapt(**limits)
            _wait_for_a_worker(client, seconds)
            yield client
    elif "://" in scheduler:
        try:
            client = Client(scheduler, timeout=SECONDS_TO_CONNECT)
        except (OSError, ValueError, ImportError) as error:
            raise OSError(f"no scheduler answers at {scheduler}") from error
        with client:
            _wait_for_a_worker(client)
            yield client
    else:
        raise InputError(
            f"a scheduler is tcp://host:port, local:N or slurm:N, got {scheduler!r}"
        )


def _wait_for_a_worker(client: Any, seconds: float | None = None) -> None:
    """Wait for as long as a queue may take, if it has no limit, and say so."""
    if seconds is None and not client.scheduler_info()["workers"]:
        logger.info("workers: waiting for the first one")
    client.wait_for_workers(1, seconds)


def _start_local(workers: int, keras: bool) -> Any:
    """Return processes on this machine that share its cores."""
    from distributed import LocalCluster

    threads = max(1, count_cores() // workers)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=0,  # else workers that Dask finds large are killed
        dashboard_address=None,
        silence_logs=logging.CRITICAL + 1,
        preload="bdloss.startup" if keras else (),
        env={THREADS: os.environ.get(THREADS, str(threads)), GROWTH: "true"},
    )


def _start_slurm() -> Any:
    """Return what submits jobs to SLURM, which takes such jobs."""
    from dask_jobqueue import SLURMCluster

    sbatch = shutil.which("sbatch")
    if not sbatch:
        raise InputError("there is no SLURM on this machine: sbatch is not found")
    try:
        cluster = SLURMCluster()
    except ValueError as error:
        raise InputError(
            "jobs of SLURM need cores and memory, which jobqueue.slurm of Dask's "
            "configuration gives (~/.config/dask/jobqueue.yaml)"
        ) from error
    with TemporaryDirectory() as folder:
        script = Path(folder, "job.sh")
        script.write_text(cluster.job_script())
        test = subprocess.run(
            [sbatch, "--test-only", script], capture_output=True, text=True, check=False
        )
    if test.returncode:
        cluster.close()
        said = (test.stderr or test.stdout).strip().splitlines() or ["sbatch failed"]
        raise InputError(f"SLURM does not take such jobs: {said[-1]}")
    return cluster


def predict_on_workers(
    client: Any,
    tasks: Sequence[Task],
    progress: Callable[[float], Any] | None = None,
) -> Iterator[tuple[Task, PredictionResult | Exception]]:
    """Predict rasters on the workers of a cluster.

    Args:
        client: As `connect` gives it.
        tasks: The rasters; their products lie in folders that all workers see.
        progress: Called with megapixels, as parts are finished.

    Yields:
        Each raster as it is finished, and its files, or what went wrong with it.

    Raises:
        OSError: If the scheduler is gone; finished rows are kept.
        ValueError: If workers do not see a folder, or have another model; nothing was
            begun then.
    """
    with _folders_of(tasks) as folders:
        _check_workers(client, tasks, folders)
        yield from _finish_units(client, tasks, progress)


def _finish_units(
    client: Any, tasks: Sequence[Task], progress: Callable[[float], Any] | None
) -> Iterator[tuple[Task, PredictionResult | Exception]]:
    """Yield what becomes of tasks whose units are done by workers."""
    from distributed import as_completed

    waiting = as_completed()
    units: dict[Any, _Unit] = {}  # by their futures
    suspects: list[_Unit] = []  # at which workers died, and maybe of a neighbour
    said = set()

    def submit(unit: _Unit) -> None:
        future = client.submit(_predict_unit, unit, pure=False)
        units[future] = unit
        waiting.add(future)

    left = {number: task.parts for number, task in enumerate(tasks)}  # units
    for number, task in enumerate(tasks):
        if task.settings.get("overwrite"):
            try:
                task.products.store.remove()
            except InputError as strange:
                del left[number]
                yield task, strange
                continue
        for part in range(1, task.parts + 1):
            unit = _Unit(number, task, part)
            submit(dataclasses.replace(unit, made=unit.count_strips()))
    while units or suspects:
        if not units:  # alone, so that none dies of another
            submit(dataclasses.replace(suspects.pop(), alone=True))
        future = next(waiting)
        unit = units.pop(future)
        number, task = unit.number, unit.task
        if number not in left:  # another unit of it has failed
            continue
        if future.cancelled():
            raise OSError("the scheduler is gone; the same command goes on")
        if not future.done():  # its worker died since, so it is done again
            units[future] = unit
            waiting.add(future)
            continue
        error = future.exception()
        outcome, lines = (None, []) if error else future.result()
        for level, line in lines:
            if (number, line) not in said:  # by another part
                logger.log(level, line)
            said.add((number, line))
        if isinstance(outcome, InputError):
            error = outcome
        if error is not None and _has_killed(error):
            made = unit.count_strips()
            if made > unit.made:  # it was not the reason: some of it is done
                submit(dataclasses.replace(unit, made=made))
                continue
            if not unit.alone:
                suspects.append(unit)
                continue
            error = InputError(f"killed the workers that {unit.what}")
        if error is not None:
            del left[number]
            client.cancel([other for other in units if units[other].number == number])
            suspects = [other for other in suspects if other.number != number]
            yield task, error
            continue
        if unit.part != MERGE:
            left[number] -= 1
            if progress is not None:
                progress(task.megapixels / task.parts)
        if unit.part == MERGE or task.parts == 1:
            del left[number]
            yield task, outcome
        elif not left[number]:
            submit(_Unit(number, task, MERGE))


@dataclass(frozen=True)
class _Unit:
    """What a worker does at a time.

    Attributes:
        number: That of the raster.
        task: The raster.
        part: Which part of it, from 1; `MERGE` when these are put together.
        made: How many strips of it were there before.
        alone: Whether it is done while no other is.
    """

    number: int
    task: Task
    part: int
    made: int = 0
    alone: bool = False

    def count_strips(self) -> int:
        """Return how many strips of it there are."""
        if self.part == MERGE:
            return 0
        orthophoto = self.task.orthophoto
        rows = share(orthophoto.window, orthophoto.panels, self.part, self.task.parts)
        return self.task.products.store.count(rows)

    @property
    def what(self) -> str:
        """What it does, in words."""
        if self.part == MERGE:
            return "merged it"
        if self.task.parts == 1:
            return "predicted it"
        return f"predicted part {self.part}/{self.task.parts} of it"


def _has_killed(error: BaseException) -> bool:
    """Return whether several workers died at a unit, one after the other."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _predict_unit(
    unit: _Unit,
) -> tuple[PredictionResult | InputError, list[tuple[int, str]]]:
    """Do a unit, on a worker; return what was made, or is wrong, and what was logged.

    What is wrong is returned, since Dask makes another exception of one that it cannot
    send.
    """
    until = time.monotonic() + SECONDS_OF_A_LOCK
    with _ONE_AT_A_TIME, _collected_logs() as lines:
        while True:
            try:
                return _do(unit), lines
            except InUseError as error:  # by a worker that is lost, but not dead yet
                if time.monotonic() > until:
                    return InputError(first_line(error)), lines
                time.sleep(1)
            except (InputError, OSError) as error:
                return InputError(first_line(error)), lines


def _do(unit: _Unit) -> PredictionResult:
    """Do a unit."""
    task, settings = unit.task, dict(unit.task.settings)
    folder = task.products.mask.parent
    if not folder.is_dir():  # the client sees it
        raise InputError(f"a worker does not see the folder {folder}")
    if unit.part == MERGE:
        # What is merged, but was not told before the worker died, is kept.
        overwrite = task.products.store.begun and settings.get("overwrite", False)
        image = task.orthophoto.path
        return merge_shards(image, task.products, overwrite=overwrite)
    return predict_raster(
        task.orthophoto,
        _model_of(task.model, task.digest, settings.get("engine", AUTO)),
        task.products,
        shard=(unit.part, task.parts),
        resume=True,
        **settings,
    )


@functools.lru_cache(maxsize=1)
def _model_of(model: Path, digest: str, engine: str) -> Predictor:
    """Return a model, which a worker loads once."""
    keep_freed_memory()
    predictor = load_predictor(model, lazy=is_at_hand(model, engine))
    if predictor.digest != digest:
        raise InputError(f"a worker has another model of this name: {model}")
    return predictor


class _Lines(logging.Handler):
    """Keeps what is logged: levels and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append((record.levelno, record.getMessage()))


@contextmanager
def _collected_logs() -> Iterator[list[tuple[int, str]]]:
    """Give the lines that the package logs meanwhile."""
    package, handler = logging.getLogger("bdloss"), _Lines()
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield handler.lines
    finally:
        package.removeHandler(handler)


@contextmanager
def _folders_of(tasks: Sequence[Task]) -> Iterator[list[Path]]:
    """Give the folders that products lie in, which are there meanwhile."""
    folders = sorted({task.products.mask.parent for task in tasks})
    with ExitStack() as undo:
        for folder in folders:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                undo.callback(remove_empty, folder)
        yield folders


def _check_workers(client: Any, tasks: Sequence[Task], folders: Sequence[Path]) -> None:
    """Refuse workers that do not see the folders, or have other models."""
    with ExitStack() as undo:
        tokens = [folder / f".bdloss-{uuid.uuid4().hex}" for folder in folders]
        for token in tokens:
            token.touch()
            undo.callback(token.unlink)
        models = {(task.model, task.digest) for task in tasks}
        answers = client.run(_look, tokens, sorted(models), on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, OSError):
            continue  # it has died meanwhile; what comes for it is as the others are
        if isinstance(answer, Exception):
            raise InputError(
                f"workers must have bdloss installed, {address} says: "
                f"{first_line(answer)}"
            )
        if answer:
            raise InputError(f"worker {address} {answer}")


def _look(tokens: Sequence[Path], models: Sequence[tuple[Path, str]]) -> str:
    """Say what a worker lacks; nothing if it lacks nothing."""
    for token in tokens:
        if not token.exists():
            return f"does not see the folder {token.parent}"
    for model, digest in models:
        if not find_model(model).is_file():
            return f"does not see the model {model}"
        if digest_of(model) != digest:
            return f"has another model of the name {model}"
    return ""
