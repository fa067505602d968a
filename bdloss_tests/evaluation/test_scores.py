import json
import math

from bdloss.evaluation.scores import RasterScores, Scores
from bdloss.metrics.buildings import InstanceCounts
from bdloss.metrics.scores import BoundaryScore

SCORES = Scores(
    iou=0.5,
    boundary={
        3: BoundaryScore(precision=0.25, recall=0.75, f1=0.375),
        5: BoundaryScore(precision=0.5, recall=1.0, f1=2 / 3),
    },
    boundary_ratio=math.nan,
    accuracy=0.9,
    images=4,
    images_with_boundary=3,
    pixels=400,
    instances=InstanceCounts(
        buildings=9,
        detected=7,
        split=1,
        merged=2,
        regions=8,
        false_positives=3,
        matched=6,
        matched_iou_sum=4.5,
    ),
)
VALUES = {
    "iou": 0.5,
    "bf1_3": 0.375,
    "precision_3": 0.25,
    "recall_3": 0.75,
    "bf1_5": 2 / 3,
    "precision_5": 0.5,
    "recall_5": 1.0,
    "boundary_ratio": None,
    "accuracy": 0.9,
    "images": 4,
    "images_with_boundary": 3,
    "pixels": 400,
    "buildings": 9,
    "detected": 7,
    "split": 1,
    "merged": 2,
    "regions": 8,
    "false_positives": 3,
    "matched": 6,
    "matched_iou_sum": 4.5,
    "false_negatives": 2,
}


def test_scores_are_written_under_flat_keys_in_this_order():
    assert list(SCORES.as_json().items()) == list(VALUES.items())


def test_scores_come_back_from_their_file():
    again = Scores.from_json(json.loads(json.dumps(SCORES.as_json())))
    assert again.as_json() == VALUES
    assert again.boundary == SCORES.boundary
    assert again.instances == SCORES.instances
    assert math.isnan(again.boundary_ratio)


def test_what_an_older_file_lacks_is_not_known():
    old = Scores.from_json({"iou": 0.5, "bf1_3": None, "buildings": 9, "found": 7})
    assert old.iou == 0.5
    assert math.isnan(old.boundary[3].f1)
    assert math.isnan(old.accuracy)
    assert old.instances == InstanceCounts(buildings=9)


def test_scores_of_rasters_are_written_one_by_one_and_together():
    scores = RasterScores(
        images={"a": SCORES}, cities={}, all=SCORES, without_prediction=["b.tif"]
    )
    assert list(scores.as_json().items()) == [
        ("images", {"a": VALUES}),
        ("cities", {}),
        ("all", VALUES),
        ("without_prediction", ["b.tif"]),
    ]
