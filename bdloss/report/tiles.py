"""An orthophoto as a pyramid of JPEG tiles, as many as fit."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import rasterio

from bdloss import plots
from bdloss.geo import raster
from bdloss.geo.windows import Window
from bdloss.report.page import picture_of

SIDE = 256  # pixels of a tile
QUALITY = 80  # of JPEG
AROUND = 0x22  # grey around an orthophoto, that of #map in page.css
GROWTH = 3.5  # of a level to that which is half as fine, in bytes, at most


class Pyramid(NamedTuple):
    """Tiles by their name, `level/column/row`; level n is averaged 2^n-fold.

    Attributes:
        tiles: Addresses that hold JPEG pictures.
        finest: The finest level that is whole.
        coarsest: The coarsest, which is one tile.
    """

    tiles: dict[str, str]
    finest: int
    coarsest: int


def make_pyramid(
    source: rasterio.DatasetReader, limit: int, whole: Iterable[Window] = ()
) -> Pyramid:
    """Cut an orthophoto into tiles, from the coarsest level to the finest that fits.

    Args:
        source: The open raster.
        limit: Most bytes of the pictures, of levels that are whole.
        whole: Windows that are there at full resolution anyhow.

    Returns:
        The tiles.
    """
    longest = max(source.shape)
    coarsest = max(0, math.ceil(math.log2(longest / SIDE)))
    tiles: dict[str, str] = {}
    room: float = math.inf  # of the coarsest level, which is always there
    last, finest = 0, coarsest
    for level in range(coarsest, -1, -1):
        found = _cut_whole(source, level, room) if GROWTH * last <= room else None
        if found is None:
            break
        tiles |= found
        finest, last = level, sum(map(len, found.values()))
        room = limit - sum(map(len, tiles.values()))
    if finest:
        places = sorted({place for window in whole for place in _tiles_in(window)})
        tiles |= dict(_cut(source, 0, places))
    return Pyramid(tiles, finest, coarsest)


def _all_tiles(source: rasterio.DatasetReader, level: int) -> Iterator[tuple[int, int]]:
    """Yield column and row of all tiles of a level."""
    rows, columns = (math.ceil(side / (SIDE << level)) for side in source.shape)
    yield from ((column, row) for row in range(rows) for column in range(columns))


def _cut_whole(
    source: rasterio.DatasetReader, level: int, room: float
) -> dict[str, str] | None:
    """Return all tiles of a level; None as soon as they take more than some bytes."""
    found: dict[str, str] = {}
    for name, picture in _cut(source, level, _all_tiles(source, level)):
        found[name] = picture
        room -= len(picture)
        if room < 0:
            return None
    return found


def _tiles_in(window: Window) -> Iterator[tuple[int, int]]:
    """Yield column and row of the finest tiles that a window reaches into."""
    row, col, height, width = window
    for down in range(row // SIDE, (row + height - 1) // SIDE + 1):
        for right in range(col // SIDE, (col + width - 1) // SIDE + 1):
            yield right, down


def _cut(
    source: rasterio.DatasetReader, level: int, places: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    """Yield name and picture of tiles, at the edges filled like what is around."""
    span = SIDE << level
    for column, row in places:
        top, left = row * span, column * span
        height = min(span, source.height - top)
        width = min(span, source.width - left)
        shape = math.ceil(height / (1 << level)), math.ceil(width / (1 << level))
        window = Window(top, left, height, width)
        pixels = plots.as_rgb(raster.read_shaped(source, window, shape))
        tile = np.full((SIDE, SIDE, 3), AROUND, np.uint8)
        tile[: shape[0], : shape[1]] = pixels[..., ::-1]
        _, content = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        yield f"{level}/{column}/{row}", picture_of(content.tobytes(), "jpeg")
