import json
import math
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from rasterio import Affine
from rasterio.crs import CRS

from bdloss import plots
from bdloss.evaluation import tables
from bdloss.evaluation.pairs import Pair, open_pair
from bdloss.evaluation.scoring import (
    count_pair,
    score_masks,
    score_rasters,
    summarise,
)
from bdloss.geo.geobox import GeoBox
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.polygonize import mask_to_polygons
from bdloss.metrics.boundary_iou import boundary_iou
from bdloss.metrics.buildings import count_instances
from bdloss.metrics.matched_boundaries import matched_boundary_f1
from bdloss.metrics.scores import boundary_f1
from bdloss_tests.drawing import FIELD, HOUSE
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_masks, write_raster


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
        assert not any(value != value for value in values)


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
    assert found.boundary_iou == boundary_iou(known, pred, ignore=255)
    assert found.matched == matched_boundary_f1(known, pred, ignore=255)
    whole = score_rasters(*folders, strip_height=90).all
    assert found.as_json() == whole.as_json()


@pytest.mark.parametrize("height", [7, 30, 64])
def test_outlines_read_in_strips_score_as_the_whole_does(tmp_path, height):
    _, mask = make_scene(4, 160, 140)
    geobox = GeoBox(*mask.shape, CORNER, UTM)
    true = mask_to_polygons(mask, geobox)
    moved = [shapely.affinity.translate(house, 0.4, 0.2) for house in true[1:]]
    paths = tmp_path / "pred.gpkg", tmp_path / "truth.gpkg"
    for path, houses in zip(paths, (moved, true), strict=True):
        write_outlines(path, houses, UTM)
    found, whole = (
        score_rasters(*paths, strip_height=rows).all for rows in (height, 200)
    )
    assert found.as_json() == whole.as_json()
    assert found.instances.buildings == len(true) > 3
    assert found.instances.matched == len(moved)
    # Of the four corners one lies outside, two beside a wall each, one inside.
    corners = math.hypot(0.4, 0.2), 0.4, 0.2, 0.2
    assert found.polygons.polis == pytest.approx(sum(corners) / 4)
    assert found.polygons.n_ratio < 1


def test_buildings_that_touch_are_told_apart_by_their_outlines(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:17, 5:25] = 1
    pred = write_raster(tmp_path / "pred.tif", mask)
    houses = [
        shapely.box(*CORNER @ (left, 17), *CORNER @ (left + 10, 5)) for left in (5, 15)
    ]
    write_outlines(tmp_path / "truth.gpkg", houses, UTM)
    write_raster(tmp_path / "truth.tif", mask)
    outlined = score_rasters(pred, tmp_path / "truth.gpkg")
    # The region covers half of either: it merges them, if it covers more than that.
    assert (outlined.all.instances.buildings, outlined.all.instances.merged) == (2, 2)
    assert "The true buildings are its outlines, touching or not." in outlined.notes
    masked = score_rasters(pred, tmp_path / "truth.tif")
    assert (masked.all.instances.buildings, masked.all.instances.merged) == (1, 0)
    assert outlined.all.iou == masked.all.iou == 1


def test_outlines_that_cross_themselves_are_mended_and_counted(tmp_path):
    corner = CORNER @ (5, 20)
    bow = shapely.Polygon([(0, 0), (6, 6), (6, 0), (0, 6)])
    bow = shapely.affinity.translate(bow, *corner)
    for name in ("pred", "truth"):
        write_outlines(tmp_path / f"{name}.gpkg", [bow], UTM)
    result = score_rasters(tmp_path / "pred.gpkg", tmp_path / "truth.gpkg")
    assert "2 outlines were not valid, and were mended." in result.notes
    assert result.all.polygons.polis == 0


def test_depth_of_boundary_iou_in_metres(tmp_path):
    mask = make_scene(4, 90, 70)[1]
    truth = write_raster(tmp_path / "truth.tif", mask)
    pred = write_raster(tmp_path / "pred.tif", np.roll(mask, 2, axis=1))
    metres = score_rasters(pred, truth, distance_m=1.5).all
    pixels = score_rasters(pred, truth, distance=5).all
    assert metres.boundary_iou == pixels.boundary_iou
    assert (metres.depth, pixels.depth) == ("1.5 m", "5 px")
    table = tables.tabulate_scores(score_rasters(pred, truth, distance_m=1.5))
    assert table["boundary"][0][1] == "Boundary IoU 1.5 m"
    plain = write_raster(tmp_path / "plain.tif", mask, crs=None, transform=None)
    with pytest.raises(ValueError, match="a distance in metres needs a CRS"):
        score_rasters(plain, plain, distance_m=1.5)


@pytest.mark.parametrize("code", [32645, 2263, 3857])
def test_distances_of_outlines_are_in_metres_of_the_ground(tmp_path, code):
    crs = CRS.from_epsg(code)  # 2263 is in feet; a metre of 3857 is shorter
    unit = {32645: 1.0, 2263: 0.3048006, 3857: math.cos(math.radians(40.7))}[code]
    at = {32645: (353875, 3057565), 2263: (990000, 200000), 3857: (-8.24e6, 4.967e6)}
    place = Affine.translation(*at[code]) @ Affine.scale(1 / unit)
    for name, left in (("truth", 0.0), ("pred", 1.0)):
        house = shapely.box(*place @ (left, 0.0), *place @ (left + 8, 6.0))
        write_outlines(tmp_path / f"{name}.gpkg", [house], crs)
    mask = np.ones((60, 80), np.uint8)
    corner = place @ Affine.translation(-2, 12) @ Affine.scale(0.25, -0.25)
    raster = write_raster(tmp_path / "area.tif", mask, crs=crs, transform=corner)
    with open_pair(
        Pair("town", raster, tmp_path / "truth.gpkg"), outlines=tmp_path / "pred.gpkg"
    ) as reader:
        scores = summarise([count_pair(reader)])
    assert scores.polygons.polis == pytest.approx(0.5, rel=0.01)  # of 1, 1, 0 and 0
    assert scores.distances_m.hd95 == pytest.approx(1, rel=0.01)
    assert scores.distances.hd95 == 4


def test_outlines_that_lie_elsewhere_are_refused(tmp_path):
    house = shapely.box(*CORNER @ (5, 17), *CORNER @ (15, 5))
    write_outlines(tmp_path / "truth.gpkg", [house], UTM)
    away = shapely.affinity.translate(house, 500)
    write_outlines(tmp_path / "pred.gpkg", [away], UTM)
    with pytest.raises(ValueError, match="must overlap the true ones"):
        score_rasters(tmp_path / "pred.gpkg", tmp_path / "truth.gpkg")


def test_inria_is_pooled_by_city(tmp_path):
    names = ("austin1.tif", "austin36.tif", "tyrol-w2.tif")
    preds = write_masks(tmp_path / "pred", *names)
    truths = write_masks(tmp_path / "truth", *names, off=2)
    result = score_rasters(preds, truths)
    assert set(result.cities) == {"austin", "tyrol-w"}
    masks = [make_scene(seed, 90, 70)[1] for seed in (0, 1)]
    expected = score_masks([(np.roll(mask, 2, axis=0), mask) for mask in masks])
    metres = result.cities["austin"].distances_m
    assert result.cities["austin"] == replace(expected, distances_m=metres)
    assert metres.assd == pytest.approx(0.3 * expected.distances.assd)
    assert expected.images == 2

    (preds / "austin36.tif").rename(preds / "new-austin36.tif")
    (truths / "austin36.tif").rename(truths / "new-austin36.tif")
    assert score_rasters(preds, truths).cities == {}


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
    assert "means over 2 of 2 images" in text
    assert "| polygons |" not in text
    assert "No scores of polygons: no outlines of truth and prediction." in text
    right, wrong = (cv2.imread(str(out / f"{name}_errors.png")) for name in "ab")
    missed = (wrong[..., ::-1] == plots.ERRORS["missed"]).all(-1)
    assert right.shape == wrong.shape == (300, 520, 3)
    assert missed[150:, 400:].any()
    assert not missed[:150].any()
    assert not (right[..., ::-1] == plots.ERRORS["missed"]).all(-1).any()


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
