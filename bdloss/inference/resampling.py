"""Rows of a map brought to the rows of a larger or smaller one, as they come."""

from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np


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
        """Yield the new rows from `first` to before `last`, block by block.

        Args:
            blocks: The row that a block begins with, and the block, `(maps, rows,
                width)`, from the top without a gap.
            first: First of the new rows.
            last: The one to end before.
        """
        left, right, across = _between(
            np.arange(self.new_width), self.new_width, self.width
        )
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
            part = down[:ready, None]
            # Bilinear: between rows, then between columns.
            new = kept[:, lower] * (1 - part) + kept[:, upper] * part
            new = new[..., left] * (1 - across) + new[..., right] * across
            yield first, new.astype(np.float32)
            first += ready
            # Later rows need none above those that the last one needed.
            kept = kept[:, -1:] if ready == len(rows) else kept[:, lower[-1] :]


def _between(indexes: np.ndarray, new_length: int, length: int):
    """Return the two pixels that each new one lies between, and how far along."""
    # Centres of pixels lie at halves; beyond the outermost ones nothing changes.
    at = np.clip((indexes + 0.5) * length / new_length - 0.5, 0, length - 1)
    lower = np.floor(at).astype(int)
    return lower, np.ceil(at).astype(int), (at - lower).astype(np.float32)
