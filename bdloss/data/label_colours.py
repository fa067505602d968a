"""Labels in the colours of Potsdam's classes, as masks of buildings."""

from pathlib import Path

import numpy as np

from bdloss.constants import IGNORED
from bdloss.errors import InputError

# Red, green and blue are each 0 or 255, so a colour is a number of three bits.
UNKNOWN_COLOUR = 254
CLASSES = np.array([IGNORED, 1, 0, 0, 0, UNKNOWN_COLOUR, 0, 0], np.uint8)


def decode_colours(label: np.ndarray, path: Path) -> np.ndarray:
    """Return the mask of a label in the colours of Potsdam's classes."""
    bits = label >> 7
    mask = CLASSES[bits[..., 0] << 2 | bits[..., 1] << 1 | bits[..., 2]]
    unknown = (mask == UNKNOWN_COLOUR) | (label != bits * np.uint8(255)).any(axis=-1)
    if unknown.any():
        row, col = np.unravel_index(unknown.argmax(), unknown.shape)
        raise InputError(
            "a label has the colours of Potsdam's classes, "
            f"got {tuple(label[row, col].tolist())} at row {row}, column {col}: {path}"
        )
    return mask
