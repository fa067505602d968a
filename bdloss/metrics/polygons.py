"""Scores of outlines as polygons: PoLiS, C-IoU and how many vertices they have."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import shapely

from bdloss.errors import InputError
from bdloss.metrics.buildings import MIN_IOU, match_one_to_one

Outline: TypeAlias = shapely.Polygon | shapely.MultiPolygon


def polis(a: Outline, b: Outline) -> float:
    """Return the PoLiS distance of two polygons (Avbelj, Mueller and Bamler 2015).

    It is the mean distance of the vertices of `a` to the boundary of `b`, and that of
    the vertices of `b` to the boundary of `a`, added and halved. The point that closes
    a ring is not a vertex of its own; the rings of holes are boundary like all others.

    Args:
        a: A polygon, or several that are one building.
        b: Another in the same coordinates, in metres for a distance in metres.

    Returns:
        The distance in the unit of the coordinates, at least 0; it is symmetric.

    Raises:
        ValueError: If either is empty or no polygon.

    Example:
        >>> polis(shapely.box(0, 0, 1, 1), shapely.box(0.5, 0, 1.5, 1))
        0.25
    """
    a, b = _as_outlines([a, b])
    distances = [
        shapely.distance(shapely.points(_vertices(one)), other.boundary)
        for one, other in ((a, b), (b, a))
    ]
    return float(sum(part.mean() for part in distances)) / 2


def n_ratio(y_true: Sequence[Outline], y_pred: Sequence[Outline]) -> float:
    """Return the vertices of predicted polygons over those of the true ones.

    Above 1 the outlines have too many vertices (teeth), below it too few.

    Args:
        y_true: True polygons.
        y_pred: Predicted ones.

    Returns:
        The ratio, at least 0; NaN without true polygons.

    Raises:
        ValueError: If any is empty or no polygon.

    Example:
        >>> house = shapely.box(0, 0, 8, 6)
        >>> n_ratio([house], [house.buffer(1, join_style="bevel")])
        2.0
    """
    true, pred = (_count_vertices(_as_outlines(side)) for side in (y_true, y_pred))
    return pred / true if true else math.nan


def complexity_iou(y_true: Sequence[Outline], y_pred: Sequence[Outline]) -> float:
    """Return the C-IoU of the polygons of an image (PolyWorld, Zorzi et al. 2022).

    It is `IoU * (1 - |n_pred - n_true| / (n_pred + n_true))`, of the areas that all
    polygons cover and of the number of their vertices, so that an outline is no better
    for more vertices.

    Args:
        y_true: True polygons; they are valid, see `mend`.
        y_pred: Predicted ones in the same coordinates, valid too.

    Returns:
        The score in [0, 1]; 0 if one side has no polygon, NaN if neither has.

    Raises:
        ValueError: If any is empty, invalid or no polygon.

    Example:
        >>> house = shapely.box(0, 0, 8, 6)
        >>> lower = shapely.Polygon([(0, 0), (8, 0), (8, 3), (4, 3), (4, 3), (0, 3)])
        >>> complexity_iou([house], [lower])  # half the area, and 6 for 4 vertices
        0.4
    """
    true, pred = _as_valid(y_true), _as_valid(y_pred)
    vertices = _count_vertices(true), _count_vertices(pred)
    if not sum(vertices):
        return math.nan
    areas = shapely.union_all(true), shapely.union_all(pred)
    shared = shapely.area(shapely.intersection(*areas))
    iou = shared / (sum(shapely.area(areas)) - shared)
    return float(iou * (1 - abs(vertices[1] - vertices[0]) / sum(vertices)))


class PolygonMatches(NamedTuple):
    """Polygons that are matched, each with one of the other side.

    Attributes:
        true: Place of the true one of each pair, ascending.
        pred: Place of the predicted one.
        iou: IoU of their areas.
    """

    true: np.ndarray
    pred: np.ndarray
    iou: np.ndarray


def match_polygons(
    y_true: Sequence[Outline], y_pred: Sequence[Outline], min_iou: float = MIN_IOU
) -> PolygonMatches:
    """Match true and predicted polygons one to one, the best IoU first.

    Of equal IoUs the first true polygon takes the first predicted one.

    Args:
        y_true: True polygons, each a building; they are valid, see `mend`.
        y_pred: Predicted ones in the same coordinates, valid too.
        min_iou: IoU of a pair at the least, in (0, 1]; 0.5 in SpaceNet's score.

    Returns:
        The pairs, in the order of the true polygons.

    Raises:
        ValueError: If any is empty, invalid or no polygon, or `min_iou` is not above 0
            and at most 1.

    Example:
        >>> true = [shapely.box(0, 0, 4, 4), shapely.box(6, 0, 9, 4)]
        >>> match_polygons(true, [shapely.box(6, 0, 9, 3)])
        PolygonMatches(true=array([1]), pred=array([0]), iou=array([0.75]))
    """
    if not 0 < min_iou <= 1:
        raise InputError(f"min_iou must be above 0 and at most 1, got {min_iou}")
    true, pred = _as_valid(y_true), _as_valid(y_pred)
    building, region = shapely.STRtree(pred).query(true, predicate="intersects")
    shared = shapely.area(shapely.intersection(true[building], pred[region]))
    iou = shared / (shapely.area(true[building]) + shapely.area(pred[region]) - shared)
    alike = np.flatnonzero(iou >= min_iou)
    chosen = alike[match_one_to_one(building[alike], region[alike], iou[alike])]
    chosen = chosen[np.argsort(building[chosen])]
    return PolygonMatches(building[chosen], region[chosen], iou[chosen])


class PolygonCounts(NamedTuple):
    """Polygons counted over images: see `add_counts`.

    Attributes:
        images: Images with a polygon in truth or prediction.
        true_vertices: Vertices of the true polygons.
        pred_vertices: Vertices of the predicted polygons.
        true_invalid: True polygons that had to be mended.
        pred_invalid: Predicted polygons that had to be mended.
        matched: Pairs of a true and a predicted polygon, see `match_polygons`.
        polis_sum: PoLiS of these pairs, added up.
        complexity_iou_sum: C-IoU of the images, added up.
    """

    images: int = 0
    true_vertices: int = 0
    pred_vertices: int = 0
    true_invalid: int = 0
    pred_invalid: int = 0
    matched: int = 0
    polis_sum: float = 0.0
    complexity_iou_sum: float = 0.0

    @property
    def n_ratio(self) -> float:
        """Predicted vertices over the true ones; NaN without true ones."""
        if not self.true_vertices:
            return math.nan
        return self.pred_vertices / self.true_vertices

    @property
    def polis(self) -> float:
        """Mean PoLiS of the matched, in units of the coordinates; NaN if none are."""
        return self.polis_sum / self.matched if self.matched else math.nan

    @property
    def complexity_iou(self) -> float:
        """Mean C-IoU over the images, in [0, 1]; NaN without polygons."""
        return self.complexity_iou_sum / self.images if self.images else math.nan


def count_polygons(
    y_true: Sequence[Outline], y_pred: Sequence[Outline], min_iou: float = MIN_IOU
) -> PolygonCounts:
    """Count the polygons of an image, mended where they are invalid.

    Args:
        y_true: True polygons, each a building.
        y_pred: Predicted ones in the same coordinates.
        min_iou: As in `match_polygons`.

    Returns:
        Counts, to be added up over images.

    Raises:
        ValueError: If any is empty or no polygon, or `min_iou` is not in (0, 1].

    Example:
        >>> house = shapely.box(0, 0, 8, 6)
        >>> counts = count_polygons([house], [shapely.box(1, 0, 9, 6)])
        >>> counts.matched, counts.polis, counts.n_ratio
        (1, 0.5, 1.0)
    """
    true, true_invalid = mend(y_true)
    pred, pred_invalid = mend(y_pred)
    matches = match_polygons(true, pred, min_iou)
    pairs = zip(matches.true.tolist(), matches.pred.tolist(), strict=True)
    some = bool(true or pred)
    return PolygonCounts(
        images=int(some),
        true_vertices=_count_vertices(np.array(true, object)),
        pred_vertices=_count_vertices(np.array(pred, object)),
        true_invalid=true_invalid,
        pred_invalid=pred_invalid,
        matched=len(matches.iou),
        polis_sum=math.fsum(polis(true[a], pred[b]) for a, b in pairs),
        complexity_iou_sum=complexity_iou(true, pred) if some else 0.0,
    )


def mend(polygons: Sequence[Outline]) -> tuple[list[Outline], int]:
    """Make polygons valid, which may cross themselves (`shapely.make_valid`).

    Holes are cut out of what the rings around them cover. A polygon that falls apart
    becomes a multipolygon and stays one building; lines and points are dropped, and one
    of which nothing else is left is left out.

    Args:
        polygons: Polygons, valid or not.

    Returns:
        Valid polygons, and how many of the given ones were not.

    Raises:
        ValueError: If any is empty or no polygon.

    Example:
        >>> bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
        >>> (mended,), invalid = mend([bow_tie])
        >>> mended.geom_type, mended.area, invalid
        ('MultiPolygon', 2.0, 1)
    """
    outlines = _as_outlines(polygons)
    invalid = ~shapely.is_valid(outlines)
    outlines[invalid] = shapely.make_valid(
        outlines[invalid], method="structure", keep_collapsed=False
    )
    return outlines[shapely.area(outlines) > 0].tolist(), int(invalid.sum())


def _as_outlines(polygons: Sequence[Outline]) -> np.ndarray:
    """Return polygons as an array, and refuse what is none."""
    outlines = np.empty(len(polygons), object)
    outlines[:] = polygons
    kinds = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
    odd = ~np.isin(shapely.get_type_id(outlines), kinds) | shapely.is_empty(outlines)
    if odd.any():
        raise InputError(
            f"outlines must be polygons, not empty, got {outlines[odd][0]}"
        )
    if not np.isfinite(shapely.get_coordinates(outlines)).all():
        raise InputError("outlines must have finite coordinates")
    return outlines


def _as_valid(polygons: Sequence[Outline]) -> np.ndarray:
    """Return polygons as an array, and refuse those that cross themselves."""
    outlines = _as_outlines(polygons)
    invalid = ~shapely.is_valid(outlines)
    if invalid.any():
        reason = shapely.is_valid_reason(outlines[invalid][0])
        raise InputError(f"polygons must be valid (see mend), got {reason}")
    return outlines


def _count_vertices(outlines: np.ndarray) -> int:
    """Return the vertices of polygons without the points that close their rings."""
    rings = shapely.get_rings(shapely.get_parts(outlines))
    return int(shapely.get_num_coordinates(rings).sum()) - len(rings)


def _vertices(outline: Outline) -> np.ndarray:
    """Return the vertices of all rings, each once, of shape `(n, 2)`."""
    rings = shapely.get_rings(shapely.get_parts(outline))
    return np.vstack([shapely.get_coordinates(ring)[:-1] for ring in rings])
