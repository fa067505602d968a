"""Rows of a map brought to the rows of a larger or smaller one, as they come."""

import math
from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np

from bdloss.geo.windows import Window


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

    def needed(self, part: Window) -> Window:
        """Return the window of the map that a window of the new one is made of."""
        if not part.height:
            return Window(0, 0, 0, 0)
        top, bottom, _ = _between(_rows(part), self.new_height, self.height)
        left, right, _ = _between(_columns(part), self.new_width, self.width)
        first, col = int(top[0]), int(left[0])
        return Window(first, col, int(bottom[-1]) + 1 - first, int(right[-1]) + 1 - col)

    def covered(self, window: Window) -> Window:
        """Return a window of the new map that holds all that a window has a part in."""
        row, col, height, width = window
        top, bottom = _reach(row, height, self.height, self.new_height)
        left, right = _reach(col, width, self.width, self.new_width)
        return Window(top, left, bottom - top, right - left)

    def stretch(
        self, blocks: Iterable[tuple[int, np.ndarray]], part: Window
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield a window of the new map, block by block of its rows.

        Args:
            blocks: Those of the window that is `needed`: the row that a block begins
                with, and the block, `(maps, rows, width)`, from the top without a gap.
            part: The window.
        """
        left, right, across = _between(_columns(part), self.new_width, self.width)
        offset = left[0]
        left, right = left - offset, right - offset
        first, last = part.row, part.row + part.height
        kept = None  # rows that are still needed
        for row, block in blocks:
            if kept is None:
                kept = block[:, :0]
            top = row - kept.shape[1]  # of `kept` in the map
            kept = np.concatenate([kept, block], axis=1)
            rows = np.arange(first, last)
            lower, upper, down = _between(rows, self.new_height, self.height)
            # Ready are the new rows whose neighbour below has come; `upper` is sorted.
            ready = int(np.searchsorted(upper, top + kept.shape[1]))
            if not ready:
                continue
            lower, upper = lower[:ready] - top, upper[:ready] - top
            down = down[:ready, None]
            # Bilinear: between rows, then between columns.
            new = kept[:, lower] * (1 - down) + kept[:, upper] * down
            new = new[..., left] * (1 - across) + new[..., right] * across
            yield first, new.astype(np.float32)
            first += ready
            # Later rows need none above those that the last one needed.
            kept = kept[:, -1:] if ready == len(rows) else kept[:, lower[-1] :]


def _reach(start: int, side: int, length: int, new_length: int) -> tuple[int, int]:
    """Return the new pixels, from and before, that lie nearer than one to others."""
    scale = new_length / length
    first = math.floor((start - 0.5) * scale - 0.5)
    last = math.ceil((start + side + 0.5) * scale - 0.5)
    return max(first, 0), min(last + 1, new_length)


def _rows(part: Window) -> np.ndarray:
    return np.arange(part.row, part.row + part.height)


def _columns(part: Window) -> np.ndarray:
    return np.arange(part.col, part.col + part.width)


def _between(indexes: np.ndarray, new_length: int, length: int):
    """Return the two pixels that each new one lies between, and how far along."""
    # Centres of pixels lie at halves; beyond the outermost ones nothing changes.
    at = np.clip((indexes + 0.5) * length / new_length - 0.5, 0, length - 1)
    lower = np.floor(at).astype(int)
    return lower, np.ceil(at).astype(int), (at - lower).astype(np.float32)
