"""Scenes: orthophotos with their ground truth, and how one is loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from bdloss.constants import BUILDING, IGNORED
from bdloss.data.classes import ClassTable
from bdloss.data.contact import contact_map
from bdloss.data.ground_truth import GroundTruth, OutlineReader
from bdloss.errors import InputError
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.windows import Window
from bdloss.settings import Settings

MAX_CONTACT = 64  # pixels, to bound the time it takes to draw
# Columns or rows that a raster of heights may lack: 03_13 has 5999 columns.
MAX_MISSING_HEIGHTS = 1


class Scene(NamedTuple):
    """An orthophoto with its mask or outlines.

    Attributes:
        name: What it is called in tables.
        image: The orthophoto.
        truth: A mask of the same size, or a vector file of outlines.
        area: The part to use, in pixels of the scene once it is loaded; None for all.
        bands: Indexes of the bands to use, from 1; None for the picture without alpha.
            A fourth band that the file calls alpha is data if it is among them.
        heights: A raster of heights, used as one band more.
        scale: Pixels of the files along a pixel of the scene once it is loaded.
        resolution: Metres a pixel of the scene once it is loaded, where the reader
            knows; else it is that of the image.
        contact: Pixels of the scene once it is loaded, within which two buildings are
            in contact; 0 if no map of contact is wanted.
        classes: What tells several classes apart in the truth; None for buildings.
    """

    name: str
    image: Path
    truth: Path
    area: Window | None = None
    bands: tuple[int, ...] | None = None
    heights: Path | None = None
    scale: float = 1.0
    resolution: float | None = None
    contact: int = 0
    classes: ClassTable | None = None


class Splits(NamedTuple):
    """The scenes of a dataset by what they are for."""

    train: list[Scene]
    validation: list[Scene]
    test: list[Scene]


class DatasetSettings(Settings):
    """Which data set it is, and where; each has settings of its own beside them."""

    name: str = ""
    root: str = ""  # its folder

    def read(self) -> Splits:
        """Find the scenes; raises as the reader of the data set does."""
        raise NotImplementedError

    @property
    def class_table(self) -> ClassTable | None:
        """What tells several classes apart; None for buildings alone."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that its masks tell apart."""
        return self.class_table.names if self.class_table else (BUILDING,)

    @property
    def class_colours(self) -> dict[str, str]:
        """Colours of classes by their names; empty of buildings alone."""
        table = self.class_table
        if table is None or table.names == (BUILDING,):
            return {}
        return dict(zip(table.names, table.colours, strict=True))


def _check_resolution(resolution: float) -> float:
    finest, coarsest = raster.RESOLUTIONS
    if resolution and not finest <= resolution <= coarsest:
        raise InputError(
            f"dataset.resolution must be 0, or from {finest} to {coarsest} metres, "
            f"got {resolution}"
        )
    return resolution


# Metres a pixel that scenes are brought to; 0 leaves them as they are.
Resolution = Annotated[float, AfterValidator(_check_resolution)]


# Pixels within which two buildings are in contact; 0 draws no map of it.
Contact = Annotated[int, Field(ge=0, le=MAX_CONTACT)]


class SceneData(NamedTuple):
    """A scene in memory.

    Attributes:
        pixels: Array of shape `(height, width, bands)`, uint8, values in [0, 255].
        mask: Array of shape `(height, width)`, uint8: the number of the class from 1
            (of one class, 1 is building), 0 is none, 255 is ignored (neither is known
            there, or the orthophoto has no data).
        contact: Array of the same shape, uint8: 1 where two buildings are in contact,
            else 0; None if no such map is wanted.
    """

    pixels: np.ndarray
    mask: np.ndarray
    contact: np.ndarray | None = None


def resolution_of(scene: Scene) -> float | None:
    """Return the metres a pixel of a scene once it is loaded; None if nobody knows."""
    if scene.resolution is not None:
        return scene.resolution
    with raster.open_raster(scene.image) as source:
        return geobox_of(source).resolution


def load_scene(scene: Scene, band_indexes: Sequence[int] | None = None) -> SceneData:
    """Read a scene into memory.

    Args:
        scene: The scene.
        band_indexes: Bands, counted from 1; None for those of the scene.

    Returns:
        Its pixels, averaged to its resolution, its mask, and its map of contact if that
        is wanted.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If image or truth cannot be read, the mask or the heights are of
            another size, a mask or an outline has an unknown class, the outlines lie
            outside the image or cannot be brought to its CRS, or contact is wanted of a
            mask.
    """
    with raster.open_raster(scene.image) as source:
        area, shape = _area_of(scene, source.shape)
        pixels = raster.read_pixels(source, area, band_indexes or scene.bands)
        if scene.heights:
            heights = _read_heights(scene.heights, source.shape, area)
            pixels = np.concatenate([pixels, heights], axis=-1)
    averaged = cv2.INTER_AREA if scene.scale > 1 else cv2.INTER_LINEAR
    contact = _load_contact(scene) if scene.contact else None
    return SceneData(_resample(pixels, shape, averaged), load_mask(scene), contact)


def load_mask(scene: Scene) -> np.ndarray:
    """Read the truth of a scene into memory.

    Args:
        scene: The scene.

    Returns:
        Mask of shape `(height, width)`, uint8, as in `SceneData`. At another resolution
        than the file's each pixel is that of the file at its centre.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `load_scene`.
    """
    with raster.open_raster(scene.image) as source:
        geobox = geobox_of(source)
        area, shape = _area_of(scene, source.shape)
        alpha_is_data = set(scene.bands or ()) - set(raster.image_bands(source))
        valid = True if alpha_is_data else raster.read_valid(source, area)
    mask = _read_truth(scene, geobox, area)
    mask = np.where(valid, mask, IGNORED).astype(np.uint8)
    return _resample(mask, shape, cv2.INTER_NEAREST_EXACT)


def _load_contact(scene: Scene) -> np.ndarray:
    """Draw where the buildings of a scene are in contact, at its resolution."""
    truth = GroundTruth(scene.truth, scene.classes)
    if not truth.is_vector:
        raise InputError(f"contact needs outlines, got a mask: {scene.truth}")
    with raster.open_raster(scene.image) as source:
        geobox, shape = geobox_of(source), source.shape
    height, width = (max(1, round(side / scene.scale)) for side in shape)
    area = scene.area or Window(0, 0, height, width)
    # Buildings beyond the area may be near to those in it.
    above, left = min(scene.contact, area.row), min(scene.contact, area.col)
    below = min(scene.contact, height - area.row - area.height)
    right = min(scene.contact, width - area.col - area.width)
    wider = Window(
        area.row - above,
        area.col - left,
        above + area.height + below,
        left + area.width + right,
    )
    window, sides = _area_of(scene._replace(area=wider), shape)
    with _naming(scene), truth.open(geobox) as reader:
        labels = cast(OutlineReader, reader).labels(window)
    labels = _resample(labels, sides, cv2.INTER_NEAREST_EXACT)
    contact = contact_map(labels, scene.contact)
    return contact[above : above + area.height, left : left + area.width]


def at_resolution(splits: Splits, resolution: float) -> Splits:
    """Return the scenes as they are to be loaded, at so many metres a pixel."""
    if not resolution:
        return splits
    if resolution < 0:
        raise InputError(f"resolution must be above 0, or 0, got {resolution}")
    return Splits(
        *([_resampled(scene, resolution) for scene in scenes] for scenes in splits)
    )


def _resampled(scene: Scene, resolution: float) -> Scene:
    native = resolution_of(scene)
    if native is None:
        raise InputError(f"a resolution needs an image with a CRS: {scene.image}")
    ratio = resolution / native
    scale = scene.scale * ratio
    with raster.open_raster(scene.image) as source:
        height, width = (max(1, round(side / scale)) for side in source.shape)
    area = scene.area or Window(0, 0, round(height * ratio), round(width * ratio))
    top, left = int(area.row / ratio), int(area.col / ratio)
    bottom = min(height, max(top + 1, round((area.row + area.height) / ratio)))
    right = min(width, max(left + 1, round((area.col + area.width) / ratio)))
    part = Window(top, left, bottom - top, right - left)
    return scene._replace(area=part, scale=scale, resolution=resolution)


def _area_of(scene: Scene, shape: tuple[int, int]) -> tuple[Window, tuple[int, int]]:
    """Return what to read of a file of some shape, and the shape to bring it to."""
    area = scene.area or Window(0, 0, *shape)
    if scene.scale == 1:
        return area, (area.height, area.width)
    edges = (area.row, area.row + area.height), (area.col, area.col + area.width)
    (top, bottom), (left, right) = (
        [min(round(edge * scene.scale), side) for edge in pair]
        for pair, side in zip(edges, shape, strict=True)
    )
    return Window(top, left, bottom - top, right - left), (area.height, area.width)


def _resample(values: np.ndarray, shape: tuple[int, int], how: int) -> np.ndarray:
    """Return values of shape `(height, width, ...)` on another number of pixels."""
    if values.shape[:2] == shape:
        return values
    resized = cv2.resize(values, shape[::-1], interpolation=how)
    return resized.reshape(*shape, *values.shape[2:])


def _read_truth(scene: Scene, geobox: GeoBox, area: Window) -> np.ndarray:
    truth = GroundTruth(scene.truth, scene.classes)
    with _naming(scene), truth.open(geobox) as reader:
        _check_size(scene, reader.geobox[:2], geobox)
        return reader.read(area)


@contextmanager
def _naming(scene: Scene) -> Iterator[None]:
    """Say of which image outlines are wrong: one file of them is for all images."""
    try:
        yield
    except InputError as error:
        if GroundTruth(scene.truth).is_vector:
            raise InputError(f"{scene.image}: {error}") from error
        raise


def _check_size(scene: Scene, shape: tuple[int, int], geobox: GeoBox) -> None:
    size = (geobox.height, geobox.width)
    if shape != size:
        raise InputError(
            f"a mask is of the size of its image {size}, got {shape}: {scene.truth}"
        )


def _read_heights(path: Path, shape: tuple[int, int], area: Window) -> np.ndarray:
    """Read heights as a band; a column or row that lacks at the end is repeated."""
    with raster.open_raster(path) as source:
        lacking = np.subtract(shape, source.shape)
        if lacking.min() < 0 or lacking.max() > MAX_MISSING_HEIGHTS:
            raise InputError(
                f"heights are of the size of their image {shape}, got {source.shape}: "
                f"{path}"
            )
        height = min(area.height, source.height - area.row)
        width = min(area.width, source.width - area.col)
        there = Window(area.row, area.col, height, width)
        heights = raster.read_pixels(source, there, [1])
    rim = ((0, area.height - height), (0, area.width - width), (0, 0))
    return np.pad(heights, rim, mode="edge")
