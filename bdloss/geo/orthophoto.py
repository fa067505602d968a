"""An orthophoto: its header, read once, and its pixels by windows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from bdloss.errors import InputError
from bdloss.geo import raster
from bdloss.geo.area import Area, Source, read_area
from bdloss.geo.geobox import GeoBox, geobox_of, ground_of
from bdloss.geo.trust import path_of
from bdloss.geo.windows import Window

PANEL_WIDTH = 8192  # pixels, about: the most that is predicted at a time


@dataclass(frozen=True, kw_only=True)
class Orthophoto:
    """What the header of an orthophoto says; its pixels are read by `open`.

    Attributes:
        path: The file.
        geobox: Where its pixels lie, by its transform.
        ground: The same, or by its ground control points if it has only those.
        gcps: Ground control points and their CRS.
        misfit: How far these points lie from `ground` at most, in pixels; None if it
            has a transform.
        band_indexes: Numbers of the bands that are read, from 1.
        block_width: Width of the blocks that it is stored in, in pixels.
        nodata: What it has where it has no data, if it does not say so itself.
        area: The part of it that is asked for; None for all of it.
    """

    path: Path
    geobox: GeoBox
    ground: GeoBox
    gcps: tuple[Sequence[GroundControlPoint], CRS | None]
    misfit: float | None
    band_indexes: tuple[int, ...]
    block_width: int
    nodata: float | None = None
    area: Area | None = None

    @classmethod
    def read(
        cls,
        path: str | PathLike,
        band_indexes: Sequence[int] | None = None,
        nodata: float | None = None,
    ) -> "Orthophoto":
        """Read the header of a raster.

        Args:
            path: A raster, as `raster.open_raster` takes it.
            band_indexes: Numbers of the bands to read, from 1; None for the picture
                without alpha.
            nodata: What a raster that does not say so has where it has no data.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a raster, or has no such bands.
        """
        with raster.open_raster(path) as source:
            indexes = tuple(band_indexes or raster.image_bands(source))
            if not set(indexes) <= set(source.indexes):
                raise InputError(
                    f"bands must be from 1 to {source.count}, got {list(indexes)}: "
                    f"{source.name}"
                )
            ground, misfit = ground_of(source)
            return cls(
                path=path_of(path),
                geobox=geobox_of(source),
                ground=ground,
                gcps=source.gcps,
                misfit=misfit,
                band_indexes=indexes,
                block_width=source.block_shapes[0][1],
                nodata=nodata,
            )

    def within(
        self, source: Source, crs: str | None = None, edge: str = "cut"
    ) -> "Orthophoto":
        """Return it with an area of interest.

        Args:
            source: A vector file; or xmin, ymin, xmax and ymax.
            crs: CRS of the four numbers, as in `EPSG:4326`; None for the raster's.
            edge: `cut` or `whole`, see `area.Area`.

        Raises:
            FileNotFoundError: As `area.read_area` does.
            ValueError: As `area.read_area` does.
        """
        return replace(self, area=read_area(source, self.ground, crs, edge))

    @property
    def window(self) -> Window:
        """The rectangle that is predicted: all of it, or what holds its area."""
        if self.area is not None:
            return self.area.window
        return Window(0, 0, self.geobox.height, self.geobox.width)

    @property
    def panels(self) -> int:
        """In how many parts, side by side, it is predicted, to bound memory.

        One where its blocks are as wide as it is: each part would read them all.
        """
        if self.block_width > PANEL_WIDTH:
            return 1
        return max(1, round(self.window.width / PANEL_WIDTH))

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What tells it from another of the same name, see `raster.identify`."""
        return raster.identify(self.path)

    @contextmanager
    def open(self, resolution: float | None = None) -> Iterator["OrthophotoReader"]:
        """Open it to read pixels.

        Args:
            resolution: What it is resampled to, in metres; None for as it is.

        Yields:
            The reader, of one thread.
        """
        with (
            raster.open_raster(self.path) as source,
            raster.resample(source, resolution) as resampled,
        ):
            yield OrthophotoReader(self, resampled)


class OrthophotoReader:
    """Reads an orthophoto by windows, at its own resolution or another.

    Attributes:
        height: Height, in pixels.
        width: Width, in pixels.
    """

    def __init__(self, orthophoto: Orthophoto, source: rasterio.DatasetReader):
        self.height, self.width = source.shape
        self._orthophoto = orthophoto
        self._source = source

    def pixels(self, window: Window) -> np.ndarray:
        """Return a window as `raster.read_pixels` does, of the bands that are read."""
        indexes = self._orthophoto.band_indexes
        return raster.read_pixels(self._source, window, indexes)

    def valid(self, window: Window) -> np.ndarray:
        """Return where there are data in a window, as `raster.read_valid` does."""
        return raster.read_valid(self._source, window, self._orthophoto.nodata)

    def wanted(self, window: Window, margin: bool = False) -> np.ndarray:
        """Return where there are data in a window, within the area of interest.

        What lies wholly outside of it is not read.

        Args:
            window: A part of the raster, at its own resolution.
            margin: Whether the margin of the area counts too.
        """
        area = self._orthophoto.area
        if area is None:
            return self.valid(window)
        inside = area.mask(window, margin)
        return inside & self.valid(window) if inside.any() else inside

    def reduced(self, longest: int) -> np.ndarray:
        """Return the picture, or its area, at a size that a person looks at."""
        return raster.read_reduced(self._source, longest, self._orthophoto.window)
