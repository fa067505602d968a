"""Synthetic scenes in the spirit of AICD: textured ground, one building, its shadow."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from bdloss.data.aicd import IMAGE_FOLDERS, read_aicd
from bdloss.data.scenes import DatasetSettings, Splits, load_scene
from bdloss.errors import InputError, OutputExistsError
from bdloss.files import atomic_folder
from bdloss.geo import raster
from bdloss.settings import Count, Positive

HEIGHT, WIDTH = 600, 800  # pixels, as AICD
RESOLUTION = 0.5  # metres a pixel, of scenes written as GeoTIFF
CORNER = (353875.0, 3057565.0)  # where scenes written as GeoTIFF lie, in metres
SUFFIXES = (".png", ".tif")
SCALES = (256, 64, 16, 4)  # pixels between the knots of the ground's texture
GROUNDS = ((96, 118, 66), (148, 128, 92), (120, 124, 110), (164, 156, 120))
ROOFS = ((178, 92, 70), (150, 150, 156), (206, 198, 186), (108, 92, 84), (196, 150, 96))
TREE, ROAD = (48, 78, 40), (128, 126, 122)
ROUGH, NOISE = 9.0, 5.0  # deviation of texture and of the camera, of 255
SHADE = 0.45  # of the light that reaches ground in shadow
# Wings of a building, each as centre and half sides along and across, and half sides
# of a courtyard, all as parts of half its length and half its depth.
PLANS = (
    ((0.0, 0.0, 1.0, 1.0),),  # a rectangle
    ((0.0, 0.6, 1.0, 0.4), (-0.6, 0.0, 0.4, 1.0)),  # an L
    ((0.0, 0.6, 1.0, 0.4), (0.0, 0.0, 0.35, 1.0)),  # a T
)
COURTYARD = 0.45


class SyntheticSettings(DatasetSettings):
    """Settings of the synthetic scenes, as `read_synthetic` takes them."""

    name: Literal["synthetic"] = "synthetic"
    scenes: Positive = 800  # how many are made
    height: Positive = HEIGHT  # rows of a scene, in pixels; columns are 4/3 of them
    seed: Count = 0  # of what they show

    def read(self) -> Splits:
        """Find the scenes, or make them."""
        return read_synthetic(self.root, self.scenes, self.height, self.seed)


def read_synthetic(
    root: str | PathLike, scenes: int = 800, height: int = HEIGHT, seed: int = 0
) -> Splits:
    """Find the synthetic scenes in a folder, and make them first if there is none.

    Args:
        root: The folder.
        scenes: How many there are, or are to be made.
        height: Their rows, in pixels; columns are four thirds of them.
        seed: Of what they show.

    Returns:
        The scenes, split as those of AICD.

    Raises:
        ValueError: If the folder holds other scenes, or something else.
    """
    root = Path(root)
    size = height, height * WIDTH // HEIGHT
    if not root.exists():
        write_archive(root, scenes, size=size, seed=seed)
    splits = read_aicd(root)
    found = sum(map(len, splits))
    with raster.open_raster(splits.train[0].image) as source:
        shape = source.shape
    if (found, shape) != (scenes, size):
        raise InputError(
            f"{root} must hold the {scenes} scenes of {size} pixels that are wanted, "
            f"it holds {found} of {shape}; remove it or name another folder"
        )
    first = make_picture(np.random.default_rng((seed, 0, 0)), *size)
    if not np.array_equal(load_scene(splits.train[0]).mask, first.mask):
        raise InputError(
            f"{root} must hold scenes of seed {seed}; remove it or name another folder"
        )
    return splits


class Picture(NamedTuple):
    """A scene that was made.

    Attributes:
        target: Pixels with the building, `(height, width, 3)`, uint8.
        moving: The same ground before it was built, of the same shape.
        mask: Array `(height, width)`, uint8: 1 is building.
    """

    target: np.ndarray
    moving: np.ndarray
    mask: np.ndarray


def make_picture(
    random: np.random.Generator,
    height: int = HEIGHT,
    width: int = WIDTH,
    *,
    shadows: bool = True,
) -> Picture:
    """Make a scene with one building.

    The building is a rectangle, an L or a T, with or without a courtyard, at any angle;
    one in about five is cut by the edge. Roads, fields, trees and cars distract.

    Args:
        random: Where the randomness comes from.
        height: Rows of the scene.
        width: Columns of the scene.
        shadows: Whether the building and the trees cast shadows. The draws are the same
            either way, and so is everything else in the scene.

    Returns:
        The scene.

    Example:
        >>> picture = make_picture(np.random.default_rng(0), 90, 120)
        >>> picture.target.shape, bool(picture.mask.any())
        ((90, 120, 3), True)
    """
    sun = random.uniform(0, 2 * np.pi)
    ground = _texture(random, height, width, random.choice(GROUNDS, 2))
    _lay_strips(random, ground)
    _plant(random, ground, sun, shadows)
    ground += random.standard_normal((height, width, 1), np.float32) * NOISE
    moving = _to_bytes(ground)
    mask, beyond_ridge = _draw_building(random, height, width)
    tall = random.uniform(0.012, 0.035) * (height + width)
    target = moving.copy()
    if shadows:
        _shade(target, mask, sun, tall)
    rows, cols = _box_of(mask)
    colours = random.choice(ROOFS, 1).repeat(2, axis=0)
    height, width = mask[rows, cols].shape
    roof = _texture(random, height, width, colours)
    slope = np.where(beyond_ridge[rows, cols] > 0, 1, -1) * random.uniform(4, 18)
    part = mask[rows, cols] == 1
    target[rows, cols][part] = _to_bytes(roof + slope[..., np.newaxis])[part]
    return Picture(target, moving, mask)


def write_archive(
    root: str | PathLike,
    scenes: int = 800,
    *,
    views: int = 1,
    seed: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    shadows: Sequence[bool] = (True,),
    moving: bool = False,
    suffix: str = ".png",
) -> None:
    """Write an archive of synthetic scenes in the layout of AICD.

    Each scene depends on `seed` and its numbers alone, not on how many there are.

    Args:
        root: Folder to write; it appears when it is whole.
        scenes: Number of scenes.
        views: Pictures of each, which differ in everything but share its number.
        seed: Seed of all randomness.
        size: Height and width of a picture, in pixels.
        shadows: True for `Images_Shadows`, False for `Images_NoShadow`.
        moving: Whether to write the ground before it was built too.
        suffix: ".png", or ".tif" for GeoTIFFs.

    Raises:
        FileExistsError: If `root` exists.
        ValueError: If there are to be no scenes, or the suffix is another.
    """
    root = Path(root)
    if scenes < 1 or views < 1:
        raise InputError(
            f"scenes and views must be at least 1, got {scenes} and {views}"
        )
    if suffix not in SUFFIXES:
        raise InputError(f"suffix must be .png or .tif, got {suffix!r}")
    if root.exists():
        raise OutputExistsError(f"{root} exists")
    numbers = [(scene, view) for scene in range(scenes) for view in range(views)]
    with atomic_folder(root) as partial, ThreadPoolExecutor(os.cpu_count()) as pool:
        truths = partial / "GroundTruth"
        folders = {cast: partial / IMAGE_FOLDERS[cast] for cast in shadows}
        for folder in (truths, *folders.values()):
            folder.mkdir()

        def write(number: tuple[int, int]) -> None:
            stem = "Scene{:04d}_View{:02d}".format(*number)
            for cast, folder in folders.items():
                random = np.random.default_rng((seed, *number))
                picture = make_picture(random, *size, shadows=cast)
                _write(folder / f"{stem}_target{suffix}", picture.target)
                if moving:
                    _write(folder / f"{stem}_moving{suffix}", picture.moving)
            truth = picture.mask[..., np.newaxis] * np.uint8(255)
            _write(truths / f"{stem}_gtmask{suffix}", truth)

        list(pool.map(write, numbers))


def _write(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".png":
        fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        cv2.imwrite(str(path), pixels[..., ::-1], fast)
        return
    height, width, bands = pixels.shape
    size = {"height": height, "width": width, "count": bands, "dtype": "uint8"}
    georeference = {
        "crs": "EPSG:32645",
        "transform": from_origin(*CORNER, RESOLUTION, RESOLUTION),
    }
    with rasterio.open(path, "w", driver="GTiff", **size, **georeference) as target:
        for band in range(bands):
            target.write(pixels[..., band], band + 1)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _texture(
    random: np.random.Generator, height: int, width: int, colours: np.ndarray
) -> np.ndarray:
    """Return patches of two colours, roughened at several scales, float32."""
    first, second = colours.astype(np.float32)
    coarse = _noise(random, height, width, SCALES[:1])
    rough = _noise(random, height, width, SCALES)
    rough *= np.float32(ROUGH)
    # A band at a time, which is several times as fast as all at once.
    bands = [
        np.where(coarse > 0, *pair) + rough for pair in zip(first, second, strict=True)
    ]
    return cv2.merge(bands)


def _noise(
    random: np.random.Generator, height: int, width: int, scales: Sequence[int]
) -> np.ndarray:
    """Return the sum of smooth noises of deviation near 1, coarse ones first."""
    noise: np.ndarray = np.zeros((1, 1), np.float32)
    for scale in scales:
        shape = (height // scale + 3, width // scale + 3)
        coarser = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_LINEAR)
        noise = coarser + random.standard_normal(shape, np.float32)
    scale = scales[-1]
    size = (noise.shape[1] * scale, noise.shape[0] * scale)
    smooth = cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR)
    return smooth[scale : scale + height, scale : scale + width]


def _lay_strips(random: np.random.Generator, ground: np.ndarray) -> None:
    """Lay fields, roads and cars: straight edges that are no buildings."""
    height, width = ground.shape[:2]
    for _ in range(random.integers(1, 4)):
        field = random.uniform(-24, 24, 3)
        size = random.uniform(0.15, 0.5, 2) * (height, width)
        _paint(ground, _point(random, height, width), size, random, field, added=True)
    for _ in range(random.integers(0, 3)):
        size = np.array([2, random.uniform(0.015, 0.03)]) * (height + width)
        _paint(ground, _point(random, height, width), size, random, ROAD)
    for _ in range(random.integers(0, 9)):
        size = np.array([0.012, 0.005]) * (height + width)
        car = random.integers(30, 230, 3)
        _paint(ground, _point(random, height, width), size, random, car)


def _point(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a point in a scene, as (column, row)."""
    return random.uniform(0, 1, 2) * (width, height)


def _paint(ground, centre, size, random, colour, added: bool = False) -> None:
    """Paint a rectangle of any angle, or add its colour to what is there."""
    box = cv2.boxPoints((centre, size, random.uniform(0, 180)))
    inside = np.zeros(ground.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(box).astype(np.int32)], 1)
    rows, cols = _box_of(inside)
    pixels, part = ground[rows, cols], inside[rows, cols] == 1
    pixels[part] = pixels[part] * added + np.asarray(colour, np.float32)


def _box_of(inside: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold all that is not zero."""
    col, row, width, height = cv2.boundingRect(inside)
    return slice(row, row + height), slice(col, col + width)


def _plant(
    random: np.random.Generator, ground: np.ndarray, sun: float, shadows: bool
) -> None:
    """Plant trees, each a few round crowns."""
    height, width = ground.shape[:2]
    crowns = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(0, 25)):
        trunk = _point(random, height, width)
        for _ in range(4):
            radius = random.uniform(0.003, 0.011) * (height + width)
            spot = trunk + random.normal(0, radius, 2)
            cv2.circle(
                crowns, np.rint(spot).astype(int).tolist(), int(radius) + 1, 1, -1
            )
    if shadows:
        _shade(ground, crowns, sun, 0.01 * (height + width))
    rough = 1 + 0.25 * _noise(random, height, width, SCALES[-1:])
    ground[crowns == 1] = rough[crowns == 1, np.newaxis] * np.array(TREE)


def _shade(pixels: np.ndarray, casts: np.ndarray, sun: float, length: float) -> None:
    """Darken where what stands casts its shadow."""
    height, width = casts.shape
    shadow: np.ndarray = casts
    reach = 1.0
    while reach < length:  # each step doubles the shadow
        step = min(reach, length - reach)
        moved = np.array([[1, 0, step * np.cos(sun)], [0, 1, step * np.sin(sun)]])
        longer = cv2.warpAffine(shadow, moved, (width, height), flags=cv2.INTER_NEAREST)
        shadow = shadow | longer
        reach += step
    rows, cols = _box_of(shadow)
    dark = (shadow[rows, cols] == 1) & (casts[rows, cols] == 0)
    part = pixels[rows, cols]
    part[dark] = (part[dark] * SHADE).astype(pixels.dtype)


def _draw_building(
    random: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask with one building, and how far pixels lie beyond its ridge."""
    angle = random.uniform(0, 2 * np.pi)
    half = random.uniform((0.1, 0.07), (0.2, 0.12)) * min(height, width) * 1.3
    plan = PLANS[random.integers(len(PLANS))]
    courtyard = random.random() < 0.35
    margin = 0.0 if random.random() < 0.3 else half[0]
    limits = np.array([width, height])
    rim = np.minimum(margin, limits / 2)
    col, row = random.uniform(rim, limits - rim)
    rows, cols = np.ogrid[:height, :width]
    east = (cols + 0.5 - col).astype(np.float32)
    south = (rows + 0.5 - row).astype(np.float32)
    along = (east * np.cos(angle) + south * np.sin(angle)) / half[0]
    across = (south * np.cos(angle) - east * np.sin(angle)) / half[1]
    mask = np.zeros((height, width), bool)
    for x, y, a, b in plan:
        mask |= (abs(along - x) < a) & (abs(across - y) < b)
    if courtyard:
        x, y, a, b = plan[0]
        mask &= (abs(along - x) >= a * COURTYARD) | (abs(across - y) >= b * COURTYARD)
    return mask.astype(np.uint8), across - plan[0][1]
