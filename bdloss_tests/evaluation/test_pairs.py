import shutil

import pytest
from affine import Affine
from rasterio.crs import CRS

from bdloss.evaluation import tables
from bdloss.evaluation.pairs import find_pairs
from bdloss.evaluation.scoring import score_rasters
from bdloss_tests.drawing import HOUSE
from bdloss_tests.scenes import CORNER, make_scene, write_masks, write_raster


def test_pairs_are_made_by_name(tmp_path):
    preds = write_masks(tmp_path / "pred", "b_mask.tif", "a_mask.tif", "a.tif")
    truths = write_masks(tmp_path / "truth", "a.tif", "b.png", "c.tif")
    pairs, left = find_pairs(preds, truths)
    assert [(pair.name, pair.pred.name, pair.truth.name) for pair in pairs] == [
        ("a", "a_mask.tif", "a.tif"),
        ("b", "b_mask.tif", "b.png"),
    ]
    assert [path.name for path in left] == ["c.tif"]
    notes = tables.note_scores(score_rasters(preds, truths))
    assert "1 truths have no prediction and no score: c.tif" in notes
    one, _ = find_pairs(preds / "a.tif", truths / "b.png")
    assert len(one) == 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda pred, truth: (truth / "a.tif").unlink(), "no truth named a"),
        (lambda pred, truth: shutil.rmtree(pred), "no such file or folder"),
        (lambda pred, truth: (pred / "a.tif").unlink(), "no rasters in"),
        (
            lambda pred, truth: write_raster(truth / "a.tif", HOUSE.astype("uint8")),
            "of the size of its truth",
        ),
        (
            lambda pred, truth: write_raster(
                truth / "a.tif",
                make_scene(0, 90, 70)[1],
                transform=CORNER @ Affine.translation(2, 0),
            ),
            "lies where its truth does",
        ),
        (
            lambda pred, truth: write_raster(
                truth / "a.tif", make_scene(0, 90, 70)[1], crs=CRS.from_epsg(32644)
            ),
            "lies where its truth does",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    tmp_path, change, rule
):
    pred = write_masks(tmp_path / "pred", "a.tif")
    truth = write_masks(tmp_path / "truth", "a.tif")
    change(pred, truth)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=rule):
        score_rasters(pred, truth, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
