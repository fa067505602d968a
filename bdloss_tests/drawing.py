"""Masks drawn as text, the way the tests show what they expect; others by chance."""

import numpy as np
from scipy import ndimage

from bdloss.constants import PROBABILITY_SCALE

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


def smooth_probabilities(
    seed: int, shape: tuple[int, int], levels: int = PROBABILITY_SCALE
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of buildings and of their contact, 0 to 254, uint8.

    Buildings cover more than half and are in contact all over. Few levels make pixels
    that are equally likely.
    """
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 1.3, 1.3))
    low, high = smooth.min(axis=(1, 2)), smooth.max(axis=(1, 2))
    maps = (smooth - low[:, None, None]) / (high - low)[:, None, None]
    sharp = np.clip(3 * maps - [[[0.8]], [[1.2]]], 0, 1)
    steps = np.rint(sharp * levels) / levels
    building, contact = np.rint(steps * PROBABILITY_SCALE).astype(np.uint8)
    return building, contact


def numbered_buildings(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two images of numbered rectangles that are alike, as outlines are drawn.

    Rectangles touch and hide parts of others, some are missing in either image, and
    they reach over the edge of the image.
    """
    height, width = rng.integers(12, 40, 2)
    images = np.zeros((2, height, width), np.int32)
    for number in rng.permutation(rng.integers(1, 12)) + 1:
        corner = rng.integers(-3, [height, width])
        sides = rng.integers(2, 12, 2)
        for image in images:
            top, left = np.maximum(corner + rng.integers(-1, 2, 2), 0)
            end, right = np.add((top, left), sides + rng.integers(-1, 2, 2))
            if rng.random() < 0.85:
                image[top:end, left:right] = number
    return images[0], images[1]


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
