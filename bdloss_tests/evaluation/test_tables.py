import math

from bdloss.evaluation import tables
from bdloss.evaluation.scores import RasterScores, Scores
from bdloss.metrics.buildings import InstanceCounts
from bdloss.metrics.scores import BoundaryScore


def test_tables_say_what_is_not_known_and_leave_out_what_nobody_knows():
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
    other = Scores(**{**vars(scores), "boundary_ratio": math.nan})
    groups = tables.tabulate_scores(
        RasterScores(
            images={"a": scores},
            cities={"austin": other},
            all=scores,
            without_prediction=[],
        )
    )
    assert list(groups) == ["area", "boundary", "buildings"]
    assert [row[0] for row in groups["area"]] == ["area", "a", "austin", "all"]
    assert groups["area"][1][1:] == ["0.5000", "3"]
    assert groups["boundary"][0] == ["boundary", "BF1 5 px", "boundary, of the true"]
    assert groups["boundary"][2] == ["austin", "3", "none"]
