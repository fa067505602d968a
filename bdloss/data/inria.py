"""INRIA's Aerial Image Labeling dataset: names, split, source."""

import re
from os import PathLike
from pathlib import Path
from typing import Literal

from bdloss.data.scenes import (
    DatasetSettings,
    Resolution,
    Scene,
    Splits,
    at_resolution,
)
from bdloss.data.unpacked import not_empty, part_of

TILE_NAME = re.compile(r"(?P<city>[a-z-]+)(?P<number>[0-9]+)\.tif")
CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")
TEST_CITIES = ("bellingham", "bloomington", "innsbruck", "sfo", "tyrol-e")
TILES_PER_CITY = 36
LAST_VALIDATION_TILE = 5  # of each city, says the benchmark
SOURCE = (
    "get the Inria Aerial Image Labeling dataset from "
    "https://project.inria.fr/aerialimagelabeling (free, on its own terms, not to"
    " be passed on) and unpack it to AerialImageDataset/train/images/austin1.tif "
    "and AerialImageDataset/train/gt/austin1.tif"
)


class InriaSettings(DatasetSettings):
    """Settings of INRIA's dataset, as `read_inria` takes them."""

    name: Literal["inria"] = "inria"
    resolution: Resolution = 0.0

    def read(self) -> Splits:
        """Find the scenes."""
        return read_inria(self.root, self.resolution)


def read_inria(root: str | PathLike, resolution: float = 0.0) -> Splits:
    """Find the scenes of INRIA's Aerial Image Labeling dataset.

    Args:
        root: The folder `AerialImageDataset`, or the one that holds it.
        resolution: Metres a pixel to bring the scenes to; 0 leaves them at 0.3.

    Returns:
        Tiles 1 to 5 of each city for validation, as the benchmark has it, the others
        for training; sorted by city and number. The truth of its test cities is
        not public, so there is nothing to test on. Files of other names are left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no tiles to train on.
    """
    root = part_of(Path(root), "train/images", "AerialImageDataset", SOURCE)
    tiles = {}
    for image in (root / "train" / "images").iterdir():
        if match := TILE_NAME.fullmatch(image.name):
            scene = Scene(image.stem, image, root / "train" / "gt" / image.name)
            tiles[match["city"], int(match["number"])] = scene
    ordered = sorted(tiles)
    splits = Splits(
        train=[tiles[at] for at in ordered if at[1] > LAST_VALIDATION_TILE],
        validation=[tiles[at] for at in ordered if at[1] <= LAST_VALIDATION_TILE],
        test=[],
    )
    return at_resolution(not_empty(splits, root, SOURCE), resolution)


def city_of(name: str) -> str | None:
    """Return the city of a tile of the benchmark, for training or for testing.

    Args:
        name: Of the file, without its suffix.

    Returns:
        The city; None if the name is that of no tile.

    Example:
        >>> city_of("tyrol-w12"), city_of("town12")
        ('tyrol-w', None)
    """
    match = TILE_NAME.fullmatch(f"{name}.tif")
    return match["city"] if match and match["city"] in CITIES + TEST_CITIES else None
