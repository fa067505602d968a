"""Engines: what computes a network at prediction, and which is the fastest here.

network -> ONNX file, kept in the user's cache folder -> engine

Which is the fastest is kept beside that file, so that it is measured once, and Keras is
not loaded where it is another.
"""

import importlib
import importlib.util
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from bdloss.constants import AUTO, ENGINES, EXACT_ENGINES, KERAS, OPENVINO_BF16
from bdloss.data.cache import default_folder, onnx_file
from bdloss.errors import InputError, first_line
from bdloss.files import DAMAGED, unique_path
from bdloss.inference.batch_size import has_gpu
from bdloss.inference.openvino_graph import merge_upsampling
from bdloss.models import Predictor, digest_of

logger = logging.getLogger(__name__)

Predict = Callable[[np.ndarray], np.ndarray]

MIN_KERAS_SECONDS = 30.0  # from which another engine may be worth making
ROUNDS = 3  # of measuring
GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")  # in /dev: of NVIDIA, AMD, and in WSL
TOLERANCE = 1e-3  # of probabilities, beyond which an engine computes something else


class Choice(NamedTuple):
    """A model computed by an engine, and the name of the engine."""

    predictor: Predictor
    engine: str


# By side and number of windows, so that it is measured once for all rasters.
_fastest: WeakKeyDictionary[Predictor, dict[tuple[int, int], Choice]] = (
    WeakKeyDictionary()
)


def engine_tag(engine: str) -> str:
    """Return what outputs remember of an engine: its name, and its version.

    Keras has none: rows that do not name an engine are of Keras, of whatever version.

    Args:
        engine: One of `ENGINES`.

    Raises:
        ValueError: If it is none of them, or not installed.

    Example:
        >>> engine_tag("keras")
        'keras'
    """
    if engine not in ENGINES:
        names = ", ".join((AUTO, *ENGINES))
        raise InputError(f"engine must be one of {names}, got {engine!r}")
    if engine == KERAS:
        return KERAS
    package = engine.partition("-")[0]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"--engine {engine} needs it: pip install 'bdloss[{package}]'")
    return f"{engine} {importlib.import_module(package).__version__}"


def engine_name(tag: str) -> str:
    """Return the name of an engine of such a tag.

    Example:
        >>> engine_name("onnxruntime 1.32.0"), engine_name("")
        ('onnxruntime', '')
    """
    return tag.partition(" ")[0]


def choose_engine(
    predictor: Predictor, engine: str, windows: int, side: int, batch: int
) -> Choice:
    """Return a model computed by an engine.

    Args:
        predictor: The model.
        engine: One of `ENGINES`; or `auto`: what was measured before to be the fastest
            for the model; else Keras on a GPU, or where there is little to do; else
            what a short measurement finds fastest of `EXACT_ENGINES` that are installed
            and compute what Keras does, which is kept unless Keras alone did.
        windows: How many it will predict.
        side: Their side, in pixels.
        batch: How many at a time.

    Returns:
        The model, its `predict` that of the engine, and which it is.

    Raises:
        ValueError: If the engine that is named is not installed, or cannot compute the
            model.
    """
    if engine not in (AUTO, KERAS):
        predict = make_engine(predictor, engine)
        return Choice(replace(predictor, predict=predict), engine)
    with_keras = Choice(predictor, KERAS)
    installed = _installed()
    if engine == KERAS or not installed or not predictor.load_network:
        return with_keras
    known = _fastest.setdefault(predictor, {})
    if (side, batch) in known:
        return known[side, batch]
    remembered = recall_engine(predictor.digest)
    if remembered == KERAS:
        return with_keras
    if remembered:
        with suppress(InputError):  # if it is damaged, it is measured again
            predict = make_engine(predictor, remembered)
            found = Choice(replace(predictor, predict=predict), remembered)
            return known.setdefault((side, batch), found)
    if has_gpu() or windows <= batch:
        return with_keras
    random = np.random.default_rng(0)
    shape = batch, side, side, predictor.band_count
    patches = random.integers(0, 256, shape, np.uint8)
    predictor.predict(patches)  # compiles
    if time_batch(predictor.predict, patches, 1) * windows / batch < MIN_KERAS_SECONDS:
        return with_keras
    timed = _time_engines(predictor, installed, patches)
    fastest = min(timed, key=lambda engine: timed[engine].seconds)
    if fastest != KERAS:
        gain = timed[KERAS].seconds / timed[fastest].seconds
        logger.info("engine: %s, %.1f times as fast as Keras", fastest, gain)
    if predictor.digest and len(timed) > 1:
        with suppress(OSError):  # no cache: it is measured again the next time
            _remember(predictor.digest, fastest)
    found = Choice(replace(predictor, predict=timed[fastest].predict), fastest)
    return known.setdefault((side, batch), found)


def _installed() -> list[str]:
    """Return the exact engines beside Keras that are installed."""
    return [one for one in EXACT_ENGINES[1:] if importlib.util.find_spec(one)]


def recall_engine(digest: str) -> str | None:
    """Return what was measured to be the fastest for a model here.

    Args:
        digest: That of the model.

    Returns:
        One of `EXACT_ENGINES`; None if it is not known, other engines are installed
        since, there are more cores or fewer, or there is a GPU.
    """
    try:
        kept = json.loads(_choice_file(digest).read_text("utf-8"))
        engine, among = kept["engine"], kept["among"]
    except DAMAGED:  # or not there
        return None
    return None if among != _what_is_here() or _has_gpu_device() else engine


def _remember(digest: str, engine: str) -> None:
    """Keep what is the fastest for a model here."""
    path = _choice_file(digest)
    kept = {"engine": engine, "among": _what_is_here()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with unique_path(path) as partial:
        partial.write_text(json.dumps(kept), "utf-8")


def _choice_file(digest: str) -> Path:
    return onnx_file(default_folder(), digest).with_suffix(".json")


def _what_is_here() -> list[str]:
    """Return what the speed of engines depends on."""
    return [f"{count_cores()} cores", *map(engine_tag, _installed())]


def _has_gpu_device() -> bool:
    """Return whether there may be a GPU, which Keras need not be asked for."""
    return any(list(Path("/dev").glob(name)) for name in GPU_DEVICES)


class _Timed(NamedTuple):
    """What computes a network, and the seconds that a batch takes it."""

    predict: Predict
    seconds: float


def _time_engines(
    predictor: Predictor, engines: list[str], patches: np.ndarray
) -> dict[str, _Timed]:
    """Time Keras, and the engines that compute what it does; by their names."""
    wanted = predictor.predict(patches)
    timed = {KERAS: _Timed(predictor.predict, time_batch(predictor.predict, patches))}
    for engine in engines:
        try:  # whatever fails, Keras is there
            made = make_engine(predictor, engine)
            found = made(patches)
            alike = found.shape == wanted.shape
            if not (alike and np.allclose(found, wanted, rtol=0, atol=TOLERANCE)):
                raise InputError(f"{engine} computes something else than Keras")
            timed[engine] = _Timed(made, time_batch(made, patches))
        except Exception as error:
            logger.info("engine: %s; Keras goes on", first_line(error))
    return timed


def time_batch(predict: Predict, patches: np.ndarray, rounds: int = ROUNDS) -> float:
    """Return the seconds that a batch takes, the least of several.

    Args:
        predict: The `predict` of a model, which has seen such a batch before.
        patches: The batch, of shape `(batch, side, side, bands)`, uint8.
        rounds: How often it is timed.
    """
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        predict(patches)
        times.append(time.perf_counter() - began)
    return min(times)


def make_engine(predictor: Predictor, engine: str) -> Predict:
    """Return what computes the network of a model, as its `predict` does.

    Args:
        predictor: The model; its file in ONNX is made once and kept.
        engine: One of `ENGINES`, but Keras.

    Raises:
        ValueError: If the engine is not installed, the model is not of Keras, or the
            engine cannot compute it.
    """
    engine_tag(engine)
    if predictor.load_network is None:
        raise InputError(f"{engine} computes Keras models, got another callable")
    starts: dict[str, Callable[[Path], Predict]] = {
        "onnxruntime": _start_onnxruntime,
        "openvino": _start_openvino,
        OPENVINO_BF16: partial(_start_openvino, precision="bf16"),
    }
    start = starts[engine]
    try:
        if not predictor.digest:  # nobody knows whether the file is of this network
            with tempfile.TemporaryDirectory() as folder:
                return start(write_onnx(predictor, Path(folder, "model.onnx")))
        path = onnx_file(default_folder(), predictor.digest)
        if path.is_file():
            try:
                return start(path)
            except Exception:  # damaged, or of an older version: made anew
                path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return start(write_onnx(predictor, path))
    except InputError:
        raise
    except Exception as error:  # each engine has its own
        raise InputError(
            f"{engine} cannot compute this model: {first_line(error)}"
        ) from error


def is_at_hand(model: str | PathLike, engine: str) -> bool:
    """Return whether an engine computes a model without Keras: its file is kept.

    An engine that is `auto` is the one that was the fastest.

    Args:
        model: A model, as `models.find_model` takes it.
        engine: One of `ENGINES`, or `auto`.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    digest = digest_of(model)
    used = recall_engine(digest) if engine == AUTO else engine
    return used not in (None, KERAS) and onnx_file(default_folder(), digest).is_file()


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_onnx(predictor: Predictor, path: Path) -> Path:
    """Write the network of a model as an engine takes it.

    Args:
        predictor: The model, of Keras.
        path: ONNX file to write; one that exists is replaced, whole.

    Returns:
        The file.

    Raises:
        ValueError: If the packages that write ONNX are not installed, or it cannot hold
            the network.
    """
    from bdloss.inference.onnx import check_converter, convert_network

    check_converter()
    assert predictor.load_network is not None
    with unique_path(path) as partial:
        try:
            shape = (None, None, None, predictor.band_count)
            convert_network(predictor.load_network(), partial, shape)
        except Exception as error:  # the converter has many
            raise InputError(
                f"ONNX cannot hold this model: {first_line(error)}"
            ) from error
    return path


def _start_onnxruntime(path: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = count_cores()
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()

    def predict(batch: np.ndarray) -> np.ndarray:
        return session.run(None, {given.name: batch.astype(np.float32)})[0]

    return predict


def _start_openvino(path: Path, precision: str = "f32") -> Predict:
    import openvino

    core = openvino.Core()
    abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in abilities:
        raise InputError(f"{OPENVINO_BF16} needs a processor that computes in bfloat16")
    said = {"INFERENCE_PRECISION_HINT": precision}  # else what the processor likes
    model = core.read_model(path)
    merge_upsampling(model)
    compiled = core.compile_model(model, "CPU", said)

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.array(compiled(batch.astype(np.float32))[0])

    return predict
