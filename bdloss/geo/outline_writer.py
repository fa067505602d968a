"""Outlines into vector files, some at a time: as many as there are in flat memory."""

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import shapely
from rasterio.crs import CRS

from bdloss.errors import InputError
from bdloss.files import atomic_path, remove_file
from bdloss.geo import parquet
from bdloss.geo.ogr import named_for_ogr, pyogrio
from bdloss.geo.vector import count_readable

logger = logging.getLogger(__name__)

GEOPACKAGE = ".gpkg"
DRIVERS = {GEOPACKAGE: "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
FORMATS = (*DRIVERS, parquet.SUFFIX)  # that outlines are written in
WRITE_ERRORS = (
    *(OSError, pyogrio.errors.DataLayerError, pyogrio.errors.DataSourceError),
    pyogrio.errors.FeatureError,
)
# Names that a GeoPackage's layer may have; QGIS shows them.
LAYER_NAME = re.compile(r"(?!gpkg_|sqlite_)[^\W\d_][\w .-]*", re.IGNORECASE)
# Outlines in a FlatGeobuf with an index, which GDAL sorts in memory, 110 bytes each.
LARGEST_INDEX = 1_000_000


Columns = Mapping[str, np.ndarray]  # attributes of outlines by their names
Add = Callable[[np.ndarray, Columns], None]


class OutlineWriter:
    """What `create_outlines` gives: writes outlines in the order that they come in.

    Attributes:
        count: How many were written.
    """

    def __init__(self, path: Path, add: Add):
        self.count = 0
        self._path, self._add = path, add

    def write(self, polygons: np.ndarray, **attributes: np.ndarray) -> None:
        """Add outlines.

        Args:
            polygons: Array of polygons of shapely, of shape `(n,)`.
            **attributes: Columns of the table, arrays of one value for each polygon:
                the same ones, of the same types, each time.

        Raises:
            OSError: If the disk is full, or fails.
        """
        with _write_errors(self._path):
            self._add(polygons, attributes)
        self.count += len(polygons)


@contextmanager
def create_outlines(
    path: str | PathLike,
    crs: CRS | None,
    metadata: Mapping[str, object] | None = None,
    layer: str = "",
) -> Iterator[OutlineWriter]:
    """Create a vector file of polygons that is there only when it is whole.

    Args:
        path: Where to write it; the suffix, one of `FORMATS`, says the format. A file
            that exists is replaced. FlatGeobuf and GeoJSON are made of a GeoPackage
            that lies beside them meanwhile.
        crs: The CRS of the polygons. GeoJSON is written in degrees (EPSG:4326),
            whatever it is.
        metadata: What the file says of all of them: metadata of the layer of a
            GeoPackage or FlatGeobuf, JSON in the `description` of a GeoJSON and under
            the key `bdloss` of GeoParquet.
        layer: Name of the layer; that of the file if none is given.

    Yields:
        The writer. It must be called once at least, if only without polygons, so that
        columns are known.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If the disk is full, or fails.
        ValueError: As `check_format` does.
    """
    path = Path(path)
    check_format(path, crs)
    said = {key: str(value) for key, value in (metadata or {}).items()}
    layer = layer or path.stem
    layer = layer if LAYER_NAME.fullmatch(layer) else "buildings"
    with atomic_path(path) as partial:
        if parquet.is_parquet(path):
            writing = parquet.create_geometries(partial, crs, said)
        elif path.suffix == GEOPACKAGE:
            writing = _create_geopackage(partial, crs, said, layer)
        else:
            writing = _create_by_translation(partial, crs, said, layer)
        with ExitStack() as files:
            add = files.enter_context(writing)
            writer = OutlineWriter(path, add)
            yield writer
            with _write_errors(path):
                files.close()
                # GDAL does not report errors on close, so read the file back.
                if count_readable(partial) != writer.count:
                    raise OSError(f"not as it was written: {partial}")


def write_outlines(
    path: str | PathLike,
    polygons: Sequence[shapely.Polygon],
    crs: CRS | None,
    metadata: Mapping[str, object] | None = None,
    layer: str = "",
    **attributes: np.ndarray,
) -> None:
    """Write polygons that are in memory.

    Args:
        path: As in `create_outlines`.
        polygons: The polygons.
        crs: As in `create_outlines`.
        metadata: As in `create_outlines`.
        layer: As in `create_outlines`.
        **attributes: As in `OutlineWriter.write`.

    Raises:
        FileNotFoundError: As `create_outlines` does.
        OSError: As `create_outlines` does.
        ValueError: As `create_outlines` does.
    """
    with create_outlines(path, crs, metadata, layer) as writer:
        writer.write(np.array(polygons, dtype=object), **attributes)


def check_format(path: Path, crs: CRS | None) -> None:
    """Refuse what outlines cannot be written to.

    Args:
        path: Where they would be written.
        crs: The CRS that they have.

    Raises:
        ValueError: If the suffix is unknown, GeoJSON is asked for without a CRS, or
            GeoParquet without the package that writes it.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"outlines are written to {', '.join(FORMATS)}, got {path}")
    if path.suffix == ".geojson" and crs is None:
        raise InputError(f"GeoJSON is in degrees, the polygons have no CRS: {path}")
    if parquet.is_parquet(path):
        parquet.load_pyarrow()


@contextmanager
def _create_geopackage(
    path: Path, crs: CRS | None, metadata: dict[str, str], layer: str, **options: str
) -> Iterator[Add]:
    """Create a GeoPackage."""
    created = False

    def add(polygons: np.ndarray, attributes: Columns) -> None:
        nonlocal created
        with _no_crs_is_meant():
            pyogrio.raw.write(
                named,
                shapely.to_wkb(polygons),
                list(attributes.values()),
                list(attributes),
                layer=layer,
                driver=DRIVERS[GEOPACKAGE],
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
                layer_metadata=metadata if metadata and not created else None,
                layer_options=options if options and not created else None,
                append=created,
            )
        created = True

    with named_for_ogr(path) as named:
        yield add


@contextmanager
def _create_by_translation(
    path: Path, crs: CRS | None, metadata: dict[str, str], layer: str
) -> Iterator[Add]:
    """Create a file of a format that GDAL cannot add to."""
    rows = path.with_suffix(GEOPACKAGE)
    count = 0
    with ExitStack() as undo:
        remove_file(rows)  # of a process that was killed
        undo.callback(remove_file, rows)
        with _create_geopackage(rows, crs, {}, layer, SPATIAL_INDEX="NO") as add_row:

            def add(polygons: np.ndarray, attributes: Columns) -> None:
                nonlocal count
                add_row(polygons, attributes)
                count += len(polygons)

            yield add
        geojson = path.suffix == ".geojson"
        options = {"RFC7946": "YES", "DESCRIPTION": json.dumps(metadata)}
        if not geojson:
            options = {"SPATIAL_INDEX": "YES" if count <= LARGEST_INDEX else "NO"}
        with (
            named_for_ogr(rows) as source,
            named_for_ogr(path) as target,
            pyogrio.raw.open_arrow(source) as (meta, stream),
            _no_crs_is_meant(),
        ):
            pyogrio.raw.write_arrow(
                stream,
                target,
                layer=layer,
                driver=DRIVERS[path.suffix],
                geometry_name=meta["geometry_name"],
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
                layer_metadata=metadata if metadata and not geojson else None,
                layer_options=options,
            )


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Say in one line which file cannot be written."""
    try:
        yield
    except (*WRITE_ERRORS, InputError) as error:
        raise OSError(f"cannot write {path}: is the disk full?") from error


@contextmanager
def _no_crs_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        yield
