"""Rasters: orthophotos and masks in the formats of `trust`, bands last."""

import hashlib
import math
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import rasterio
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from bdloss.colours import rgb_of
from bdloss.constants import IGNORED, PROBABILITY_SCALE
from bdloss.errors import DamagedFileError, InputError
from bdloss.files import atomic_path
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.trust import gdal_name, local_sources
from bdloss.geo.windows import Window

PERCENTILES = 1, 99  # that become 0 and 255 of bands that are not of 8 bits
SAMPLES_PER_AXIS = 8  # windows that the percentiles are taken from
SAMPLE_SIDE = 256  # pixels
DIGEST_BLOCKS_PER_AXIS = 5  # that a raster is told from another by
DIGEST_BLOCK_SIDE = 64  # pixels
MIN_OVERVIEW_SIDE = 512  # pixels
GDAL_CACHE = 64  # megabytes of raster that GDAL may keep in memory
RESOLUTIONS = 0.001, 1000.0  # metres, that rasters are resampled to
PROBABILITY_STEP = 1 / PROBABILITY_SCALE  # the scale of the band of such a map
MASK_RULE = "a mask must have whole numbers, 0 for background"
MASK_PROFILE = {
    "driver": "GTiff",
    "dtype": "uint8",
    "count": 1,
    "nodata": IGNORED,
    "tiled": True,
    "blockxsize": 512,
    "blockysize": 512,
    "compress": "deflate",
    "bigtiff": "if_safer",  # if_needed fails with compression
    "num_threads": "all_cpus",  # that compress
}

_ranges: WeakKeyDictionary[rasterio.DatasetReader, tuple[float, float]] = (
    WeakKeyDictionary()
)


def open_raster(path: str | PathLike) -> rasterio.DatasetReader:
    """Open a raster for reading; the caller closes it.

    Args:
        path: A file of one of `trust.DRIVERS`, a virtual raster of such, a `/vsi` path,
            a URL.

    Returns:
        The open dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a raster, names what it may not (see `trust`),
            its values are complex, or its transform does not place its pixels.
    """
    for part in local_sources(path):
        _open(part).close()
    source = _open(path)
    if not source.count:
        source.close()
        raise InputError(f"not a raster, but several or none: {path}")
    fault = None
    area = source.transform.determinant
    if not math.isfinite(area + source.transform.c + source.transform.f) or not area:
        fault = "a raster must have a transform that can be inverted"
    elif any(dtype.startswith("complex") for dtype in source.dtypes):
        fault = "a raster must have real values, not complex ones"
    if fault:
        source.close()
        raise InputError(f"{fault}: {path}")
    return source


def _open(path: str | PathLike) -> rasterio.DatasetReader:
    name, drivers = gdal_name(path)
    if Path(path).is_fifo():  # which would wait for somebody to write
        raise InputError(f"not a raster: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env():  # `rasterio.open` would try every format
                source = rasterio.DatasetReader(name, driver=drivers)
    except RasterioIOError as error:
        if Path(path).exists():
            raise InputError(f"not a raster: {path}") from error
        shown = name.removeprefix("/vsicurl/")
        raise FileNotFoundError(f"no such file: {shown}") from error
    return source


def identify(path: str | PathLike) -> dict[str, str]:
    """Return what tells a raster from another of the same name.

    It is cheap on a raster of any size: blocks spread over it are looked at, not all.

    Args:
        path: A raster.

    Returns:
        `image`, a digest of geobox, dtypes and pixels of the blocks, which is that of a
        copy too; and `image_time`, when the file was last changed, in seconds
        since 1970 (nothing for what is no file).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a raster, or damaged.
    """
    whole = hashlib.sha256()
    with open_raster(path) as source:
        geobox = geobox_of(source)
        header = (*geobox[:3], geobox.crs and geobox.crs.to_wkt(), source.dtypes)
        whole.update(repr(header).encode())
        for row in _spread(source.height, DIGEST_BLOCK_SIDE, DIGEST_BLOCKS_PER_AXIS):
            for col in _spread(source.width, DIGEST_BLOCK_SIDE, DIGEST_BLOCKS_PER_AXIS):
                height, width = (min(DIGEST_BLOCK_SIDE, side) for side in source.shape)
                block = _read(source, source.indexes, Window(row, col, height, width))
                whole.update(block.tobytes())
    identity = {"image": whole.hexdigest()[:16]}
    if Path(path).is_file():
        identity["image_time"] = str(round(Path(path).stat().st_mtime, 3))
    return identity


@contextmanager
def resample(
    source: rasterio.DatasetReader, resolution: float | None
) -> Iterator[rasterio.DatasetReader]:
    """Let a raster be read at another resolution, window by window.

    Args:
        source: The open raster.
        resolution: Side of a pixel on the ground, in metres; None for its own.

    Yields:
        A raster of the same ground: averaged if its pixels are larger, else bilinear.

    Raises:
        ValueError: If the resolution is not above 0, or the raster has no CRS.
    """
    if resolution is None:
        yield source
        return
    geobox = geobox_of(source)
    finest, coarsest = RESOLUTIONS
    if not finest <= resolution <= coarsest or geobox.resolution is None:
        raise InputError(
            f"resampling takes a resolution from {finest} to {coarsest} metres and a "
            f"raster with a CRS, got {resolution} and {geobox.crs}: {source.name}"
        )
    factor = geobox.resolution / resolution
    height, width = (max(1, round(side * factor)) for side in source.shape)
    scale = Affine.scale(source.width / width, source.height / height)
    resampling = Resampling.average if factor < 1 else Resampling.bilinear
    with WarpedVRT(
        source,
        crs=geobox.crs,
        transform=geobox.transform @ scale,
        height=height,
        width=width,
        resampling=resampling,
    ) as resampled:
        yield resampled


def image_bands(source: rasterio.DatasetReader) -> list[int]:
    """Return the indexes of the bands of the picture, from 1, without alpha."""
    return [
        band
        for band, colour in zip(source.indexes, source.colorinterp, strict=True)
        if colour != ColorInterp.alpha
    ]


def read_pixels(
    source: rasterio.DatasetReader,
    window: Window,
    band_indexes: Sequence[int] | None = None,
) -> np.ndarray:
    """Read a window of an orthophoto.

    Bands of 8 bits come as they are. Others (16 bits, floating point) are scaled by one
    rule for the whole raster: the 1st percentile of its values becomes 0 and the
    99th 255, taken over all bands of the picture in windows spread evenly over it.

    Args:
        source: The open raster.
        window: Where to read; it lies inside the raster.
        band_indexes: Bands, counted from 1; None for the picture without alpha.

    Returns:
        Pixels of shape `(height, width, bands)`, uint8, values in [0, 255].

    Raises:
        ValueError: If a band does not exist, the raster has a palette instead of
            colours, or its data are damaged.
    """
    picture = image_bands(source)
    chosen = picture if band_indexes is None else list(band_indexes)
    if not set(chosen) <= set(source.indexes):
        raise InputError(
            f"bands must be from 1 to {source.count}, got {chosen}: {source.name}"
        )
    if ColorInterp.palette in source.colorinterp:
        raise InputError(
            "an image has colours, not a palette (gdal_translate -expand rgb makes "
            f"them): {source.name}"
        )
    return _to_bytes(source, _read(source, chosen, window))


def _to_bytes(source: rasterio.DatasetReader, pixels: np.ndarray) -> np.ndarray:
    """Return bands-first values as bands-last pixels 0..255."""
    if pixels.dtype != np.uint8:
        low, high = _range_of(source, image_bands(source))
        with np.errstate(over="ignore", invalid="ignore"):  # of values beyond both
            scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        pixels = np.nan_to_num(np.clip(np.rint(scaled), 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def read_reduced(
    source: rasterio.DatasetReader, longest: int, window: Window | None = None
) -> np.ndarray:
    """Read the picture at a size that a person looks at.

    Args:
        source: The open raster.
        longest: Most pixels of the longer side; a smaller raster comes as it is.
        window: The part to read; None for all of it.

    Returns:
        Pixels of shape `(height, width, bands)`, uint8, averaged.

    Raises:
        ValueError: As in `read_pixels`.
    """
    window = window or Window(0, 0, *source.shape)
    sides = window.height, window.width
    factor = min(1.0, longest / max(sides))
    height, width = (max(1, round(side * factor)) for side in sides)
    return read_shaped(source, window, (height, width))


def read_shaped(
    source: rasterio.DatasetReader, window: Window, shape: tuple[int, int]
) -> np.ndarray:
    """Read a window of the picture at another shape.

    Args:
        source: The open raster.
        window: The part to read.
        shape: Height and width to bring it to, in pixels.

    Returns:
        Pixels of shape `(*shape, bands)`, uint8, averaged.

    Raises:
        ValueError: As in `read_pixels`.
    """
    return _to_bytes(source, _read(source, image_bands(source), window, shape))


def read_valid(
    source: rasterio.DatasetReader, window: Window, nodata: float | None = None
) -> np.ndarray:
    """Read where a raster has data.

    Args:
        source: The open raster.
        window: Where to read; it lies inside the raster.
        nodata: What a raster that does not say so has where it has no data.

    Returns:
        Array of shape `(height, width)`, bool: False where every band is nodata, where
        alpha is 0, or where the mask of the file says so.

    Raises:
        ValueError: If the data are damaged.
    """
    alpha = sorted(set(source.indexes) - set(image_bands(source)))
    hidden = source.nodata if alpha else None  # GDAL: either alpha or nodata
    if all(MaskFlags.all_valid in flags for flags in source.mask_flag_enums):
        valid = np.ones((window.height, window.width), bool)
    elif hidden is not None:
        valid = np.all(_read(source, alpha, window) > 0, axis=0)
    else:
        with _read_errors(source, window):
            valid = source.dataset_mask(window=_rasterio_window(window)) > 0
    for value in [each for each in (nodata, hidden) if each is not None]:
        values = _read(source, image_bands(source), window)
        known = ~np.isnan(values) if math.isnan(value) else values != value
        valid &= known.any(axis=0)
    return valid


def read_mask(
    source: rasterio.DatasetReader, window: Window, value: int | None = None
) -> np.ndarray:
    """Read a window of a mask of buildings.

    Args:
        source: The open raster.
        window: Where to read; it lies inside the raster.
        value: That of a class, which takes the place of buildings; None for all but 0.

    Returns:
        Mask of shape `(height, width)`, uint8: 1 where any band is not zero, else 0,
        and `IGNORED` where the raster has no data or is not a number. A mask that calls
        0 its nodata value means background by it, so nothing is ignored there.

    Raises:
        ValueError: If the data are damaged, or fractions.
    """
    if holds_probabilities(source):
        raise InputError(f"{MASK_RULE}, got probabilities: {source.name}")
    values = _read(source, image_bands(source), window)
    inside = values != 0 if value is None else values == value
    mask = inside.any(axis=0).astype(np.uint8)
    if values.dtype.kind == "f":
        unknown = np.isnan(values).any(axis=0)
        if (values != np.rint(values))[:, ~unknown].any():
            raise InputError(
                f"{MASK_RULE}, got fractions (probabilities?): {source.name}"
            )
        mask[unknown] = IGNORED
    if source.nodata != 0:
        mask[~read_valid(source, window)] = IGNORED
    return mask


def read_codes(
    source: rasterio.DatasetReader, window: Window, colours: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Read what tells classes apart in a window of a mask.

    Args:
        source: The open raster.
        window: Where to read; it lies inside the raster.
        colours: Whether it is the colour, of three bands or a palette, not the value of
            the first band.

    Returns:
        Values, or colours as numbers 0xRRGGBB, and where the raster has data, of shape
        `(height, width)`. A mask that calls 0 its nodata value has data everywhere, as
        in `read_mask`.

    Raises:
        ValueError: If the data are damaged, or have no colours where these are wanted.
    """
    bands = image_bands(source)
    if not colours:
        values = _read(source, bands[:1], window)[0]
    elif ColorInterp.palette in source.colorinterp:
        palette = np.zeros(IGNORED + 1, np.int32)
        for index, rgba in source.colormap(1).items():
            palette[index] = int.from_bytes(bytes(rgba[:3]))
        values = palette[_read(source, [1], window)[0]]
    elif len(bands) >= 3 and source.dtypes[0] == "uint8":
        red, green, blue = _read(source, bands[:3], window).astype(np.int32)
        values = red << 16 | green << 8 | blue
    else:
        raise InputError(
            "classes told by colours need a mask of three bands of 8 bits, or with a "
            f"palette, got {len(bands)} of {source.dtypes[0]}: {source.name}"
        )
    if source.nodata == 0:
        return values, np.ones(values.shape, bool)
    return values, read_valid(source, window)


def holds_probabilities(source: rasterio.DatasetReader) -> bool:
    """Return whether a raster is a map of probabilities that `create_mask` wrote.

    Its band says so by its scale; those of version 0.1, by their name and tags.
    """
    return source.scales[0] == PROBABILITY_STEP or (
        Path(source.name).stem.endswith("_prob") and "threshold" in source.tags()
    )


def read_probabilities(
    source: rasterio.DatasetReader,
    window: Window,
    value: int | None = None,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read a window of a map of probabilities.

    Args:
        source: The open raster, of which `holds_probabilities` is true.
        window: Where to read; it lies inside the raster.
        value: Number of a class, from 1; None for the only or the first one.
        shape: Height and width to bring it to, averaged; None for its own.

    Returns:
        Array of shape `(height, width)`, float64, in [0, 1], and `IGNORED` where
        nothing is known.

    Raises:
        ValueError: If the data are damaged, or there is no such class.
    """
    band = 1 if value is None else value
    if band not in source.indexes:
        raise InputError(
            f"a class must be from 1 to {source.count}, got {band}: {source.name}"
        )
    values = _read(source, [band], window, shape)[0]
    return np.where(values == IGNORED, float(IGNORED), values / PROBABILITY_SCALE)


def read_reduced_mask(
    source: rasterio.DatasetReader,
    shape: tuple[int, int],
    window: Window | None = None,
    classes: bool = False,
) -> np.ndarray:
    """Read a mask of buildings at a smaller shape, of every so many pixels.

    Args:
        source: The open raster.
        shape: Height and width of the result.
        window: The part to read; None for all of it.
        classes: Whether it is of classes, whose numbers are kept.

    Returns:
        Mask of this shape, uint8, as `read_mask` gives it.

    Raises:
        ValueError: If the data are damaged.
    """
    window = window or Window(0, 0, *source.shape)
    band = _read(source, [1], window, shape, Resampling.nearest)[0]
    mask = band.astype(np.uint8) if classes else (band != 0).astype(np.uint8)
    if source.nodata == IGNORED:
        mask[band == IGNORED] = IGNORED
    return mask


class MaskWriter:
    """What `create_mask` gives: writes a mask window by window."""

    def __init__(self, target: rasterio.io.DatasetWriter):
        self._target = target
        self._written: list[tuple[rasterio.windows.Window, int]] = []

    def write(self, mask: np.ndarray, window: Window) -> None:
        """Write a window of the mask.

        Args:
            mask: Array of shape `(height, width)`, uint8: 0, 1, or the number of a
                class, or `IGNORED`; of several bands `(bands, height, width)`.
            window: Where to write it; it lies inside the raster, and apart from the
                windows written before.

        Raises:
            OSError: If the disk is full, or fails.
        """
        written = _rasterio_window(window)
        with _write_errors(self._target.name):
            self._target.write(mask.reshape(-1, *mask.shape[-2:]), window=written)
        self._written.append((written, zlib.crc32(mask.tobytes())))

    def check(self, path: Path) -> None:
        """Refuse a file that does not hold what was written."""
        # GDAL does not report errors on close, so read the file back.
        with rasterio.open(path) as source:
            for window, checksum in self._written:
                if zlib.crc32(source.read(window=window).tobytes()) != checksum:
                    raise RasterioIOError(f"not as it was written: {path}")


@contextmanager
def create_mask(
    path: str | PathLike,
    geobox: GeoBox,
    tags: Mapping[str, object] | None = None,
    nodata: int | None = IGNORED,
    cog: bool = False,
    overviews: bool = False,
    probabilities: bool = False,
    classes: Mapping[str, str] | None = None,
    gcps: tuple[Sequence[GroundControlPoint], CRS | None] = ((), None),
) -> Iterator[MaskWriter]:
    """Create a mask as a GeoTIFF that is there only when it is whole.

    Args:
        path: Where to write it; a file that exists is replaced.
        geobox: Where its pixels lie on the ground.
        tags: Metadata to write into the file.
        nodata: The value that means that nothing is known; None for no such value.
        cog: Whether it becomes a cloud-optimised GeoTIFF, which has overviews.
        overviews: Whether it gets overviews, to be drawn fast at any size.
        probabilities: Whether its values are probabilities, 0 to `PROBABILITY_SCALE`,
            as the scale of the band then says: GIS programs show them from 0 to 1.
        classes: Colours (`#rrggbb`) of classes by their names, in the order of their
            numbers: the palette and tags of a mask, whose band has them as `class_1`
            and so on; probabilities have a band for each. None for one class.
        gcps: Ground control points and their CRS, for a grid without a transform.

    Yields:
        The writer. What it is not given stays `IGNORED`, the nodata value.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If the disk is full, or fails.
    """
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        classes = classes or {}
        profile = {**MASK_PROFILE, **geobox._asdict(), "nodata": nodata}
        if probabilities and classes:
            profile["count"] = len(classes)
        with _write_errors(path):
            target = rasterio.open(partial, "w", **profile)
        with target:
            target.update_tags(**(tags or {}))
            if probabilities:
                target.scales = (PROBABILITY_STEP,) * target.count
                target.descriptions = tuple(classes) or (None,)
            elif classes:
                target.write_colormap(1, _palette_of(list(classes.values())))
                names = {f"class_{i}": name for i, name in enumerate(classes, 1)}
                target.update_tags(1, **names)
            if gcps[0]:
                target.gcps = gcps
            writer = MaskWriter(target)
            yield writer
        with _write_errors(path):
            if overviews and not cog:
                with rasterio.open(partial, "r+") as target:
                    halvings = max(target.shape) // MIN_OVERVIEW_SIDE
                    factors = [2**i for i in range(1, halvings.bit_length() + 1)]
                    target.build_overviews(factors, Resampling.mode)
            if cog:
                with atomic_path(partial) as copied:
                    copy(
                        partial,
                        copied,
                        driver="COG",
                        compress="deflate",
                        bigtiff="if_safer",
                        overview_resampling="mode",
                    )
            writer.check(partial)


def _palette_of(colours: Sequence[str]) -> dict[int, tuple[int, int, int, int]]:
    """Return the palette of a mask of classes: black is none, no data transparent."""
    palette = {
        number: (*rgb_of(colour), 255) for number, colour in enumerate(colours, 1)
    }
    return {0: (0, 0, 0, 255), **palette, IGNORED: (0, 0, 0, 0)}


@contextmanager
def _write_errors(path: str | PathLike) -> Iterator[None]:
    """Say in one line which file GDAL cannot write."""
    try:
        yield
    except (RasterioIOError, CPLE_BaseError) as error:
        raise OSError(f"cannot write {path}: is the disk full?") from error


def _rasterio_window(window: Window) -> rasterio.windows.Window:
    return rasterio.windows.Window(
        col_off=window.col,
        row_off=window.row,
        width=window.width,
        height=window.height,
    )


@contextmanager
def _read_errors(source: rasterio.DatasetReader, window: Window) -> Iterator[None]:
    try:
        yield
    except RasterioIOError as error:
        raise DamagedFileError(
            f"damaged raster: {source.name}, between row {window.row} and "
            f"{window.row + window.height}, column {window.col} and "
            f"{window.col + window.width}"
        ) from error


def _read(
    source: rasterio.DatasetReader,
    band_indexes: Sequence[int],
    window: Window,
    shape: tuple[int, ...] | None = None,
    resampling: Resampling = Resampling.average,
) -> np.ndarray:
    with _read_errors(source, window):
        return source.read(
            band_indexes,
            window=_rasterio_window(window),
            out_shape=shape and (len(band_indexes), *shape),
            resampling=resampling,
        )


def _range_of(
    source: rasterio.DatasetReader, band_indexes: Sequence[int]
) -> tuple[float, float]:
    """Return the values that become 0 and 255, found once for an open raster."""
    if source not in _ranges:
        samples = []
        for row in _spread(source.height, SAMPLE_SIDE, SAMPLES_PER_AXIS):
            for col in _spread(source.width, SAMPLE_SIDE, SAMPLES_PER_AXIS):
                side = SAMPLE_SIDE
                window = Window(
                    row, col, min(side, source.height), min(side, source.width)
                )
                values = _read(source, band_indexes, window)
                known = values[:, read_valid(source, window)]
                samples.append(known[np.isfinite(known)])
        values = np.concatenate(samples).astype(float)
        low, high = np.percentile(values, PERCENTILES) if values.size else (0, 1)
        least = 1e-6 * max(1.0, abs(low))  # of a raster of one value
        _ranges[source] = float(low), float(max(high, low + least))
    return _ranges[source]


def _spread(length: int, side: int, number: int) -> list[int]:
    """Return where so many windows along an axis begin."""
    last = max(length - side, 0)
    return sorted({round(last * step / (number - 1)) for step in range(number)})
