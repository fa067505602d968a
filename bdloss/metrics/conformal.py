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

import numpy as np
import shapely

from bdloss.errors import InputError
from bdloss.metrics.polygons import Outline


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


def distances_to_outlines(
    y_true: Sequence[Outline],
    y_pred: Sequence[Outline],
    step: float,
    extent: shapely.Polygon | None = None,
) -> np.ndarray:
    """Return how far the true walls are from the nearest predicted one.

    Args:
        y_true: True polygons.
        y_pred: Predicted ones, in the same coordinates.
        step: Most that points of a wall are apart, in the unit of the coordinates.
        extent: Where both are known: what lies on its edge is no wall, but where the
            image ends. None for everywhere.

    Returns:
        Distances of points that lie evenly on the true walls, in the unit of the
        coordinates; infinite if nothing is predicted.

    Example:
        >>> true, pred = [shapely.box(0, 0, 4, 4)], [shapely.box(-1, -1, 5, 5)]
        >>> set(distances_to_outlines(true, pred, step=0.5).tolist())
        {1.0}
    """
    walls = shapely.boundary(np.array(list(y_true), object))
    if extent is not None:
        edge = shapely.buffer(extent.boundary, step / 2)
        walls = shapely.difference(walls, edge)
    lines = shapely.get_parts(shapely.get_parts(walls))
    points = [_points_on(line, step) for line in lines if not line.is_empty]
    if not points:
        return np.zeros(0)
    found = shapely.points(np.concatenate(points))
    others = shapely.get_parts(shapely.boundary(np.array(list(y_pred), object)))
    if not len(others):
        return np.full(len(found), math.inf)
    _, distances = shapely.STRtree(others).query_nearest(
        found, return_distance=True, all_matches=False
    )
    return distances


def _points_on(line: shapely.LineString, step: float) -> np.ndarray:
    """Return points in the middle of equal pieces of a line, of shape `(n, 2)`."""
    pieces = max(1, math.ceil(line.length / step))
    at = (np.arange(pieces) + 0.5) * line.length / pieces
    return shapely.get_coordinates(shapely.line_interpolate_point(line, at))
