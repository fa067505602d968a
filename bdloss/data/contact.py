"""Contact of buildings: the pixels that lie near to two of them at once."""

import cv2
import numpy as np

from bdloss.errors import InputError


def contact_map(labels: np.ndarray, radius: int) -> np.ndarray:
    """Return where buildings are in contact.

    It is the walls that they share and the gaps between them that are narrower than
    twice the radius: what a network must know to tell them apart.

    Args:
        labels: Array of shape `(height, width)`: a number from 1 for the pixels of each
            building, 0 for the ground.
        radius: Largest distance to each of two buildings, in pixels, from centre to
            centre.

    Returns:
        Array of the same shape, uint8: 1 where two buildings are that near, else 0.

    Raises:
        ValueError: If the radius is below 1.

    Example:
        >>> contact_map(np.array([[1, 1, 1, 2, 2, 2, 0, 0, 0, 3]]), radius=1).tolist()
        [[0, 0, 1, 1, 0, 0, 0, 0, 0, 0]]
    """
    if radius < 1:
        raise InputError(f"contact is within 1 pixel or more, got {radius}")
    reach = np.arange(-radius, radius + 1)
    disk = (np.hypot(*np.meshgrid(reach, reach)) <= radius).astype(np.uint8)
    numbers = labels.astype(np.float32)  # exact up to 16 million
    beyond = numbers.max() + 1
    highest = cv2.dilate(numbers, disk)
    lowest = beyond - cv2.dilate(np.where(numbers > 0, beyond - numbers, 0), disk)
    return ((highest > 0) & (lowest < highest)).astype(np.uint8)
