"""Maps of overlapping windows merged into one, without a seam or a whole raster.

Along each axis a window counts by a sine-squared taper, divided by the sum of the
tapers of all windows that cover the pixel. So the weights of a pixel add to one by
construction, at the rim of the raster too, and the weighted maps need only be added.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from bdloss.errors import InputError
from bdloss.geo.windows import Window, starts

BLOCK = 2_000_000  # values that are given out at a time


def taper(side: int) -> np.ndarray:
    """Return how much a window counts along one axis: sine-squared, never zero.

    Args:
        side: Side of the window, in pixels.

    Returns:
        Array of shape `(side,)`, float32, in (0, 1], taken at the pixel centres.

    Example:
        >>> taper(3).tolist()
        [0.25, 1.0, 0.25]
    """
    centres = (np.arange(side) + 0.5) / side
    return np.square(np.sin(np.pi * centres)).astype(np.float32)


class BlendBuffer:
    """The rows of a merged map that windows still add to: all there is in memory.

    Args:
        height: Height of the whole map, in pixels.
        width: Width of the whole map, in pixels.
        side: Side of the windows, in pixels.
        stride: Distance of one window from the next, in pixels.
        maps: Number of maps that are merged.

    Attributes:
        top: Row of the map that the buffer begins with.
        rows: Array of shape `(maps, min(side, height), width)`, float32.
    """

    def __init__(self, height: int, width: int, side: int, stride: int, maps: int = 1):
        self.top = 0
        self.rows = np.zeros((maps, min(side, height), width), np.float32)
        self._taper = taper(side)
        self._down = _sum_tapers(height, side, stride)
        self._across = _sum_tapers(width, side, stride)

    def add(self, window: Window, values: np.ndarray) -> None:
        """Add the maps of one window, by its weights.

        Args:
            window: Where they belong, as `windows.sliding_windows` cuts it.
            values: Maps of shape `(maps, height, width)` of the window, or larger: what
                lies beyond the window (the padding of a small raster) is dropped.

        Raises:
            ValueError: If the window begins in rows that were given out already.
        """
        if window.row < self.top:
            raise InputError(
                "windows must come from top to bottom: "
                f"row {window.row} came after row {self.top}"
            )
        height, width = window.height, window.width
        down, across = window.slices
        weights = np.outer(
            self._taper[:height] / self._down[down],
            self._taper[:width] / self._across[across],
        ).astype(np.float32)
        first = window.row - self.top
        part = values[:, :height, :width]
        self.rows[:, first : first + height, across] += weights * part

    def release(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """Give out the rows above `row` as finished and shift the buffer down to it.

        Args:
            row: Row of the map that the next window begins with; the height of the map
                after the last.

        Yields:
            The row of the map that a block begins with, and the block: an array of
            shape `(maps, rows, width)`, float32, of at most `BLOCK` values or one row.
        """
        maps, rows, width = self.rows.shape
        most = min(rows, max(1, BLOCK // (maps * width)))
        while self.top < row:
            finished = min(row - self.top, most)
            top, block = self.top, self.rows[:, :finished].copy()
            self.rows[:, :-finished] = self.rows[:, finished:]
            self.rows[:, -finished:] = 0.0
            self.top += finished
            yield top, block


def merge_windows(
    maps: Iterable[tuple[Window, np.ndarray]],
    height: int,
    width: int,
    side: int,
    stride: int,
    first: int = 0,
    last: int | None = None,
    number: int = 1,
) -> Iterator[tuple[int, np.ndarray]]:
    """Merge the maps of overlapping windows, block of rows by block of rows.

    A pixel of the result is the mean of the windows that cover it, each weighted by its
    taper. Only one buffer of rows as high as a window is in memory at a time.

    Args:
        maps: Pairs of a window and its maps, of shape `(number, side, side)`; the
            windows are those of `sliding_windows(height, width, side, stride)`, in its
            order, that reach into the rows asked for. A window left out counts as maps
            of zeros.
        height: Height of the merged map, in pixels.
        width: Width of the merged map, in pixels.
        side: Side of the windows, in pixels.
        stride: Distance of one window from the next, in pixels, 1 to `side`.
        first: Row of the map to begin with.
        last: Row of the map to end before; None for its height.
        number: How many maps a window has.

    Yields:
        The row that a block begins with, and the block: an array of shape
        `(number, rows, width)`, float32, at most `side` rows. From `first` without a
        gap: the blocks together are those rows of the merged maps, to the bit, wherever
        it is begun.

    Raises:
        ValueError: If the windows do not come from top to bottom.

    Example:
        >>> from bdloss.geo.windows import sliding_windows
        >>> windows = sliding_windows(7, 5, 4, 3)
        >>> maps = ((window, np.ones((1, 4, 4))) for window in windows)
        >>> for row, block in merge_windows(maps, 7, 5, side=4, stride=3):
        ...     print(row, block.shape, block.min(), block.max())
        0 (1, 3, 5) 1.0 1.0
        3 (1, 4, 5) 1.0 1.0
    """
    last = height if last is None else last
    buffer = BlendBuffer(height, width, side, stride, number)
    buffer.top = next(row for row in starts(height, side, stride) if row + side > first)

    def release(row: int) -> Iterator[tuple[int, np.ndarray]]:
        for top, block in buffer.release(row):
            part = block[:, max(first - top, 0) : max(last - top, 0)]
            if part.size:
                yield max(top, first), part

    for window, values in maps:
        yield from release(window.row)
        buffer.add(window, values)
    yield from release(last)


def _sum_tapers(length: int, side: int, stride: int) -> np.ndarray:
    """Return the sum of the tapers of all windows along an axis, `(length,)` float64.

    One number a row or column of the raster: the only thing as long as the raster.
    """
    total = np.zeros(max(length, side))
    for start in starts(length, side, stride):
        total[start : start + side] += taper(side)
    return total[:length]
