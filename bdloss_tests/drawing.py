"""Masks drawn as text, the way the tests show what they expect; others by chance."""

import numpy as np
from scipy import ndimage

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


def plateaus(shape, seed: int = 0) -> np.ndarray:
    """Return values of which most neighbours are the same: 0, a half or 1."""
    return np.random.default_rng(seed).integers(0, 3, shape).astype("float32") / 2


def smooth_masks(seed: int, *shape: int) -> tuple[np.ndarray, ...]:
    """Return two masks that are alike, with boundaries of many shapes."""
    rng = np.random.default_rng(seed)
    common, *own = rng.normal(size=(3, *shape))
    return tuple(ndimage.gaussian_filter(common + noise, 3) > 0.02 for noise in own)


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
