"""Margins: found on scenes of known errors, and drawn."""

import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import affine_transform

from bdloss.data.folder import read_folder
from bdloss.data.scenes import Scene
from bdloss.evaluation.predictions import PredictionScores
from bdloss.evaluation.scoring import score_rasters
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_outlines
from bdloss.inference.calibration import calibrate, site_of
from bdloss.inference.margin import (
    Margin,
    doubt_of,
    doubt_of_strips,
    margin_path,
    read_margin,
    write_margin,
)
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss.metrics.conformal import rings_of
from bdloss_tests.inference.stand_ins import PREDICTOR
from bdloss_tests.scenes import CORNER, UTM, write_raster

HOUSE = (20, 20, 50, 60)  # left, top, right, bottom: pixels of 0.3 m
SIDE = 90


def write_scenes(root, errors):
    """Write scenes whose house is predicted too large by so many pixels each way."""
    for name, error in errors.items():
        left, top, right, bottom = HOUSE
        pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
        if error is not None:
            pixels[top - error : bottom + error, left - error : right + error] = 230
        pixels[0, 0] = sum(name.encode()) % 50  # so that no two are one image
        write_raster(root / "images" / f"{name}.tif", pixels)
    house = affine_transform(shapely.box(*HOUSE), CORNER.to_shapely())
    write_outlines(root / "houses.gpkg", [house], UTM)
    return read_folder(root, 0).train


FOUR = {"a1": 0, "a2": 1, "b1": 2, "c_x": 3}


@pytest.mark.parametrize(
    ("alpha", "radius"),
    # Of four scenes, as many may lie beyond as make 4/5 of the mean + 1/5 <= alpha.
    [(0.3, 0.9), (0.4, 0.6), (0.6, 0.3), (0.8, 0.0)],
)
def test_a_margin_is_as_wide_as_the_errors_ask(tmp_path, alpha, radius):
    scenes = write_scenes(tmp_path, FOUR)
    seen = []
    found = calibrate(PREDICTOR, scenes, alpha, progress=seen.append)
    assert seen == list(FOUR)
    assert found.radius == pytest.approx(radius, abs=1e-3)
    assert found.radius >= radius - 1e-9
    assert (found.units, found.unit, found.alpha) == (4, "scene", alpha)
    assert set(found.scenes) == set(FOUR) and found.model == "bright"
    assert found.made["simplify"] == 1.0 and found.made["tta"] == "none"
    assert found.resampled == ["no"] and "resampled" not in found.made


def test_sites_are_units_of_all_their_scenes(tmp_path):
    scenes = write_scenes(tmp_path, FOUR)
    found = calibrate(PREDICTOR, scenes, 0.5, "site")
    assert (found.units, found.unit) == (3, "site")
    # One site of three may lie beyond, or half of one and half of another.
    assert found.radius == pytest.approx(0.6, abs=1e-3)
    assert [site_of(name) for name in FOUR] == ["a", "a", "b", "c"]


def test_scenes_without_a_wall_are_left_out_and_named(tmp_path, caplog):
    scenes = write_scenes(tmp_path, FOUR)
    write_raster(tmp_path / "masks" / "d.tif", np.zeros((SIDE, SIDE), np.uint8))
    image = write_raster(tmp_path / "d.tif", np.full((SIDE, SIDE, 3), 9, np.uint8))
    blank = Scene("d", image, tmp_path / "masks" / "d.tif")
    found = calibrate(PREDICTOR, [*scenes, blank], 0.3)
    assert found.left_out == ("d",) and found.units == 4
    assert "left out, without a wall: d" in caplog.text
    with pytest.raises(ValueError, match="needs 4 scenes or more, got 3"):
        calibrate(PREDICTOR, [*scenes[:3], blank], 0.2)


def test_what_cannot_be_calibrated_is_refused(tmp_path):
    scenes = write_scenes(tmp_path, {**FOUR, "e": None, "f": None, "g": None})
    with pytest.raises(ValueError, match=r"no margin keeps a risk of 0\.3"):
        calibrate(PREDICTOR, scenes, 0.3)
    with pytest.raises(ValueError, match=r"risk of 0\.1 needs 9 scenes or more, got 7"):
        calibrate(PREDICTOR, scenes, 0.1)
    with pytest.raises(ValueError, match=r"0\.25 needs 3 sites or more, got 2"):
        calibrate(PREDICTOR, scenes[:3], 0.25, "site")
    for alpha in (0, 1, -3, math.nan):
        with pytest.raises(ValueError, match="alpha must lie in"):
            calibrate(PREDICTOR, scenes, alpha)
    digests = calibrate(PREDICTOR, scenes[:4], 0.4).scenes
    learned = replace(PREDICTOR, scenes={"x": digests["a2"], "y": digests["c_x"]})
    with pytest.raises(ValueError, match="has learned from a2, c_x: calibrate it on"):
        calibrate(learned, scenes, 0.4)
    copied = [*scenes, scenes[1]._replace(name="copy")]
    with pytest.raises(ValueError, match="copies of other scenes are no units: copy"):
        calibrate(PREDICTOR, copied, 0.4)
    several = replace(PREDICTOR, targets=("roof", "road"))
    with pytest.raises(ValueError, match="of buildings alone, the model has roof, ro"):
        calibrate(several, scenes, 0.4)
    write_raster(scenes[0].image, np.zeros((SIDE, SIDE, 3), np.uint8), crs=None)
    with pytest.raises(ValueError, match="in metres, and needs a CRS"):
        calibrate(PREDICTOR, scenes, 0.4)


def test_scenes_of_names_that_the_model_has_learned_from_are_told(tmp_path, caplog):
    scenes = write_scenes(tmp_path, FOUR)
    calibrate(replace(PREDICTOR, scenes={"town": "1"}), scenes, 0.4)
    assert not caplog.messages
    calibrate(replace(PREDICTOR, scenes={"start/b1": "1", "a1": "2"}), scenes, 0.4)
    assert caplog.messages[0].endswith("nothing is promised: a1, b1")


def test_the_whole_image_is_no_margin(tmp_path):
    """A model that is as sure of a house that it does not see as of all others."""
    sure = replace(PREDICTOR, predict=lambda batch: (batch[..., :1] > 100) * 1.0)
    scenes = write_scenes(tmp_path, FOUR)
    found = calibrate(sure, scenes, 0.3)
    assert found.doubt is None and found.radius > 0
    write_margin(found, tmp_path / "model.keras")
    assert read_margin(tmp_path / "model.keras").radius == found.radius
    with pytest.raises(ValueError, match="no margin by probability keeps the promise"):
        read_margin(tmp_path / "model.keras", "probability")


FOUND = Margin(
    radius=0.8, doubt=0.3, alpha=0.2, unit="scene", units=9, model="bright", made={}
)


def draw(tmp_path, by="distance", margin=FOUND, **settings):
    (scene,) = write_scenes(tmp_path / "town", {"a": 0})
    products = Products.in_folder(
        tmp_path / "out", "a", margin=margin, margin_by=by, **settings
    )
    predict_raster(scene.image, PREDICTOR, products)
    return products


def test_a_margin_by_distance_is_drawn_and_outlined(tmp_path):
    products = draw(tmp_path)
    with rasterio.open(products.band) as source:
        band, tags = source.read(1), source.tags()
        assert (source.crs, source.nodata) == (UTM, 255)
    assert (tags["margin_m"], tags["margin_by"]) == ("0.8", "distance")
    rows, cols = np.mgrid[:SIDE, :SIDE] + 0.5
    wall = shapely.box(*HOUSE).boundary
    distances = 0.3 * shapely.distance(shapely.points(cols, rows), wall)
    assert (band[distances <= 0.8] == 1).all()
    assert (distances[band == 1] <= 0.8 * math.sqrt(2)).all()  # at mitred corners
    assert (distances[band == 1] > 0.8).mean() < 0.03
    (ring,) = read_outlines(products.rings, UTM)
    (house,) = read_outlines(products.polygons, UTM)
    np.testing.assert_allclose(ring.exterior.bounds, house.buffer(0.8).bounds)
    assert len(ring.interiors) == 1 and ring.area == pytest.approx(
        (9 + 1.6) * (12 + 1.6) - (9 - 1.6) * (12 - 1.6)
    )
    assert pyogrio.list_layers(products.rings)[:, 0].tolist() == ["margin"]
    facts = pyogrio.raw.read(products.rings)
    table = dict(zip(facts[0]["fields"], facts[3], strict=True))
    assert {name: values.tolist() for name, values in table.items()} == {
        "id": [1],
        "margin_m": [0.8],
        "confidence": [0.8],
    }


def test_true_walls_in_a_margin_are_counted(tmp_path):
    """The house is predicted 2 pixels too large: its walls lie 0.6 m from the true."""
    (scene,) = write_scenes(tmp_path / "town", {"a": 2})
    products = Products.in_folder(tmp_path / "out", "a")
    predict_raster(scene.image, PREDICTOR, products)
    for metres, coverage in ((0.5, 0.0), (0.7, 1.0)):
        for pred in (products.polygons, products.mask):
            found = score_rasters(pred, scene.truth, margin=metres)
            if pred == products.mask:
                assert found.all.margin is None
                assert "No margin: it needs outlines on both sides" in found.notes[-1]
                continue
            assert found.all.margin.coverage == coverage
            around = 2 * (34 + 44) * 0.3
            wide = found.all.as_json()["margin_width_m"]
            assert wide == pytest.approx(2 * metres, rel=1e-6)  # mitred, so exactly
            assert found.all.margin.length == pytest.approx(around)
            assert f"{100 * coverage:.1f} % of the true walls lie within" in "".join(
                found.notes
            )
    assert score_rasters(products.polygons, scene.truth).all.margin is None


def test_a_margin_by_probability_is_where_the_model_doubts(tmp_path):
    products = draw(tmp_path, "probability", prob=True)
    assert products.rings is None
    with rasterio.open(products.band) as source:
        band = source.read(1)
    with rasterio.open(products.probabilities) as source:
        likely = source.read(1)
    with rasterio.open(products.mask) as source:
        mask = source.read(1)
    np.testing.assert_array_equal(band, doubt_of(mask, likely) >= 0.3 * 254)
    assert band.sum() == 2 * 2 * (30 + 40)  # a pixel on either side of the wall

    # Its true walls are counted in what is drawn, and not at a distance.
    truth = tmp_path / "town" / "houses.gpkg"
    scores = PredictionScores(truth)
    orthophoto = Orthophoto.read(tmp_path / "town" / "images" / "a.tif")
    scores.add(orthophoto, products.mask, products.polygons, margin=products.band)
    found = scores.lines()[-1]
    assert found.startswith("100.0 % of the true walls lie where the model doubts; ")
    assert "the margin is 0.60 m wide" in found
    with rasterio.open(products.band, "r+") as target:
        target.write(np.where(np.arange(SIDE) < 40, band, 0), 1)  # the left of it
    scores.add(orthophoto, products.mask, products.polygons, margin=products.band)
    # Of 30 + 40 pixels each way, 20 + 20 of the long walls and a short one lie there.
    assert scores.lines()[-1].startswith("57.1 % of the true walls")


def test_a_margin_of_other_outlines_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the margin is of another model"):
        draw(tmp_path / "a", margin=replace(FOUND, model="other"))
    made = {"simplify": 2.0, "tta": "none"}
    with pytest.raises(ValueError, match=r"calibrated with simplify = 2\.0, not 1\.0"):
        draw(tmp_path / "b", margin=replace(FOUND, made=made))
    draw(tmp_path / "c", margin=replace(FOUND, made=made), simplify=2)
    resampled = replace(FOUND, resampled=[0.25, 0.5])
    with pytest.raises(ValueError, match=r"resampled to 0\.25, 0\.5, not no"):
        draw(tmp_path / "e", margin=resampled)
    with pytest.raises(ValueError, match="a margin needs outlines"):
        draw(tmp_path / "d", polygons=False)
    assert not list(tmp_path.glob("[abde]/out/*"))


def test_a_margin_is_written_beside_its_model(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError, match="no margin for this model; bdloss cal"):
        read_margin(path)
    known = {"made": {"simplify": 1.0}, "scenes": {"a": "12"}, "resampled": ["no"]}
    written = replace(FOUND, **known)
    assert write_margin(written, path) == tmp_path / "model.margin.json"
    assert replace(read_margin(path), left_out=()) == written
    for text in ("{", "[]", '{"radius": 1}'):
        margin_path(path).write_text(text)
        with pytest.raises(ValueError, match=f"damaged margin: {margin_path(path)}"):
            read_margin(path)
    margin_path(path).write_text(json.dumps({**asdict(written), "radius": -1}))
    with pytest.raises(ValueError, match="must have finite numbers"):
        read_margin(path)


@given(
    corners=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=9
    ),
    radius=st.sampled_from([0.0, 0.7, 3.0, 11.0]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rings_hold_all_that_is_so_near(corners, radius):
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(corners)))
    for house in (part for part in parts if part.geom_type == "Polygon"):
        (ring,) = rings_of(np.array([house]), radius)
        near = house.boundary.buffer(0.999 * radius)
        assert near.difference(ring).area < 1e-6 * (1 + near.area)


@given(cuts=st.sets(st.integers(1, 29)), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_doubt_does_not_depend_on_strips(cuts, seed):
    random = np.random.default_rng(seed)
    likely = random.integers(0, 255, (30, 20), np.uint8)
    mask = np.where(random.random((30, 20)) < 0.1, 255, likely > 127).astype(np.uint8)
    ends = [0, *sorted(cuts), 30]
    layers = np.stack([mask, likely])
    strips = [(top, layers[:, top:end]) for top, end in itertools.pairwise(ends)]
    found = list(doubt_of_strips(strips))
    assert [row for row, _ in found] == ends[:-1]
    whole = doubt_of(mask, likely)
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), whole)
