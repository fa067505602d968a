"""The area of interest of an orthophoto, outside of which nothing is predicted."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np
import rasterio
import shapely
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform

from bdloss.errors import DamagedFileError, InputError, NoOverlapError
from bdloss.geo.geobox import GeoBox
from bdloss.geo.vector import POLYGON_TYPE_ID, rasterise, read_extent, read_outlines
from bdloss.geo.windows import Window

EDGES = ("cut", "whole")
NO_AREA = "no"  # tag of a mask of a whole raster
MARGIN = 50.0  # metres: how far a whole building may reach out of an area
MARGIN_PIXELS = 256  # the same, of a raster that knows no metres
# Pixels. Coarser than what reprojection differs by from machine to machine, so that
# they agree on an area.
GRAIN = 1 / 1024
BOX_POINTS = 100  # along the longer side of a box, whose edges bend in another CRS

Source = str | PathLike | Sequence[float]


@dataclass(frozen=True)
class Area:
    """The part of a raster that is asked for.

    A pixel belongs to it if its centre lies in it.

    Attributes:
        shape: Polygon or multipolygon in pixels (column, row), inside of the raster.
        height: Height of the raster, in pixels.
        width: Width of the raster, in pixels.
        edge: `cut`: buildings are cut where it ends. `whole`: a building is kept, as it
            is, if the pixel under its middle (shapely's point on its surface) belongs
            to the area, and else left out; so of areas that share an edge, one has it.
        margin: How far around the shape is predicted for such buildings, in pixels; 0
            of what is cut.
    """

    shape: shapely.Geometry
    height: int
    width: int
    edge: str = "cut"
    margin: float = 0.0

    @classmethod
    def on(cls, ground: GeoBox, shape: shapely.Geometry, edge: str) -> "Area":
        """Return an area of a raster whose pixels have this place and size.

        Raises:
            ValueError: If there is no such edge.
        """
        if edge not in EDGES:
            raise InputError(f"the edge of an area is {' or '.join(EDGES)}, got {edge}")
        margin = 0.0
        if edge == "whole":
            metres = ground.resolution
            margin = MARGIN / metres if metres else MARGIN_PIXELS
        return cls(shape, ground.height, ground.width, edge, margin)

    @classmethod
    def restore(cls, ground: GeoBox, wkb: bytes, tag: str) -> "Area":
        """Return the area of a raster that was kept as bytes.

        Args:
            ground: Where the pixels of the raster lie.
            wkb: As `wkb` gave it.
            tag: As `tag` gave it.

        Raises:
            ValueError: If they do not go together.
        """
        edge = tag.split()[0]
        with contextlib.suppress(shapely.errors.ShapelyError):
            area = cls.on(ground, shapely.from_wkb(wkb), edge)
            if area.tag == tag:
                return area
        raise DamagedFileError(
            "damaged area of interest; give the predict command again"
        )

    @property
    def tag(self) -> str:
        """What a mask remembers of it: its edge, and a digest of its shape."""
        return f"{self.edge} {hashlib.sha256(self.wkb).hexdigest()[:16]}"

    @property
    def wkb(self) -> bytes:
        """Its shape as bytes, always the same ones."""
        return shapely.to_wkb(shapely.normalize(self.shape), byte_order=1)

    @cached_property
    def window(self) -> Window:
        """The rectangle of the raster that holds it and its margin."""
        left, top = np.floor(self._reach.bounds[:2]).astype(int).tolist()
        right, bottom = np.ceil(self._reach.bounds[2:]).astype(int).tolist()
        return Window(top, left, bottom - top, right - left)

    def mask(self, window: Window, margin: bool = False) -> np.ndarray:
        """Return which pixels of a window belong to it.

        Args:
            window: A part of the raster.
            margin: Whether its margin counts too.

        Returns:
            Array of shape `(height, width)`, bool.
        """
        tree = self._margin_parts if margin else self._parts
        row, col, height, width = window
        indexes = tree.query(shapely.box(col, row, col + width, row + height))
        pixels = GeoBox(self.height, self.width, Affine.identity(), None)
        return rasterise(tree.geometries[indexes], pixels, window).astype(bool)

    def keep(self, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what an area keeps of polygons, as its edge says.

        Args:
            polygons: Polygons in pixels.

        Returns:
            The polygons, and which of those given each is, or is a part of.
        """
        shapely.prepare(self.shape)
        if self.edge == "whole":
            middle = shapely.get_coordinates(shapely.point_on_surface(polygons))
            centres = np.floor(middle) + 0.5
            indexes = np.flatnonzero(shapely.contains_xy(self.shape, centres))
            return polygons[indexes], indexes
        polygons = polygons.copy()
        cut = ~shapely.covers(self.shape, polygons)
        polygons[cut] = shapely.intersection(polygons[cut], self.shape)
        # Where edges touch, points and lines are left as well.
        parts, indexes = shapely.get_parts(polygons, return_index=True)
        flat = shapely.get_type_id(parts) == POLYGON_TYPE_ID
        flat &= ~shapely.is_empty(parts)
        return parts[flat], indexes[flat]

    def beyond(self, polygons: np.ndarray) -> int:
        """Return how many polygons, in pixels, end where its margin does."""
        if not self.margin:
            return 0
        known = shapely.buffer(self.shape, self.margin - 2)  # a pixel, and its outline
        return int((~shapely.covers(known, polygons)).sum())

    @cached_property
    def _reach(self) -> shapely.Geometry:
        if not self.margin:
            return self.shape
        raster = shapely.box(0, 0, self.width, self.height)
        return shapely.intersection(shapely.buffer(self.shape, self.margin), raster)

    @cached_property
    def _parts(self) -> shapely.STRtree:
        return shapely.STRtree(shapely.get_parts(self.shape))

    @cached_property
    def _margin_parts(self) -> shapely.STRtree:
        return shapely.STRtree(shapely.get_parts(self._reach))


def read_area(
    source: Source, ground: GeoBox, crs: str | None = None, edge: str = "cut"
) -> Area:
    """Read the area of interest of a raster.

    Args:
        source: A vector file of polygons in any CRS, as `vector.read_outlines` takes
            it; or xmin, ymin, xmax and ymax.
        ground: Where the pixels of the raster lie.
        crs: CRS of the four numbers, as in `EPSG:4326`; None for the raster's.
        edge: What becomes of buildings there, see `Area`.

    Raises:
        FileNotFoundError: If there is no such file.
        NoOverlapError: If the area lies wholly outside of the raster.
        ValueError: If it is no box, holds no polygon or one that is not valid, or its
            CRS and the raster's cannot be related.

    Example:
        >>> area = read_area((2, 1, 5, 3.4), GeoBox(9, 9, Affine.identity(), None))
        >>> area.window
        Window(row=1, col=2, height=3, width=3)
        >>> area.mask(area.window).astype(int).tolist()
        [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    """
    if isinstance(source, (str, PathLike)):
        if crs is not None:
            raise InputError(
                f"the CRS {crs} is said of four numbers, a file says its own: {source}"
            )
        bounds = array_bounds(ground.height, ground.width, ground.transform)
        polygons = np.array(read_outlines(source, ground.crs, bounds), object)
        if not len(polygons) and read_extent(source)[1] is None:
            raise InputError(f"an area of interest is a polygon, got none: {source}")
    else:
        polygons = np.array([_box(source, ground.crs, crs)])
    for polygon in polygons[~shapely.is_valid(polygons)]:
        reason = shapely.is_valid_reason(polygon)
        raise InputError(f"an area of interest is valid, got {reason}: {source}")
    shape = shapely.union_all(to_pixels(polygons, ground))
    shape = shapely.set_precision(shape, GRAIN)
    raster = shapely.box(0, 0, ground.width, ground.height)
    parts = shapely.get_parts(shapely.intersection(shape, raster))
    parts = parts[shapely.get_type_id(parts) == POLYGON_TYPE_ID]
    if shapely.area(parts).sum() == 0:
        raise NoOverlapError(
            f"an area of interest must overlap the raster, got {source}"
        )
    return Area.on(ground, shapely.union_all(parts), edge)


def to_pixels(polygons: np.ndarray, geobox: GeoBox) -> np.ndarray:
    """Bring polygons from the ground to pixels (column, row) of a grid."""
    inverse = ~geobox.transform
    return shapely.transform(polygons, lambda xy: np.stack(inverse @ xy.T, axis=1))


def _box(
    numbers: Sequence[float], target: CRS | None, source: str | None
) -> shapely.Polygon:
    """Return a box in the CRS of a raster."""
    left, bottom, right, top = numbers
    if not (np.isfinite(numbers).all() and left < right and bottom < top):
        raise InputError(
            f"an area is xmin,ymin,xmax,ymax with min below max, got {_text(numbers)}"
        )
    box = shapely.box(left, bottom, right, top)
    if source is None:
        return box
    if target is None:
        raise InputError(f"the raster has no CRS, so an area has none, got {source}")
    try:
        with rasterio.Env():  # else PROJ writes a line of its own
            crs = CRS.from_user_input(source)
    except CRSError as error:
        raise InputError(f"a CRS is like EPSG:4326, got {source}") from error
    box = shapely.segmentize(box, max(right - left, top - bottom) / BOX_POINTS)
    fault = f"the area {_text(numbers)} ({source}) has no place in the raster's CRS"
    try:
        box = shapely.transform(
            box, lambda xy: np.stack(transform(crs, target, *xy.T), axis=1)
        )
    except (CPLE_BaseError, RasterioError) as error:
        raise InputError(fault) from error
    if not np.isfinite(shapely.get_coordinates(box)).all():
        raise InputError(fault)
    return box


def _text(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
