"""Small orthophotos made in the tests: bright roofs on dark ground."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.affinity import affine_transform

UTM = CRS.from_epsg(32645)
CORNER = Affine.translation(353900, 3057500) @ Affine.scale(0.3, -0.3)


def make_scene(seed: int, height: int, width: int, bands: int = 3):
    """Return pixels `(height, width, bands)` and mask `(height, width)`, uint8."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(max(2, height * width // 1500)):
        row, col = random.integers(0, (height - 8, width - 8))
        tall, wide = random.integers(8, 24, 2)
        mask[row : row + tall, col : col + wide] = 1
    pixels = random.normal(70, 12, (height, width, bands)) + 110 * mask[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def make_rows(seed: int, height: int, width: int):
    """Return pixels of houses in rows, a dark line between them, and their outlines.

    The outlines are in the coordinates of `write_raster`.
    """
    random = np.random.default_rng(seed)
    pixels = random.normal(60, 10, (height, width, 3))
    houses = []
    for top in range(6, height - 24, 30):
        left = 4
        while left < width - 24:
            for wide in random.integers(12, 19, random.integers(2, 5)):
                right = min(left + wide, width - 4)
                if right - left >= 8:
                    pixels[top : top + 20, left:right] += 130
                    pixels[top : top + 20, left] -= 90
                    houses.append(shapely.box(left, top, right, top + 20))
                    left = right
            left += random.integers(8, 14)
    outlines = [affine_transform(house, CORNER.to_shapely()) for house in houses]
    return np.clip(pixels, 0, 255).astype(np.uint8), outlines


def write_raster(path: Path, array: np.ndarray, **profile) -> Path:
    """Write `(height, width, bands)` or `(height, width)`, at 0.3 m; return the path.

    The format is that of the suffix. Whatever else stands in the profile of rasterio
    can be given, a CRS of None too.
    """
    array = array[..., None] if array.ndim == 2 else array
    height, width, bands = array.shape
    settings = {
        "driver": {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff"),
        "crs": UTM,
        "transform": CORNER,
        "dtype": array.dtype,
        "height": height,
        "width": width,
        "count": bands,
        **profile,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **settings) as target:
        target.write(np.moveaxis(array, -1, 0))
    return path


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_folder(root: Path, sizes=((90, 130), (70, 84))) -> Path:
    """Write scenes `a`, `b`, ... in the layout of a folder of one's own."""
    for seed, (height, width) in enumerate(sizes):
        pixels, mask = make_scene(seed, height, width)
        name = f"{chr(ord('a') + seed)}.tif"
        write_raster(root / "images" / name, pixels)
        write_raster(root / "masks" / name, mask * 255)
    return root


def write_masks(folder, *names, shape=(90, 70), off=0):
    """Write a mask of seeded houses for each name, rolled by some rows."""
    for seed, name in enumerate(names):
        mask = np.roll(make_scene(seed, *shape)[1], off, axis=0)
        write_raster(folder / name, mask)
    return folder
