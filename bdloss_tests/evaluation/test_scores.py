import json
import math
from dataclasses import replace

from bdloss.evaluation.scores import RasterScores, Scores, describe_scores
from bdloss.metrics.buildings import InstanceCounts
from bdloss.metrics.distances import SurfaceDistances
from bdloss.metrics.polygons import PolygonCounts
from bdloss.metrics.scores import BoundaryScore

SCORES = Scores(
    iou=0.5,
    accuracy=0.9,
    boundary_iou=0.25,
    boundary={
        3: BoundaryScore(precision=0.25, recall=0.75, f1=0.375),
        5: BoundaryScore(precision=0.5, recall=1.0, f1=2 / 3),
    },
    matched=BoundaryScore(precision=0.2, recall=0.3, f1=0.24),
    distances=SurfaceDistances(1.5, 4.0),
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
    "accuracy": 0.9,
    "boundary_iou": 0.25,
    "matched_f1_3": 0.24,
    "bf1_3": 0.375,
    "bf1_5": 2 / 3,
    "boundary_ratio": None,
    "assd": 1.5,
    "hd95": 4.0,
    "assd_m": None,
    "hd95_m": None,
    "building_f1": 12 / 17,
    "building_precision": 6 / 8,
    "building_recall": 6 / 9,
    "matched_iou": 0.75,
    "buildings": 9,
    "detected": 7,
    "false_negatives": 2,
    "false_positives": 3,
    "split": 1,
    "merged": 2,
    "polis": None,
    "c_iou": None,
    "n_ratio": None,
    "precision_3": 0.25,
    "recall_3": 0.75,
    "precision_5": 0.5,
    "recall_5": 1.0,
    "matched_precision_3": 0.2,
    "matched_recall_3": 0.3,
    "boundary_depth": "3 px",
    "regions": 8,
    "matched": 6,
    "images": 4,
    "images_with_boundary": 3,
    "pixels": 400,
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
    assert math.isnan(old.boundary_iou)
    assert old.instances == InstanceCounts(buildings=9)


def test_outlines_are_scored_where_there_are_some():
    counts = PolygonCounts(
        images=2,
        true_vertices=8,
        pred_vertices=12,
        matched=2,
        polis_sum=1.0,
        complexity_iou_sum=1.5,
    )
    values = replace(SCORES, polygons=counts).as_json()
    assert (values["polis"], values["c_iou"], values["n_ratio"]) == (0.5, 0.75, 1.5)


def test_scores_of_rasters_are_written_one_by_one_and_together():
    scores = RasterScores(
        images={"a": SCORES}, cities={}, all=SCORES, without_prediction=["b.tif"]
    )
    written = scores.as_json()
    definitions = written.pop("definitions")
    assert list(written.items()) == [
        ("images", {"a": VALUES}),
        ("cities", {}),
        ("all", VALUES),
        ("without_prediction", ["b.tif"]),
        ("notes", []),
    ]
    assert set(definitions) <= set(VALUES)
    assert definitions["assd_m"] == {
        "group": "boundary",
        "unit": "metres",
        "definition": "as assd",
    }


def test_each_score_is_in_one_of_four_groups_and_says_what_it_is():
    groups = describe_scores("0.9 m")
    assert list(groups) == ["area", "boundary", "buildings", "polygons"]
    columns = [column for group in groups.values() for column in group]
    assert len({column.key for column in columns}) == len(columns)
    assert all(column.definition and column.head for column in columns)
    assert "Boundary IoU 0.9 m" in [column.head for column in columns]
