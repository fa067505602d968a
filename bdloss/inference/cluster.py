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
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdloss.errors import InputError, first_line
from bdloss.files import remove_empty
from bdloss.geo.orthophoto import Orthophoto
from bdloss.inference.predict import PredictionResult, merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.memory import keep_freed_memory
from bdloss.models import Predictor, digest_of, find_model, load_predictor

logger = logging.getLogger(__name__)

LOCAL, SLURM = "local", "slurm"
UNIT_PIXELS = 64e6  # of a raster, about, that a worker predicts at a time
SECONDS_TO_CONNECT = 5
SECONDS_TO_START = 120  # of workers on this machine
MERGE = 0  # in the place of the number of a part
THREADS = "TF_NUM_INTRAOP_THREADS"


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
def connect(scheduler: str) -> Iterator[Any]:
    """Give a client of a Dask scheduler.

    Args:
        scheduler: `tcp://host:port` of a scheduler that runs; `local:N` for N processes
            on this machine; `slurm` or `slurm:N` for N jobs of SLURM, one unless said,
            as Dask's own configuration (`jobqueue.slurm`) describes them.

    Yields:
        A `distributed.Client`.

    Raises:
        OSError: If no scheduler answers, or there is no SLURM.
        ValueError: If Dask is not installed, or the name is none of these.
    """
    if not importlib.util.find_spec("distributed"):
        raise InputError("--scheduler needs Dask: pip install 'bdloss[dask]'")
    from distributed import Client

    # What goes wrong is raised, and said in a line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    kind, _, number = scheduler.partition(":")
    if kind in (LOCAL, SLURM):
        if not (number or (kind == SLURM and scheduler == kind)):
            raise InputError(f"how many workers? {kind}:N, got {scheduler!r}")
        if number and not (number.isdecimal() and int(number)):
            raise InputError(f"workers must be 1 or more, got {scheduler!r}")
        workers = int(number or 1)
        start = _start_local if kind == LOCAL else _start_slurm
        with start(workers) as cluster, Client(cluster) as client:
            # Those that end, as jobs do at their time limit, are started anew.
            cluster.adapt(minimum=workers, maximum=workers)
            _wait_for_a_worker(client, SECONDS_TO_START if kind == LOCAL else None)
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


def _start_local(workers: int) -> Any:
    """Return processes on this machine that share its cores."""
    from distributed import LocalCluster

    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=0,  # else workers that Dask finds large are killed
        dashboard_address=None,
        silence_logs=logging.CRITICAL + 1,
        preload="bdloss.startup",
        env={THREADS: os.environ.get(THREADS, str(threads))},
    )


def _start_slurm(jobs: int) -> Any:
    """Return workers that SLURM starts."""
    from dask_jobqueue import SLURMCluster

    if not shutil.which("sbatch"):
        raise InputError("there is no SLURM on this machine: sbatch is not found")
    try:
        return SLURMCluster(n_workers=jobs)
    except ValueError as error:
        raise InputError(
            "jobs of SLURM need cores and memory, which jobqueue.slurm of Dask's "
            "configuration gives (~/.config/dask/jobqueue.yaml)"
        ) from error


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
    from distributed import as_completed

    _check_workers(client, tasks)
    waiting = as_completed()
    units: dict[Any, _Unit] = {}  # by their futures

    def submit(unit: _Unit) -> None:
        future = client.submit(_predict_unit, unit, pure=False)
        units[future] = unit
        waiting.add(future)

    left = {number: task.parts for number, task in enumerate(tasks)}  # units
    for number, task in enumerate(tasks):
        for part in range(1, task.parts + 1):
            submit(_Unit(number, task, part, task.products.store.count))
    for future in waiting:
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
            logger.log(level, line)
        if isinstance(outcome, InputError):
            error = outcome
        if error is not None and _has_killed(error):
            made = task.products.store.count
            if made > unit.made:  # it was not the reason: some of it is done
                submit(dataclasses.replace(unit, made=made))
                continue
            error = InputError(f"killed the workers that {unit.what}")
        if error is not None:
            del left[number]
            client.cancel([other for other in units if units[other].number == number])
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
            submit(_Unit(number, task, MERGE, 0))


@dataclass(frozen=True)
class _Unit:
    """What a worker does at a time.

    Attributes:
        number: That of the raster.
        task: The raster.
        part: Which part of it, from 1; `MERGE` when these are put together.
        made: How many strips were there before.
    """

    number: int
    task: Task
    part: int
    made: int

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
    task, settings = unit.task, dict(unit.task.settings)
    result: PredictionResult | InputError
    with _collected_logs() as lines:
        try:
            if unit.part == MERGE:
                overwrite = settings.get("overwrite", False)
                image = task.orthophoto.path
                result = merge_shards(image, task.products, overwrite=overwrite)
            else:
                result = predict_raster(
                    task.orthophoto,
                    _model_of(task.model, task.digest),
                    task.products,
                    shard=(unit.part, task.parts),
                    resume=True,
                    **settings,
                )
        except (InputError, OSError) as error:
            result = InputError(first_line(error))
    return result, lines


@functools.lru_cache(maxsize=1)
def _model_of(model: Path, digest: str) -> Predictor:
    """Return a model, which a worker loads once."""
    keep_freed_memory()
    predictor = load_predictor(model)
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


def _check_workers(client: Any, tasks: Sequence[Task]) -> None:
    """Refuse workers that do not see the folders, or have other models."""
    folders = {task.products.mask.parent for task in tasks}
    with ExitStack() as undo:
        tokens = []
        for folder in folders:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                undo.callback(remove_empty, folder)
            token = folder / f".bdloss-{uuid.uuid4().hex}"
            token.touch()
            undo.callback(token.unlink)
            tokens.append(token)
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
