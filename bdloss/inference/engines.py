"""Engines: what computes a network at prediction, and which is the fastest here.

network -> ONNX file, kept in the user's cache folder -> engine
"""

import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np

from bdloss.data.cache import default_folder
from bdloss.errors import InputError
from bdloss.files import atomic_path
from bdloss.inference.batch_size import has_gpu
from bdloss.inference.onnx import check_converter, convert_network
from bdloss.models import Predictor

logger = logging.getLogger(__name__)

AUTO, KERAS = "auto", "keras"
OTHERS = ("onnxruntime", "openvino")  # each is a package
ENGINES = (KERAS, *OTHERS)
WORTH = 30.0  # seconds that Keras would take, from which another may be worth making
ROUNDS = 3  # of measuring


def engine_tag(name: str) -> str:
    """Return an engine with its version, as outputs remember it.

    Raises:
        ValueError: If it is not installed.
    """
    if name == KERAS:
        backend = keras.backend.backend()
        return f"{KERAS} on {backend} {version(backend)}"
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError as error:
        raise InputError(
            f"--engine {name} needs it: pip install 'bdloss[{name}]'"
        ) from error


def engine_name(tag: str) -> str:
    """Return the name of an engine of such a tag.

    Example:
        >>> engine_name(engine_tag("keras")), engine_name("")
        ('keras', '')
    """
    return tag.partition(" ")[0]


def use_engine(
    predictor: Predictor, name: str, windows: int, side: int, batch: int
) -> tuple[Predictor, str]:
    """Return a model computed by an engine, and the name of the engine.

    Args:
        predictor: The model.
        name: One of `ENGINES`; or `auto`: Keras on a GPU, or where there is little to
            do; else what a short measurement finds fastest of those installed.
        windows: How many it will predict.
        side: Their side, in pixels.
        batch: How many at a time.

    Raises:
        ValueError: If the engine is not installed, or cannot compute the model.
    """
    if name == KERAS or predictor.network is None:
        return predictor, KERAS
    if name != AUTO:
        return replace(predictor, predict=make_engine(predictor, name)), name
    installed = [one for one in OTHERS if importlib.util.find_spec(one)]
    if not installed or has_gpu() or windows <= batch:
        return predictor, KERAS
    patches = np.zeros((batch, side, side, predictor.band_count), np.uint8)
    seconds = {KERAS: measure(predictor.predict, patches)}
    if seconds[KERAS] * windows / batch < WORTH:
        return predictor, KERAS
    made: dict[str, Callable] = {KERAS: predictor.predict}
    for one in installed:
        try:
            made[one] = make_engine(predictor, one)
        except InputError as error:
            logger.info("engine: %s", error)
            continue
        seconds[one] = measure(made[one], patches)
    fastest = min(seconds, key=seconds.__getitem__)
    if fastest != KERAS:
        gain = seconds[KERAS] / seconds[fastest]
        logger.info("engine: %s, %.1f times as fast as Keras", fastest, gain)
    return replace(predictor, predict=made[fastest]), fastest


def measure(predict: Callable, patches: np.ndarray) -> float:
    """Return the seconds that a batch takes, the least of several."""
    predict(patches)  # compiles
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        predict(patches)
        times.append(time.perf_counter() - began)
    return min(times)


def make_engine(predictor: Predictor, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return what computes the network of a model, as its `predict` does.

    Args:
        predictor: The model; its file in ONNX is made once and kept.
        name: One of `OTHERS`.

    Raises:
        ValueError: If the engine is not installed, or cannot compute the model.
    """
    engine_tag(name)
    path = converted(predictor)
    try:
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[name](path)
    except Exception as error:  # each has its own
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name} cannot compute this model: {reason}") from error


def converted(predictor: Predictor) -> Path:
    """Return the file of a model in ONNX, made if it was not.

    Raises:
        ValueError: If the packages that make it are not installed, or cannot.
    """
    path = default_folder() / "engines" / f"{predictor.digest}.onnx"
    if path.is_file():
        return path
    check_converter()
    assert predictor.network is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (None, None, None, predictor.band_count)
    with atomic_path(path) as partial:
        try:
            convert_network(predictor.network, partial, shape)
        except Exception as error:  # the converter has many
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"ONNX cannot hold this model: {reason}") from error
    return path


def _onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()

    def predict(batch: np.ndarray) -> np.ndarray:
        return session.run(None, {given.name: batch.astype(np.float32)})[0]

    return predict


def _openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU")

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.array(compiled(batch.astype(np.float32))[0])

    return predict
