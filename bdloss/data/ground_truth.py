"""Ground truth: a mask or a file of outlines, read as a mask on a given geobox."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio import Affine
from rasterio.transform import array_bounds

from bdloss.data.classes import ClassTable
from bdloss.errors import InputError
from bdloss.files import visible_files
from bdloss.geo import raster, vector
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.polygonize import mask_to_polygons
from bdloss.geo.windows import Window

IMAGE_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".png", ".jpg", ".jpeg"}
OUTLINE_SUFFIXES = {".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet"}


class GroundTruth(NamedTuple):
    """What is known of the buildings of an image, or of several classes.

    Attributes:
        path: A raster of 0 and another value, or a vector file of polygons.
        classes: What tells several classes apart in it; None for buildings alone.
        value: In a mask, that of the one class to read, in the place of buildings.
    """

    path: Path
    classes: ClassTable | None = None
    value: int | None = None

    @property
    def is_vector(self) -> bool:
        """Whether it is a file of outlines, by its suffix."""
        return self.path.suffix.lower() in OUTLINE_SUFFIXES

    @contextmanager
    def open(self, geobox: GeoBox) -> Iterator["MaskReader | OutlineReader"]:
        """Open it to read it as a mask.

        Args:
            geobox: Where the pixels of the image lie. A mask has a geobox of its own,
                for the caller to hold against this one.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, outlines do not overlap the image, or have
                another class than those that are known.
        """
        if self.is_vector:
            yield self._read_outlines(geobox)
            return
        with raster.open_raster(self.path) as source:
            yield MaskReader(source, classes=self.classes, value=self.value)

    def outlines(self, geobox: GeoBox) -> list[shapely.Polygon]:
        """Return the outlines of an image's buildings, those of a mask from its pixels.

        Args:
            geobox: Where the pixels of the image lie; a mask is read whole.

        Raises:
            FileNotFoundError: As `open` does.
            ValueError: As `open` does.
        """
        with self.open(geobox) as reader:
            if isinstance(reader, OutlineReader):
                return reader.outlines
            mask = reader.read(Window(0, 0, geobox.height, geobox.width))
        return mask_to_polygons((mask == 1).astype(np.uint8), geobox)

    def _read_outlines(self, geobox: GeoBox) -> "OutlineReader":
        bounds = array_bounds(geobox.height, geobox.width, geobox.transform)
        if self.classes is None:
            outlines = vector.read_outlines(self.path, geobox.crs, bounds)
            return OutlineReader(outlines, geobox)
        if self.classes.kind == "colour":
            raise InputError(
                "classes of outlines are told by an attribute, not by colours: "
                f"{self.path}"
            )
        outlines, values = vector.read_attribute(
            self.path, geobox.crs, bounds, self.classes.attribute
        )
        numbers = self.classes.numbers_of(values, self.path)
        # Where two overlap, the later class of the table is seen.
        order = np.argsort(numbers, kind="stable")
        order = order[numbers[order] > 0]
        outlines = [outlines[index] for index in order]
        return OutlineReader(outlines, geobox, numbers[order])


class MaskReader:
    """Reads a mask by windows.

    Attributes:
        geobox: Where its pixels lie.
    """

    def __init__(
        self,
        source: rasterio.DatasetReader,
        probabilities: bool = False,
        classes: ClassTable | None = None,
        value: int | None = None,
    ):
        """Prepare to read an open raster, of probabilities or classes if it is said."""
        self.geobox = geobox_of(source)
        self._source = source
        self._classes = classes
        self._value = value
        self._read = raster.read_probabilities if probabilities else raster.read_mask

    def read(self, window: Window) -> np.ndarray:
        """Return a window as `raster.read_mask`, or `read_probabilities`, does.

        Of several classes it has their numbers.
        """
        if self._classes is None:
            return self._read(self._source, window, self._value)
        colours = self._classes.kind == "colour"
        values, known = raster.read_codes(self._source, window, colours)
        return self._classes.decode(values, known, self._source.name, window)

    def read_reduced(self, shape: tuple[int, int], window: Window) -> np.ndarray:
        """Return a window of the mask at a smaller shape."""
        return raster.read_reduced_mask(self._source, shape, window)


class OutlineReader:
    """Draws outlines as a mask, by windows.

    Attributes:
        geobox: Where the pixels of the mask lie.
        outlines: The polygons, in its CRS.
        classes: The number of the class of each; None of buildings alone.
    """

    def __init__(
        self,
        outlines: list[shapely.Polygon],
        geobox: GeoBox,
        classes: np.ndarray | None = None,
    ):
        self.geobox = geobox
        self.outlines = outlines
        self.classes = classes
        self._tree = shapely.STRtree(outlines)

    def read(self, window: Window) -> np.ndarray:
        """Return a window as `vector.rasterise` draws it, or numbers of classes."""
        indexes = self._in(window)
        some = [self.outlines[index] for index in indexes]
        if self.classes is None:
            return vector.rasterise(some, self.geobox, window)
        numbers = self.classes[indexes]
        drawn = vector.rasterise_labels(some, self.geobox, window, numbers)
        return drawn.astype(np.uint8)

    def labels(self, window: Window) -> np.ndarray:
        """Return a window as `vector.rasterise_labels` draws it, numbers from 1."""
        indexes = self._in(window)
        some = [self.outlines[index] for index in indexes]
        return vector.rasterise_labels(some, self.geobox, window, indexes + 1)

    def _in(self, window: Window) -> np.ndarray:
        """Return the indexes of the outlines that reach into a window, in order."""
        corner = self.geobox.transform @ Affine.translation(window.col, window.row)
        bounds = array_bounds(window.height, window.width, corner)
        return np.sort(self._tree.query(shapely.box(*bounds)))

    def read_reduced(self, shape: tuple[int, int], window: Window) -> np.ndarray:
        """Return a window of the mask at a smaller shape."""
        corner = Affine.translation(window.col, window.row)
        scale = Affine.scale(window.width / shape[1], window.height / shape[0])
        transform = self.geobox.transform @ corner @ scale
        smaller = GeoBox(*shape, transform, self.geobox.crs)
        return vector.rasterise(self.outlines, smaller)


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
    masks = by_stem(visible_files(truths, IMAGE_SUFFIXES))
    for name in (image.stem, f"{image.stem}_mask"):
        if name in masks:
            return masks[name]
    raise InputError(f"an image needs a mask {truths / image.stem}.*: {image}")


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their name without the suffix.

    Raises:
        ValueError: If two have one name.
    """
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise InputError(f"two files of one name: {stems[path.stem]} and {path}")
        stems[path.stem] = path
    return stems
