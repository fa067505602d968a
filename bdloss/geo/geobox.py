"""Where the pixels of a raster lie on the ground."""

import math
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.transform import xy
from rasterio.warp import transform

from bdloss.errors import InputError

EARTH_RADIUS = 6_378_137.0  # metres, at the equator
ECCENTRICITY = 0.0818192  # of the ellipsoid WGS 84


class GeoBox(NamedTuple):
    """Where the pixels of a raster lie on the ground.

    Attributes:
        height: Number of rows.
        width: Number of columns.
        transform: From (column, row) to the coordinates of `crs`.
        crs: Coordinate reference system; None if the raster has none.
    """

    height: int
    width: int
    transform: Affine
    crs: CRS | None

    @property
    def resolution(self) -> float | None:
        """Side of a pixel on the ground, in metres, to three digits.

        Measured at the centre of the raster, so it is right in degrees, feet and Web
        Mercator too (whose metres are longer than those of the ground). In a CRS that
        has no place on the Earth, as of a building site, it is by the CRS's unit of
        length. None if the raster has no CRS.

        Raises:
            ValueError: If the raster lies outside of its CRS.

        Example:
            >>> from rasterio.transform import from_origin
            >>> corner = from_origin(353875, 3057565, 0.3, 0.3)
            >>> GeoBox(90, 60, corner, CRS.from_epsg(32645)).resolution
            0.3
        """
        if self.crs is None:
            return None
        col, row = self.width / 2, self.height / 2
        rows, cols = [row, row, row + 1], [col, col + 1, col]
        x, y = xy(self.transform, rows, cols, offset="ul")
        if not (self.crs.is_projected or self.crs.is_geographic):
            metres = self.crs.units_factor[1]
            side = metres * math.sqrt(abs(self.transform.determinant))
            return float(f"{side:.3g}")
        try:
            lon, lat = np.radians(transform(self.crs, "EPSG:4326", x, y))
        except CPLE_BaseError:
            lon = lat = np.array([math.inf])
        if not np.isfinite([lon, lat]).all():
            raise InputError(
                f"a raster must lie within its CRS {self.crs}, got coordinates "
                f"{x[0]:g}, {y[0]:g}"
            )
        curvature = 1 - (ECCENTRICITY * math.sin(lat[0])) ** 2
        radius = EARTH_RADIUS * math.sqrt(1 - ECCENTRICITY**2) / curvature
        east, north = (lon[1:] - lon[0]) * math.cos(lat[0]), lat[1:] - lat[0]
        area = abs(east[0] * north[1] - east[1] * north[0])
        return float(f"{radius * math.sqrt(area):.3g}")


def geobox_of(source: rasterio.DatasetReader) -> GeoBox:
    """Return where the pixels of an open raster lie on the ground."""
    return GeoBox(source.height, source.width, source.transform, source.crs)


def ground_of(source: rasterio.DatasetReader) -> tuple[GeoBox, float | None]:
    """Return where the pixels lie, by ground control points if there are only those.

    Args:
        source: The open raster.

    Returns:
        The geobox of `geobox_of`, or one with the affine map that is nearest to the
        points; and how far the points lie from it at most, in pixels, or None.
    """
    geobox = geobox_of(source)
    points, crs = source.gcps
    if geobox.crs is not None or not points:
        return geobox, None
    pixels = np.array([(point.col, point.row, 1) for point in points])
    coordinates = np.array([(point.x, point.y) for point in points])
    fit, _, rank, _ = np.linalg.lstsq(pixels, coordinates)
    map_ = Affine(*fit[:, 0], *fit[:, 1])
    if rank < 3 or map_.is_degenerate:  # they lie on one line, here or there
        return geobox, None
    residuals = pixels[:, :2] - np.transpose(~map_ @ coordinates.T)
    return (
        geobox._replace(transform=map_, crs=crs),
        float(np.linalg.norm(residuals, axis=1).max()),
    )
