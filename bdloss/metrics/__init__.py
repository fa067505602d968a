"""What is reported (Section 3.1): pooled IoU, BF1 with true distances, buildings.

All take masks as numpy arrays, but for `streaming`, which has Keras metrics. Boundary
IoU is not of the paper: it is the score that others compare edges by.
"""

from bdloss.metrics.boundary_iou import (
    BOUNDARY_DISTANCE,
    BoundaryIoUCounts,
    boundary_iou,
    count_boundary_iou,
)
from bdloss.metrics.buildings import (
    MIN_BUILDING_AREA,
    MIN_SPLIT_OVERLAP,
    InstanceCounter,
    InstanceCounts,
    count_instances,
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
from bdloss.metrics.streaming import BoundaryF1, IoU

__all__ = [
    "BOUNDARY_DISTANCE",
    "MIN_BUILDING_AREA",
    "MIN_SPLIT_OVERLAP",
    "TOLERANCE",
    "BoundaryCounts",
    "BoundaryF1",
    "BoundaryIoUCounts",
    "BoundaryScore",
    "Counts",
    "InstanceCounter",
    "InstanceCounts",
    "IoU",
    "add_counts",
    "boundary_f1",
    "boundary_f1_per_class",
    "boundary_iou",
    "count_boundary",
    "count_boundary_iou",
    "count_instances",
    "count_pixels",
    "find_boundary",
    "widen_boundary",
]
