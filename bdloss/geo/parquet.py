"""Outlines as GeoParquet 1.1, which the GDAL that comes with pyogrio does not know."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.crs import CRS

from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED

SUFFIX = ".parquet"
VERSION = "1.1.0"
GEOMETRY = "geometry"  # name of the column
ENCODING = "WKB"  # the one that is read and written
DEFAULT_CRS = "OGC:CRS84"  # of a file that does not say its own
METADATA_KEY = "bdloss"  # of the settings, beside `geo`


def is_parquet(path: str | PathLike) -> bool:
    """Return whether a file is of this format, by its suffix."""
    return Path(path).suffix.lower() == SUFFIX


def load_pyarrow() -> Any:
    """Return pyarrow, which is an extra.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "GeoParquet needs pyarrow: pip install 'bdloss[parquet]'"
        ) from error
    return pyarrow


def read_geometries(path: str | PathLike) -> tuple[CRS | None, np.ndarray]:
    """Return the CRS of a file and its geometries, None where a row has none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no GeoParquet, or of another encoding than WKB;
            or pyarrow is not installed.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no such file: {path}")
    pyarrow = load_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            geo = json.loads(file.metadata.metadata[b"geo"])
            name = geo["primary_column"]
            column = geo["columns"][name]
            if column["encoding"] != ENCODING:
                raise InputError(
                    f"GeoParquet is read in {ENCODING}, got {column['encoding']}: "
                    f"{path}"
                )
            wkb = file.read(columns=[name])[name].to_numpy()
        crs = column.get("crs", DEFAULT_CRS)
        with rasterio.Env():  # else PROJ writes a line of its own
            return CRS.from_user_input(crs) if crs else None, shapely.from_wkb(wkb)
    except InputError:
        raise
    except (*DAMAGED, shapely.errors.ShapelyError) as error:
        raise DamagedFileError(f"damaged GeoParquet, or none: {path}") from error


def read_columns(path: str | PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return columns of a file by their names; those that it lacks are left out."""
    with load_pyarrow().parquet.ParquetFile(path) as file:
        there = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=there)
        return {name: table[name].to_numpy() for name in there}


def count_rows(path: str | PathLike) -> int:
    """Return how many geometries a file holds."""
    return load_pyarrow().parquet.read_metadata(path).num_rows


def count_readable(path: str | PathLike) -> int:
    """Return how many geometries can be read of a file, some at a time.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with load_pyarrow().parquet.ParquetFile(path) as file:
            return sum(
                len(shapely.from_wkb(batch.column(0).to_numpy(zero_copy_only=False)))
                for batch in file.iter_batches(columns=[GEOMETRY])
            )
    except (*DAMAGED, shapely.errors.ShapelyError) as error:
        raise DamagedFileError(f"damaged GeoParquet: {path}") from error


@contextmanager
def create_geometries(
    path: Path, crs: CRS | None, metadata: Mapping[str, str]
) -> Iterator[Callable[[np.ndarray, Mapping[str, np.ndarray]], None]]:
    """Create a file of polygons with their attributes.

    Args:
        path: Where to write it; a file that exists is replaced.
        crs: Their CRS.
        metadata: What stands under `bdloss` in the metadata of the file, as JSON.

    Yields:
        What adds polygons, each time with the same columns of the table.

    Raises:
        OSError: If the disk is full, or fails.
        ValueError: If pyarrow is not installed.
    """
    pyarrow = load_pyarrow()
    texts = pyarrow.string()  # if there are none too
    file = None
    bounds: list[np.ndarray] = []

    def add(geometries: np.ndarray, attributes: Mapping[str, np.ndarray]) -> None:
        nonlocal file
        wkb = pyarrow.array(shapely.to_wkb(geometries), pyarrow.binary())
        columns = {
            name: pyarrow.array(values, texts if values.dtype == object else None)
            for name, values in attributes.items()
        }
        table = pyarrow.table({**columns, GEOMETRY: wkb})
        if file is None:
            file = files.enter_context(
                pyarrow.parquet.ParquetWriter(path, table.schema)
            )
        file.write_table(table)
        if len(geometries):
            bounds.append(shapely.total_bounds(geometries))

    with ExitStack() as files:
        yield add
        column: dict[str, Any] = {
            "encoding": ENCODING,
            "geometry_types": ["Polygon"] if bounds else [],
            "crs": crs.to_dict(projjson=True) if crs else None,
        }
        if bounds:
            low, high = np.min(bounds, axis=0)[:2], np.max(bounds, axis=0)[2:]
            column["bbox"] = [*low.tolist(), *high.tolist()]
        geo = {
            "version": VERSION,
            "primary_column": GEOMETRY,
            "columns": {GEOMETRY: column},
        }
        known = {"geo": json.dumps(geo), METADATA_KEY: json.dumps(dict(metadata))}
        if file is not None:
            file.add_key_value_metadata(known)
