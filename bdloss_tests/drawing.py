"""Masks drawn as text, the way the tests show what they expect."""

import numpy as np

INK = {"#": 1.0, ".": 0.0, "?": 255.0}


def draw(text: str) -> np.ndarray:
    """Return the mask of a drawing: `#` building, `.` ground, `?` ignored.

    Example:
        >>> draw("#.?").tolist()
        [[1.0, 0.0, 255.0]]
    """
    rows = text.split()
    return np.array([[INK[mark] for mark in row] for row in rows], np.float32)


def as_batch(*masks: np.ndarray) -> np.ndarray:
    """Return masks of one size as a batch of shape `(batch, height, width, 1)`."""
    return np.stack(masks)[..., None]


HOUSE = draw(
    """
    .........
    .........
    ..#####..
    ..#####..
    ..#####..
    ..#####..
    ..#####..
    .........
    """
)
FIELD = np.zeros_like(HOUSE)
CITY = np.ones_like(HOUSE)
