import json
import logging
import multiprocessing
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.control import GroundControlPoint
from scipy import ndimage
from shapely import affinity

from bdloss.evaluation.predictions import PredictionScores, count_prediction
from bdloss.geo.geobox import GeoBox
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.polygonize import mask_to_polygons
from bdloss.geo.vector import (
    count_outlines,
    rasterise,
    read_extent,
    read_outlines,
)
from bdloss.inference import batch_size, products
from bdloss.inference.predict import find_images, merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.inference.strips import StripStore
from bdloss_tests.inference.stand_ins import PREDICTOR, bright
from bdloss_tests.scenes import CORNER, UTM, full_disk, make_scene, write_raster

PIXELS, MASK = make_scene(7, 70, 110)


NAMED = ("prob", "polygons", "vector", "overlay", "min_area", "simplify", "format")
NAMED += ("split", "cog", "overviews", "overlay_mask")
NAMED += ("min_hole", "regularize", "min_iou", "irregular")


def predict(image, out, predictor=PREDICTOR, resume=True, **settings):
    """Predict into a folder, with settings of the products among the others."""
    named = {key: settings.pop(key) for key in NAMED if key in settings}
    products = Products.in_folder(out, image.stem, **named)
    return predict_raster(image, predictor, products, resume=resume, **settings)


def warnings_of(caplog):
    # What is merely told comes too once another test has run a command.
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("bdloss") and record.levelno >= logging.WARNING
    ]


def merge(image, out):
    return merge_shards(image, Products.in_folder(out, image.stem))


@pytest.fixture
def image(tmp_path):
    return write_raster(tmp_path / "town.tif", PIXELS)


def test_products_lie_on_the_image(image, tmp_path):
    truth = write_raster(tmp_path / "truth" / "town.tif", MASK * 255)
    orthophoto = Orthophoto.read(image)
    reduced = PredictionScores(truth.parent).reduced_truth(orthophoto)
    settings = {"prob": True, "overlay": True, "overlay_mask": reduced}
    mapped = predict(image, tmp_path / "out", **settings)
    names = [
        "town_mask.tif",
        "town_prob.tif",
        "town_buildings.gpkg",
        "town_overlay.png",
    ]
    assert [path.name for path in mapped.files] == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    with rasterio.open(mapped.files[0]) as source:
        assert (source.crs, source.transform) == (UTM, CORNER)
        assert source.shape == MASK.shape
        np.testing.assert_array_equal(source.read(1), MASK)
        assert source.tags()["model"] == "bright"
    pixels = count_prediction(orthophoto, mapped.files[0], truth).pixels
    assert (pixels.intersection, pixels.union) == (MASK.sum(), MASK.sum())
    assert pixels.total == MASK.size


def test_polygons_cover_the_mask_and_know_their_area(image, tmp_path):
    settings = {"simplify": 0, "min_area": 0}
    mapped = predict(image, tmp_path / "out", **settings)
    info, _, shapes, (numbers, areas, means) = pyogrio.raw.read(mapped.files[1])
    polygons = shapely.from_wkb(shapes)
    assert info["crs"] == "EPSG:32645"
    assert len(polygons) == mapped.polygons > 1
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(MASK.sum() * 0.09)
    assert areas.sum() == pytest.approx(MASK.sum() * 0.09, rel=0.01)
    assert info["fields"].tolist() == ["id", "area_m2", "probability"]
    assert numbers.tolist() == list(range(1, len(polygons) + 1))
    roofs = bright(PIXELS)[..., 0][MASK == 1]
    assert np.average(means, weights=areas) == pytest.approx(roofs.mean(), abs=0.002)


def test_buildings_are_scored_by_the_outlines_that_were_written(image, tmp_path):
    mapped = predict(image, tmp_path / "out", simplify=0, min_area=20)
    truth = tmp_path / "truth.gpkg"
    write_outlines(truth, mask_to_polygons(MASK, GeoBox(*MASK.shape, CORNER, UTM)), UTM)
    scores = PredictionScores(truth)
    scores.add(Orthophoto.read(image), *mapped.files)
    scores.write(tmp_path / "metrics.json")
    values = json.loads((tmp_path / "metrics.json").read_text())["all"]
    large = mapped.polygons
    assert (values["regions"], values["matched"]) == (large, large)
    assert values["buildings"] > large  # smaller outlines were not written
    assert values["iou"] == values["matched_iou"] == 1
    assert (values["polis"], values["assd_m"]) == (0, 0)
    assert 0 < values["n_ratio"] < 1


def test_outlines_come_from_the_top_whenever_they_were_finished(tmp_path):
    pixels = np.full((90, 60, 3), 40, np.uint8)
    pixels[5:80, 5:15] = 200  # through three bands
    pixels[10:20, 30:50] = 200
    image = write_raster(tmp_path / "town.tif", pixels)
    mapped = predict(image, tmp_path / "out")
    tall, low = read_outlines(mapped.files[1], UTM)
    assert tall.bounds[3] > low.bounds[3]
    assert tall.area > low.area


def two_maps(batch):
    """A network that sees buildings in the first band and contact in the second."""
    return (batch[..., :2] / 255).astype(np.float32)


@pytest.fixture
def row(tmp_path):
    """Four houses in a row, and a tall one through all shards that touches another."""
    pixels = np.zeros((120, 100, 3), np.uint8)
    pixels[20:40, 10:90, 0] = 250
    pixels[20:40, 30:90:20, 1] = 240
    pixels[4:116, 92:96, 0] = pixels[50:70, 70:92, 0] = 250
    pixels[50:70, 91:93, 1] = 240
    return write_raster(tmp_path / "town.tif", pixels)


CONTACT = replace(PREDICTOR, predict=two_maps, targets=("building", "contact"))


def outlines_of(mapped):
    fields = pyogrio.raw.read(mapped.files[1])
    return fields[2].tolist(), [column.tolist() for column in fields[3]]


def test_touching_houses_are_outlined_one_by_one(row, tmp_path):
    mapped = predict(row, tmp_path / "split", CONTACT)
    whole = predict(row, tmp_path / "whole", CONTACT, split=False)
    assert (mapped.polygons, whole.polygons) == (6, 2)
    polygons = read_outlines(mapped.files[1], UTM)
    union = shapely.union_all(read_outlines(whole.files[1], UTM))
    assert shapely.area(polygons).sum() == pytest.approx(union.area)
    assert shapely.union_all(polygons).area == pytest.approx(union.area)
    assert [path.stem for path in mapped.files] == ["town_mask", "town_buildings"]
    with rasterio.open(mapped.files[0]) as split, rasterio.open(whole.files[0]) as one:
        np.testing.assert_array_equal(split.read(1), one.read(1))
        assert [file.tags()["split"] for file in (split, one)] == ["True", "False"]


def test_a_house_across_four_shards_is_one_polygon(row, tmp_path):
    whole = predict(row, tmp_path / "whole", CONTACT)
    for part in range(4):
        predict(row, tmp_path / "shards", CONTACT, shard=(part + 1, 4))
    merged = merge(row, tmp_path / "shards")
    assert merged.polygons == whole.polygons == 6
    assert outlines_of(merged) == outlines_of(whole)
    tall = max(read_outlines(merged.files[1], UTM), key=lambda one: one.length)
    bottom, top = tall.bounds[1::2]
    assert top - bottom == pytest.approx(112 * 0.3)


def test_a_model_that_does_not_know_contact_has_nothing_to_split(row, tmp_path):
    alone = replace(PREDICTOR, predict=lambda batch: two_maps(batch)[..., :1])
    mapped = predict(row, tmp_path / "split", alone)
    whole = predict(row, tmp_path / "whole", alone, split=False)
    assert mapped.polygons == 2
    assert outlines_of(mapped) == outlines_of(whole)


@pytest.fixture
def turned(tmp_path):
    """Two turned houses with ragged walls, of which one has a pin-hole."""
    houses = [
        affinity.rotate(shapely.box(left, 35, left + 34, 80), 25) for left in (15, 60)
    ]
    grid = GeoBox(120, 110, Affine.identity(), None)
    mask = rasterise(houses, grid)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=mask.shape), 1)
    near = ndimage.gaussian_filter(mask.astype(float), 2) + noise / 3 > 0.5
    near[56:59, 30:33] = False
    pixels = np.repeat(250 * near[..., None].astype(np.uint8), 3, axis=2)
    return write_raster(tmp_path / "town.tif", pixels)


def test_outlines_get_right_angles_in_any_shards(turned, tmp_path):
    settings = {"min_hole": 4.0, "regularize": True}
    plain = predict(turned, tmp_path / "plain")
    whole = predict(turned, tmp_path / "whole", **settings)
    assert plain.regularized is None
    regular, before, after = whole.regularized
    polygons, ragged = (
        read_outlines(mapped.files[1], UTM) for mapped in (whole, plain)
    )
    assert (regular, whole.polygons, after) == (2, 2, 8)
    assert [len(one.interiors) for one in polygons] == [0, 0]
    assert sum(len(one.interiors) for one in ragged) == 1
    counted = [len(one.exterior.coords) - 1 for one in ragged]
    assert before == sum(counted) > 16
    with rasterio.open(whole.files[0]) as mask:
        assert (mask.tags()["min_hole"], mask.tags()["regularize"]) == ("4.0", "0.9")
    for part in range(3):
        predict(turned, tmp_path / "shards", shard=(part + 1, 3))
    out = Products.in_folder(tmp_path / "shards", "town", **settings)
    merged = merge_shards(turned, out)
    assert merged.regularized == whole.regularized
    assert outlines_of(merged) == outlines_of(whole)


def test_outlines_without_right_angles_are_there_to_compare(turned, tmp_path):
    aside = tmp_path / "aside.gpkg"
    settings = {"min_hole": 4.0, "regularize": True, "irregular": aside}
    mapped = predict(turned, tmp_path / "out", **settings)
    assert aside not in mapped.files
    plain = predict(turned, tmp_path / "plain", min_hole=4.0)
    assert pyogrio.raw.read(aside)[2].tolist() == outlines_of(plain)[0]


@pytest.mark.parametrize("vector", ["gpkg", "geojson", "fgb", "parquet"])
def test_outlines_in_each_format(image, tmp_path, vector):
    settings = {"vector": vector}
    mapped = predict(image, tmp_path / "out", **settings)
    assert mapped.files[1].name == f"town_buildings.{vector}"
    crs, _ = read_extent(mapped.files[1])
    assert crs.to_epsg() == (4326 if vector == "geojson" else 32645)
    assert count_outlines(mapped.files[1]) == mapped.polygons > 1
    again = predict(
        image, tmp_path / "out", replace(PREDICTOR, predict=pytest.fail), **settings
    )
    assert (again.kept, again.polygons) == (True, mapped.polygons)


def test_outlines_say_how_they_were_made(image, tmp_path):
    mapped = predict(image, tmp_path / "out", threshold=0.6)
    with rasterio.open(mapped.files[0]) as source:
        tags = source.tags()
    tags.pop("AREA_OR_POINT")
    assert pyogrio.read_info(mapped.files[1])["layer_metadata"] == tags
    assert (tags["model"], tags["threshold"], tags["min_area"]) == (
        *("bright", "0.6", "5.0"),
    )


def test_outlines_that_cannot_be_written_are_refused_before_anything_is_predicted(
    image, tmp_path, monkeypatch
):
    never = replace(PREDICTOR, predict=pytest.fail)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'bdloss\[parquet\]'"):
        predict(image, tmp_path / "out", never, vector="parquet")
    assert not (tmp_path / "out").exists()
    parts = Products.in_folder(tmp_path / "parts", "town", vector="parquet")
    for part in (1, 2):
        predict(image, tmp_path / "parts", shard=(part, 2))
    with pytest.raises(ValueError, match=r"pip install 'bdloss\[parquet\]'"):
        merge_shards(image, parts)
    names = [path.name for path in (tmp_path / "parts").iterdir()]
    assert names == ["town_mask.partial"]


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from([16, 32, 64]),
    parts=st.integers(1, 4),
)
def test_a_building_has_one_number_whatever_the_strips(
    tmp_path_factory, seed, window, parts
):
    folder = tmp_path_factory.mktemp("ids")
    random = np.random.default_rng(seed)
    cells = random.random((23, 30)) < 0.4  # of three pixels, often of the same bounds
    pixels = np.kron(np.where(cells, 200, 40)[..., None], np.ones((3, 3, 3), int))
    image = write_raster(folder / "town.tif", pixels.astype(np.uint8))
    how = {"min_area": 0.0, "simplify": 0.0}
    tables = []
    for name, side, count in (("one", 96, 1), ("other", window, parts)):
        for part in range(count):
            shard = {"window": side, "shard": (part + 1, count)}
            predict(image, folder / name, **shard, **how)
        out = Products.in_folder(folder / name, "town", **how)
        if count > 1:
            merge_shards(image, out)
        tables.append(pyogrio.raw.read(out.polygons))
    (_, _, one, (ids, *_)), (_, _, other, _) = tables
    assert shapely.equals(shapely.from_wkb(one), shapely.from_wkb(other)).all()
    assert ids.tolist() == list(range(1, len(one) + 1))


def test_masks_as_the_benchmark_takes_them(tmp_path):
    masked = PIXELS.copy()
    masked[:20, :30] = 0
    image = write_raster(tmp_path / "austin1.tif", masked, nodata=0)
    settings = {"format": "inria", "polygons": False}
    mapped = predict(image, tmp_path / "out", **settings)
    assert [path.name for path in mapped.files] == ["austin1.tif"]
    expected = np.where(MASK == 1, 255, 0)
    expected[:20, :30] = 0
    with rasterio.open(mapped.files[0]) as source:
        assert (source.nodata, source.dtypes) == (None, ("uint8",))
        np.testing.assert_array_equal(source.read(1), expected)
    with pytest.raises(ValueError, match="must not replace an input"):
        predict(image, tmp_path, **settings)


def test_nodata_that_the_image_does_not_tell_of(tmp_path):
    rimmed = PIXELS.copy()
    rimmed[:20, :30] = 0
    rimmed[40, 50] = (0, 0, 200)  # no rim
    image = write_raster(tmp_path / "town.tif", rimmed)
    truth = write_raster(tmp_path / "truth.tif", MASK)
    settings = {"nodata": 0, "polygons": False}
    mapped = predict(image, tmp_path / "out", **settings)
    rim = np.zeros(MASK.shape, bool)
    rim[:20, :30] = True
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1) == 255, rim)
    counts = count_prediction(Orthophoto.read(image, nodata=0), mapped.files[0], truth)
    assert counts.pixels.total == MASK.size - 600
    with pytest.raises(FileExistsError, match=r"declared_nodata 0, not no; give"):
        predict(image, tmp_path / "out", **{**settings, "nodata": None})


@pytest.mark.parametrize("format", ["geotiff", "inria"])
def test_truth_counts_only_where_the_image_has_data(tmp_path, format):
    masked = PIXELS.copy()
    masked[:20, :30] = 0
    image = write_raster(tmp_path / "town.tif", masked, nodata=0)
    truth = write_raster(tmp_path / "truth.tif", MASK)
    settings = {"format": format, "polygons": False}
    mapped = predict(image, tmp_path / "out", **settings)
    pixels = count_prediction(Orthophoto.read(image), mapped.files[0], truth).pixels
    assert pixels.total == MASK.size - 600
    assert pixels.intersection == pixels.union == MASK.sum() - MASK[:20, :30].sum() > 0


@pytest.mark.parametrize("cog", [True, False])
def test_rasters_with_overviews(tmp_path, cog):
    pixels, mask = make_scene(2, 700, 1100)
    image = write_raster(tmp_path / "town.tif", pixels)
    settings = {"cog": cog, "overviews": True, "prob": True, "window": 256}
    mapped = predict(image, tmp_path / "out", **settings)
    for path in mapped.files[:2]:
        with rasterio.open(path) as source:
            layout = source.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
            assert layout == ("COG" if cog else None)
            assert source.overviews(1)
            assert source.tags()["model"] == "bright"
            assert (source.crs, source.transform) == (UTM, CORNER)
            assert source.nodata == 255
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1), mask)
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("batch", "gpu", "expected"), [(None, False, 4), (None, True, 16), (3, True, 3)]
)
def test_windows_at_a_time(image, tmp_path, monkeypatch, batch, gpu, expected):
    seen = []

    def count(patches):
        seen.append(len(patches))
        return bright(patches)

    monkeypatch.setattr(batch_size, "has_gpu", lambda: gpu)
    monkeypatch.setattr(batch_size, "find_batch", lambda predict, shape: 16)
    predictor = replace(PREDICTOR, predict=count)
    settings = {"batch": batch, "polygons": False}
    predict(image, tmp_path / "out", predictor, **settings)
    assert set(seen) == {expected}


@pytest.mark.parametrize(
    ("models", "asked", "used"),
    [("flips", None, "flips"), ("flips", "none", "none"), ("none", "d4", "d4")],
)
def test_augmentation_is_the_models_unless_another_is_asked_for(
    image, tmp_path, models, asked, used
):
    predictor = replace(PREDICTOR, tta=models)
    settings = {"tta": asked, "polygons": False}
    mapped = predict(image, tmp_path / "out", predictor, **settings)
    with rasterio.open(mapped.files[0]) as source:
        assert source.tags()["tta"] == used


def test_bands_by_choice(tmp_path):
    five = np.dstack([PIXELS[..., :1] // 4, PIXELS, PIXELS[..., :1] // 4])
    image = write_raster(tmp_path / "town.tif", five)
    with pytest.raises(ValueError, match=r"takes 3 bands, town\.tif has 5"):
        predict(image, tmp_path / "out")
    with pytest.raises(ValueError, match=r"from 1 to 5, got \[2, 3, 6\]"):
        predict(image, tmp_path / "out", band_indexes=(2, 3, 6))
    mapped = predict(image, tmp_path / "out", band_indexes=(4, 3, 2))
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1), MASK)


def test_a_rotated_raster_keeps_its_transform(tmp_path):
    turned = CORNER @ Affine.rotation(30)
    image = write_raster(tmp_path / "town.tif", PIXELS, transform=turned)
    settings = {"simplify": 0, "min_area": 0}
    mapped = predict(image, tmp_path / "out", **settings)
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_allclose(source.transform[:6], turned[:6])
    polygons = shapely.from_wkb(pyogrio.raw.read(mapped.files[1])[2])
    rows, cols = np.nonzero(MASK)
    x, y = turned @ (cols + 0.5, rows + 0.5)
    assert shapely.area(polygons).sum() == pytest.approx(MASK.sum() * 0.09)
    assert shapely.contains_xy(shapely.union_all(polygons), x, y).all()


def write_with_points(path, points):
    """Write the town with ground control points in the place of a transform."""
    write_raster(path, PIXELS, crs=None, transform=None)
    with rasterio.open(path, "r+") as target:
        target.gcps = (points, UTM)
    return path


def test_control_points_are_kept_and_said(tmp_path, caplog):
    points = [
        GroundControlPoint(row, col, 353900 + 0.3 * col, 3057500 - 0.3 * row)
        for row, col in ((0, 0), (0, 109), (69, 0), (69, 109))
    ]
    image = write_with_points(tmp_path / "town.tif", points)
    mapped = predict(image, tmp_path / "out")
    with rasterio.open(mapped.files[0]) as source:
        kept, crs = source.gcps
    assert crs == UTM
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [
        (p.row, p.col, p.x, p.y) for p in points
    ]
    (line,) = warnings_of(caplog)
    assert "town.tif: has ground control points" in line
    assert "its outlines are placed by the affine map" in line
    plain = write_raster(tmp_path / "plain.tif", PIXELS)
    expected = predict(plain, tmp_path / "out")
    assert pyogrio.read_info(mapped.files[1])["crs"] == "EPSG:32645"
    for placed, straight in zip(
        read_outlines(mapped.files[1], UTM),
        read_outlines(expected.files[1], UTM),
        strict=True,
    ):
        assert placed.equals_exact(straight, 1e-3)


@pytest.mark.parametrize(
    ("profile", "trained", "expected"),
    [
        ({}, 0.3, []),
        ({}, 0.26, []),
        ({}, None, []),
        ({}, 0.2, ["town.tif: has 0.3 m a pixel, the model was trained at 0.2; "]),
        ({}, 0.5, ["town.tif: has 0.3 m a pixel, the model was trained at 0.5; "]),
        ({"crs": None, "transform": None}, 0.3, ["town.tif: has no CRS, so its mask"]),
    ],
)
def test_what_is_odd_with_an_image_is_said(
    tmp_path, caplog, profile, trained, expected
):
    image = write_raster(tmp_path / "town.tif", PIXELS, **profile)
    predictor = replace(PREDICTOR, resolution=trained)
    predict(image, tmp_path / "out", predictor, resolution="native")
    assert len(warnings_of(caplog)) == len(expected)
    for line, start in zip(warnings_of(caplog), expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("placed", "trained", "wanted", "resampled", "says"),
    [
        (0.3, 0.3, None, "no", None),
        (0.3, 0.35, "auto", "no", None),
        (0.3, 0.6, None, "0.6", "resampled from 0.3 to the 0.6 m a pixel that the mod"),
        (0.3, 0.15, "auto", "0.15", "resampled from 0.3 to the 0.15 m a pixel"),
        (0.3, 0.15, "native", "no", None),
        (0.3, 0.15, 0.2, "0.2", None),
        (0.3, None, None, "no", "not resampled: the model knows no resolution"),
        (None, 0.3, None, "no", "not brought to the model's 0.3 m a pixel: its own is"),
        (None, None, None, "no", "not resampled: the model knows no resolution"),
    ],
)
def test_an_image_is_brought_to_the_resolution_of_the_model(
    tmp_path, caplog, placed, trained, wanted, resampled, says
):
    place = {} if placed else {"crs": None, "transform": None}
    image = write_raster(tmp_path / "town.tif", PIXELS, **place)
    caplog.set_level(logging.INFO, "bdloss")
    predictor = replace(PREDICTOR, resolution=trained)
    settings = {} if wanted is None else {"resolution": wanted}
    made = predict(image, tmp_path / "out", predictor, **settings)
    with rasterio.open(made.files[0]) as source:
        assert source.tags()["resampled"] == resampled
        assert source.shape == PIXELS.shape[:2]
    told = [
        line for line in caplog.messages if "resampled" in line or "brought" in line
    ]
    assert len(told) == (says is not None)
    assert not told or told[0].startswith(f"town.tif: {says}")


def test_points_on_one_line_place_nothing(tmp_path, caplog):
    points = [GroundControlPoint(i, i, 353900 + i, 3057500 - i) for i in (0, 20, 60)]
    image = write_with_points(tmp_path / "town.tif", points)
    mapped = predict(image, tmp_path / "out")
    assert warnings_of(caplog) == [
        "town.tif: has no CRS, so its mask and outlines have none"
    ]
    assert pyogrio.read_info(mapped.files[1])["crs"] is None


@pytest.mark.parametrize("crs", [UTM, None])
def test_jpeg_2000_with_and_without_georeference(tmp_path, crs):
    placed = {"crs": crs, "transform": CORNER if crs else None}
    lossless = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
    image = write_raster(tmp_path / "town.jp2", PIXELS, **placed, **lossless)
    assert find_images([tmp_path]) == [image]
    mapped = predict(image, tmp_path / "out")
    with rasterio.open(mapped.files[0]) as source:
        assert (source.driver, source.crs) == ("GTiff", crs)
        assert source.transform == (CORNER if crs else Affine.identity())
        np.testing.assert_array_equal(source.read(1), MASK)
    assert (pyogrio.read_info(mapped.files[1])["crs"] is None) == (crs is None)
    assert mapped.polygons > 1


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_a_model_may_ask_for_the_resolution_of_an_image_without_one(tmp_path, wanted):
    image = write_raster(tmp_path / "town.tif", PIXELS, crs=None, transform=None)
    asks = replace(PREDICTOR, resolution=0.3, needs_resolution=True)
    settings = {} if wanted is None else {"resolution": wanted}
    with pytest.raises(ValueError, match="unknown without a CRS; --resolution native"):
        predict(image, tmp_path / "out", asks, **settings)
    assert not (tmp_path / "out").exists()
    assert predict(image, tmp_path / "out", asks, resolution="native").polygons
    placed = write_raster(tmp_path / "placed.tif", PIXELS)
    assert predict(placed, tmp_path / "out", asks).polygons


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (300, 200, 3), np.uint8)
    image = write_raster(tmp_path / "town.tif", noise)
    settings = {"prob": True, "polygons": False}
    out = tmp_path / "out"
    whole = predict(image, tmp_path / "whole", **settings)
    sizes = [path.stat().st_size for path in whole.files]
    with full_disk(100), pytest.raises(OSError, match="too large"):
        predict(image, out, **settings)
    assert not out.exists()  # there was no room to begin
    for size in (1000, sizes[0] - 100, sizes[1] - 100):
        with full_disk(size), pytest.raises(OSError, match=r"too large|the disk full"):
            predict(image, out, **settings)
        assert [path.name for path in out.iterdir()] == ["town_mask.partial"]
    again = predict(image, out, **settings)
    assert sorted(out.iterdir()) == sorted(again.files)
    for path, other in zip(again.files, whole.files, strict=True):
        assert path.read_bytes() == other.read_bytes()


def test_small_polygons_are_left_out(image, tmp_path):
    every = predict(image, tmp_path / "every", min_area=0)
    areas = pyogrio.raw.read(every.files[1], columns=["area_m2"])[3][0]
    settings = {"min_area": float(np.median(areas))}
    large = predict(image, tmp_path / "large", **settings)
    assert 0 < large.polygons < every.polygons


def test_raster_without_crs_keeps_none(tmp_path):
    image = write_raster(tmp_path / "plain.tif", PIXELS, crs=None, transform=None)
    with pytest.raises(ValueError, match="min_hole is in square metres, which a raste"):
        predict(image, tmp_path / "out", min_hole=4.0)
    assert not (tmp_path / "out").exists()
    mapped = predict(image, tmp_path / "out")
    assert mapped.polygons > 1
    assert pyogrio.read_info(mapped.files[1])["crs"] is None


def test_finished_outputs_are_kept_unless_overwritten(image, tmp_path):
    out = tmp_path / "out"
    first = predict(image, out)
    before = [path.stat().st_mtime_ns for path in first.files]
    never = replace(PREDICTOR, predict=pytest.fail)
    again = predict(image, out, never)
    assert again.kept
    assert (again.files, again.polygons) == (first.files, first.polygons)
    assert [path.stat().st_mtime_ns for path in first.files] == before
    settings = {"overwrite": True, "threshold": 1.0}
    mapped = predict(image, out, **settings)
    assert (mapped.polygons, mapped.kept) == (0, False)


@pytest.mark.parametrize(
    ("settings", "predictor", "says"),
    [
        ({"resume": False}, PREDICTOR, "exists; give --overwrite"),
        ({"threshold": 0.4}, PREDICTOR, "threshold 0.5, not 0.4; give"),
        ({"band_indexes": (3, 2, 1)}, PREDICTOR, "bands 1,2,3, not 3,2,1; give"),
        ({"resolution": 0.6}, PREDICTOR, "resampled no, not 0.6; give"),
        ({"min_area": 9.0}, PREDICTOR, "min_area 5.0, not 9.0; give"),
        ({"simplify": 0.0}, PREDICTOR, "simplify 1.0, not 0.0; give"),
        ({"split": False}, PREDICTOR, "split True, not False; give"),
        ({"min_hole": 4.0}, PREDICTOR, "min_hole 0.0, not 4.0; give"),
        ({"regularize": True}, PREDICTOR, "regularize False, not 0.9; give"),
        ({"cog": True}, PREDICTOR, "cog False, not True; give"),
        ({"vector": "fgb"}, PREDICTOR, "town_buildings.fgb does not; give"),
        ({"overlay": True}, PREDICTOR, "town_overlay.png does not; give"),
        ({}, replace(PREDICTOR, digest="b1"), "model_sha256 bright, not b1"),
    ],
)
def test_other_outputs_are_not_taken_for_finished(
    image, tmp_path, settings, predictor, says
):
    predict(image, tmp_path / "out")
    with pytest.raises(FileExistsError, match=says):
        predict(image, tmp_path / "out", predictor, **settings)


def test_a_run_that_failed_half_way_goes_on(image, tmp_path):
    out = tmp_path / "out"
    settings = {"overlap": 16, "batch": 1}
    whole = predict(image, tmp_path / "whole", **settings)
    places = []

    def count(batch):
        places.append(1)
        if len(places) == 15:  # in the third of four rows of windows
            raise OSError("No space left on device")
        return bright(batch)

    counted = replace(PREDICTOR, predict=count)
    with pytest.raises(OSError, match="No space"):
        predict(image, out, counted, **settings)
    assert [path.name for path in out.iterdir()] == ["town_mask.partial"]
    with pytest.raises(ValueError, match=r"threshold 0.5, not 0.7; give --no-resume"):
        predict(image, out, counted, **{**settings, "threshold": 0.7})
    resumed = predict(image, out, counted, **settings)
    assert len(places) < 15 + 24
    assert sorted(out.iterdir()) == sorted(resumed.files)
    for one, other in zip(whole.files, resumed.files, strict=True):
        if one.suffix == ".tif":
            assert one.read_bytes() == other.read_bytes()
    assert resumed.polygons == whole.polygons


def test_images_of_a_folder_are_not_what_we_wrote_there(image, tmp_path):
    write_raster(tmp_path / "b_mask.tif", PIXELS)  # of nothing that is here
    for name in ("town_mask.tif", "town_prob.tif", "._town.tif"):
        write_raster(tmp_path / name, MASK)
    (tmp_path / "notes.txt").write_text("no raster")
    found = find_images([tmp_path, tmp_path / "x" / "c.tif"])
    assert [path.name for path in found] == ["b_mask.tif", "town.tif", "c.tif"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no raster .* in this folder: .*empty"):
        find_images([tmp_path / "empty"])


def test_bad_input_leaves_no_output(image, tmp_path):
    out = tmp_path / "out"
    one_band = write_raster(tmp_path / "grey.tif", PIXELS[..., :1])
    text = tmp_path / "text.tif"
    text.write_text("hello")
    for raster, settings, rule in [
        (one_band, {}, "takes 3 bands, grey.tif has 1"),
        (image, {"window": 40}, "multiple of 16"),
        (image, {"window": 0}, "multiple of 16 .* got 0"),
        (image, {"overlap": 32}, "overlap must be"),
        (text, {}, "not a raster"),
    ]:
        with pytest.raises(ValueError, match=rule):
            predict(raster, out, **settings)
        assert not out.exists()


def test_truth_of_another_size_is_refused_before_anything_is_predicted(image, tmp_path):
    small = write_raster(tmp_path / "truth" / "town.tif", MASK[:50])
    with pytest.raises(ValueError, match="a mask is of the size"):
        PredictionScores(small.parent).reduced_truth(Orthophoto.read(image))


def test_failure_at_the_last_product_leaves_none(image, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(products.plots, "write_picture", fail)
    with pytest.raises(OSError, match="No space"):
        predict(image, tmp_path / "out", overlay=True)
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names == ["town_mask.partial"]  # what was predicted


def test_names_must_differ(tmp_path):
    find_images([tmp_path / "a.tif", tmp_path / "b.tif"])
    with pytest.raises(ValueError, match="names of their own"):
        find_images([tmp_path / "a.tif", tmp_path / "x" / "a.tif"])


def test_a_result_of_another_image_is_not_kept(image, tmp_path):
    out = tmp_path / "out"
    predict(image, out)
    assert predict(image, out).kept
    elsewhere = CORNER @ Affine.translation(500, 0)
    for pixels, profile in (
        (PIXELS[::-1], {}),  # other pixels
        (PIXELS, {"transform": elsewhere}),
        (PIXELS[:60], {}),
    ):
        write_raster(image, pixels, **profile)
        with pytest.raises(FileExistsError, match="of another image of this name"):
            predict(image, out)


def test_half_a_result_of_another_image_is_not_gone_on_with(image, tmp_path):
    out = tmp_path / "out"
    predict(image, out, shard=(1, 2))
    before = image.stat().st_mtime
    write_raster(image, PIXELS[::-1])
    os.utime(image, (before, before))
    with pytest.raises(ValueError, match="another image of this name; give --no-res"):
        predict(image, out, shard=(2, 2))
    write_raster(image, PIXELS)
    predict(image, tmp_path / "o", shard=(1, 2))
    predict(image, tmp_path / "o", shard=(2, 2))
    write_raster(image, PIXELS[::-1])
    with pytest.raises(ValueError, match="shards of another image"):
        merge(image, tmp_path / "o")


def test_a_folder_that_another_shard_makes_meanwhile(image, tmp_path, monkeypatch):
    out, make = tmp_path / "o", Path.mkdir

    def make_too_late(folder, *args, **how):
        make(folder, parents=True, exist_ok=True)
        make(folder, *args, **how)

    monkeypatch.setattr(Path, "mkdir", make_too_late)
    for part in (1, 2):
        predict(image, out, shard=(part, 2))
    assert merge(image, out).polygons


def test_shards_of_a_copy_are_those_of_the_image(image, tmp_path):
    for part in (1, 2):
        copy = tmp_path / f"machine{part}" / image.name
        copy.parent.mkdir()
        copy.write_bytes(image.read_bytes())  # changed at another time
        out = tmp_path / f"out{part}"
        predict(copy, out, shard=(part, 2))
    first, second = (tmp_path / f"out{i}" / "town_mask.partial" for i in (1, 2))
    shutil.copytree(second, first, dirs_exist_ok=True)
    merge(image, tmp_path / "out1")
    with rasterio.open(tmp_path / "out1" / "town_mask.tif") as source:
        np.testing.assert_array_equal(source.read(1), MASK)


def test_a_folder_of_ones_own_is_not_taken_for_finished_rows(image, tmp_path):
    folder = tmp_path / "out" / "town_mask.partial"
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("dear")
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(ValueError, match="a folder of their own, got one of other"):
            predict(image, tmp_path / "out", **settings)
    assert (folder / "letter.txt").read_text() == "dear"


def test_a_merge_that_was_killed_between_its_outputs_goes_on(
    image, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for part in (1, 2):
        predict(image, out, shard=(part, 2))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(products, "_write_polygons", die)
        patch.setattr(products.Path, "unlink", lambda *_, **__: None)  # as if killed
        with pytest.raises(KeyboardInterrupt):
            merge(image, out)
    assert (out / "town_mask.tif").exists()
    merged = merge(image, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "town_buildings.gpkg",
        "town_mask.tif",
    ]
    assert merged.polygons
    again = merge(image, out)  # killed after its last file
    assert again.kept
    assert again.polygons == merged.polygons


def test_a_merge_does_not_replace_a_mask_of_something_else(image, tmp_path):
    for part in (1, 2):
        predict(image, tmp_path, shard=(part, 2))
    mask = write_raster(tmp_path / "town_mask.tif", PIXELS[..., :1])
    before = mask.read_bytes()
    with pytest.raises(FileExistsError, match="exists; give --overwrite"):
        merge(image, tmp_path)
    assert mask.read_bytes() == before


def hold(folder, shard, begun, let_go):
    with StripStore(folder).held(*shard):
        begun.set()
        let_go.wait(60)


def test_two_processes_at_one_part_one_of_them_says_so(image, tmp_path):
    out = tmp_path / "out"
    spawned = multiprocessing.get_context("spawn")
    begun, let_go = spawned.Event(), spawned.Event()
    folder = out / "town_mask.partial"
    words = (folder, (1, 2), begun, let_go)
    process = spawned.Process(target=hold, args=words, daemon=True)
    process.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match="in use by another process"):
        predict(image, out, shard=(1, 2))
    predict(image, out, shard=(2, 2))
    process.kill()
    process.join()
    predict(image, out, shard=(1, 2))
    merge(image, out)
    assert {path.name for path in out.iterdir()} == {
        "town_mask.tif",
        "town_buildings.gpkg",
    }


def rows_and_columns(top, bottom, left, right):
    """Return the four numbers of a part of an image at `CORNER`."""
    west, north = CORNER @ (left, top)
    east, south = CORNER @ (right, bottom)
    return west, south, east, north


def draw_houses(tmp_path):
    """Three houses: within an area, across its edge, and across with a foot in it."""
    pixels = np.full((90, 120, 3), 40, np.uint8)
    for rows, columns in (
        ((30, 40), (28, 40)),
        ((50, 60), (38, 60)),
        ((40, 45), (40, 90)),
    ):
        pixels[slice(*rows), slice(*columns)] = 200
    image = write_raster(tmp_path / "town.tif", pixels)
    return image, rows_and_columns(20, 70, 20, 50)


@pytest.mark.parametrize(
    ("edge", "sizes"), [("cut", [10 * 12, 5 * 10, 10 * 12]), ("whole", [120, 220])]
)
def test_buildings_at_the_edge_of_an_area(tmp_path, caplog, edge, sizes):
    image, box = draw_houses(tmp_path)
    orthophoto = Orthophoto.read(image).within(box, edge=edge)
    out = Products.in_folder(tmp_path / "out", "town", min_area=0, simplify=0)
    result = predict_raster(orthophoto, PREDICTOR, out)
    polygons = shapely.from_wkb(pyogrio.raw.read(out.polygons)[2])
    np.testing.assert_allclose(shapely.area(polygons) / 0.09, sizes)
    assert shapely.covers(shapely.box(*box), polygons).all() == (edge == "cut")
    expected = np.full((90, 120), 255)
    expected[20:70, 20:50] = rasterio.open(image).read(1)[20:70, 20:50] == 200
    with rasterio.open(out.mask) as source:
        np.testing.assert_array_equal(source.read(1), expected)
    assert (result.building, result.masked) == (290, 90 * 120 - 50 * 30)
    assert warnings_of(caplog) == []


def test_small_parts_of_cut_buildings_are_left_out(tmp_path):
    image, box = draw_houses(tmp_path)
    orthophoto = Orthophoto.read(image).within(box)
    out = Products.in_folder(tmp_path / "out", "town", min_area=9, simplify=0)
    assert predict_raster(orthophoto, PREDICTOR, out).polygons == 2


def test_outlines_end_at_a_slanting_edge(image, tmp_path):
    corners = [CORNER @ corner for corner in ((5, 3), (105, 20), (60, 68))]
    triangle = shapely.Polygon(corners)
    write_outlines(tmp_path / "area.fgb", [triangle], UTM)
    orthophoto = Orthophoto.read(image).within(tmp_path / "area.fgb")
    out = Products.in_folder(tmp_path / "out", "town", min_area=0)
    predict_raster(orthophoto, PREDICTOR, out)
    polygons = shapely.from_wkb(pyogrio.raw.read(out.polygons)[2])
    assert len(polygons) > 3
    assert shapely.covers(triangle.buffer(0.3 / 512), polygons).all()
    along = shapely.union_all(polygons) & triangle.boundary.buffer(0.3 / 512)
    assert along.length > 2 * 3  # metres
    assert shapely.is_valid(polygons).all()


def test_buildings_longer_than_the_margin_are_said(tmp_path, caplog):
    pixels = np.full((40, 700, 3), 40, np.uint8)
    pixels[10:20, 10:650] = 200
    image = write_raster(tmp_path / "town.tif", pixels)
    box = rows_and_columns(0, 40, 150, 300)
    orthophoto = Orthophoto.read(image).within(box, edge="whole")
    out = Products.in_folder(tmp_path / "out", "town", simplify=0)
    assert predict_raster(orthophoto, PREDICTOR, out).polygons == 1
    (line,) = warnings_of(caplog)
    assert "town.tif: 1 buildings reach out of the area beyond what was predict" in line
    (polygon,) = read_outlines(out.polygons, UTM)
    # From the left rim of the house to 50 m beyond the area.
    assert polygon.area == pytest.approx(10 * (300 + 50 / 0.3 - 10) * 0.09, rel=0.01)


@pytest.mark.parametrize("edge", ["cut", "whole"])
def test_shards_of_an_area_merge_without_it(tmp_path, edge):
    image, box = draw_houses(tmp_path)
    orthophoto = Orthophoto.read(image).within(box, edge=edge)
    how = {"prob": True, "min_area": 0}
    whole = Products.in_folder(tmp_path / "whole", "town", **how)
    predict_raster(orthophoto, PREDICTOR, whole)
    parts = Products.in_folder(tmp_path / "parts", "town", **how)
    for part in (3, 1, 2):
        predict_raster(orthophoto, PREDICTOR, parts, shard=(part, 3))
    merge_shards(image, parts)
    for one, other in zip(parts.paths[:2], whole.paths[:2], strict=True):
        with rasterio.open(one) as merged, rasterio.open(other) as undivided:
            np.testing.assert_array_equal(merged.read(), undivided.read())
            assert merged.tags() == undivided.tags()
    tables = (pyogrio.raw.read(each.polygons)[2:] for each in (parts, whole))
    for merged, undivided in zip(*tables, strict=True):
        np.testing.assert_array_equal(merged, undivided)


def test_shards_that_lost_their_area_are_not_merged(tmp_path):
    image, box = draw_houses(tmp_path)
    out = Products.in_folder(tmp_path / "out", "town")
    orthophoto = Orthophoto.read(image).within(box)
    predict_raster(orthophoto, PREDICTOR, out, shard=(1, 2))
    predict_raster(orthophoto, PREDICTOR, out, shard=(2, 2))
    (out.store.folder / "area.wkb").unlink()
    with pytest.raises(ValueError, match="damaged area of interest; give the predict"):
        merge_shards(image, out)
    predict_raster(orthophoto, PREDICTOR, out, shard=(2, 2))
    assert merge_shards(image, out).polygons


def test_an_area_in_the_other_formats(tmp_path):
    image, box = draw_houses(tmp_path)
    orthophoto = Orthophoto.read(image).within(box)
    how = {"overlay": True, "cog": True, "format": "inria", "polygons": False}
    out = Products.in_folder(tmp_path / "out", "town", **how)
    predict_raster(orthophoto, PREDICTOR, out)
    expected = np.zeros((90, 120))
    inside = rasterio.open(image).read(1)[20:70, 20:50] == 200
    expected[20:70, 20:50] = np.where(inside, 255, 0)
    with rasterio.open(out.mask) as source:
        assert source.nodata is None
        np.testing.assert_array_equal(source.read(1), expected)
    with rasterio.open(out.overlay) as picture:  # of the area, enlarged
        assert picture.width / picture.height == 30 / 50


@pytest.mark.parametrize("format", ["geotiff", "inria"])
@pytest.mark.parametrize("vector", [True, False])
def test_an_area_is_scored_by_itself(tmp_path, format, vector):
    image, box = draw_houses(tmp_path)
    orthophoto = Orthophoto.read(image).within(box)
    truth = write_raster(tmp_path / "truth.tif", rasterio.open(image).read(1) // 200)
    if vector:
        truth = tmp_path / "truth.gpkg"
        houses = [rows_and_columns(30, 40, 28, 40), rows_and_columns(50, 60, 38, 60)]
        houses += [rows_and_columns(40, 45, 40, 90)]
        write_outlines(truth, [shapely.box(*house) for house in houses], UTM)
    how = {"polygons": False, "overlay": True, "format": format}
    reduced = PredictionScores(truth).reduced_truth(orthophoto)
    out = Products.in_folder(tmp_path / "out", "town", **how, overlay_mask=reduced)
    predict_raster(orthophoto, PREDICTOR, out)
    pixels = count_prediction(orthophoto, out.mask, truth).pixels
    assert (pixels.total, pixels.intersection, pixels.union) == (1500, 290, 290)
    np.testing.assert_array_equal(
        reduced((50, 30)), rasterio.open(image).read(1)[20:70, 20:50] == 200
    )


@pytest.mark.parametrize("edge", ["cut", "whole"])
def test_outlines_beyond_an_area_are_not_missed_in_it(tmp_path, edge):
    image, box = draw_houses(tmp_path)
    truth = tmp_path / "truth.gpkg"
    whole = Products.in_folder(tmp_path / "whole", "town", min_area=0, simplify=0)
    predict_raster(image, PREDICTOR, whole)
    write_outlines(truth, read_outlines(whole.polygons, UTM), UTM)
    orthophoto = Orthophoto.read(image).within(box, edge=edge)
    out = Products.in_folder(tmp_path / "out", "town", min_area=0, simplify=0)
    made = predict_raster(orthophoto, PREDICTOR, out).polygons
    counts = count_prediction(orthophoto, out.mask, truth, out.polygons).polygons
    assert made > 0
    assert counts.matched == made
    assert counts.polis == pytest.approx(0, abs=1e-6)
    assert counts.n_ratio == 1
    assert counts.complexity_iou == pytest.approx(1)


def test_an_area_of_an_image_with_control_points_only(tmp_path):
    points = [
        GroundControlPoint(row, col, 353900 + 0.3 * col, 3057500 - 0.3 * row)
        for row, col in ((0, 0), (0, 109), (69, 0), (69, 109))
    ]
    image = write_with_points(tmp_path / "town.tif", points)
    orthophoto = Orthophoto.read(image).within(rows_and_columns(10, 50, 30, 90))
    out = Products.in_folder(tmp_path / "out", "town")
    predict_raster(orthophoto, PREDICTOR, out)
    expected = np.full(MASK.shape, 255)
    expected[10:50, 30:90] = MASK[10:50, 30:90]
    with rasterio.open(out.mask) as source:
        np.testing.assert_array_equal(source.read(1), expected)
