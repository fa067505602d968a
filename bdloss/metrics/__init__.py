"""What is reported (Section 3.1): pooled IoU, BF1 with true distances, buildings.

`tolerance` is a distance in pixels. It is not the `theta` of the losses, which is the
side of a window: on hard masks the boundary loss with theta = 5 and smooth = 0 is one
minus the BF1 of an 8-neighbour boundary with tolerance 3.
"""

from bdloss.metrics.scores import (
    MIN_AREA,
    PIECE,
    TOLERANCE,
    BoundaryCounts,
    BoundaryF1,
    BoundaryScore,
    Counts,
    InstanceCounter,
    InstanceCounts,
    IoU,
    add_counts,
    boundary_f1,
    boundary_f1_per_class,
    count_boundary,
    count_instances,
    count_pixels,
    find_boundary,
    widen_boundary,
)

__all__ = [
    "MIN_AREA",
    "PIECE",
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
