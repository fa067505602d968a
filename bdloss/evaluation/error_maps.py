"""Where predictions are wrong: a map of each image, the worst and the best windows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bdloss import plots
from bdloss.constants import IGNORED
from bdloss.evaluation.pairs import Pair, Strip, open_pair, read_image
from bdloss.evaluation.scores import TOLERANCES
from bdloss.geo.windows import Window, sliding_windows
from bdloss.metrics.scores import count_pixels

WINDOW_SIDE = 256  # pixels of the windows that are drawn
WINDOWS_DRAWN = 4  # of the worst, and of the best
MAX_OVERLAPPING = 3  # windows of a grid that one may share pixels with, at its edges
MIN_BUILDING_FRACTION = 0.05  # of a window, for it to be drawn
PICTURE_SIDE = 2000  # pixels of the longer side of an error map at most

Chosen = TypeVar("Chosen", bound=tuple[Any, ...])


class ScoredWindow(NamedTuple):
    """A window of a pair of masks, and its IoU."""

    iou: float
    pair: Pair
    window: Window


class ErrorMap:
    """The error map of an image, at a size that a person looks at, and its windows.

    Args:
        pair: The masks of the image.
        height: Their height, in pixels.
        width: Their width.
        picture_side: Pixels of the longer side of the map at most.
        min_building_fraction: Windows with less building are not looked at.

    Attributes:
        windows: The windows of a grid that have enough buildings, and their IoU.
    """

    def __init__(
        self,
        pair: Pair,
        height: int,
        width: int,
        picture_side: int = PICTURE_SIDE,
        min_building_fraction: float = MIN_BUILDING_FRACTION,
    ):
        self.windows: list[ScoredWindow] = []
        self._pair = pair
        self._step = math.ceil(max(height, width) / picture_side)
        self._min_building = min_building_fraction * WINDOW_SIDE**2
        self._rows: list[np.ndarray] = []

    def add(self, strip: Strip, top: int) -> None:
        """Add the next strip of rows."""
        step = self._step
        marks = plots.mark_errors(strip.true, strip.pred, TOLERANCES[0])[strip.rows]
        # A copy: a view would hold the whole strip.
        self._rows.append(marks[-top % step :: step, ::step].copy())
        true, pred = strip.true[strip.rows], strip.pred[strip.rows]
        height, width = true.shape
        for part in sliding_windows(height, width, WINDOW_SIDE, WINDOW_SIDE):
            counts = count_pixels(true[part.slices], pred[part.slices], IGNORED)
            if counts.union >= self._min_building:
                window = part._replace(row=top + part.row)
                self.windows.append(ScoredWindow(counts.iou, self._pair, window))

    @property
    def marks(self) -> np.ndarray:
        """The map, of shape `(height, width)`, uint8: see `plots.mark_errors`."""
        return np.vstack(self._rows)

    @property
    def worst(self) -> list[ScoredWindow]:
        """The windows that fit worst and do not overlap, the worst first."""
        return choose_apart(sorted(self.windows), WINDOWS_DRAWN)


def keep_extremes(windows: Sequence[ScoredWindow]) -> list[ScoredWindow]:
    """Return, by IoU, those windows that may still be drawn."""
    ordered = sorted(windows)
    kept = WINDOWS_DRAWN * (1 + MAX_OVERLAPPING)
    return ordered if len(ordered) <= 2 * kept else ordered[:kept] + ordered[-kept:]


def worst_and_best(
    windows: Sequence[ScoredWindow],
) -> dict[str, list[ScoredWindow]]:
    """Return the windows to draw, those that do not overlap, if there are any."""
    ordered = sorted(windows)
    chosen = {
        "worst": choose_apart(ordered, WINDOWS_DRAWN),
        "best": choose_apart(ordered[::-1], WINDOWS_DRAWN),
    }
    return {name: some for name, some in chosen.items() if some}


def choose_apart(candidates: Sequence[Chosen], number: int) -> list[Chosen]:
    """Return the first places whose windows do not overlap.

    Args:
        candidates: Tuples that end with an image and a window of it, in order.
        number: How many to return at most.

    Example:
        >>> windows = [Window(0, col, 4, 4) for col in (0, 3, 4)]
        >>> chosen = choose_apart([("a", window) for window in windows], 2)
        >>> [window.col for _, window in chosen]
        [0, 4]
    """
    chosen: list[Chosen] = []
    for candidate in candidates:
        *_, image, window = candidate
        free = all(
            image != other or not _overlap(window, taken) for *_, other, taken in chosen
        )
        if free and len(chosen) < number:
            chosen.append(candidate)
    return chosen


def _overlap(one: Window, other: Window) -> bool:
    return (
        one.row < other.row + other.height
        and other.row < one.row + one.height
        and one.col < other.col + other.width
        and other.col < one.col + one.width
    )


def read_sample(scored: ScoredWindow, images: Mapping[str, Path]) -> plots.Sample:
    """Read what is drawn of a window.

    Args:
        scored: The window.
        images: Orthophotos by name; one that is not there is not drawn.
    """
    window, pair = scored.window, scored.pair
    columns = window.slices[1]
    with open_pair(pair) as reader:
        rows = reader.rows(window.row, window.row + window.height)
    true, pred = (part[:, columns] for part in rows)
    image = images.get(pair.name)
    pixels = None if image is None else read_image(image, window)
    title = f"{pair.name}, IoU {scored.iou:.2f}\nrow {window.row}, column {window.col}"
    return plots.Sample(title, pixels, np.where(pred == IGNORED, pred, true), pred)
