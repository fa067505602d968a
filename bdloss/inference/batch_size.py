"""How many windows a model is given at a time."""

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from bdloss.constants import AUTO, KERAS
from bdloss.models import Predictor

ON_CPU = 4  # windows, where more gains nothing
TRIED = (4, 8, 16, 32, 64)  # windows, on a GPU
MIN_SPEEDUP = 1.1  # of a larger number, to be worth its memory

# By window, so that it is tried once for all rasters; a model no longer used goes.
_fastest: WeakKeyDictionary[Predictor, dict[int, int]] = WeakKeyDictionary()


def choose_batch(predictor: Predictor, window: int, engine: str) -> int:
    """Return how many windows at a time suit a model on this machine.

    Args:
        predictor: The model.
        window: Side of a window, in pixels.
        engine: What computes it, one of `ENGINES`, or `auto`; those that are not Keras
            compute on the CPU.

    Returns:
        `ON_CPU`, or on a GPU what a short trial found to be fastest.
    """
    if engine not in (AUTO, KERAS) or not has_gpu():
        return ON_CPU
    found = _fastest.setdefault(predictor, {})
    if window not in found:
        shape = window, window, predictor.band_count
        found[window] = find_batch(predictor.predict, shape)
    return found[window]


def has_gpu() -> bool:
    """Return whether Keras has a GPU to compute on."""
    import keras

    try:
        return bool(keras.distribution.list_devices("gpu"))
    except (AttributeError, RuntimeError):  # so says JAX; PyTorch does not know
        return False


def find_batch(predict: Callable, shape: tuple[int, int, int]) -> int:
    """Return how many windows at a time a model predicts fastest, by a short trial.

    Args:
        predict: As in `predict_strips`.
        shape: Height, width and bands of a window.

    Returns:
        One of `TRIED`: the last that was faster by `MIN_SPEEDUP` than the one before.
    """
    best, rate = 0, 0.0
    for batch in TRIED:
        patches = np.zeros((batch, *shape), np.uint8)
        try:
            predict(patches)  # compiles
            began = time.perf_counter()
            predict(patches)
            found = batch / (time.perf_counter() - began)
        except Exception:  # each framework has one of its own for too little memory
            if not best:
                raise
            break
        if found < MIN_SPEEDUP * rate:
            break
        best, rate = batch, found
    return best
