"""The steps of the boundary loss, drawn on a window of a prediction (Fig. 1)."""

from pathlib import Path

import numpy as np

from bdloss import plots
from bdloss.constants import IGNORED
from bdloss.errors import InputError
from bdloss.evaluation.pairs import Pair, open_pair, read_image
from bdloss.files import atomic_path, refuse_existing, refuse_overlap
from bdloss.geo.windows import Window, sliding_windows
from bdloss.metrics.scores import find_boundary

SIDE = 256  # pixels of the window


def draw_stages(
    pred: Path,
    truth: Path,
    path: Path,
    image: Path | None = None,
    corner: tuple[int, int] | None = None,
    side: int = SIDE,
    theta0: int = 3,
    theta: int = 5,
    overwrite: bool = False,
    value: int | None = None,
) -> Window:
    """Draw the steps of the boundary loss (Fig. 1) on a window of a prediction.

    Args:
        pred: A mask, or a `NAME_prob.tif` of probabilities that `predict` wrote.
        truth: A mask or a file of outlines.
        path: PNG file to write.
        image: The orthophoto, to stand beside them.
        corner: Row and column of the window; None for the window of a grid that has
            most of the true boundary.
        side: Side of the window, in pixels.
        theta0: Side of the window of Eq. 1, in pixels.
        theta: Side of the window of Eq. 2, in pixels.
        overwrite: Whether the file may be replaced.
        value: In masks, that of the class to draw; of probabilities, its number. None
            for all but 0, or the first.

    Returns:
        The window.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If `path` exists and may not be replaced.
        ValueError: If the files do not go together, the corner lies outside, or the
            windows of the loss cannot be used.
    """
    refuse_overlap([path], [pred, truth, *([image] if image else [])])
    refuse_existing(path, overwrite)
    pair = Pair(path.stem, pred, truth, value)
    if corner is None:
        corner = _longest_boundary(pair, side)
    row, col = corner
    with open_pair(pair, probabilities=True) as reader:
        height, width = reader.geobox.height, reader.geobox.width
        if not (0 <= row < height and 0 <= col < width):
            raise InputError(
                f"the corner must lie in {height} rows and {width} columns, "
                f"got row {row}, column {col}"
            )
        window = Window(row, col, min(side, height - row), min(side, width - col))
        true, shown = (
            part[:, window.slices[1]] for part in reader.rows(row, row + window.height)
        )
    pixels = None if image is None else read_image(image, window)
    with atomic_path(path) as partial:
        plots.draw_stages(true, shown, partial, theta0, theta, pixels)
    return window


def _longest_boundary(pair: Pair, side: int) -> tuple[int, int]:
    """Return the corner of the window with most of the true boundary."""
    best, corner = -1, (0, 0)
    with open_pair(pair, probabilities=True) as reader:
        height, width = reader.geobox.height, reader.geobox.width
        edge, above = np.zeros((0, 0), bool), -1
        for window in sliding_windows(height, width, side, side):
            if window.row != above:  # the first window of a row of them
                above = window.row
                true, _ = reader.rows(above, above + window.height)
                edge = find_boundary(true, ignore=IGNORED)
            length = np.count_nonzero(edge[:, window.slices[1]])
            if length > best:
                best, corner = int(length), (window.row, window.col)
    return corner
