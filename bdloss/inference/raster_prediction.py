"""Prediction over a raster of any size, as a stream of windows.

    reading thread -> windows -> batches -> TTA -> model -> merge -> writing thread

Finished rows are kept on disk as they come (`inference/strips.py`) and put together
at the end, so that a run that was killed goes on and machines can share a raster.

The model is any callable from a batch of patches to maps of probabilities. It sees one
shape only, `(batch, window, window, bands)`: a raster smaller than a window is padded
by reflection, the last batch by repetition. What is in memory is a few windows and a
strip of rows as high as a window, whatever the height of the raster.
"""

import time
from collections import deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import rasterio

from bdloss.constants import IGNORED, PROBABILITY_SCALE
from bdloss.errors import InputError, OutputExistsError
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.raster import create_mask
from bdloss.geo.windows import Window, sliding_windows
from bdloss.inference.blending import merge_windows
from bdloss.inference.strips import StripStore
from bdloss.inference.tta import augment_prediction, check_modes
from bdloss.memory import refuse_beyond_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCHES_AHEAD = 2  # that the reading thread may have ready
BLOCKS_BEHIND = 1  # blocks of rows that may wait for the writing thread
BATCHES = (4, 8, 16, 32, 64)  # numbers of windows that are tried on a GPU
GAIN = 1.1  # how much faster a larger number must be to be worth its memory
CACHE = 64  # megabytes of raster that GDAL may keep


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How a map is predicted, whatever the raster.

    Attributes:
        window: Side of the windows, in pixels.
        overlap: How far neighbouring windows overlap, in pixels, less than `window`.
        batch: Number of windows that the model is given at a time.
        threshold: Least probability of a building, in [0, 1].
        tta: Test-time augmentation, a name in `tta.MODES`.
        mean: Of its answers, a name in `tta.MEANS`.
        resolution: Side of a pixel on the ground that the model is given, in metres;
            None for the raster's. Maps are on the grid of the raster anyhow.

    Raises:
        ValueError: If one is out of its range, or needs more memory than there is.
    """

    window: int = 512
    overlap: int = 128
    batch: int = 4
    threshold: float = 0.5
    tta: str = "none"
    mean: str = "arithmetic"
    resolution: float | None = None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"window must be 1 pixel or more, got {self.window}")
        if not 0 <= self.overlap < self.window:
            raise InputError(
                f"overlap must be 0 or more and smaller than the window, "
                f"{self.window}, got {self.overlap}"
            )
        if self.batch < 1:
            raise InputError(f"batch must be 1 or more, got {self.batch}")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be 0 to 1, got {self.threshold}")
        # A strip and probabilities, in float32, are the least of it.
        needed = 4 * self.batch * self.window**2 * 2
        what = f"batch {self.batch} of windows of {self.window} pixels"
        refuse_beyond_memory(needed, what)
        check_modes(self.tta, self.mean)

    def tags(self, orthophoto: Orthophoto) -> dict[str, Any]:
        """Return what a mask must remember, so that it is not taken for another."""
        resolution, nodata = self.resolution, orthophoto.nodata
        return {
            "window": self.window,
            "overlap": self.overlap,
            "threshold": self.threshold,
            "tta": self.tta,
            "mean": self.mean,
            "bands": ",".join(str(index) for index in orthophoto.band_indexes),
            "resampled": "no" if resolution is None else resolution,
            "declared_nodata": "no" if nodata is None else f"{nodata:g}",
        }


class Prediction(NamedTuple):
    """What a prediction over a raster came to.

    Attributes:
        pixels: Number of pixels of the raster.
        masked: How many of them are masked in the raster, and so in the mask.
        building: How many of them are building.
        seconds: Time it took.
    """

    pixels: int
    masked: int
    building: int
    seconds: float


def predict_array(
    pixels: np.ndarray,
    predict: Callable,
    window: int = 512,
    overlap: int = 128,
    batch: int = 4,
    tta: str = "none",
) -> np.ndarray:
    """Predict the probabilities of an image in memory.

    Args:
        pixels: Image of shape `(height, width, bands)`, uint8.
        predict: Callable from a batch of shape `(batch, window, window, bands)`, uint8,
            to probabilities of shape `(batch, window, window, 1)`, in [0, 1].
        window: Side of the windows, in pixels.
        overlap: How far neighbouring windows overlap, in pixels, less than `window`.
        batch: Number of windows that the model is given at a time.
        tta: Test-time augmentation, a name in `tta.MODES`.

    Returns:
        Map of shape `(height, width)`, float32, in [0, 1].

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
    probabilities = np.empty((height, width), np.float32)
    blocks = _predict_rows(
        lambda place: pixels[place.slices],
        height,
        width,
        augment_prediction(predict, tta),
        window,
        overlap,
        batch,
    )
    for row, block in blocks:
        probabilities[row : row + len(block)] = block
    return probabilities


def predict_raster(
    image: str | PathLike | Orthophoto,
    predict: Callable,
    mask_path: str | PathLike,
    *,
    probability_path: str | PathLike | None = None,
    tags: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    numbers: Sequence[int] | None = None,
    nodata: float | None = None,
    bands: int | None = None,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    progress: Callable[[float], Any] | None = None,
    **settings: Any,
) -> Prediction:
    """Predict the mask of a raster file, in memory that does not grow with its height.

    The mask is 1 where the probability reaches the threshold, 0 where it does not and
    255 where the raster is masked (nodata, alpha). It lies on the grid of the raster.
    A failed run leaves no file, unless it may be resumed. Windows that are masked
    altogether cost nothing.

    Args:
        image: Raster to read, of a format in `trust.DRIVERS`, or an `Orthophoto`.
        predict: Callable from a batch of shape `(batch, window, window, bands)`, uint8,
            to probabilities of shape `(batch, window, window, 1)`, in [0, 1].
        mask_path: GeoTIFF to write.
        probability_path: GeoTIFF to write the probabilities to, as 0 to 254, masked
            pixels 255; None for none.
        tags: Tags of the files that are written, beside the settings used here.
        overwrite: Whether files that exist may be replaced.
        numbers: Numbers of the bands to read, from 1; None for the picture without
            alpha. Those of an `Orthophoto` are its own.
        nodata: What a raster that does not say so has where it has no data. That of an
            `Orthophoto` is its own.
        bands: As in `predict_strips`.
        shard: As in `predict_strips`.
        resume: As in `predict_strips`.
        progress: As in `predict_strips`.
        **settings: As in `InferenceSettings`.

    Returns:
        Counts of pixels and the time taken.

    Raises:
        FileNotFoundError: If there is no such raster.
        FileExistsError: If an output exists and `overwrite` is not set.
        ValueError: As in `predict_strips`, or if a file would be written twice or over
            the raster.
    """
    began = time.perf_counter()
    inference = InferenceSettings(**settings)
    orthophoto = image
    if not isinstance(orthophoto, Orthophoto):
        orthophoto = Orthophoto.read(orthophoto, numbers, nodata)
    outputs = [Path(path) for path in (mask_path, probability_path) if path is not None]
    folder = strips_folder(outputs[0])
    # A run that was killed between two outputs has left one of them, and its strips.
    half = resume and folder.exists()
    _check_outputs(orthophoto.path, outputs, overwrite or half)
    store = StripStore(folder)
    with store.held(*shard):
        predict_strips(
            orthophoto,
            predict,
            inference,
            store,
            bands=bands,
            shard=shard,
            resume=resume,
            tags=tags,
            progress=progress,
        )
        try:
            masked, building = write_maps(orthophoto, store, *outputs)
            store.remove()
        except BaseException:
            if not resume:
                store.remove()
            raise
    pixels = orthophoto.geobox.height * orthophoto.geobox.width
    return Prediction(pixels, masked, building, time.perf_counter() - began)


def write_maps(
    orthophoto: Orthophoto,
    strips: StripStore,
    mask_path: Path,
    probability_path: Path | None = None,
    *,
    tags: Mapping[str, Any] | None = None,
    benchmark: bool = False,
    cog: bool = False,
    overviews: bool = False,
) -> tuple[int, int]:
    """Write the finished rows of a raster as GeoTIFFs on its grid.

    Args:
        orthophoto: The raster.
        strips: All its rows, from `predict_strips`.
        mask_path: Where the mask goes; a file that exists is replaced.
        probability_path: Where the probabilities go; None for none.
        tags: Tags of the files, beside what the rows depend on.
        benchmark: Whether the mask is written as INRIA's benchmark wants it: 255
            building, 0 all else, no nodata.
        cog: Whether they are cloud-optimised.
        overviews: Whether they get overviews.

    Returns:
        How many pixels are masked and how many are building.

    Raises:
        ValueError: If rows are missing.
    """
    geobox = orthophoto.geobox
    there = strips.finished(0, geobox.height)
    if there < geobox.height:
        raise InputError(f"rows from {there} on are missing: {strips.folder}")
    masked = building = 0
    outputs = [path for path in (mask_path, probability_path) if path is not None]
    with rasterio.Env(GDAL_CACHEMAX=CACHE), ExitStack() as files:
        writers = [
            files.enter_context(
                create_mask(
                    path,
                    geobox,
                    {**strips.settings, **(tags or {})},
                    nodata=None if benchmark and path == mask_path else IGNORED,
                    cog=cog,
                    overviews=overviews,
                    probabilities=path == probability_path,
                    gcps=orthophoto.gcps,
                )
            )
            for path in outputs
        ]
        for row, layers in strips.read():
            place = Window(row, 0, *layers.shape[1:])
            masked += int((layers[0] == IGNORED).sum())
            building += int((layers[0] == 1).sum())
            if benchmark:
                layers[0] = np.where(layers[0] == 1, 255, 0)
            for writer, pixels in zip(writers, layers, strict=False):
                writer.write(pixels, place)
    return masked, building


def strips_folder(mask_path: Path) -> Path:
    """Return where the finished rows of a mask lie until it is whole."""
    return mask_path.with_name(f"{mask_path.stem}.partial")


def predict_strips(
    orthophoto: Orthophoto,
    predict: Callable,
    settings: InferenceSettings,
    store: StripStore,
    *,
    bands: int | None = None,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    tags: Mapping[str, Any] | None = None,
    progress: Callable[[float], Any] | None = None,
) -> None:
    """Predict the rows of a raster file and keep them on disk, strip by strip.

    Each strip has two layers: the mask (1, 0, and 255 where the raster is masked) and
    the probability (0 to 254, and 255), on the grid of the raster.

    Args:
        orthophoto: Raster to read.
        predict: Callable from a batch of shape `(batch, window, window, bands)`, uint8,
            to probabilities of shape `(batch, window, window, 1)`, in [0, 1].
        settings: How it is predicted.
        store: Where the strips are kept.
        bands: Number of bands that the model takes, alpha not counted; None for any.
        shard: `(i, n)` for the i-th of n parts of the rows, counted from 1. Windows
            that reach in from the neighbouring parts are predicted in both.
        resume: Whether to go on from the last whole strip of an earlier run, and to
            leave what is whole if this one fails.
        tags: What else the strips depend on.
        progress: Called after each block of rows is written, with its size in
            megapixels: `update` of a tqdm bar will do.

    Raises:
        FileNotFoundError: If there is no such raster.
        ValueError: If the raster has not the bands that the model takes, if a setting
            is not that of the run to resume, or if the model gives something else than
            probabilities.
    """
    part, parts = shard
    if not 1 <= part <= parts:
        raise InputError(f"shard must be from 1/n to n/n, got {part}/{parts}")
    indexes = orthophoto.band_indexes
    if bands is not None and len(indexes) != bands:
        raise InputError(
            f"the model takes {bands} bands, {orthophoto.path.name} has "
            f"{len(indexes)}; --bands chooses"
        )
    predict_mean = augment_prediction(predict, settings.tta, settings.mean)
    geobox = orthophoto.geobox
    identity = dict(orthophoto.identity)
    if parts > 1:  # each may have a copy of its own, made at another time
        identity.pop("image_time", None)
    used = {
        **identity,
        **(tags or {}),
        "size": f"{geobox.width} x {geobox.height}",
        **settings.tags(orthophoto),
    }
    if geobox.resolution is not None:
        used["resolution"] = geobox.resolution

    with ExitStack() as files:
        # Else GDAL keeps what it read in a twentieth of all memory.
        files.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        reader = files.enter_context(orthophoto.open(settings.resolution))
        # A handle for each thread: the writing thread asks for masked pixels.
        masks = files.enter_context(orthophoto.open())
        store.start(used, resume)
        if not resume:
            undo = files.enter_context(ExitStack())
            undo.callback(store.remove)
        begin, last = (geobox.height * i // parts for i in (part - 1, part))
        first = store.finished(begin, last)
        if progress is not None and first > begin:
            progress((first - begin) * geobox.width / 1e6)

        def read(window: Window) -> np.ndarray | None:
            return reader.pixels(window) if reader.valid(window).any() else None

        def write(block: tuple[int, np.ndarray]) -> int:
            row, values = block
            masked = ~masks.valid(Window(row, 0, *values.shape))
            layers = np.empty((2, *values.shape), np.uint8)
            layers[0] = values >= settings.threshold
            layers[1] = np.rint(PROBABILITY_SCALE * values)
            layers[:, masked] = IGNORED
            store.write(row, layers)
            return masked.size

        zoom = Stretch(reader.height, reader.width, geobox.height, geobox.width)
        rows = _predict_rows(
            read,
            *(reader.height, reader.width),
            predict_mean,
            *(settings.window, settings.overlap, settings.batch),
            *zoom.needed(first, last),
        )
        resampled = settings.resolution is not None
        blocks = zoom.stretch(rows, first, last) if resampled else rows
        files.enter_context(closing(rows))
        # Whatever fails, the threads are joined before the files are closed.
        files.enter_context(closing(blocks))
        written = _map_in_thread(write, blocks, BLOCKS_BEHIND)
        for pixels in files.enter_context(closing(written)):
            if progress is not None:
                progress(pixels / 1e6)
        if not resume:
            undo.pop_all()


def find_batch(predict: Callable, shape: tuple[int, int, int]) -> int:
    """Return how many windows at a time a model predicts fastest, by a short trial.

    Args:
        predict: As in `predict_strips`.
        shape: Height, width and bands of a window.

    Returns:
        One of `BATCHES`: the last that was faster by `GAIN` than the one before.
    """
    best, rate = 0, 0.0
    for batch in BATCHES:
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
        if found < GAIN * rate:
            break
        best, rate = batch, found
    return best


class Stretch(NamedTuple):
    """From the rows of a map to those of a larger or smaller one, bilinear.

    Attributes:
        height: Height of the map, in pixels.
        width: Width of the map, in pixels.
        new_height: Height to bring it to.
        new_width: Width to bring it to.
    """

    height: int
    width: int
    new_height: int
    new_width: int

    def needed(self, first: int, last: int) -> tuple[int, int]:
        """Return the rows of the map, from and before, that new rows are made of."""
        if first >= last:
            return 0, 0
        lower, upper, _ = _between(np.arange(first, last), self.new_height, self.height)
        return int(lower[0]), int(upper[-1]) + 1

    def stretch(
        self, blocks: Iterable[tuple[int, np.ndarray]], first: int, last: int
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield the new rows from `first` to before `last`, block by block."""
        left, right, across = _between(
            np.arange(self.new_width), self.new_width, self.width
        )
        kept = np.empty((0, self.width), np.float32)
        for row, block in blocks:
            top = row - len(kept)
            kept = np.concatenate([kept, block])
            rows = np.arange(first, last)
            lower, upper, down = _between(rows, self.new_height, self.height)
            ready = int(np.searchsorted(upper, top + len(kept)))
            if not ready:
                continue
            lower, upper = lower[:ready] - top, upper[:ready] - top
            part = down[:ready, None]
            new = kept[lower] * (1 - part) + kept[upper] * part
            new = new[:, left] * (1 - across) + new[:, right] * across
            yield first, new.astype(np.float32)
            first += ready
            kept = kept[-1:] if ready == len(rows) else kept[lower[-1] :]


def _between(places: np.ndarray, new_length: int, length: int):
    """Return the two pixels that each new one lies between, and how far along."""
    at = np.clip((places + 0.5) * length / new_length - 0.5, 0, length - 1)
    lower = np.floor(at).astype(int)
    return lower, np.ceil(at).astype(int), (at - lower).astype(np.float32)


def _predict_rows(
    read: Callable[[Window], np.ndarray | None],
    height: int,
    width: int,
    predict: Callable,
    window: int,
    overlap: int,
    batch: int,
    first: int = 0,
    last: int | None = None,
) -> Generator[tuple[int, np.ndarray], None, None]:
    """Yield rows of the merged map, from `first` to before `last`, as blocks.

    `read` gives the pixels of a window, or None for a window that nobody asks about.
    It is called in a thread of its own.
    """
    stride = window - overlap

    def read_patch(place: Window) -> tuple[Window, np.ndarray | None]:
        pixels = read(place)
        return place, None if pixels is None else _pad_patch(pixels, window)

    last = height if last is None else last
    if first >= last:
        return
    places = (
        place
        for place in sliding_windows(height, width, window, stride)
        if place.row < last and place.row + place.height > first
    )
    # Closed here, so that no thread reads from a raster that the caller closes.
    with closing(_map_in_thread(read_patch, places, BATCHES_AHEAD * batch)) as reads:
        patches = ((place, patch) for place, patch in reads if patch is not None)
        maps = _predict_patches(patches, predict, batch)
        yield from merge_windows(maps, height, width, window, stride, first, last)


def _predict_patches(
    patches: Iterator[tuple[Window, np.ndarray]], predict: Callable, batch: int
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield each window with its map, of shape `(window, window)`."""
    while ready := list(islice(patches, batch)):
        places, pixels = zip(*ready, strict=True)
        pixels += pixels[-1:] * (batch - len(ready))
        maps = predict(np.stack(pixels))
        _check_maps(maps, (batch, *pixels[0].shape[:2], 1))
        yield from zip(places, maps[: len(ready), :, :, 0], strict=True)


def _map_in_thread(
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


def _check_outputs(image: Path, outputs: list[Path], overwrite: bool) -> None:
    paths = [path.resolve() for path in (image, *outputs)]
    if len(set(paths)) < len(paths):
        names = ", ".join(str(path) for path in (image, *outputs))
        raise InputError(f"image and outputs must be different files, got {names}")
    for path in outputs:
        if path.exists() and not overwrite:
            raise OutputExistsError(f"output must not exist unless overwritten: {path}")


def _check_maps(maps: np.ndarray, shape: tuple[int, ...]) -> None:
    if maps.shape != shape:
        raise InputError(f"the model must give maps of {shape}, got {maps.shape}")
    # Written so that NaN fails.
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise InputError(
            "the model must give probabilities from 0 to 1, "
            f"got {maps.min():g} to {maps.max():g}"
        )
