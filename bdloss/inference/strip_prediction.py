"""The rows of an orthophoto predicted, strip by strip, and kept on disk.

    orthophoto -> sliding_window -> resampling -> strips

What is in memory is a few windows and a strip of rows as high as a window, of all
columns or, where the raster is wide, of a panel of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import rasterio

from bdloss.constants import BUILDING, IGNORED, PROBABILITY_SCALE
from bdloss.errors import InputError
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.raster import GDAL_CACHE
from bdloss.geo.windows import Window, share
from bdloss.inference.class_choice import choose_class
from bdloss.inference.resampling import Stretch
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.sliding_window import map_in_thread, predict_rows
from bdloss.inference.strips import StripStore
from bdloss.inference.tta import augment_prediction
from bdloss.models import class_names

MAX_BLOCKS_WAITING = 1  # for the writing thread


def predict_strips(
    orthophoto: Orthophoto,
    predict: Callable,
    settings: InferenceSettings,
    store: StripStore,
    *,
    targets: Sequence[str] = (BUILDING,),
    band_count: int | None = None,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    tags: Mapping[str, Any] | None = None,
    progress: Callable[[float], Any] | None = None,
) -> None:
    """Predict the rows of a raster file and keep them on disk, strip by strip.

    The first layer of a strip is the mask: the number of a pixel's class, from 1, 0 for
    none, 255 where the raster is masked. Then comes a layer for each map: its
    probability (0 to 254, and 255). All are on the grid of the raster. Of an orthophoto
    with an area of interest, strips are the rows of the window that holds it, and 255
    outside of it.

    Args:
        orthophoto: Raster to read.
        predict: Callable from a batch of shape `(batch, window, window, bands)`, uint8,
            to probabilities of shape `(batch, window, window, maps)`, in [0, 1].
        settings: How it is predicted.
        store: Where the strips are kept.
        targets: Names of the maps: classes, then `contact` if there is that map.
        band_count: Bands that the model takes, alpha not counted; None for any.
        shard: `(i, n)` for the i-th of n parts of its panels, counted from 1. Windows
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
    if band_count is not None and len(indexes) != band_count:
        raise InputError(
            f"the model takes {band_count} bands, {orthophoto.path.name} has "
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
    if orthophoto.panels > 1:
        used["panels"] = orthophoto.panels

    with ExitStack() as files:
        # Else GDAL keeps what it read in a twentieth of all memory.
        files.enter_context(rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE))
        reader = files.enter_context(orthophoto.open(settings.resolution))
        # A handle for each thread: the writing thread asks for masked pixels.
        masks = files.enter_context(orthophoto.open())
        area = orthophoto.area
        store.start(used, resume, area.wkb if area else None)
        if not resume:
            undo = files.enter_context(ExitStack())
            undo.callback(store.remove)
        resampled = settings.resolution is not None
        zoom = Stretch(reader.height, reader.width, geobox.height, geobox.width)

        def read(window: Window) -> np.ndarray | None:
            seen = zoom.covered(window) if resampled else window
            if area is not None and not area.mask(seen, margin=True).any():
                return None
            return reader.pixels(window) if reader.valid(window).any() else None

        def write(block: tuple[int, np.ndarray], col: int) -> int:
            row, maps = block
            number, *sides = maps.shape
            masked = ~masks.wanted(Window(row, col, *sides), margin=True)
            layers = np.empty((1 + number, *sides), np.uint8)
            layers[0] = choose_class(
                np.moveaxis(maps[:classes], 0, -1), settings.threshold
            )
            layers[1:] = np.rint(PROBABILITY_SCALE * maps)
            layers[:, masked] = IGNORED
            store.write(row, layers, col)
            return masked.size

        classes = len(class_names(targets))
        for panel in share(orthophoto.window, orthophoto.panels, part, parts):
            store.drop_damaged(panel)
            first = store.finished(panel)
            done = first - panel.row
            if progress is not None and done:
                progress(done * panel.width / 1e6)
            missing = panel._replace(row=first, height=panel.height - done)
            rows = predict_rows(
                read,
                *(reader.height, reader.width),
                predict_mean,
                *(settings.window, settings.overlap, settings.batch),
                zoom.needed(missing) if resampled else missing,
                number=len(targets),
            )
            blocks = zoom.stretch(rows, missing) if resampled else rows
            # Whatever fails, the threads are joined before the files are closed.
            with closing(rows), closing(blocks):
                write_here = functools.partial(write, col=panel.col)
                written = map_in_thread(write_here, blocks, MAX_BLOCKS_WAITING)
                with closing(written):
                    for pixels in written:
                        if progress is not None:
                            progress(pixels / 1e6)
        if not resume:
            undo.pop_all()
