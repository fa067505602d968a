import json
import math
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from bdloss import plots
from bdloss.evaluation import scoring, tables
from bdloss.evaluation.scoring import find_pairs, score_masks, score_rasters
from bdloss.metrics.buildings import count_instances
from bdloss.metrics.scores import boundary_f1
from bdloss_tests.drawing import FIELD, HOUSE
from bdloss_tests.scenes import CORNER, make_scene, write_raster


def write_masks(folder, *names, shape=(90, 70), off=0):
    """Write a mask of seeded houses for each name, rolled by some rows."""
    for seed, name in enumerate(names):
        mask = np.roll(make_scene(seed, *shape)[1], off, axis=0)
        write_raster(folder / name, mask)
    return folder


def test_iou_is_pooled_and_bf1_a_mean_over_images_with_a_boundary():
    moved = np.roll(HOUSE, 1, axis=1)
    scores = score_masks([(HOUSE, moved), (HOUSE, FIELD), (FIELD, FIELD)])
    assert scores.iou == pytest.approx(20 / (30 + 25))
    assert scores.boundary[3].f1 == pytest.approx((1 + 0) / 2)
    assert scores.accuracy == pytest.approx(1 - (10 + 25) / (3 * 72))
    assert (scores.images, scores.images_with_boundary) == (3, 2)


def test_pixels_masked_in_the_prediction_do_not_count():
    pred = HOUSE.copy()
    pred[:, 4:] = 255
    assert score_masks([(HOUSE, pred)]).iou == 1


def test_scores_that_nothing_speaks_for_are_none():
    scores = score_masks([(FIELD, FIELD)])
    assert math.isnan(scores.iou)
    assert all(math.isnan(part) for part in scores.boundary[3])
    assert scores.accuracy == 1
    values = scores.as_json()
    assert values["iou"] is None
    assert values["bf1_3"] is None


def test_means_are_of_precision_and_recall_too_and_buildings_are_summed():
    scores = score_masks([(HOUSE, FIELD), (FIELD, HOUSE), (FIELD, FIELD)])
    precision, recall, f1 = scores.boundary[3]
    assert precision == recall == 0.5  # (1, 0) and (0, 1)
    assert f1 == scores.boundary[5].f1 == 0
    assert (scores.instances.buildings, scores.instances.false_negatives) == (1, 1)
    assert (scores.instances.regions, scores.instances.false_positives) == (1, 1)
    assert scores.pixels == 3 * HOUSE.size


def test_teeth_that_bf1_does_not_see_make_the_boundary_long():
    true = np.zeros((20, 30), np.uint8)
    true[4:16, 5:25] = 1  # 2 x 12 + 2 x 18 pixels of boundary
    teeth = true.copy()
    teeth[3, 5:25:2] = 1  # ten more; the row below loses what they cover
    teeth[:, 28:] = 255
    scores = score_masks([(true, teeth)] * 2)
    # A corner keeps its neighbour at the side.
    assert scores.boundary_ratio == (60 - 9 + 10) / 60
    assert scores.boundary[3].f1 == 1


def test_no_score_is_not_a_number():
    for pairs in ([], [(FIELD, FIELD)], [(FIELD + 255, HOUSE)]):
        values = score_masks(pairs).as_json().values()
        assert not any(value is not None and math.isnan(value) for value in values)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="of the shape of its truth"):
        score_masks([(HOUSE, HOUSE[:3])])


@pytest.mark.parametrize("height", [7, 30, 64])
def test_rasters_read_in_strips_score_as_the_whole_does(tmp_path, height):
    true, pred = make_scene(4, 90, 70)[1], make_scene(4, 90, 70)[1]
    pred = np.roll(pred, (4, 1), (0, 1))
    pred[40:50, 20:40] = 255
    write_raster(tmp_path / "truth" / "a.tif", true * 255)
    write_raster(tmp_path / "pred" / "a.tif", pred, nodata=255)
    folders = tmp_path / "pred", tmp_path / "truth"
    found = score_rasters(*folders, strip_height=height).all
    known = np.where(pred == 255, 255, true)
    assert found.boundary[3].f1 == boundary_f1(known, pred, 3, ignore=255).f1
    assert found.boundary[5].f1 == boundary_f1(known, pred, 5, ignore=255).f1
    assert found.instances == count_instances(known, pred, ignore=255)
    assert found.pixels == 90 * 70 - 200
    assert 0 < found.boundary[3].f1 < found.boundary[5].f1 < 1


def test_inria_is_pooled_by_city(tmp_path):
    names = ("austin1.tif", "austin36.tif", "tyrol-w2.tif")
    preds = write_masks(tmp_path / "pred", *names)
    truths = write_masks(tmp_path / "truth", *names, off=2)
    result = score_rasters(preds, truths)
    assert set(result.cities) == {"austin", "tyrol-w"}
    masks = [make_scene(seed, 90, 70)[1] for seed in (0, 1)]
    expected = score_masks([(np.roll(mask, 2, axis=0), mask) for mask in masks])
    assert result.cities["austin"] == expected
    assert expected.images == 2

    (preds / "austin36.tif").rename(preds / "new-austin36.tif")
    (truths / "austin36.tif").rename(truths / "new-austin36.tif")
    assert score_rasters(preds, truths).cities == {}


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


@pytest.fixture
def scored(tmp_path):
    """A folder of scores: two towns, one of them wrong in its lower right corner."""
    for seed, name in enumerate(("a", "b")):
        pixels, mask = make_scene(seed, 300, 520)
        write_raster(tmp_path / "images" / f"{name}.tif", pixels)
        write_raster(tmp_path / "truth" / f"{name}.tif", mask)
        if name == "b":
            mask[150:, 400:] = 0
        write_raster(tmp_path / "pred" / f"{name}.tif", mask)
    out = tmp_path / "out"
    folders = (tmp_path / name for name in ("pred", "truth"))
    result = score_rasters(*folders, out, images=tmp_path / "images")
    return out, result


def test_scores_are_written_with_pictures(scored):
    out, result = scored
    assert {path.name for path in out.iterdir()} == {
        *("scores.json", "scores.md", "worst.png", "best.png"),
        *("a_errors.png", "b_errors.png"),
    }
    assert json.loads((out / "scores.json").read_text()) == result.as_json()
    text = (out / "scores.md").read_text()
    assert "| a | 1.0000 | 1.0000 |" in text
    assert "the mean over 2 of 2 images" in text
    right, wrong = (cv2.imread(str(out / f"{name}_errors.png")) for name in "ab")
    missed = (wrong[..., ::-1] == plots.ERRORS["missed"]).all(-1)
    assert right.shape == wrong.shape == (300, 520, 3)
    assert missed[150:, 400:].any()
    assert not missed[:150].any()
    assert not (right[..., ::-1] == plots.ERRORS["missed"]).all(-1).any()


def test_windows_are_ranked_by_iou_and_lie_inside(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "draw_windows", lambda some, path: drawn.update({path.stem: some})
    )
    true = make_scene(1, 300, 520)[1]
    pred = true.copy()
    pred[150:, 400:] = 0
    write_raster(tmp_path / "truth.tif", true)
    write_raster(tmp_path / "pred.tif", pred)
    score_rasters(tmp_path / "pred.tif", tmp_path / "truth.tif", tmp_path / "out")
    worst, best = drawn["worst"][0], drawn["best"][0]
    assert worst.title.endswith("row 44, column 264")  # 300 - 256, 520 - 256
    part = (slice(44, None), slice(264, None))
    np.testing.assert_array_equal(worst.true, true[part])
    np.testing.assert_array_equal(worst.pred, pred[part])
    assert "IoU 1.00" in best.title
    assert best.pixels is None
    # 300 x 520 pixels have room for two windows; the grid of them has six.
    for samples in drawn.values():
        columns = sorted(int(one.title.split()[-1]) for one in samples)
        assert len(columns) == 1 or columns[1] - columns[0] >= 256


def test_a_large_error_map_is_thinned_evenly(tmp_path):
    true, pred = make_scene(2, 90, 70)[1], np.roll(make_scene(2, 90, 70)[1], 4, 1)
    write_raster(tmp_path / "truth.tif", true)
    write_raster(tmp_path / "pred.tif", pred)
    paths = (tmp_path / f"{name}.tif" for name in ("pred", "truth"))
    score_rasters(*paths, tmp_path / "out", strip_height=31, picture_side=40)
    found = cv2.imread(str(tmp_path / "out" / "pred_errors.png"))[..., ::-1]
    whole = plots.colour_errors(plots.mark_errors(true, pred, 3))
    np.testing.assert_array_equal(found, whole[::3, ::3])


def test_memory_does_not_grow_with_the_height(tmp_path):
    part = make_scene(3, 128, 480)[1]
    peaks = []
    for times in (2, 32):
        mask = np.tile(part, (times, 1))
        for name in ("pred", "truth"):
            write_raster(tmp_path / f"{name}{times}.tif", mask)
        paths = [tmp_path / f"{name}{times}.tif" for name in ("pred", "truth")]
        tracemalloc.start()
        score_rasters(
            *paths,
            tmp_path / f"out{times}",
            strip_height=64,
            picture_side=64,
            min_building_fraction=2,  # draws no windows
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.2 * 30 * part.size


def test_stages_are_drawn_where_the_boundary_is_longest(tmp_path):
    true = np.zeros((80, 120), np.uint8)
    true[50:60, 90:100] = true[10:14, 10:14] = 1
    truth = write_raster(tmp_path / "truth.tif", true)
    prob = write_raster(tmp_path / "a_prob.tif", true * 200, nodata=255)
    with rasterio.open(prob, "r+") as target:
        target.scales = (1 / 254,)
    image = write_raster(tmp_path / "image.tif", make_scene(0, 80, 120)[0])
    path = tmp_path / "figure.png"
    window = scoring.draw_stages(prob, truth, path, image, side=40)
    assert window == (40, 80, 40, 40)
    assert cv2.imread(str(path)).std() > 20
    with pytest.raises(FileExistsError, match="give --overwrite"):
        scoring.draw_stages(prob, truth, path)
    with pytest.raises(ValueError, match="the corner must lie in 80 rows"):
        scoring.draw_stages(prob, truth, path, corner=(80, 0), overwrite=True)
    with pytest.raises(ValueError, match="theta must not be less"):
        scoring.draw_stages(prob, truth, tmp_path / "no.png", theta0=7)
    assert not (tmp_path / "no.png").exists()
