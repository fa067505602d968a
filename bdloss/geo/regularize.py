"""Right angles and straight walls for outlines.

A building is turned so that its walls run along the axes. What of its raw outline runs
along x, or along y, from one corner to another becomes one wall, where it leaves as
much area outside as it takes in. The shortest walls are given up one after another, as
long as the building keeps to its raw outline.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

MIN_IOU = 0.9  # with its raw outline, of a building with right angles
COARSE = 5.0  # pixels, the tolerance at least of buildings without
CORNER = 1.0  # pixel that a corner of a wall stands out at least
REACH = 5.0  # pixels between a straight wall and the raw outline at most
SHORTEST = 8.0  # pixels: shorter walls may be given up
WALLS = 4  # of a building at least
SLIVER = 1e-6  # square pixels: smaller overlaps are of rounding


class Regularized(NamedTuple):
    """Buildings with straight walls.

    Attributes:
        polygons: Valid polygons that do not overlap.
        regular: Which of them have right angles; the others are simplified.
    """

    polygons: np.ndarray
    regular: np.ndarray


def regularize(
    raw: np.ndarray, simplified: np.ndarray, min_iou: float = MIN_IOU
) -> Regularized:
    """Give buildings right angles and straight walls, where that keeps to their masks.

    A building that would need more walls than simplified, such as a round one, stays
    simplified. No two overlap afterwards: the smaller one ends at the wall of the
    larger, and if that costs it too much both stay simplified.

    Args:
        raw: Outlines along pixels, in pixels, which do not overlap.
        simplified: The same simplified, which do not overlap either.
        min_iou: With its raw outline, that a building with right angles must have, in
            [0, 1]; one that has less stays simplified.

    Returns:
        One polygon for each.
    """
    polygons = simplified.copy()
    straight = np.array([straighten(each, min_iou) for each in raw], object)
    walls, most = map(shapely.get_num_coordinates, (straight, simplified))
    regular = ~shapely.is_missing(straight) & (walls <= most)
    polygons[regular] = straight[regular]
    irregular = _cut_overlaps(polygons, raw, simplified, min_iou)
    return Regularized(polygons, regular & ~irregular)


def straighten(
    polygon: shapely.Polygon, min_iou: float = MIN_IOU
) -> shapely.Polygon | None:
    """Return a building with right angles only, and as few walls as it can have.

    Args:
        polygon: Its raw outline, in pixels.
        min_iou: With it, at least.

    Returns:
        A valid polygon, none of whose corners is further than `REACH` from the outline;
        None if right angles do not fit it.

    Example:
        >>> wall = "0 0, 30 0, 30 1, 60 1, 60 20, 0 20, 0 0"  # with a step in it
        >>> house = straighten(shapely.from_wkt(f"POLYGON (({wall}))"))
        >>> len(house.exterior.coords) - 1, round(house.area)
        (4, 1170)
    """
    rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(polygon)]
    corners = [_corners(ring) for ring in rings]
    rectangle = shapely.minimum_rotated_rectangle(polygon)
    sides = [rings[0][corners[0]], shapely.get_coordinates(rectangle)[:2]]
    found = [
        _straighten_along(rings, corners, _angle(walls), min_iou) for walls in sides
    ]
    kept = [(one, iou(one, polygon)) for one in found if one.is_valid]
    kept = [
        (one, its_iou)
        for one, its_iou in kept
        if its_iou >= min_iou and shapely.hausdorff_distance(one, polygon) <= REACH
    ]
    if not kept:
        return None
    return min(kept, key=lambda pair: (shapely.get_num_coordinates(pair[0]), -pair[1]))[
        0
    ]


def iou(first, second):
    """Return the intersection over union of polygons, one by one."""
    both = shapely.area(shapely.intersection(first, second))
    return both / (shapely.area(first) + shapely.area(second) - both)


def _angle(corners: np.ndarray) -> float:
    """Return the angle that walls between corners have, but for right angles."""
    walls = np.roll(corners, -1, axis=0) - corners
    fourfold = 4 * np.arctan2(walls[:, 1], walls[:, 0])
    weights = (walls**2).sum(axis=1)  # of walls that are long
    return np.arctan2(weights @ np.sin(fourfold), weights @ np.cos(fourfold)) / 4


def _corners(ring: np.ndarray) -> np.ndarray:
    """Return the indexes of the points of a ring that are its corners."""
    farthest = ((ring - ring.mean(axis=0)) ** 2).sum(axis=1).argmax()
    line = np.roll(ring, -farthest, axis=0)
    kept = shapely.simplify(shapely.LineString([*line, line[0]]), CORNER)
    indexes = {tuple(point): index for index, point in enumerate(ring.tolist())}
    points = shapely.get_coordinates(kept).tolist()
    return np.unique([indexes[tuple(point)] for point in points])


def _straighten_along(
    rings: Sequence[np.ndarray],
    corners: Sequence[np.ndarray],
    angle: float,
    min_iou: float,
) -> shapely.Polygon:
    """Return a building whose walls have an angle; empty, or invalid, if none fits."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    straight = [
        _drop_walls(ring @ turn, their_corners, min_iou) @ turn.T
        for ring, their_corners in zip(rings, corners, strict=True)
    ]
    if min(map(len, straight)) < WALLS:
        return shapely.Polygon()
    return shapely.Polygon(straight[0], straight[1:])


def _drop_walls(ring: np.ndarray, corners: np.ndarray, min_iou: float) -> np.ndarray:
    """Return the corners of the fewest walls along x and y that keep to a ring.

    If none do, those of the most walls.
    """
    sides = np.abs(np.roll(ring[corners], -1, axis=0) - ring[corners])
    along_x = sides[:, 0] >= sides[:, 1]
    turns = along_x != np.roll(along_x, 1)
    starts, along_x = corners[turns], along_x[turns]
    below = _areas_below(ring)
    whole = shapely.Polygon(ring[corners])  # much faster than all of its points
    if not whole.is_valid:
        whole = shapely.Polygon(ring)
    kept = most = np.empty((0, 2))
    while len(starts) >= WALLS:
        walls = _place_walls(ring, below, starts, along_x)
        most = most if len(most) else walls
        found = shapely.Polygon(walls)
        if found.is_valid and iou(found, whole) >= min_iou:
            kept = walls
        elif len(kept):
            break
        lengths = np.abs(np.roll(walls, -1, axis=0) - walls).sum(axis=1)
        short = int(lengths.argmin())
        if lengths[short] >= SHORTEST:
            break
        # The walls before and after it become one.
        gone = [short, (short + 1) % len(starts)]
        starts, along_x = np.delete(starts, gone), np.delete(along_x, gone)
    return kept if len(kept) else most


def _areas_below(ring: np.ndarray) -> np.ndarray:
    """Return the area between a ring and each axis, up to each of its points.

    An array of shape `(2, points + 1)`: of what runs along x, and of what along y.
    """
    following = np.roll(ring, -1, axis=0)
    pieces = (following - ring) * (following + ring)[:, ::-1] / 2
    return np.concatenate([[[0.0], [0.0]], np.cumsum(pieces, axis=0).T], axis=1)


def _place_walls(
    ring: np.ndarray, below: np.ndarray, starts: np.ndarray, along_x: np.ndarray
) -> np.ndarray:
    """Return the corners of walls along x and y that a ring takes turns to run along.

    Args:
        ring: Its points.
        below: As `_areas_below` gives it.
        starts: Index of the point that each wall begins with.
        along_x: Whether it runs along x.
    """
    ends = np.roll(starts, -1)
    axis = np.where(along_x, 0, 1)
    areas = below[axis, ends] - below[axis, starts]
    areas += np.where(ends <= starts, below[axis, -1], 0)
    widths = ring[ends, axis] - ring[starts, axis]
    across = ring[starts, 1 - axis]  # of a wall that comes back to where it began
    places = np.divide(areas, widths, out=across, where=widths != 0)
    before = np.roll(places, 1)
    x, y = np.where(along_x, before, places), np.where(along_x, places, before)
    return np.stack([x, y], axis=1)


def _cut_overlaps(
    polygons: np.ndarray, raw: np.ndarray, simplified: np.ndarray, min_iou: float
) -> np.ndarray:
    """Cut the smaller of two that overlap at the wall of the larger, in place.

    If that costs it too much it is simplified and then cut, and if that does too, both
    are simplified and cut no more. Returns which are simplified.
    """
    bounds = shapely.bounds(raw)
    rank = np.empty(len(raw), int)
    by_size = np.lexsort([bounds[:, 0], bounds[:, 1], -shapely.area(raw)])
    rank[by_size] = np.arange(len(raw))
    irregular, fixed = np.zeros((2, len(raw)), bool)
    while pairs := _overlapping(polygons, rank):
        for first, second in pairs:
            larger, smaller = (second, first) if fixed[second] else (first, second)
            wall = polygons[larger]
            if not _overlap(wall, polygons[smaller]):
                continue  # since one of them was cut
            cut = _cut(polygons[smaller], wall)
            if not irregular[smaller] and iou(cut, raw[smaller]) >= min_iou:
                polygons[smaller] = cut
                continue
            if not irregular[smaller]:
                cut = _cut(simplified[smaller], wall)
            if iou(cut, simplified[smaller]) >= min_iou:
                polygons[smaller] = cut
            else:
                both = [larger, smaller]
                polygons[both] = simplified[both]
                fixed[both] = irregular[both] = True
            irregular[smaller] = True
    return irregular


def _overlapping(polygons: np.ndarray, rank: np.ndarray) -> list[list[int]]:
    """Return the pairs that overlap, in the order of their ranks."""
    first, second = shapely.STRtree(polygons).query(polygons, "intersects")
    before = rank[first] < rank[second]
    first, second = first[before], second[before]
    overlap = _overlap(polygons[first], polygons[second])
    first, second = first[overlap], second[overlap]
    order = np.lexsort([rank[second], rank[first]])
    return np.stack([first, second], axis=1)[order].tolist()


def _overlap(first, second):
    """Return whether polygons overlap, one by one."""
    return shapely.area(shapely.intersection(first, second)) > SLIVER


def _cut(polygon: shapely.Polygon, other: shapely.Polygon) -> shapely.Polygon:
    """Return the largest part of a polygon outside of another; an empty one if none."""
    rest = shapely.difference(polygon, other)
    parts = [part for part in shapely.get_parts(rest) if part.geom_type == "Polygon"]
    return max(parts, key=shapely.area, default=shapely.Polygon())
