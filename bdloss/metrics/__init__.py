"""What is reported (Section 3.1): pooled IoU, BF1 with true distances, buildings.

All take masks as numpy arrays, or shapely's polygons, but for `streaming`, which has
Keras metrics. Only IoU and BF1 are of the paper: the others see what BF1 does not.
"""

from typing import TYPE_CHECKING, Any

from bdloss.metrics.boundary_iou import (
    BOUNDARY_DISTANCE,
    BoundaryIoUCounts,
    boundary_iou,
    count_boundary_iou,
)
from bdloss.metrics.buildings import (
    MIN_BUILDING_AREA,
    MIN_IOU,
    MIN_SPLIT_OVERLAP,
    InstanceCounter,
    InstanceCounts,
    count_instances,
)
from bdloss.metrics.distances import (
    DistanceCounts,
    MatchedDistances,
    SurfaceDistances,
    surface_distances,
)
from bdloss.metrics.matched_boundaries import (
    BoundaryMatcher,
    MatchedBoundaryCounts,
    matched_boundary_f1,
)
from bdloss.metrics.polygons import (
    PolygonCounts,
    PolygonMatches,
    complexity_iou,
    count_polygons,
    match_polygons,
    mend,
    n_ratio,
    polis,
)
from bdloss.metrics.scores import (
    TOLERANCE,
    BoundaryCounts,
    BoundaryScore,
    Counts,
    add_counts,
    boundary_f1,
    boundary_f1_per_class,
    count_boundary,
    count_pixels,
    find_boundary,
    widen_boundary,
)

if TYPE_CHECKING:
    from bdloss.metrics.streaming import BoundaryF1, BoundaryIoU, IoU

__all__ = [
    "BOUNDARY_DISTANCE",
    "MIN_BUILDING_AREA",
    "MIN_IOU",
    "MIN_SPLIT_OVERLAP",
    "TOLERANCE",
    "BoundaryCounts",
    "BoundaryF1",
    "BoundaryIoU",
    "BoundaryIoUCounts",
    "BoundaryMatcher",
    "BoundaryScore",
    "Counts",
    "DistanceCounts",
    "InstanceCounter",
    "InstanceCounts",
    "IoU",
    "MatchedBoundaryCounts",
    "MatchedDistances",
    "PolygonCounts",
    "PolygonMatches",
    "SurfaceDistances",
    "add_counts",
    "boundary_f1",
    "boundary_f1_per_class",
    "boundary_iou",
    "complexity_iou",
    "count_boundary",
    "count_boundary_iou",
    "count_instances",
    "count_pixels",
    "count_polygons",
    "find_boundary",
    "match_polygons",
    "matched_boundary_f1",
    "mend",
    "n_ratio",
    "polis",
    "surface_distances",
    "widen_boundary",
]


def __getattr__(name: str) -> Any:
    """Return a metric of Keras, which is imported when one is asked for."""
    if name in __all__:
        from bdloss.metrics import streaming

        return getattr(streaming, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
