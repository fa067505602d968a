"""Miniature archives in the layout, formats and strips of the real ones."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import from_origin
from scipy import ndimage

from bdloss.data import potsdam, synthetic
from bdloss_tests.scenes import write_raster

HEIGHT, WIDTH = 56, 72  # pixels
BUILDING = (0, 0, 255)
OTHERS = ((255, 255, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
POTSDAM_CRS = CRS.from_epsg(32633)


def make_picture(*seed: int, height: int = HEIGHT, width: int = WIDTH):
    """Return a synthetic scene that depends on some numbers."""
    return synthetic.make_picture(np.random.default_rng(seed), height, width)


def write(path: Path, values: np.ndarray, **profile) -> Path:
    """Write a raster in strips of one row, without a CRS unless one is given."""
    strips = {"blockysize": 1} if path.suffix == ".tif" else {}
    settings = {"crs": None, "transform": None, **strips, **profile}
    return write_raster(path, values, **settings)


def write_inria(
    root: Path,
    cities: Iterable[str] = ("austin", "tyrol-w"),
    numbers: Iterable[int] = (1, 5, 6, 10),
) -> Path:
    """Write tiles of INRIA's cities; returns the folder `AerialImageDataset`."""
    root = root / "AerialImageDataset"
    utm = CRS.from_epsg(26914)
    for place, city in enumerate(cities):
        for number in numbers:
            picture = make_picture(place, number)
            corner = from_origin(616800 + 30 * number, 3344700 + 30 * place, 0.3, 0.3)
            tile = {"crs": utm, "transform": corner}
            train = root / "train"
            write(train / "images" / f"{city}{number}.tif", picture.target, **tile)
            write(train / "gt" / f"{city}{number}.tif", picture.mask * 255, **tile)
    return root


def write_potsdam(
    root: Path,
    tiles: Iterable[tuple[int, int]] = (*potsdam.TRAIN[:2], (4, 12), (3, 13)),
    *,
    participants: bool = False,
) -> Path:
    """Write tiles of Potsdam, with what is wrong in the real ones.

    The heights of 03_13 lack a column, the full label of 4_12 is a picture, and tiles
    of an even column carry no CRS. GDAL takes the fourth band of RGBIR for alpha.

    Args:
        root: Folder to write.
        tiles: Rows and columns of the tiles.
        participants: Whether `5_Labels_for_participants` are written too.
    """
    for row, col in tiles:
        tile, padded = f"{row}_{col}", f"{row:02}_{col:02}"
        picture = make_picture(row, col)
        corner = from_origin(366000 + 300 * col, 5808000 - 300 * row, 0.05, 0.05)
        place = {"crs": POTSDAM_CRS, "transform": corner} if col % 2 else {}
        red, green, blue = np.moveaxis(picture.target, -1, 0)
        infrared = infrared_of(picture.target)
        for folder, kind, bands in (
            ("2_Ortho_RGB", "RGB", (red, green, blue)),
            ("3_Ortho_IRRG", "IRRG", (infrared, red, green)),
            ("4_Ortho_RGBIR", "RGBIR", (red, green, blue, infrared)),
        ):
            path = root / folder / f"top_potsdam_{tile}_{kind}.tif"
            write(path, np.dstack(bands), **place)

        heights = 30 + 8 * picture.mask.astype(np.float32) + red / np.float32(255)
        heights = heights[:, :-1] if (row, col) == (3, 13) else heights
        write(root / "1_DSM" / f"dsm_potsdam_{padded}.tif", heights, **place)
        name = f"dsm_potsdam_{padded}_normalized_lastools.jpg"
        above_ground = (heights - 30).astype(np.uint8) * 20
        write(root / "1_DSM_normalisation" / name, above_ground)

        label = colour(picture.mask, row, col)
        full = picture.target if (row, col) == (4, 12) else label
        name = f"top_potsdam_{tile}_label.tif"
        write(root / "5_Labels_all" / name, full, **place)
        if participants and (row, col) in potsdam.TRAIN:
            write(root / "5_Labels_for_participants" / name, label, **place)
        name = f"top_potsdam_{tile}_label_noBoundary.tif"
        edge = boundary_of(picture.mask)[..., np.newaxis]
        write(root / "5_Labels_all_noBoundary" / name, label * ~edge, **place)
    return root


def infrared_of(pixels: np.ndarray) -> np.ndarray:
    """Return the infrared of the miniature: bright vegetation, and zeros in places."""
    red, green = pixels[..., 0].astype(int), pixels[..., 1].astype(int)
    return np.clip(4 * (green - red) + 40, 0, 255).astype(np.uint8)


def boundary_of(mask: np.ndarray) -> np.ndarray:
    """Return where the labels without boundaries are black: 3 pixels around."""
    grown = ndimage.binary_dilation(mask, iterations=3)
    return grown & ~ndimage.binary_erosion(mask, iterations=3, border_value=1)


def colour(mask: np.ndarray, *seed: int) -> np.ndarray:
    """Return a label: buildings blue, the rest in patches of the other colours."""
    blocks = np.random.default_rng(seed).integers(len(OTHERS), size=mask.shape)
    label = np.array(OTHERS, np.uint8)[blocks]
    label[mask == 1] = BUILDING
    return label


def write_aicd(root: Path, scenes: int = 10, views: int = 2) -> Path:
    """Write scenes of AICD, with shadows and without; returns `AICDDataset`."""
    root.mkdir(parents=True, exist_ok=True)
    synthetic.write_archive(
        root / "AICDDataset",
        scenes,
        views=views,
        size=(HEIGHT, WIDTH),
        shadows=(True, False),
        moving=True,
    )
    labels = root / "AICDDataset" / "AICD_image_level_labels"
    labels.mkdir()
    (labels / "classes.csv").write_text("class_id,description\n0,stone\n4,barn\n")
    rows = [
        f"Scene={scene}, View={view},{4 * (scene % 2)}"
        for scene in range(scenes)
        for view in range(views)
    ]
    lines = ["scene,view,class_id", *rows, ""]
    (labels / "image_level_labels.csv").write_text("\n".join(lines))
    return root / "AICDDataset"
