import shutil

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from bdloss.evaluation import tables
from bdloss.evaluation.pairs import Pair, find_pairs, open_pair
from bdloss.evaluation.scoring import score_rasters
from bdloss.geo.outline_writer import write_outlines
from bdloss_tests.drawing import HOUSE
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_masks, write_raster


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
        (
            lambda pred, truth: (pred / "a.tif").unlink(),
            "no rasters and no files of outlines in",
        ),
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


HOUSES = [shapely.box(*CORNER @ (5, 17), *CORNER @ (15, 5))]
HOUSES.append(shapely.affinity.translate(HOUSES[0], 0.3 * 10))  # it touches the first


@pytest.mark.parametrize("truth_is", ["mask", "outlines", "outlines in degrees"])
@pytest.mark.parametrize("pred_is", ["mask", "outlines"])
def test_either_side_may_be_a_mask_or_outlines(tmp_path, truth_is, pred_is):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:17, 5:25] = 1
    paths = []
    for name, kind in (("truth", truth_is), ("pred", pred_is)):
        if kind == "mask":
            paths.append(write_raster(tmp_path / f"{name}.tif", mask))
            continue
        suffix = ".geojson" if "degrees" in kind else ".gpkg"
        paths.append(tmp_path / f"{name}{suffix}")
        write_outlines(paths[-1], HOUSES, UTM)
    with open_pair(Pair("town", paths[1], paths[0])) as reader:
        height = reader.geobox.height
        true, pred = reader.rows(0, height)
        labels = reader.labels(0, height)
        outlines = reader.outlines()
    if truth_is != "outlines in degrees" or pred_is == "mask":
        np.testing.assert_array_equal(true, pred)
    assert abs(int(true.sum()) - mask.sum()) <= 12 + 20  # half a pixel all round
    for kind, one, polygons in zip((truth_is, pred_is), labels, outlines, strict=True):
        if kind == "mask":
            assert one is None
            assert polygons is None
        else:
            assert np.unique(one).tolist() == [0, 1, 2]
            assert len(polygons) == 2


def test_folders_of_outlines_are_paired_by_name(tmp_path):
    for folder, names in (("pred", "ab"), ("truth", "abc")):
        (tmp_path / folder).mkdir()
        for name in names:
            ending = "_buildings.gpkg" if folder == "pred" else ".geojson"
            write_outlines(tmp_path / folder / f"{name}{ending}", HOUSES, UTM)
    pairs, left = find_pairs(tmp_path / "pred", tmp_path / "truth")
    assert [(pair.name, pair.pred.name, pair.truth.name) for pair in pairs] == [
        ("a", "a_buildings.gpkg", "a.geojson"),
        ("b", "b_buildings.gpkg", "b.geojson"),
    ]
    assert [path.name for path in left] == ["c.geojson"]


def write_layers(path):
    for layer in ("a", "b"):
        write_wkb(path, HOUSES, layer=layer, append=layer == "b")


def write_wkb(path, shapes, geometry_type="Polygon", **settings):
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes)),
        field_data=[],
        fields=[],
        crs=UTM.to_wkt(),
        geometry_type=geometry_type,
        driver="GPKG",
        **settings,
    )


@pytest.mark.parametrize(
    ("write", "rule"),
    [
        (write_layers, "must be one layer of polygons"),
        (
            lambda path: write_wkb(
                path, [house.exterior for house in HOUSES], "LineString"
            ),
            "must be one layer of polygons, got none",
        ),
        (lambda path: write_outlines(path, HOUSES, None), "both have a CRS or both"),
        (
            lambda path: write_outlines(
                path, [shapely.affinity.translate(HOUSES[0], 900)], UTM
            ),
            "must overlap the",
        ),
        (lambda path: path.write_bytes(b"no database"), "not a file of outlines"),
    ],
)
@pytest.mark.parametrize("other", ["mask", "outlines"])
def test_odd_outlines_are_refused_in_one_line(tmp_path, write, rule, other):
    odd = tmp_path / "odd.gpkg"
    write(odd)
    if other == "mask":
        good = write_raster(tmp_path / "good.tif", np.ones((30, 40), np.uint8))
    else:
        good = tmp_path / "good.gpkg"
        write_outlines(good, HOUSES, UTM)
    for pair in ((odd, good), (good, odd)):
        with pytest.raises(ValueError, match=rule) as caught:
            score_rasters(*pair, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert not (tmp_path / "out").exists()
