import math

from bdloss.evaluation import tables
from bdloss.evaluation.scores import RasterScores, Scores
from bdloss.metrics.buildings import InstanceCounts
from bdloss.metrics.scores import BoundaryScore


def test_table_says_what_is_not_known():
    scores = Scores(
        iou=0.5,
        boundary={3: BoundaryScore(*[math.nan] * 3), 5: BoundaryScore(3, 3, 3)},
        boundary_ratio=3,
        accuracy=3,
        images=3,
        images_with_boundary=3,
        pixels=3,
        instances=InstanceCounts(*[3] * 6),
    )
    table = tables.tabulate_scores(
        RasterScores(
            images={"a": scores},
            cities={"austin": scores},
            all=scores,
            without_prediction=[],
        )
    )
    assert [row[0] for row in table] == ["", "a", "austin", "all"]
    assert table[1][1:5] == ["0.5000", "3", "none", "3"]
