"""Products of several classes: class raster, probabilities, outlines, a picture."""

import dataclasses
import json

import cv2
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from bdloss.colours import default_colours, rgb_of
from bdloss.data.classes import ClassTable
from bdloss.data.ground_truth import GroundTruth
from bdloss.data.potsdam import COLOURS
from bdloss.geo.geobox import geobox_of
from bdloss.geo.raster import open_raster, read_probabilities
from bdloss.geo.windows import Window
from bdloss.inference.predict import merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.models import Predictor
from bdloss_tests import archives
from bdloss_tests.scenes import write_raster

INKS = np.array([rgb_of(colour) for colour in COLOURS.values()], np.uint8)
LABEL = archives.colour(archives.make_picture(2, 11).mask, 2, 11)
LABEL[5:9, 7:30] = 0  # of none of the classes
LABEL[40:52, 10:25] = rgb_of(COLOURS["car"])
CLASSES = ((LABEL[:, :, None] == INKS).all(axis=-1) * np.arange(1, 7)).sum(axis=-1)
WHOLE = Window(0, 0, *CLASSES.shape)


def tell(batch):
    """A network that tells a class by its colour, the surer the further to the left."""
    same = (batch[..., None, :] == INKS).all(axis=-1)
    return (same * np.float32(0.9)).astype(np.float32)


POTSDAM = Predictor(
    name="potsdam",
    predict=tell,
    band_count=3,
    patch_size=32,
    multiple=16,
    threshold=0.5,
    resolution=0.3,
    targets=tuple(COLOURS),
    colours=tuple(COLOURS.values()),
)


@pytest.fixture
def image(tmp_path):
    return write_raster(tmp_path / "town.tif", LABEL)


def predict(image, out, predictor=POTSDAM, **settings):
    named = {"prob": True, "overlay": True, "simplify": 0, "min_area": 0, **settings}
    products = Products.in_folder(out, image.stem, **named)
    return predict_raster(image, predictor, products, overlap=0), products


def test_potsdams_colours_survive_to_the_class_raster_and_back(image, tmp_path):
    result, products = predict(image, tmp_path / "out")
    with rasterio.open(products.mask) as source:
        band, palette = source.read(1), source.colormap(1)
        names = source.tags(1)
        assert source.nodata == 255
    np.testing.assert_array_equal(band, CLASSES)
    painted = np.array([palette[value][:3] for value in range(7)], np.uint8)[band]
    np.testing.assert_array_equal(painted, LABEL)
    assert [names[f"class_{number}"] for number in range(1, 7)] == list(COLOURS)
    assert result.classes == tuple(COLOURS)
    assert result.building == np.count_nonzero(CLASSES)
    table = ClassTable.of(COLOURS)
    with open_raster(products.mask) as source:
        geobox = geobox_of(source)
    with GroundTruth(products.mask, table).open(geobox) as reader:
        np.testing.assert_array_equal(reader.read(WHOLE), CLASSES)


@pytest.mark.parametrize("cog", [False, True])
def test_each_class_has_a_band_of_probabilities(image, tmp_path, cog):
    _, products = predict(image, tmp_path / "out", cog=cog)
    with open_raster(products.probabilities) as source:
        assert source.descriptions == tuple(COLOURS)
        assert source.scales == (1 / 254,) * 6
        for number in range(1, 7):
            band = source.read(number)
            np.testing.assert_array_equal(
                band, np.rint(254 * 0.9) * (number == CLASSES)
            )
        first = read_probabilities(source, WHOLE)
    np.testing.assert_allclose(first, 0.9 * (CLASSES == 1), atol=1 / 254)


@pytest.mark.parametrize("vector", ["gpkg", "geojson", "fgb"])
def test_outlines_know_the_name_of_their_class(image, tmp_path, vector):
    result, products = predict(image, tmp_path / "out", vector=vector)
    info, _, shapes, columns = pyogrio.raw.read(products.polygons)
    assert info["fields"].tolist() == ["id", "class", "area_m2", "probability"]
    ids, kinds, _, means = columns
    assert sorted(ids.tolist()) == list(range(1, result.polygons + 1))
    polygons = shapely.from_wkb(shapes)
    assert len(polygons) == result.polygons
    if vector != "geojson":  # which is in degrees
        for number, name in enumerate(COLOURS, 1):
            area = shapely.area(polygons[kinds == name]).sum() / 0.09
            assert area == pytest.approx(np.count_nonzero(number == CLASSES))
    assert np.allclose(means, 0.9, atol=0.002)
    tops = shapely.bounds(polygons)[:, 3]
    assert vector != "gpkg" or (np.diff(tops) <= 0).all()


def test_the_picture_has_the_colours_of_the_classes(image, tmp_path):
    _, products = predict(image, tmp_path / "out")
    picture = cv2.imread(str(products.overlay))[..., ::-1]
    side = picture.shape[0] // CLASSES.shape[0]
    car = picture[40 * side : 52 * side, 10 * side : 25 * side]
    assert (car == rgb_of(COLOURS["car"])).all(axis=-1).any()


def test_shards_are_merged_with_their_classes(image, tmp_path):
    whole, expected = predict(image, tmp_path / "whole")
    products = Products.in_folder(
        tmp_path / "out", image.stem, prob=True, overlay=True, simplify=0, min_area=0
    )
    for part in (2, 1):
        predict_raster(image, POTSDAM, products, overlap=0, shard=(part, 2))
    merged = merge_shards(image, products)
    assert (merged.polygons, merged.classes) == (whole.polygons, whole.classes)
    for path, other in zip(products.paths, expected.paths, strict=True):
        if path.suffix == ".tif":
            with rasterio.open(path) as one, rasterio.open(other) as two:
                np.testing.assert_array_equal(one.read(), two.read())
                assert one.tags(1) == two.tags(1)
        elif path.suffix == ".gpkg":
            for one, two in zip(*map(read_columns, (path, other)), strict=True):
                np.testing.assert_array_equal(one, two)
        else:
            assert path.read_bytes() == other.read_bytes()


def read_columns(path):
    _, _, shapes, columns = pyogrio.raw.read(path)
    return [shapes, *columns]


def test_classes_without_colours_have_ours(image, tmp_path):
    plain = dataclasses.replace(POTSDAM, colours=())
    _, products = predict(image, tmp_path / "out", plain)
    with rasterio.open(products.mask) as source:
        palette = source.colormap(1)
    assert [palette[i][:3] for i in range(1, 7)] == [*map(rgb_of, default_colours(6))]


def test_a_model_of_other_classes_does_not_keep_the_result(image, tmp_path):
    predict(image, tmp_path / "out")
    others = dataclasses.replace(POTSDAM, targets=tuple("abcdef"))
    products = Products.in_folder(
        tmp_path / "out", image.stem, prob=True, overlay=True, simplify=0, min_area=0
    )
    with pytest.raises(ValueError, match="made with targets"):
        predict_raster(image, others, products, overlap=0, resume=True)
    assert predict_raster(image, POTSDAM, products, overlap=0, resume=True).kept
    with rasterio.open(products.mask) as source:
        assert json.loads(source.tags()["targets"]) == list(COLOURS)


def test_the_format_of_a_benchmark_of_buildings_is_refused(image, tmp_path):
    with pytest.raises(ValueError, match="inria is for one class, the model has imper"):
        predict(image, tmp_path / "out", format="inria")
    assert not (tmp_path / "out").exists()


def test_contact_is_no_class(image, tmp_path):
    def both(batch):
        maps = tell(batch)[..., 1:3]
        return maps * np.float32([1, 0.99])

    model = dataclasses.replace(
        POTSDAM, predict=both, targets=("building", "contact"), colours=()
    )
    _, products = predict(image, tmp_path / "out", model)
    with rasterio.open(products.mask) as source:
        np.testing.assert_array_equal(source.read(1), CLASSES == 2)
        assert source.colorinterp[0].name == "gray"
    with rasterio.open(products.probabilities) as source:
        assert source.count == 1
