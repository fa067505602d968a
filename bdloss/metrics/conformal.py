"""Conformal risk control of outlines: a margin that true walls lie in, as promised.

A **unit** is a scene, or a site of several. Its risk at a radius is the share of its
true boundary that lies further than that from the predicted one. With n units that did
not train the model, the smallest radius with `n / (n + 1) * mean risk + 1 / (n + 1) <=
alpha` has, on average over draws of the units, a risk of at most alpha on the next one
(Angelopoulos, Bates, Fisch, Lei and Schuster 2022), **if the next one is of the same
kind as these**: of another town, camera or season it promises nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from bdloss.errors import InputError
from bdloss.metrics.polygons import Outline

MITRE_LIMIT = 5.0  # beyond it a corner of a margin is cut, further out than it reaches


def fewest_units(alpha: float) -> int:
    """Return how many units a promise needs: fewer cannot keep it at any radius.

    Args:
        alpha: The risk that is promised, in (0, 1).

    Raises:
        ValueError: If alpha is not in (0, 1).

    Example:
        >>> fewest_units(0.1), fewest_units(0.05)
        (9, 19)
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie in (0, 1), got {alpha}")
    return math.ceil(round(1 / alpha - 1, 9))


def conformal_radius(units: Sequence[np.ndarray], alpha: float) -> float:
    """Return the smallest radius that promises a risk of alpha.

    Args:
        units: Of each unit, the distances of the points of its true boundary to the
            nearest predicted one, at least 0; infinite where there is none.
        alpha: The risk that is promised, in (0, 1).

    Returns:
        The radius, in the unit of the distances; infinite if no radius promises it.

    Raises:
        ValueError: If alpha is not in (0, 1), there are fewer units than it needs, or
            one has no boundary.

    Example:
        >>> conformal_radius([np.array([0.0, 1.0, 2.0, 3.0])] * 9, alpha=0.4)
        2.0
    """
    fewest, number = fewest_units(alpha), len(units)
    if number < fewest:
        raise InputError(
            f"a risk of {alpha:g} needs {fewest} units or more, got {number}"
        )
    if not all(len(distances) for distances in units):
        raise InputError("every unit must have a boundary")
    distances = np.concatenate(units)
    # Each unit weighs the same, whatever the length of its boundary.
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in units])
    order = np.argsort(distances, kind="stable")
    inside = np.cumsum(weights[order])  # summed over units
    allowed = alpha * (number + 1) - 1  # of risk, summed over units
    first = int(np.searchsorted(inside, number - allowed - 1e-9 * number))
    return float(distances[order][min(first, len(distances) - 1)])


def risk(distances: np.ndarray, radius: float) -> float:
    """Return the share of a boundary that lies further away than a radius.

    Example:
        >>> risk(np.array([0.0, 1.0, 2.0, 3.0]), radius=2.0)
        0.25
    """
    return float(np.mean(distances > radius))


def points_on_walls(
    outlines: Sequence[Outline], step: float, extent: shapely.Polygon | None = None
) -> np.ndarray:
    """Return points that lie evenly on the walls of outlines.

    Args:
        outlines: Polygons.
        step: Most that points of a wall are apart, in the unit of the coordinates.
        extent: Where outlines are known: what lies on its edge is no wall, but where
            the image ends, and nothing beyond it is seen. None for everywhere.

    Returns:
        Array of shape `(points, 2)`; empty without walls.

    Example:
        >>> points_on_walls([shapely.box(0, 0, 2, 2)], step=2).tolist()
        [[2.0, 1.0], [1.0, 2.0], [0.0, 1.0], [1.0, 0.0]]
    """
    walls = shapely.boundary(np.array(list(outlines), object))
    if extent is not None:
        inside = shapely.buffer(extent, -step / 2)
        walls = shapely.intersection(walls, inside)
    lines = shapely.get_parts(shapely.get_parts(walls))
    points = [_points_on(line, step) for line in lines if line.length > 0]
    return np.concatenate([np.empty((0, 2)), *points])


def distances_to_walls(points: np.ndarray, outlines: Sequence[Outline]) -> np.ndarray:
    """Return how far points are from the nearest wall of outlines.

    Args:
        points: Array of shape `(points, 2)`.
        outlines: Polygons, in the same coordinates.

    Returns:
        Distances in the unit of the coordinates; infinite without outlines.

    Example:
        >>> distances_to_walls(np.array([[3.0, 3.0]]), [shapely.box(0, 0, 4, 4)])
        array([1.])
    """
    walls = shapely.get_parts(shapely.boundary(np.array(list(outlines), object)))
    if not len(walls) or not len(points):
        return np.full(len(points), math.inf)
    _, distances = shapely.STRtree(walls).query_nearest(
        shapely.points(points), return_distance=True, all_matches=False
    )
    return distances


def rings_of(polygons: np.ndarray, radius: float) -> np.ndarray:
    """Return what lies within a distance of the walls of each polygon.

    Its corners are mitred, so it is never less than that, and has few vertices.

    Args:
        polygons: Polygons.
        radius: The distance, in the unit of their coordinates, at least 0.

    Returns:
        Polygons, each with the inner outline as a hole where there is one.

    Example:
        >>> ring, = rings_of(np.array([shapely.box(0, 0, 10, 10)]), 1.0)
        >>> float(ring.area), len(ring.interiors)
        (80.0, 1)
    """
    grown, shrunk = (
        shapely.buffer(
            polygons, side, join_style="mitre", mitre_limit=MITRE_LIMIT, quad_segs=1
        )
        for side in (radius, -radius)
    )
    return shapely.difference(grown, shrunk)


class MarginCounts(NamedTuple):
    """How a margin holds true walls, added up over images: see `add_counts`.

    Attributes:
        covered: Points of true walls in it.
        points: Points of true walls.
        area: Of the margin of each building, in the square of the unit of `length`.
        length: Of the walls that it lies around.
    """

    covered: int = 0
    points: int = 0
    area: float = 0.0
    length: float = 0.0

    @property
    def coverage(self) -> float:
        """Share of the true walls that lie in it; NaN without any."""
        return self.covered / self.points if self.points else math.nan

    @property
    def width(self) -> float:
        """Its mean width; NaN without any."""
        return self.area / self.length if self.length else math.nan


def count_margin(
    y_true: Sequence[Outline],
    y_pred: Sequence[Outline],
    radius: float,
    step: float,
    extent: shapely.Polygon | None = None,
) -> MarginCounts:
    """Count true walls in the margin of predicted ones.

    Args:
        y_true: True polygons.
        y_pred: Predicted ones, in the same coordinates.
        radius: How far the margin reaches on either side, in their unit.
        step: As in `points_on_walls`.
        extent: As in `points_on_walls`.

    Example:
        >>> true, pred = [shapely.box(0, 0, 8, 8)], [shapely.box(0, 0, 8, 9)]
        >>> count_margin(true, pred, radius=0.4, step=1.0).coverage
        0.75
    """
    points = points_on_walls(y_true, step, extent)
    found = np.array(list(y_pred), object)
    return MarginCounts(
        covered=int((distances_to_walls(points, y_pred) <= radius).sum()),
        points=len(points),
        area=float(shapely.area(rings_of(found, radius)).sum()),
        length=float(shapely.length(found).sum()),
    )


def _points_on(line: shapely.LineString, step: float) -> np.ndarray:
    """Return points in the middle of equal pieces of a line, of shape `(n, 2)`."""
    pieces = max(1, math.ceil(line.length / step))
    at = (np.arange(pieces) + 0.5) * line.length / pieces
    return shapely.get_coordinates(shapely.line_interpolate_point(line, at))
