"""Outlines: buildings as polygons in vector files, and drawn as masks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from rasterio import features, windows
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from bdloss.errors import DamagedFileError, InputError, NoOverlapError
from bdloss.geo import parquet
from bdloss.geo.geobox import GeoBox
from bdloss.geo.ogr import named_for_ogr, pyogrio
from bdloss.geo.trust import HEADER_BYTES
from bdloss.geo.windows import Window

READ_AT_A_TIME = 500_000  # outlines; each time GDAL passes all before them again
LARGEST_MASK = 500e6  # pixels, of outlines without a raster
POLYGON_TYPE_ID = 3  # of shapely


def read_outlines(
    path: str | PathLike,
    crs: CRS | None,
    bounds: tuple[float, float, float, float] | None = None,
) -> list[shapely.Polygon]:
    """Read the outlines of buildings in the coordinates of an orthophoto.

    Args:
        path: A vector file in any CRS and format that GDAL reads, but a virtual one.
        crs: The CRS to bring the outlines to; None for a raster without one, which
            takes only outlines without one.
        bounds: Left, bottom, right and top in `crs`; only outlines that reach into
            them are read. None for all.

    Returns:
        The polygons; a multipolygon gives one for each part. Points and lines that lie
        among them are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        NoOverlapError: If the outlines lie wholly outside `bounds`.
        ValueError: If the file is damaged, holds no outlines or several layers of them,
            or only one of file and raster has a CRS or they cannot be related.
    """
    return _read_outlines(path, crs, bounds, ())[0]


def read_attribute(
    path: str | PathLike,
    crs: CRS | None,
    bounds: tuple[float, float, float, float] | None,
    name: str,
) -> tuple[list[shapely.Polygon], np.ndarray]:
    """Read outlines with an attribute of them.

    Args:
        path: As in `read_outlines`.
        crs: As in `read_outlines`.
        bounds: As in `read_outlines`.
        name: Name of the attribute.

    Returns:
        The polygons as `read_outlines` gives them, and the value of each.

    Raises:
        FileNotFoundError: As `read_outlines` does.
        ValueError: If there is no such attribute, or as `read_outlines` says.
    """
    polygons, columns = _read_outlines(path, crs, bounds, [name])
    if name not in columns:
        raise InputError(f"outlines must have an attribute {name!r}: {path}")
    return polygons, columns[name]


def read_table(
    path: str | PathLike, crs: CRS | None, names: Sequence[str]
) -> tuple[list[shapely.Polygon], dict[str, np.ndarray]]:
    """Read outlines with those of some attributes that they have.

    Args:
        path: As in `read_outlines`.
        crs: As in `read_outlines`.
        names: Names of attributes.

    Returns:
        The polygons as `read_outlines` gives them, and the values of each attribute, in
        the order of `names`.

    Raises:
        FileNotFoundError: As `read_outlines` does.
        ValueError: As `read_outlines` does.
    """
    return _read_outlines(path, crs, None, names)


def _read_outlines(
    path: str | PathLike,
    crs: CRS | None,
    bounds: tuple[float, float, float, float] | None,
    names: Sequence[str],
) -> tuple[list[shapely.Polygon], dict[str, np.ndarray]]:
    """Return polygons, and what they have of some attributes."""
    source, extent = read_extent(path)
    if (source is None) != (crs is None):
        raise InputError(
            "outlines and raster both have a CRS or both have none, "
            f"the outlines have {source} and the raster {crs}: {path}"
        )
    with _transform_errors(path, source, crs):
        box = _reproject_bounds(crs, source, bounds) if bounds else None
    if box and extent is not None and not _overlap(np.array([extent]), box).any():
        raise NoOverlapError(
            f"outlines must overlap the raster, which covers {_round(box)}, "
            f"they cover {_round(extent)} ({source}): {path}"
        )
    geometries, columns = _read_geometries(path, box, names)
    which = np.flatnonzero(~shapely.is_missing(geometries))
    known = geometries[which]
    if len(geometries) and not len(known):
        raise InputError(f"outlines must be polygons, got none that is whole: {path}")
    parts, indexes = _parts_of(known)
    are_polygons = shapely.get_type_id(parts) == POLYGON_TYPE_ID
    polygons, which = parts[are_polygons], which[indexes[are_polygons]]
    if len(parts) and not len(polygons):
        raise InputError(
            f"outlines must be polygons, got {parts[0].geom_type}s: {path}"
        )
    if not np.isfinite(shapely.get_coordinates(polygons)).all():
        raise InputError(f"outlines must have finite coordinates: {path}")
    with _transform_errors(path, source, crs):
        polygons = shapely.transform(polygons, lambda xy: _reproject(xy, source, crs))
    if bounds:
        inside = _overlap(shapely.bounds(polygons), bounds)
        polygons, which = polygons[inside], which[inside]
    return polygons.tolist(), {name: one[which] for name, one in columns.items()}


def read_extent(
    path: str | PathLike,
) -> tuple[CRS | None, tuple[float, float, float, float] | None]:
    """Return the CRS of a file of outlines, and the bounds of them all in it.

    Args:
        path: A vector file in any format that GDAL reads, but a virtual one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds no layer of outlines or several.
    """
    if parquet.is_parquet(path):
        crs, geometries = parquet.read_geometries(path)
        bounds = shapely.total_bounds(geometries) if len(geometries) else None
    else:
        layer = _layer_of(path)
        with _read_errors(path), named_for_ogr(path) as named:
            info = pyogrio.read_info(named, layer=layer, force_total_bounds=True)
        crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
        bounds = info["total_bounds"]
    if bounds is not None and not np.isfinite(bounds).all():
        raise InputError(f"outlines must have finite coordinates: {path}")
    return crs, bounds


def _read_geometries(
    path: str | PathLike,
    box: tuple[float, float, float, float] | None,
    names: Sequence[str] = (),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return geometries and attributes, at least of those that reach into a box."""
    if parquet.is_parquet(path):
        geometries = shapely.force_2d(parquet.read_geometries(path)[1])
        return geometries, parquet.read_columns(path, names)
    with _read_errors(path), named_for_ogr(path) as named:
        meta, _, wkb, columns = pyogrio.raw.read(
            named, layer=_layer_of(path), columns=list(names), bbox=box, force_2d=True
        )
        found = dict(zip(meta["fields"], columns, strict=True))
        there = {name: found[name] for name in names if name in found}
        return shapely.from_wkb(wkb), there


@contextmanager
def _read_errors(path: str | PathLike) -> Iterator[None]:
    """Say in one line which file of outlines cannot be read."""
    try:
        yield
    except (
        *(pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError),
        *(pyogrio.errors.FeatureError, pyogrio.errors.GeometryError),
        *(shapely.errors.ShapelyError, IndexError, UnicodeDecodeError),
    ) as error:
        raise DamagedFileError(
            f"damaged file of outlines, or geometries that are no polygons: {path}"
        ) from error


@contextmanager
def _transform_errors(
    path: str | PathLike, source: CRS | None, target: CRS | None
) -> Iterator[None]:
    """Say in one line which two CRSs cannot be related."""
    try:
        yield
    except (CPLE_BaseError, RasterioError) as error:
        raise InputError(
            "outlines and raster must have CRSs that can be related, "
            f"got {source} and {target}: {path}"
        ) from error


def _parts_of(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return single geometries, those of collections too, and where they come from."""
    indexes = np.arange(len(geometries))
    while (shapely.get_type_id(geometries) > POLYGON_TYPE_ID).any():
        geometries, parts = shapely.get_parts(geometries, return_index=True)
        indexes = indexes[parts]
    return geometries, indexes


def rasterise(
    outlines: Sequence[shapely.Polygon], geobox: GeoBox, window: Window | None = None
) -> np.ndarray:
    """Draw outlines as a mask.

    Args:
        outlines: Polygons in the CRS of the grid.
        geobox: Where the pixels lie.
        window: The part of the grid to draw; None for all of it.

    Returns:
        Mask of shape `(height, width)`, uint8: 1 where the centre of the pixel lies in
        a polygon, else 0.

    Example:
        >>> from rasterio import Affine
        >>> house = shapely.box(1, 1, 3.4, 2)
        >>> rasterise([house], GeoBox(3, 5, Affine.identity(), None))
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 0, 0],
               [0, 0, 0, 0, 0]], dtype=uint8)
    """
    window = window or Window(0, 0, geobox.height, geobox.width)
    mask = np.zeros((window.height, window.width), np.uint8)
    _burn([(outline, 1) for outline in outlines], mask, geobox, window)
    return mask


def rasterise_labels(
    outlines: Sequence[shapely.Polygon],
    geobox: GeoBox,
    window: Window | None = None,
    labels: Iterable[int] | None = None,
) -> np.ndarray:
    """Draw outlines with a number each, so that those that touch stay apart.

    Args:
        outlines: As in `rasterise`. Where two overlap, the later one is seen.
        geobox: As in `rasterise`.
        window: As in `rasterise`.
        labels: The numbers; None for 1, 2, 3 ...

    Returns:
        Array of shape `(height, width)`, int32; 0 is background.

    Example:
        >>> from rasterio import Affine
        >>> houses = [shapely.box(0, 0, 2, 1), shapely.box(2, 0, 3, 1)]
        >>> rasterise_labels(houses, GeoBox(1, 4, Affine.identity(), None))
        array([[1, 1, 2, 0]], dtype=int32)
    """
    window = window or Window(0, 0, geobox.height, geobox.width)
    numbers = range(1, len(outlines) + 1) if labels is None else labels
    drawn = np.zeros((window.height, window.width), np.int32)
    _burn(list(zip(outlines, numbers, strict=True)), drawn, geobox, window)
    return drawn


def _burn(
    shapes: list[tuple[shapely.Polygon, int]],
    out: np.ndarray,
    geobox: GeoBox,
    window: Window,
) -> None:
    part = windows.Window(window.col, window.row, window.width, window.height)
    if shapes:
        transform = windows.transform(part, geobox.transform)
        features.rasterize(shapes, out=out, transform=transform)


def metric_crs(path: str | PathLike) -> CRS | None:
    """Return the CRS of a file of outlines, or of its UTM zone if it is in degrees.

    Args:
        path: As in `read_extent`.

    Raises:
        FileNotFoundError: As `read_extent` does.
        ValueError: As `read_extent` does.
    """
    crs, bounds = read_extent(path)
    if crs is None or not crs.is_geographic or bounds is None:
        return crs
    west, south, east, north = transform_bounds(crs, "EPSG:4326", *bounds)
    zone = int(((west + east) / 2 + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if south + north >= 0 else 32700) + zone)


def bounding_geobox(
    outlines: Sequence[shapely.Polygon], crs: CRS | None, resolution: float
) -> GeoBox:
    """Return a grid, north up, that covers outlines.

    Args:
        outlines: Polygons in `crs`, at least one.
        crs: Their CRS, in metres.
        resolution: Side of a pixel, in metres.

    Raises:
        ValueError: If the grid would have more than `LARGEST_MASK` pixels.

    Example:
        >>> bounding_geobox([shapely.box(2, 1, 4, 2.2)], None, 0.5).transform[:6]
        (0.5, 0.0, 2.0, 0.0, -0.5, 2.2)
    """
    left, bottom, right, top = shapely.total_bounds(np.array(outlines, object)).tolist()
    height = math.ceil((top - bottom) / resolution)
    width = math.ceil((right - left) / resolution)
    if height * width > LARGEST_MASK:
        raise InputError(
            f"outlines must fit into {LARGEST_MASK / 1e6:g} million pixels, got "
            f"{height} x {width} at {resolution} m"
        )
    return GeoBox(height, width, Affine(resolution, 0, left, 0, -resolution, top), crs)


def count_outlines(path: str | PathLike) -> int:
    """Return how many outlines a file holds."""
    if parquet.is_parquet(path):
        return parquet.count_rows(path)
    with named_for_ogr(path) as named:
        return pyogrio.read_info(named, force_feature_count=True)["features"]


def count_readable(path: str | PathLike) -> int:
    """Return how many outlines can be read of a file, some at a time.

    Args:
        path: A file of outlines.

    Raises:
        ValueError: If what it holds is damaged.
    """
    if parquet.is_parquet(path):
        return parquet.count_readable(path)
    there = count_outlines(path)
    # GDAL reads a GeoJSON from its beginning each time.
    some = there if Path(path).suffix == ".geojson" else READ_AT_A_TIME
    count = 0
    with named_for_ogr(path) as named, _read_errors(path):
        for first in range(0, there, max(1, some)):
            # Not `raw.read`, whose geometries pyogrio 0.13 does not free.
            _, bounds = pyogrio.read_bounds(
                named, skip_features=first, max_features=some
            )
            count += bounds.shape[1]
    return count


def _layer_of(path: str | PathLike) -> str:
    """Return the name of the one layer that may hold polygons."""
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            if b"<OGRVRT" in file.read(HEADER_BYTES):
                raise InputError(f"outlines must not be a virtual source: {path}")
    try:
        with named_for_ogr(path) as named:
            layers = pyogrio.list_layers(named)
    except pyogrio.errors.DataSourceError as error:
        if Path(path).exists():
            raise InputError(f"not a file of outlines: {path}") from error
        raise FileNotFoundError(f"no such file: {path}") from error
    names = [
        name
        for name, kind in layers
        if kind and "Point" not in kind and "Line" not in kind
    ]
    if len(names) != 1:
        raise InputError(
            f"outlines must be one layer of polygons, got {names or 'none'}: {path}"
        )
    return names[0]


def _overlap(boxes: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """Return which boxes of shape `(n, 4)` overlap the bounds."""
    left, bottom, right, top = bounds
    return (
        (boxes[:, 0] < right)
        & (boxes[:, 2] > left)
        & (boxes[:, 1] < top)
        & (boxes[:, 3] > bottom)
    )


def _round(bounds: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(bound), 4) for bound in bounds)


def _reproject(xy: np.ndarray, source: CRS | None, target: CRS | None) -> np.ndarray:
    if source == target:
        return xy
    return np.stack(transform(source, target, xy[:, 0], xy[:, 1]), axis=1)


def _reproject_bounds(
    source: CRS | None, target: CRS | None, bounds: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return bounds if source == target else transform_bounds(source, target, *bounds)
