"""The class of each pixel, chosen from the maps of a network."""

import numpy as np


def choose_class(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Return the class of each pixel: that of the highest map, if it reaches.

    Args:
        maps: Probabilities of shape `(height, width, classes)`, in [0, 1].
        threshold: Least probability of a class.

    Returns:
        Array of shape `(height, width)`, uint8: the number of the class from 1, the
        first one of equals; 0 where no map reaches the threshold.

    Example:
        >>> maps = np.array([[[0.7, 0.2], [0.6, 0.8], [0.1, 0.4]]])
        >>> choose_class(maps, 0.5).tolist()
        [[1, 2, 0]]
    """
    highest = maps[..., 0]
    chosen = np.ones(highest.shape, np.uint8)
    for number in range(1, maps.shape[-1]):
        # Not `argmax`, which copies the maps to have them side by side.
        chosen[maps[..., number] > highest] = number + 1
        highest = np.maximum(highest, maps[..., number])
    chosen[highest < threshold] = 0
    return chosen
