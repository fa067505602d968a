"""Touching buildings told apart: a component is split where buildings are in contact.

    component -> seeds, where it is surely a building -> watershed -> buildings

A seed is a part of a component in which the probability of a building is higher than
that of contact by `SURE` at least. The watershed (Soille & Ansoult 1990) grows all
seeds at once, the surer pixels first, until the component is shared out.
"""

import logging
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage
from skimage import segmentation

from bdloss.constants import IGNORED, PROBABILITY_SCALE

logger = logging.getLogger(__name__)

# Least difference of the probabilities of building and contact in a seed, and its least
# pixels: chosen on validation blocks of real towns, see benchmarks/RESULTS.md. A lower
# difference leaves more houses merged, a higher one cuts up more.
SURE = 0.8
SEED_PIXELS = 16
LARGEST = 25_000_000  # pixels of the box of a component, to bound memory


def split_components(
    labels: np.ndarray,
    building: np.ndarray,
    contact: np.ndarray,
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """Split components of a mask into buildings.

    What becomes of a component depends on its pixels alone, not on others nor on where
    it lies. A component of fewer than two seeds stays whole.

    Args:
        labels: Array of shape `(height, width)`, int32: the component of each pixel,
            from 1; 0 is background. Components are connected by edges of pixels, and
            do not touch.
        building: Probabilities of a building, of the same shape, uint8, 0 to 254.
        contact: Probabilities of contact of two buildings, likewise.
        chosen: Whether the component of each number, from 0, may be split; None for
            all.

    Returns:
        New labels. Buildings of components that are split are numbered from
        `len(chosen)` on, all others keep their numbers.

    Example:
        >>> labels = np.repeat(np.int32([[1, 1, 1, 1, 1, 1, 1, 0, 2, 2, 2]]), 6, axis=0)
        >>> building = np.where(labels > 0, 250, 0).astype(np.uint8)
        >>> contact = np.zeros_like(building)
        >>> contact[:, 3] = 200
        >>> split_components(labels, building, contact)[0].tolist()
        [3, 3, 3, 3, 4, 4, 4, 0, 2, 2, 2]
    """
    if chosen is None:
        chosen = np.ones(int(labels.max()) + 1, bool)
    sure = cv2.subtract(building, contact) >= SURE * PROBABILITY_SCALE
    sure &= labels > 0
    count, seeds, stats, _ = cv2.connectedComponentsWithStats(
        sure.astype(np.uint8), connectivity=4
    )
    owners = np.zeros(count, labels.dtype)
    owners[seeds] = labels
    grown = stats[:, cv2.CC_STAT_AREA] >= SEED_PIXELS
    grown[0] = False
    grown &= chosen[owners]
    several = np.bincount(owners[grown], minlength=len(chosen)) > 1
    grown &= several[owners]
    if not grown.any():
        return labels
    numbers = np.zeros(count, np.int32)
    numbers[grown] = len(chosen) + np.arange(np.count_nonzero(grown))
    seeds = numbers[seeds]
    # All that is within a seed need not be grown.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode((seeds > 0).astype(np.uint8), cross) > 0
    flooded = several[labels] & ~inner
    markers = np.where(inner, 0, seeds)
    elevation = np.subtract(contact, building, dtype=np.float64) + PROBABILITY_SCALE
    # Seeds come first, and in one order wherever the component lies: where heights are
    # equal, the watershed would take them in an order that depends on all of the image.
    first = np.flatnonzero(markers)
    elevation.ravel()[first] = np.arange(-len(first), 0)
    basins = segmentation.watershed(elevation, markers, connectivity=1, mask=flooded)
    buildings = np.where(inner, seeds, basins)
    return np.where(buildings > 0, buildings, labels)


class Crop(NamedTuple):
    """The pixels of a component within a box.

    Attributes:
        row: Upper row of the box.
        col: Left column of the box.
        layers: Array of shape `(2, height, width)`, uint8: probabilities of building
            and of contact, and 255 where it is not the component.
    """

    row: int
    col: int
    layers: np.ndarray


class OpenComponent:
    """The pixels of a component that come strip by strip, until it is finished.

    Those of one that is too large to be split are not kept.
    """

    def __init__(self, row: int, col: int, layers: np.ndarray):
        """Begin with a part of the component, as in `Crop`."""
        height, width = layers.shape[1:]
        self._box = row, col, row + height, col + width
        self._crops = [Crop(row, col, layers)]

    def add(self, other: "OpenComponent") -> None:
        """Add another part of the component."""
        (top, left, bottom, right), box = self._box, other._box
        self._box = (
            *(min(top, box[0]), min(left, box[1])),
            *(max(bottom, box[2]), max(right, box[3])),
        )
        self._crops += other._crops
        if self._is_large:
            self._crops = []

    @property
    def _shape(self) -> tuple[int, int]:
        top, left, bottom, right = self._box
        return bottom - top, right - left

    @property
    def _is_large(self) -> bool:
        height, width = self._shape
        return height * width > LARGEST

    def join(self) -> Crop | None:
        """Return all pixels of the component; None if it is too large."""
        top, left, *_ = self._box
        if self._is_large:
            logger.warning(
                "touching buildings over %d x %d pixels stay one: a component is not "
                "split beyond %d pixels",
                *(*self._shape, LARGEST),
            )
            return None
        layers = np.full((2, *self._shape), IGNORED, np.uint8)
        for row, col, part in self._crops:
            height, width = part.shape[1:]
            rows = slice(row - top, row - top + height)
            there = layers[:, rows, col - left : col - left + width]
            np.minimum(there, part, out=there)  # of others it has 255
        return Crop(top, left, layers)


def open_components(
    labels: np.ndarray,
    chosen: np.ndarray,
    building: np.ndarray,
    contact: np.ndarray,
    row: int,
    col: int = 0,
) -> dict[int, OpenComponent]:
    """Return the pixels of some components of a strip.

    Args:
        labels: As in `split_components`.
        chosen: Whether the component of each number, from 0, is wanted.
        building: As in `split_components`.
        contact: As in `split_components`.
        row: Row of the raster that the strip begins with.
        col: Column that it begins with.
    """
    layers = np.stack([building, contact])
    boxes = ndimage.find_objects(labels)
    opened = {}
    for number in np.flatnonzero(chosen).tolist():
        box = boxes[number - 1]
        part = np.where(labels[box] == number, layers[:, *box], np.uint8(IGNORED))
        corner = row + box[0].start, col + box[1].start
        opened[number] = OpenComponent(*corner, part)
    return opened
