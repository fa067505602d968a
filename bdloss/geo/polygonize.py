"""From the strips of a mask to polygons with straight, few edges."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import shapely
from rasterio import Affine, features
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bdloss.constants import IGNORED
from bdloss.errors import InputError
from bdloss.geo import regularize, watershed
from bdloss.geo.geobox import GeoBox
from bdloss.strip_labels import StripLabels

PIECE_PIXELS = 4_000_000  # that are outlined at a time, to bound memory
# Times the tolerance: outlines that are simplified could touch within it.
NEIGHBOUR_DISTANCE = 2
LINE_EDGES = 32  # of a wall that is looked for among others
COLUMNS = 8192  # that GDAL outlines at a time: rows longer than its caches are slow
PLACES = 2**26  # pixels along a side of a raster at most, for corners as numbers


def mask_to_polygons(
    mask: np.ndarray,
    geobox: GeoBox,
    min_area: float = 0.0,
    simplify: float = 0.0,
    piece_pixels: int = PIECE_PIXELS,
) -> list[shapely.Polygon]:
    """Outline the buildings of a mask.

    Pixels that share an edge are one building, pixels that share a corner are two.
    Simplified polygons that touch still touch, without gap or overlap.

    Args:
        mask: Array of shape `(height, width)`, uint8; 1 is building.
        geobox: Where its pixels lie.
        min_area: Smaller polygons are left out, in square metres.
        simplify: How far an outline may move, in pixels.
        piece_pixels: Number of pixels that are outlined at a time, but a row at least.

    Returns:
        Valid polygons in the CRS of the grid, with their holes.

    Raises:
        ValueError: If the mask is not of the size of the grid, or `min_area` is given
            and the grid has no CRS.

    Example:
        >>> from rasterio import Affine
        >>> mask = np.array([[0, 1, 1, 0]], np.uint8)
        >>> house, = mask_to_polygons(mask, GeoBox(1, 4, Affine.identity(), None))
        >>> house.bounds
        (1.0, 0.0, 3.0, 1.0)
    """
    size = (geobox.height, geobox.width)
    if mask.shape != size:
        raise InputError(f"mask must be of the size {size}, got {mask.shape}")
    strips = [(0, np.stack([mask, mask]))]
    return [
        polygon
        for outlines in outline_strips(strips, geobox, min_area, simplify, piece_pixels)
        for polygon in outlines.polygons
    ]


class Outlines(NamedTuple):
    """Buildings that are finished.

    Attributes:
        polygons: Valid polygons in the CRS of the grid, with their holes.
        area: Their areas in square metres; None without a CRS.
        probability: Mean of the probabilities over the pixels of each.
        regular: Which of them have right angles; None if that was not wanted.
        vertices: How many each would have otherwise; None as before.
    """

    polygons: np.ndarray
    area: np.ndarray | None
    probability: np.ndarray
    regular: np.ndarray | None = None
    vertices: np.ndarray | None = None


def outline_strips(
    strips: Iterable[tuple[int, np.ndarray]],
    geobox: GeoBox,
    min_area: float = 0.0,
    simplify: float = 0.0,
    piece_pixels: int = PIECE_PIXELS,
    split: bool = False,
    first_col: int = 0,
    keep: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
    min_hole: float = 0.0,
    min_iou: float | None = None,
) -> Iterator[Outlines]:
    """Outline the buildings of a mask that comes as strips of rows.

    The buildings are those of the whole mask: what a strip cuts is joined again. In
    memory are a few rows and the buildings that reach into them, or the outlines of all
    if they shall have right angles.

    Args:
        strips: The row that a strip begins with and its layers `(layers, rows, width)`,
            uint8, from the top without a gap: the mask, where 1 is building, the
            probability of a building, and that of contact if there is such a map.
        geobox: Where the pixels lie.
        min_area: Smaller polygons are left out, in square metres.
        simplify: How far an outline may move, in pixels. Polygons that touch still
            touch, without gap or overlap.
        piece_pixels: Number of pixels that are outlined at a time, but a row at least.
        split: Whether buildings that touch are told apart by the last layer: see
            `watershed.split_components`. Their walls are shared.
        first_col: Column of the grid that the strips begin with.
        keep: Function of polygons, in pixels, to those that are kept, or their parts,
            and which of the polygons each is of: `Area.keep`. None for all as they are.
        min_hole: Smaller holes are filled unless a building lies in them, in square
            metres.
        min_iou: Buildings get right angles where that keeps this IoU with the pixels,
            see `regularize.regularize`; the others are simplified by
            `regularize.COARSE` at least. None for none.

    Yields:
        Buildings, as they are finished.

    Raises:
        ValueError: If `min_area` or `min_hole` is given and the grid has no CRS.
    """
    metres = geobox.resolution
    for name, square_metres in (("min_area", min_area), ("min_hole", min_hole)):
        if square_metres and metres is None:
            raise InputError(
                f"{name} is in square metres, which a grid without CRS lacks"
            )
    hole = min_hole / metres**2 if metres else 0.0
    a, b, c, d, e, f = geobox.transform[:6]
    matrix, origin = np.array([[a, b], [d, e]]), np.array([c, f])
    if split:  # nothing that is whole in a piece is too large
        piece_pixels = min(piece_pixels, watershed.LARGEST)
    finished = _trace(_cut(strips, piece_pixels), first_col, split)
    # What could touch when it is simplified, or lie in a hole, is finished together.
    distance = max(NEIGHBOUR_DISTANCE * simplify, math.sqrt(hole / math.pi))
    groups = _wait_for_neighbours(finished, distance)
    if min_iou is not None:  # a straight wall may reach any other
        groups = _together(groups)
    for raw, values in groups:
        order = _order(raw)  # that of their strips would tell where ties go
        raw, values = _fill_holes(raw[order], hole), values[order]
        if min_iou is not None and metres is not None:  # specks would be slow
            raw, values = _take(shapely.area(raw) * metres**2 >= min_area, raw, values)
        if split and (simplify or min_iou is not None):
            raw = _with_shared_corners(raw)
        polygons = _simplify(raw, simplify)
        regular = vertices = None
        if min_iou is not None:
            vertices = count_vertices(polygons)
            coarse = _simplify(raw, max(simplify, regularize.COARSE))
            polygons, regular = regularize.regularize(raw, coarse, min_iou)
        if keep is not None:
            polygons, indexes = keep(polygons)
            values, regular, vertices = _take(indexes, values, regular, vertices)
        area = None
        if metres is not None:
            area = shapely.area(polygons) * metres**2
            large = area >= min_area
            polygons, area, values, regular, vertices = _take(
                large, polygons, area, values, regular, vertices
            )
        on_ground = shapely.transform(polygons, lambda xy: xy @ matrix.T + origin)
        yield Outlines(on_ground, area, values, regular, vertices)


def count_vertices(polygons: np.ndarray) -> np.ndarray:
    """Return how many vertices each polygon has, those of its holes too."""
    rings = 1 + shapely.get_num_interior_rings(polygons)
    return shapely.get_num_coordinates(polygons) - rings


def _order(polygons: np.ndarray) -> np.ndarray:
    """Return indexes that sort polygons by where they lie, and then by size."""
    keys = [shapely.area(polygons), *shapely.bounds(polygons).T]
    return np.lexsort(keys)


def _take(which: np.ndarray, *arrays: Any) -> list[Any]:
    """Return some rows of arrays; None stays None."""
    return [None if array is None else array[which] for array in arrays]


def _simplify(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Return simpler polygons: shared walls stay shared."""
    if not tolerance:
        return polygons
    # The tolerance is the root of the area of a triangle that may be cut off.
    return shapely.coverage_simplify(polygons, tolerance)


def _fill_holes(polygons: np.ndarray, smaller: float) -> np.ndarray:
    """Return polygons without the holes below an area that none of them lies in."""
    holed = np.flatnonzero(shapely.get_num_interior_rings(polygons))
    if not smaller or not len(holed):
        return polygons
    rings, of = shapely.get_rings(polygons[holed], return_index=True)
    starts = np.searchsorted(of, np.arange(len(holed) + 1))
    inner = np.ones(len(rings), bool)
    inner[starts[:-1]] = False  # the first ring of each is its outer one
    holes = shapely.polygons(rings)
    small = inner & (shapely.area(holes) < smaller)
    tree = shapely.STRtree(polygons)
    in_hole = np.unique(tree.query(holes[small], "covers")[0])
    filled = np.flatnonzero(small)
    kept = np.ones(len(rings), bool)
    kept[np.delete(filled, in_hole)] = False
    polygons = polygons.copy()
    for place in np.unique(of[~kept]):
        own = slice(starts[place], starts[place + 1])
        outer, *others = rings[own][kept[own]]
        polygons[holed[place]] = shapely.normalize(shapely.Polygon(outer, others))
    return polygons


class _Building:
    """The parts of a building in pixels, the sum of its values and its size.

    One that may have to be split when it is finished has its pixels too.
    """

    def __init__(
        self,
        part: shapely.Polygon,
        total: float,
        size: float,
        pixels: watershed.OpenComponent | None = None,
    ):
        self.parts, self.total, self.size = [part], total, size
        self.pixels = pixels

    def add(self, other: "_Building") -> None:
        self.parts += other.parts
        self.total += other.total
        self.size += other.size
        if self.pixels and other.pixels:
            self.pixels.add(other.pixels)

    def finish(self) -> list[tuple[shapely.Polygon, float]]:
        """Return the polygon and its mean value, or those of what it is split into."""
        crop = self.pixels.join() if self.pixels else None
        buildings = [self]
        if crop is not None:
            component = (crop.layers[0] != IGNORED).astype(np.int32)
            labels = watershed.split_components(component, *crop.layers)
            if labels is not component:
                outlined = _outline(labels, crop.layers[0], crop.row, crop.col)
                buildings = list(outlined.values())
        return [(each._join(), each.total / each.size) for each in buildings]

    def _join(self) -> shapely.Polygon:
        whole = self.parts[0]
        if len(self.parts) > 1:
            joined = shapely.union_all(self.parts)
            rings = [_corners(ring) for ring in (joined.exterior, *joined.interiors)]
            whole = shapely.Polygon(rings[0], rings[1:])
        # Where a ring begins decides on how it is simplified.
        return shapely.normalize(whole)


def _corners(ring: shapely.LinearRing) -> np.ndarray:
    """Return a ring along pixels without the points in the midst of its edges."""
    xy = shapely.get_coordinates(ring)[:-1]
    turns = (np.roll(xy, 1, axis=0) != np.roll(xy, -1, axis=0)).all(axis=1)
    return xy[turns]


def _with_shared_corners(polygons: np.ndarray) -> np.ndarray:
    """Return polygons along pixels with a corner where another has one on their walls.

    Only then do they share their walls for `coverage_simplify`.
    """
    dense = shapely.segmentize(polygons, 1)
    kind, xy, (rings, parts) = shapely.to_ragged_array(dense)
    # Whole numbers; a row and a column make one.
    places = np.rint(xy) @ (1, PLACES)
    corners = np.rint(shapely.get_coordinates(polygons)) @ (1, PLACES)
    kept = np.isin(places, corners)
    ends = np.append(0, np.cumsum(kept))
    return shapely.from_ragged_array(kind, xy[kept], (ends[rings], parts))


def _cut(
    strips: Iterable[tuple[int, np.ndarray]], piece_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the strips in pieces of whole rows."""
    for row, layers in strips:
        rows = max(1, piece_pixels // layers.shape[2])
        for first in range(0, layers.shape[1], rows):
            yield row + first, layers[:, first : first + rows]


def _trace(
    strips: Iterable[tuple[int, np.ndarray]], first_col: int, split: bool
) -> Iterator[tuple[list[_Building], list[_Building]]]:
    """Yield, for each strip, the buildings it finishes and those it leaves open."""
    components = StripLabels()
    opened: list[_Building] = []
    for row, layers in strips:
        strip = components.add(layers[0] == 1)
        labels, names = strip.labels, strip.components
        pixels: dict[int, watershed.OpenComponent] = {}
        if split:
            building, contact = layers[1], layers[-1]
            crossing = np.isin(names, [*strip.continued, *strip.below])
            pixels = watershed.open_components(
                labels, crossing, building, contact, row, first_col
            )
            labels = watershed.split_components(labels, building, contact, ~crossing)
            more = int(labels.max()) + 1 - len(names)
            names = np.append(names, components.count + np.arange(more))
        outlined = _outline(labels, layers[1], row, first_col, pixels)
        # Parts of one component, those above it too, are one building.
        of = [*names[list(outlined)].tolist(), *strip.continued.tolist()]
        buildings: dict[int, _Building] = {}
        for name, building in zip(of, [*outlined.values(), *opened], strict=True):
            if name in buildings:
                buildings[name].add(building)
            else:
                buildings[name] = building
        opened = [buildings.pop(name) for name in strip.below.tolist()]
        yield list(buildings.values()), opened
    yield opened, []


def _outline(
    labels: np.ndarray,
    values: np.ndarray,
    row: int,
    col: int = 0,
    pixels: Mapping[int, watershed.OpenComponent] | None = None,
) -> dict[int, _Building]:
    """Return the building of each label; labels are connected."""
    inside = labels > 0
    total = np.bincount(labels[inside], values[inside])
    size = np.bincount(labels[inside])
    texts, numbers = [], []
    for first in range(0, labels.shape[1], COLUMNS):
        columns = slice(first, first + COLUMNS)
        shapes = features.shapes(
            np.ascontiguousarray(labels[:, columns]),
            np.ascontiguousarray(inside[:, columns]),
            connectivity=4,
            transform=Affine.translation(col + first, row),
        )
        for shape, number in shapes:
            texts.append(json.dumps(shape))
            numbers.append(int(number))
    pixels = pixels or {}
    buildings: dict[int, _Building] = {}
    for part, number in zip(shapely.from_geojson(texts), numbers, strict=True):
        if number in buildings:  # from the columns before
            buildings[number].parts.append(part)
        else:
            buildings[number] = _Building(
                part, total[number], size[number], pixels.get(number)
            )
    return buildings


def _wait_for_neighbours(
    traced: Iterable[tuple[list[_Building], list[_Building]]], distance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield finished polygons with their mean values, neighbours together.

    What lies within a distance of an open building, in pixels, waits for it, and what
    lies near to that.
    """
    polygons, means = np.empty(0, object), np.empty(0)
    for finished, opened in traced:
        outlines = [outline for building in finished for outline in building.finish()]
        polygons = np.append(polygons, [polygon for polygon, _ in outlines])
        means = np.append(means, [mean for _, mean in outlines])
        ready = np.ones(len(polygons), bool)
        if distance and opened:
            # Simplified without each other neighbours could overlap, so none of a group
            # goes before all of it is finished.
            parts = [part for building in opened for part in building.parts]
            shapes = np.append(polygons, parts)
            walls, of = _walls(shapes)
            pairs = of[shapely.STRtree(walls).query(walls, "dwithin", distance)]
            graph = coo_array((np.ones(pairs.shape[1]), pairs), (len(shapes),) * 2)
            group = connected_components(graph, directed=False)[1]
            # First in `shapes` stand the finished ones, then the parts of open ones.
            ready = ~np.isin(group[: len(polygons)], group[len(polygons) :])
        if ready.any():
            yield polygons[ready], means[ready]
        polygons, means = polygons[~ready], means[~ready]


def _walls(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rings of polygons as short lines, and the index of whose each is.

    What is near to a region without end, such as noise, is found by the lines that are
    there, where the polygon would be gone through from end to end.
    """
    rings, of = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    ends = np.cumsum(shapely.get_num_coordinates(rings)) - 1  # the last point of each
    begins = np.append(0, ends[:-1] + 1)
    # A line begins at every so many points of a ring, but for its last one.
    points = np.arange(len(xy))
    first = points[((points - begins[ring]) % LINE_EDGES == 0) & (points < ends[ring])]
    sizes = np.minimum(LINE_EDGES, ends[ring[first]] - first) + 1
    offsets = np.append(0, np.cumsum(sizes))
    taken = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], sizes)
    lines = shapely.GeometryType.LINESTRING
    walls = shapely.from_ragged_array(lines, xy[taken], (offsets,))
    return walls, of[ring[first]]


def _together(
    groups: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all groups as one."""
    polygons, means = [np.empty(0, object)], [np.empty(0)]
    for some, their_means in groups:
        polygons.append(some)
        means.append(their_means)
    yield np.concatenate(polygons), np.concatenate(means)
