"""Datasets: which scenes there are, which of them train, and how one is loaded."""

import re
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.transform import array_bounds

from bdloss.orthophotos import polygons, raster
from bdloss.orthophotos.raster import IGNORED, Grid
from bdloss.orthophotos.windows import Window

IMAGE_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg"}
OUTLINE_SUFFIXES = {".gpkg", ".geojson", ".json", ".shp", ".fgb"}
INRIA_TILE = re.compile(r"(?P<city>[a-z-]+)(?P<number>\d+)\.tif")
INRIA_VALIDATION = 5  # tiles 1 to 5 of each city, says the benchmark


class Scene(NamedTuple):
    """An orthophoto with its mask or outlines.

    Attributes:
        name: What it is called in tables.
        image: The orthophoto.
        truth: A mask of the same size, or a vector file of outlines.
        area: The part of the orthophoto to use; None for all of it.
    """

    name: str
    image: Path
    truth: Path
    area: Window | None = None


class Splits(NamedTuple):
    """The scenes of a dataset by what they are for."""

    train: list[Scene]
    validation: list[Scene]
    test: list[Scene]


class SceneData(NamedTuple):
    """A scene in memory.

    Attributes:
        pixels: Array of shape `(height, width, bands)`, uint8, values in [0, 255].
        mask: Array of shape `(height, width)`, uint8: 1 is building, 0 is not, 255 is
            ignored (neither is known there, or the orthophoto has no data).
    """

    pixels: np.ndarray
    mask: np.ndarray


def read_folder(
    root: str | PathLike,
    validation: float | Sequence[str] = 0.2,
    test: Sequence[str] = (),
) -> Splits:
    """Find the scenes of a folder of one's own.

    The orthophotos are `images/*`. The truth is a mask of the same stem in `masks/`,
    or, where there is no such folder, one vector file of outlines beside `images/`.

    Args:
        root: The folder.
        validation: As a fraction, that part of the rows of each training scene, at its
            bottom: a block, for patches drawn at random would share roofs with those
            that train. As names, those scenes.
        test: Names of the scenes kept for testing; a name is that of the file without
            suffix.

    Returns:
        The scenes, each split sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder, or no `images` in it.
        ValueError: If there are no images, an image has no truth, a name is unknown or
            meant for two splits, or the fraction is not in [0, 1).
    """
    root = Path(root)
    images = _by_stem(_files(root / "images", IMAGE_SUFFIXES))
    if not images:
        raise ValueError(f"no images in {root / 'images'}")
    masks = root / "masks"
    if masks.is_dir():
        truths = _by_stem(_files(masks, IMAGE_SUFFIXES))
        for name, image in images.items():
            if name not in truths:
                raise ValueError(f"an image needs a mask {masks / name}.*: {image}")
    else:
        truths = dict.fromkeys(images, _only_outlines(root))
    scenes = {name: Scene(name, images[name], truths[name]) for name in sorted(images)}

    fraction, validated = (
        (validation, []) if isinstance(validation, int | float) else (0, validation)
    )
    for name in [*validated, *test]:
        if name not in scenes:
            raise ValueError(f"no scene {name!r} among {', '.join(scenes)}: {root}")
        if name in validated and name in test:
            raise ValueError(f"a scene is for validation or testing, {name!r} is both")
    splits = Splits(
        [scene for name, scene in scenes.items() if name not in {*validated, *test}],
        [scene for name, scene in scenes.items() if name in validated],
        [scene for name, scene in scenes.items() if name in test],
    )
    return _split_rows(splits, fraction)


def read_inria(root: str | PathLike) -> Splits:
    """Find the scenes of INRIA's Aerial Image Labeling dataset.

    Args:
        root: The folder `AerialImageDataset`, or the one that holds it.

    Returns:
        Tiles 1 to 5 of each city for validation, as the benchmark has it, the others
        for training; sorted by city and number. The truth of its test cities is
        not public, so there is nothing to test on.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no tiles, or one has no truth or no such name.
    """
    root = Path(root)
    if (root / "AerialImageDataset").is_dir():
        root = root / "AerialImageDataset"
    images, truths = root / "train" / "images", root / "train" / "gt"
    tiles = {}
    for image in _files(images, {".tif"}):
        match = INRIA_TILE.fullmatch(image.name)
        if not match:
            raise ValueError(f"a tile is named like austin1.tif: {image}")
        if not (truths / image.name).is_file():
            raise ValueError(f"an image needs a mask {truths / image.name}: {image}")
        scene = Scene(image.stem, image, truths / image.name)
        tiles[match["city"], int(match["number"])] = scene
    if not tiles:
        raise ValueError(f"no images in {images}")
    ordered = sorted(tiles)
    return Splits(
        train=[tiles[at] for at in ordered if at[1] > INRIA_VALIDATION],
        validation=[tiles[at] for at in ordered if at[1] <= INRIA_VALIDATION],
        test=[],
    )


READERS: dict[str, Callable[..., Splits]] = {
    "folder": read_folder,
    "inria": read_inria,
}


def load_scene(scene: Scene, bands: Sequence[int] | None = None) -> SceneData:
    """Read a scene into memory.

    Args:
        scene: The scene.
        bands: Numbers of the bands, from 1; None for the picture without alpha.

    Returns:
        Its pixels and its mask.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If image or truth cannot be read, the mask is of another size, or
            the outlines lie outside the image or cannot be brought to its CRS.
    """
    with raster.open_raster(scene.image) as source:
        area = scene.area or Window(0, 0, source.height, source.width)
        pixels = raster.read_pixels(source, area, bands)
    return SceneData(pixels, load_mask(scene))


def load_mask(scene: Scene) -> np.ndarray:
    """Read the truth of a scene into memory.

    Args:
        scene: The scene.

    Returns:
        Mask of shape `(height, width)`, uint8, as in `SceneData`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `load_scene`.
    """
    with raster.open_raster(scene.image) as source:
        grid = raster.grid_of(source)
        area = scene.area or Window(0, 0, grid.height, grid.width)
        valid = raster.read_valid(source, area)
    if scene.truth.suffix.lower() in OUTLINE_SUFFIXES:
        mask = _draw_outlines(scene, grid, area)
    else:
        mask = _read_mask(scene, grid, area)
    mask[~valid] = IGNORED
    return mask


def find_truth(image: Path, truths: Path) -> Path:
    """Return the truth of an image.

    Args:
        image: An orthophoto.
        truths: A folder of masks, one of which has the image's name (or that and
            `_mask`), a mask, or a vector file of outlines.

    Returns:
        The mask or the file of outlines.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If no mask in the folder has the image's name.
    """
    if not truths.is_dir():
        if not truths.exists():
            raise FileNotFoundError(f"no such file or folder: {truths}")
        return truths
    masks = _by_stem(_files(truths, IMAGE_SUFFIXES))
    for name in (image.stem, f"{image.stem}_mask"):
        if name in masks:
            return masks[name]
    raise ValueError(f"an image needs a mask {truths / image.stem}.*: {image}")


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise ValueError(f"two files of one name: {stems[path.stem]} and {path}")
        stems[path.stem] = path
    return stems


def _only_outlines(root: Path) -> Path:
    found = _files(root, OUTLINE_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "neither"
        raise ValueError(
            f"a folder needs masks/ or one file of outlines, got {names}: {root}"
        )
    return found[0]


def _split_rows(splits: Splits, fraction: float) -> Splits:
    """Take the last rows of the training scenes for validation."""
    if not 0 <= fraction < 1:
        raise ValueError(f"validation must be in [0, 1), got {fraction}")
    if fraction == 0:
        return splits
    upper, lower = [], []
    for scene in splits.train:
        with raster.open_raster(scene.image) as source:
            height, width = source.shape
        cut = height - max(1, round(height * fraction))
        upper.append(scene._replace(area=Window(0, 0, cut, width)))
        lower.append(scene._replace(area=Window(cut, 0, height - cut, width)))
    return splits._replace(train=upper, validation=lower)


def _read_mask(scene: Scene, grid: Grid, area: Window) -> np.ndarray:
    with raster.open_raster(scene.truth) as source:
        if source.shape != (grid.height, grid.width):
            raise ValueError(
                f"a mask is of the size of its image {(grid.height, grid.width)}, "
                f"got {source.shape}: {scene.truth}"
            )
        return raster.read_mask(source, area)


def _draw_outlines(scene: Scene, grid: Grid, area: Window) -> np.ndarray:
    bounds = array_bounds(grid.height, grid.width, grid.transform)
    try:
        outlines = polygons.read_outlines(scene.truth, grid.crs, bounds)
    except ValueError as error:
        raise ValueError(f"{scene.image}: {error}") from error
    return polygons.rasterise(outlines, grid, area)
