"""Prediction as a stream of windows: arrays in, rows of a map out.

    reading thread -> windows -> batches -> TTA -> model -> blending

The model is any callable from a batch of patches to maps of probabilities. It sees one
shape only, `(batch, window, window, bands)`: a raster smaller than a window is padded
by reflection, the last batch by repetition.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TypeVar

import numpy as np

from bdloss.errors import InputError
from bdloss.geo.windows import Window, sliding_windows, starts
from bdloss.inference.blending import merge_windows
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.tta import augment_prediction

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCHES_AHEAD = 2  # that the reading thread may have ready


def predict_array(
    pixels: np.ndarray,
    predict: Callable,
    window: int = 512,
    overlap: int = 128,
    batch: int = 4,
    tta: str = "none",
    maps: int = 1,
) -> np.ndarray:
    """Predict the probabilities of an image in memory.

    Args:
        pixels: Image of shape `(height, width, bands)`, uint8.
        predict: Callable from a batch of shape `(batch, window, window, bands)`, uint8,
            to probabilities of shape `(batch, window, window, maps)`, in [0, 1].
        window: Side of the windows, in pixels.
        overlap: How far neighbouring windows overlap, in pixels, less than `window`.
        batch: Number of windows that the model is given at a time.
        tta: Test-time augmentation, a name in `tta.MODES`.
        maps: How many maps it gives.

    Returns:
        Map of shape `(height, width)`, float32, in [0, 1]; of several maps, an array of
        shape `(height, width, maps)`.

    Raises:
        ValueError: If the image is not uint8 with three axes, if a setting is out of
            its range, or if the model gives something else than probabilities.

    Example:
        >>> image = np.full((5, 7, 3), 51, np.uint8)
        >>> grey = lambda batch: batch[..., :1] / 255
        >>> predict_array(image, grey, window=4, overlap=1).round(3)[4, :3].tolist()
        [0.20000000298023224, 0.20000000298023224, 0.20000000298023224]
    """
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise InputError(
            "an image must be uint8 of shape (height, width, bands), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    InferenceSettings(window=window, overlap=overlap, batch=batch, tta=tta)
    height, width, _ = pixels.shape
    probabilities = np.empty((height, width, maps), np.float32)
    blocks = predict_rows(
        lambda part: pixels[part.slices],
        height,
        width,
        augment_prediction(predict, tta),
        window,
        overlap,
        batch,
        number=maps,
    )
    for row, block in blocks:
        probabilities[row : row + block.shape[1]] = np.moveaxis(block, 0, -1)
    return probabilities[..., 0] if maps == 1 else probabilities


def predict_rows(
    read: Callable[[Window], np.ndarray | None],
    height: int,
    width: int,
    predict: Callable,
    window: int,
    overlap: int,
    batch: int,
    part: Window | None = None,
    number: int = 1,
) -> Generator[tuple[int, np.ndarray], None, None]:
    """Yield rows of the merged maps, or of a part of them, as blocks.

    `read` gives the pixels of a window, or None for a window that nobody asks about.
    It is called in a thread of its own. Blocks are `(number, rows, width)`.
    """
    stride = window - overlap
    part = part or Window(0, 0, height, width)
    first, last = part.row, part.row + part.height
    if first >= last:
        return
    # The columns that windows over the part cover are a raster with the same windows.
    columns = [
        col
        for col in starts(width, window, stride)
        if col < part.col + part.width and col + window > part.col
    ]
    left, right = columns[0], min(columns[-1] + window, width)
    wanted = slice(part.col - left, part.col - left + part.width)

    def read_patch(place: Window) -> tuple[Window, np.ndarray | None]:
        pixels = read(place._replace(col=place.col + left))
        return place, None if pixels is None else _pad_patch(pixels, window)

    places = (
        place
        for place in sliding_windows(height, right - left, window, stride)
        if place.row < last and place.row + place.height > first
    )
    # Closed here, so that no thread reads from a raster that the caller closes.
    with closing(map_in_thread(read_patch, places, BATCHES_AHEAD * batch)) as reads:
        patches = ((place, patch) for place, patch in reads if patch is not None)
        maps = _predict_patches(patches, predict, batch, number)
        merged = merge_windows(
            *(maps, height, right - left, window, stride, first, last, number)
        )
        for row, block in merged:
            yield row, block[..., wanted]


def _predict_patches(
    patches: Iterator[tuple[Window, np.ndarray]],
    predict: Callable,
    batch: int,
    number: int,
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield each window with its maps, of shape `(number, window, window)`."""
    while ready := list(islice(patches, batch)):
        windows, pixels = zip(*ready, strict=True)
        pixels += pixels[-1:] * (batch - len(ready))
        maps = predict(np.stack(pixels))
        _check_maps(maps, (batch, *pixels[0].shape[:2], number))
        yield from zip(windows, np.moveaxis(maps[: len(ready)], -1, 1), strict=True)


def map_in_thread(
    function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` in order, worked out in one thread.

    At most `depth` results wait. What `function` raises is raised here; closing the
    generator waits until the thread is done.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(thread.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _pad_patch(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the pixels as a square, continued by reflection below and to the right."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        if length < side:
            margins = [(0, 0)] * pixels.ndim
            margins[axis] = (0, side - length)
            # A single row has nothing to reflect: it is repeated.
            pixels = np.pad(pixels, margins, "reflect" if length > 1 else "edge")
    return pixels


def _check_maps(maps: np.ndarray, shape: tuple[int, ...]) -> None:
    if maps.shape != shape:
        raise InputError(f"the model must give maps of {shape}, got {maps.shape}")
    # Written so that NaN fails.
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise InputError(
            "the model must give probabilities from 0 to 1, "
            f"got {maps.min():g} to {maps.max():g}"
        )
