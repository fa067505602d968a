"""Odd and damaged input, drawn by hypothesis: a right result, or one line and no file.

`make fuzz` draws many more. Exit code 70, or a traceback, is a fault.
"""

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.shutil import copy

from bdloss import models
from bdloss.cli import main as cli
from bdloss.data.cache import load_cached
from bdloss.data.scenes import Scene
from bdloss.geo.ogr import pyogrio
from bdloss.geo.outline_writer import write_outlines
from bdloss.training import experiment as experiments
from bdloss.training.checkpoints import State, newest_state, save_state
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

EXAMPLES = int(os.environ.get("FUZZ", "25"))
DRAWN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
LOCAL = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
PLACES = [
    CORNER,
    CORNER @ Affine.rotation(30),
    Affine.translation(3e5, 3e6) @ Affine.scale(0.3),  # south-up
    Affine.identity(),
    Affine(0, 0, 5, 0, 0, 5),
    Affine(np.nan, 0, 0, 0, -1, 0),
    Affine(1e30, 0, 0, 0, -1e30, 0),
]


def run(*words):
    """Run a command; hold it to a good end, or one line on what is wrong."""
    done = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert done.exit_code in (0, 1, 2), (words, done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if done.exit_code:
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert len(lines) == 1, done.output
    return done


@st.composite
def rasters(draw):
    """Draw values, profile, and how much of the file is kept."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    bands = draw(st.sampled_from([3, 3, 3, 1, 4]))
    dtype = draw(st.sampled_from(["uint8", "uint8", "uint16", "int16", "float32"]))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    values = random.integers(0, 256, (bands, height, width)).astype(dtype)
    if dtype == "float32" and draw(st.booleans()):
        values[:, ::3] = draw(st.sampled_from([np.nan, np.inf, -1e38]))
    profile = {
        "crs": draw(st.sampled_from([UTM, None, CRS.from_epsg(4326), LOCAL])),
        "transform": draw(st.sampled_from(PLACES)),
        "nodata": draw(st.sampled_from([None, 0, 255])),
        "interleave": draw(st.sampled_from(["band", "pixel"])),
        "compress": draw(st.sampled_from([None, "deflate"])),
    }
    return values, profile, draw(st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.0]))


@given(
    raster=rasters(),
    virtual=st.booleans(),
    options=st.sampled_from([[], ["--nodata", "0"], ["--prob"]]),
)
@DRAWN
def test_any_raster_is_mapped_or_refused(bright_model, raster, virtual, options):
    values, profile, kept = raster
    bands, height, width = values.shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, out = folder / "town.tif", folder / "out"
        write_raster(path, np.moveaxis(values, 0, -1), **profile)
        data = path.read_bytes()
        if virtual:
            path = folder / "town.vrt"
            copy(folder / "town.tif", path, driver="VRT")
        (folder / "town.tif").write_bytes(data[: int(kept * len(data))])
        done = run("predict", path, "--model", bright_model, "--out", out, *options)
        if done.exit_code:
            assert not list(out.glob("*.tif")) + list(out.glob("*.gpkg"))
            return
        with rasterio.open(out / "town_mask.tif") as source:
            mask = source.read(1)
        assert mask.shape == (height, width)
        if values.dtype != np.uint8 or bands == 1 or kept < 1:
            return
        colours, alpha = values[:3], values[3:]  # GDAL takes a fourth band for alpha
        expected = (colours.astype(int).sum(axis=0) > 375.5).astype(np.uint8)
        for nodata in {profile["nodata"], 0 if "--nodata" in options else None}:
            if nodata is not None:
                expected[(colours == nodata).all(axis=0)] = 255
        expected[(alpha == 0).any(axis=0)] = 255
        np.testing.assert_array_equal(mask, expected)


DAMAGES = st.tuples(  # where a bit is flipped, which, and how much of the file is kept
    st.floats(0, 1), st.integers(0, 7), st.sampled_from([1.0, 1.0, 0.97, 0.5, 0.0])
)


def damage(path, how):
    """Flip a bit of a file, and cut it off."""
    place, bit, kept = how
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data[: int(kept * len(data))])


@given(
    which=st.integers(0, 9),
    how=DAMAGES,
    claim=st.sampled_from([None, None, "000000000-000000064.npy.gz"]),
    merged=st.booleans(),
)
@DRAWN
def test_any_finished_rows_are_gone_on_with_or_refused(
    bright_model, which, how, claim, merged
):
    pixels, _ = make_scene(3, 64, 50)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        image = write_raster(Path(name) / "town.tif", pixels)
        words = ("predict", image, "--model", bright_model, "--out", out)
        for shard in ("1/2", "2/2"):
            assert not run(*words, "--shard", shard).exit_code
        files = sorted(out.glob("town_mask.partial/*"))
        path = files[which % len(files)]
        damage(path, how) if path.stat().st_size else path.write_bytes(b"x")
        if claim:
            path.rename(path.with_name(claim))
        done = run("merge", image, "--out", out) if merged else run(*words)
        if done.exit_code:
            assert not list(out.glob("*.tif")) + list(out.glob("*.gpkg"))
            return
        with rasterio.open(out / "town_mask.tif") as source:
            mask = source.read(1)
        np.testing.assert_array_equal(mask, pixels.astype(int).sum(axis=2) > 375.5)
        assert {each.name for each in out.iterdir()} == {
            *("town_mask.tif", "town_buildings.gpkg")
        }


@given(how=DAMAGES)
@settings(DRAWN, max_examples=8 * EXAMPLES)
def test_any_checkpoint_is_as_it_was_written_or_passed_over(how):
    def state(epoch):
        arrays = [np.arange(12, dtype="float32").reshape(3, 4) + epoch, np.int64(epoch)]
        rows = [{"epoch": float(n), "loss": 1 / (1 + n)} for n in range(epoch)]
        return State(rows, 2.5 * epoch, arrays, arrays[::-1])

    with tempfile.TemporaryDirectory() as name:
        for epoch in (1, 2):
            save_state(state(epoch), Path(name))
        damage(Path(name) / "epoch-00002.npz", how)
        found = newest_state(Path(name))
    expected = state(found.epoch)
    assert (found.rows, found.seconds) == (expected.rows, expected.seconds)
    for got, array in zip(
        found.network + found.optimizer,
        expected.network + expected.optimizer,
        strict=True,
    ):
        np.testing.assert_array_equal(got, array)


@given(file=st.sampled_from(["pixels.npy", "mask.npy"]), how=DAMAGES)
@settings(DRAWN, max_examples=4 * EXAMPLES)
def test_any_cache_entry_is_taken_whole_or_made_anew(file, how):
    pixels, mask = make_scene(3, 40, 50)
    place, bit, kept = how
    with tempfile.TemporaryDirectory() as name:
        image = write_raster(Path(name) / "images" / "town.tif", pixels)
        truth = write_raster(Path(name) / "masks" / "town.tif", mask)
        scene, cache = Scene("town", image, truth), Path(name) / "cache"
        load_cached(scene, cache)
        (entry,) = cache.glob(f"*/{file}")
        head = 127 / (entry.stat().st_size - 1)  # what is not pixels
        damage(entry, (place * head, bit, kept))
        data = load_cached(scene, cache)
        np.testing.assert_array_equal(np.asarray(data.pixels), pixels)
        np.testing.assert_array_equal(np.asarray(data.mask), mask)


def boxes(draw):
    row, col = draw(st.integers(-9, 60)), draw(st.integers(-9, 60))
    corner = CORNER @ (col, row)
    side = draw(st.integers(1, 30)) * 0.3
    return shapely.box(corner[0], corner[1] - side, corner[0] + side, corner[1])


@st.composite
def geometries(draw, depth=2):
    """Draw a geometry, collections within collections too, and its polygons."""
    kind = draw(st.sampled_from(["box", "boxes", "point", "none", "inf", "nested"]))
    if kind == "nested" and depth:
        inner = draw(st.lists(geometries(depth - 1), min_size=1, max_size=3))
        known = [each for each, _ in inner if each is not None]
        houses = [house for _, houses in inner for house in houses]
        return shapely.GeometryCollection(known), houses
    if kind == "boxes":
        both = [boxes(draw), shapely.affinity.translate(boxes(draw), 40)]
        return shapely.MultiPolygon(both), both
    if kind == "point":
        return shapely.Point(CORNER @ (9, 9)), []
    if kind == "none":
        return None, []
    if kind == "inf":
        return shapely.Polygon([(np.inf, 0), (1, 1), (0, 1), (np.inf, 0)]), []
    box = boxes(draw)
    return box, [box]


@given(drawn=st.lists(geometries(), max_size=4))
@settings(DRAWN, max_examples=4 * EXAMPLES)
def test_any_geometries_are_buildings_or_refused(drawn):
    _, pred = make_scene(3, 40, 50)
    houses = [house for _, houses in drawn for house in houses]
    true = np.zeros_like(pred)
    if houses:
        rasterize(houses, out=true, transform=CORNER)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "truth.gpkg"
        pyogrio.raw.write(
            path,
            shapely.to_wkb(np.array([each for each, _ in drawn], object)),
            [],
            [],
            geometry_type="Unknown",
            crs=UTM.to_wkt(),
        )
        mask = write_raster(Path(name) / "town_mask.tif", pred)
        done = run("score", mask, path, "--out", Path(name) / "scores")
        if done.exit_code:
            assert not (Path(name) / "scores").exists()
            return
        scores = json.loads((Path(name) / "scores" / "scores.json").read_text())
        union = (pred | true).sum()
        assert scores["all"]["iou"] == pytest.approx((pred & true).sum() / union)


@given(
    suffix=st.sampled_from([".gpkg", ".geojson", ".fgb", ".parquet"]),
    how=DAMAGES,
)
@DRAWN
def test_any_outlines_are_scored_against_or_refused(suffix, how):
    _, mask = make_scene(3, 40, 50)
    corner = CORNER @ (5, 5)
    house = shapely.box(corner[0], corner[1] - 6, corner[0] + 6, corner[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pred = write_raster(folder / "town_mask.tif", mask)
        path = folder / f"truth{suffix}"
        write_outlines(path, [house, shapely.affinity.translate(house, 8)], UTM)
        damage(path, how)
        done = run("score", pred, path, "--out", folder / "scores")
        assert (folder / "scores" / "scores.json").exists() == (done.exit_code == 0)
        names = {each.name for each in folder.iterdir()}
        assert names <= {"town_mask.tif", path.name, "scores", f"{path.name}-journal"}


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
KEYS = st.one_of(
    WORDS,
    st.sampled_from(
        [
            "patch",
            "patches.size",
            "dataset",
            "loss.theta",
            "stage.0.epochs",
            "stage",
            "weight.values",
            "seed.x",
        ]
    ),
)
VALUES = st.one_of(
    WORDS,
    st.sampled_from(["nan", "inf", "-1", "1e99", "[]", "{}", "true", "[[[", '"']),
    st.integers(-(10**30), 10**30).map(str),
)


@given(assignments=st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=3))
@settings(DRAWN, max_examples=8 * EXAMPLES)
def test_any_settings_make_an_experiment_or_are_refused(assignments):
    changed = experiments.read_named("banepa")
    try:
        for assignment in assignments:
            experiments.change(changed, assignment)
        experiment = experiments.make_experiment(changed)
    except ValueError as error:
        assert str(error)
        return
    text = experiments.write_experiment(experiment)
    assert experiments.make_experiment(experiments.tomllib.loads(text)) == experiment


@given(how=DAMAGES)
@DRAWN
def test_any_model_is_loaded_or_refused(bright_model, how):
    with tempfile.TemporaryDirectory() as name:
        path = Path(shutil.copy(bright_model, name))
        damage(path, how)
        try:
            predictor = models.load_predictor(path)
        except ValueError as error:
            assert "\n" not in str(error)
            return
        maps = predictor.predict(np.zeros((1, 32, 32, 3), np.uint8))
        assert np.shape(maps) == (1, 32, 32, 1)


ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(-9, 10**12), st.floats(), WORDS),
    *(st.just([]), st.just({}), st.sampled_from([1, 32, 64, 0.5, "flips", "none"])),
)
KEYS_OF_A_MODEL = ("name", "window", "multiple", "threshold", "resolution", "tta")


@given(
    facts=st.one_of(st.dictionaries(st.sampled_from(KEYS_OF_A_MODEL), ODD), ODD),
)
@settings(DRAWN, max_examples=2 * EXAMPLES)
def test_any_facts_of_a_model_are_followed_or_refused(bright_model, facts):
    pixels, _ = make_scene(3, 64, 50)
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "bright.keras", Path(name) / "out"
        with zipfile.ZipFile(bright_model) as old, zipfile.ZipFile(path, "w") as new:
            for part in old.namelist():
                if part != models.METADATA_FILE:
                    new.writestr(part, old.read(part))
            new.writestr(models.METADATA_FILE, json.dumps(facts))
        image = write_raster(Path(name) / "town.tif", pixels)
        done = run("predict", image, "--model", path, "--out", out)
        if done.exit_code:
            assert not list(out.glob("*.tif")) + list(out.glob("*.gpkg"))
            return
        with rasterio.open(out / "town_mask.tif") as source:
            mask = source.read(1)
        threshold = facts.get("threshold", 0.5)
        score = 0.1 * pixels.astype(float).sum(axis=2) - 37.55
        sure = abs(1 / (1 + np.exp(-score)) - threshold) > 1e-5
        above = 1 / (1 + np.exp(-score)) >= threshold
        np.testing.assert_array_equal(mask[sure], above[sure])
