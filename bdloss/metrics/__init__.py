"""What is reported (Section 3.1): pooled IoU, BF1 with true distances, buildings.

`scores` and `buildings` take masks as numpy arrays, `streaming` has the same scores as
Keras metrics.
"""

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
    "MIN_BUILDING_AREA",
    "MIN_SPLIT_OVERLAP",
    "TOLERANCE",
    "BoundaryCounts",
    "BoundaryF1",
    "BoundaryScore",
    "Counts",
    "InstanceCounter",
    "InstanceCounts",
    "IoU",
    "add_counts",
    "boundary_f1",
    "boundary_f1_per_class",
    "count_boundary",
    "count_instances",
    "count_pixels",
    "find_boundary",
    "widen_boundary",
]
