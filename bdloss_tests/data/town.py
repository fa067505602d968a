"""Scenes of one house each, of which the tests know every pixel."""

from pathlib import Path

import numpy as np
import shapely

from bdloss.data.scenes import Scene
from bdloss_tests.scenes import CORNER, write_raster

HEIGHT, WIDTH = 40, 70
PIXELS = np.random.default_rng(5).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[7:19, 20:44] = 1
HOUSE = shapely.box(*(CORNER @ (20, 19)), *(CORNER @ (44, 7)))  # on the ground


def write_town(root: Path, *names: str) -> Path:
    """Write a scene for each name, in the layout of a folder of one's own."""
    for name in names:
        write_raster(root / "images" / f"{name}.tif", PIXELS)
        write_raster(root / "masks" / f"{name}.png", MASK * 255)
    return root


def names_of(scenes: list[Scene]) -> list[str]:
    """Return the names of scenes."""
    return [scene.name for scene in scenes]
