"""A raster file of any size predicted, as strips on disk and then as GeoTIFFs.

    orthophoto -> sliding_window -> resampling -> strips -> GeoTIFFs

Finished rows are kept on disk as they come (`inference/strips.py`) and put together
at the end, so that a run that was killed goes on and machines can share a raster. What
is in memory is a few windows and a strip of rows as high as a window.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio

from bdloss.constants import IGNORED, PROBABILITY_SCALE
from bdloss.errors import InputError, OutputExistsError
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.raster import create_mask
from bdloss.geo.windows import Window
from bdloss.inference.resampling import Stretch
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.sliding_window import map_in_thread, predict_rows
from bdloss.inference.strips import StripStore
from bdloss.inference.tta import augment_prediction

BLOCKS_BEHIND = 1  # blocks of rows that may wait for the writing thread
CACHE = 64  # megabytes of raster that GDAL may keep


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
        rows = predict_rows(
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
        written = map_in_thread(write, blocks, BLOCKS_BEHIND)
        for pixels in files.enter_context(closing(written)):
            if progress is not None:
                progress(pixels / 1e6)
        if not resume:
            undo.pop_all()


def _check_outputs(image: Path, outputs: list[Path], overwrite: bool) -> None:
    paths = [path.resolve() for path in (image, *outputs)]
    if len(set(paths)) < len(paths):
        names = ", ".join(str(path) for path in (image, *outputs))
        raise InputError(f"image and outputs must be different files, got {names}")
    for path in outputs:
        if path.exists() and not overwrite:
            raise OutputExistsError(f"output must not exist unless overwritten: {path}")
