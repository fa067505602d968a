"""Outlines on disk until all are there, and back in order: a sort in flat memory."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely

from bdloss.geo.geobox import GeoBox

PIXELS_IN_MEMORY = 200e6  # of the raster, whose outlines are sorted at a time


class OutlineSpool:
    """Sorts outlines from the top, whichever order they are finished in.

    They lie in a file for each band of the ground, which is sorted by itself.

    Args:
        folder: Where the files go; it is empty.
        ground: Where the outlines lie.
        **attributes: Types of what is kept of each.
    """

    def __init__(self, folder: Path, ground: GeoBox, **attributes: type):
        self._folder, self._types = folder, attributes
        corners = itertools.product((0, ground.width), (0, ground.height))
        heights = [(ground.transform @ corner)[1] for corner in corners]
        self._top = max(heights)
        number = math.ceil(ground.height * ground.width / PIXELS_IN_MEMORY)
        self._band = (self._top - min(heights)) / max(1, number)

    def add(self, polygons: np.ndarray, **attributes: np.ndarray) -> None:
        """Add outlines.

        Args:
            polygons: Array of polygons, of shape `(n,)`.
            **attributes: Arrays of one value for each polygon, of the types given.
        """
        tops = shapely.bounds(polygons)[:, 3]
        bands = np.maximum(0, (self._top - tops) // self._band).astype(int)
        for band in np.unique(bands).tolist():
            here = bands == band
            _, xy, (rings, parts) = shapely.to_ragged_array(polygons[here])
            columns = [attributes[name][here] for name in self._types]
            with (self._folder / f"{band:06}.npy").open("ab") as file:
                for array in (xy, rings, parts, *columns):
                    np.save(file, array)

    def sorted(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield outlines with their attributes from the top, and from the left.

        Where there are none, arrays without values come once.
        """
        paths = sorted(self._folder.iterdir())
        if not paths:
            none: dict[str, np.ndarray] = {
                name: np.array([], kind) for name, kind in self._types.items()
            }
            yield np.array([], object), none
        for path in paths:
            polygons, attributes = self._read(path)
            # Two may have the same bounds, but no point.
            inside = shapely.get_coordinates(shapely.point_on_surface(polygons))
            bounds = shapely.bounds(polygons) * (1, 1, 1, -1)
            order = np.lexsort(np.concatenate([inside, bounds], axis=1).T)
            columns = {name: column[order] for name, column in attributes.items()}
            yield polygons[order], columns

    def _read(self, path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the outlines of a band as they were added."""
        polygons: list[np.ndarray] = []
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self._types}
        with path.open("rb") as file:
            while file.peek(1):
                xy, rings, parts = (np.load(file) for _ in range(3))
                kind = shapely.GeometryType.POLYGON
                polygons.append(shapely.from_ragged_array(kind, xy, (rings, parts)))
                for column in columns.values():
                    column.append(np.load(file))
        joined = {name: np.concatenate(some) for name, some in columns.items()}
        return np.concatenate(polygons), joined
