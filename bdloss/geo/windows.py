"""Windows: the rectangles in which an orthophoto is read, predicted and written."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from bdloss.errors import InputError

TILE = 512  # pixels: the side of the tiles of GeoTIFFs that are written


class Window(NamedTuple):
    """A rectangle of a raster, in pixels.

    Attributes:
        row: First row, counted from the top.
        col: First column, counted from the left.
        height: Number of rows.
        width: Number of columns.

    Example:
        >>> Window(row=2, col=0, height=3, width=4).slices
        (slice(2, 5, None), slice(0, 4, None))
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array of shape `(height, width, ...)`."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )


def starts(length: int, side: int, stride: int) -> list[int]:
    """Return where the windows along one axis start.

    Args:
        length: Length of the axis, in pixels.
        side: Side of a window, in pixels.
        stride: Step from a window to the next, in pixels, from 1 to `side`.

    Returns:
        0, `stride`, 2 `stride` and so on; the last window is shifted in, so that it
        ends where the axis ends. Only 0 where the axis is no longer than a window.

    Raises:
        ValueError: If `length` is below 1 or `stride` would leave gaps.

    Example:
        >>> starts(10, side=4, stride=4)
        [0, 4, 6]
    """
    if length < 1:
        raise InputError(f"length must be at least 1, got {length}")
    if not 1 <= stride <= side:
        raise InputError(f"stride must be from 1 to the side {side}, got {stride}")
    if length <= side:
        return [0]
    return [*range(0, length - side, stride), length - side]


def sliding_windows(
    height: int, width: int, side: int, stride: int
) -> Iterator[Window]:
    """Yield the windows that cover a raster, row by row.

    Args:
        height: Height of the raster, in pixels.
        width: Width of the raster, in pixels.
        side: Side of a window, in pixels.
        stride: Step from a window to the next, in pixels, from 1 to `side`.

    Yields:
        Windows of `side` x `side`, cut to the raster where it is smaller than that.

    Raises:
        ValueError: As `starts` does.

    Example:
        >>> [(window.row, window.col) for window in sliding_windows(4, 10, 4, 4)]
        [(0, 0), (0, 4), (0, 6)]
    """
    for row in starts(height, side, stride):
        for col in starts(width, side, stride):
            yield Window(row, col, min(side, height), min(side, width))


def panels(window: Window, number: int) -> list[Window]:
    """Return parts of a window, side by side, of whole tiles of a GeoTIFF.

    Args:
        window: The window.
        number: How many parts; fewer where there are not so many tiles.

    Example:
        >>> [(panel.col, panel.width) for panel in panels(Window(0, 9, 4, 2000), 2)]
        [(9, 1015), (1024, 985)]
    """
    left, right = window.col, window.col + window.width
    edges = {
        TILE * round((left + window.width * part / number) / TILE)
        for part in range(1, number)
    }
    cols = [left, *sorted(edge for edge in edges if left < edge < right), right]
    return [
        window._replace(col=col, width=end - col)
        for col, end in itertools.pairwise(cols)
    ]


def share(window: Window, number: int, part: int, parts: int) -> list[Window]:
    """Return a part of the panels of a window, each from the top.

    Args:
        window: The window.
        number: How many panels it has.
        part: Which part, from 1.
        parts: How many parts there are, of as many rows of panels each.

    Example:
        >>> share(Window(0, 0, 10, 2048), 2, part=2, parts=4)
        [Window(row=5, col=0, height=5, width=1024)]
        >>> share(Window(0, 0, 10, 2048), 1, part=2, parts=2)
        [Window(row=5, col=0, height=5, width=2048)]
    """
    all_panels = panels(window, number)
    total = window.height * len(all_panels)
    begin, end = (total * i // parts for i in (part - 1, part))
    shares = []
    for panel in all_panels:
        first, last = max(begin, 0), min(end, panel.height)
        if first < last:
            rows = {"row": panel.row + first, "height": last - first}
            shares.append(panel._replace(**rows))
        begin, end = begin - panel.height, end - panel.height
    return shares
