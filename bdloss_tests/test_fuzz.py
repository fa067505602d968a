"""Odd and damaged input, drawn by hypothesis: a right result, or one line and no file.

`make fuzz` draws many more. Exit code 70, or a traceback, is a fault.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import shapely
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS

from bdloss import cli, models
from bdloss.orthophotos.polygons import write_outlines
from bdloss.run import config
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


@given(raster=rasters(), options=st.sampled_from([[], ["--nodata", "0"], ["--prob"]]))
@DRAWN
def test_any_raster_is_mapped_or_refused(bright_model, raster, options):
    values, profile, kept = raster
    bands, height, width = values.shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, out = folder / "town.tif", folder / "out"
        size = {"count": bands, "height": height, "width": width}
        with rasterio.open(
            path, "w", driver="GTiff", dtype=values.dtype, **size, **profile
        ) as target:
            target.write(values)
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data))])
        done = run("predict", path, "--model", bright_model, "--out", out, *options)
        if done.exit_code:
            assert not list(out.glob("*.tif")) + list(out.glob("*.gpkg"))
            return
        with rasterio.open(out / "town_mask.tif") as source:
            mask = source.read(1)
        assert mask.shape == (height, width)
        if values.dtype != np.uint8 or bands != 3 or kept < 1:
            return
        expected = (values.astype(int).sum(axis=0) > 375.5).astype(np.uint8)
        for nodata in {profile["nodata"], 0 if "--nodata" in options else None}:
            if nodata is not None:
                expected[(values == nodata).all(axis=0)] = 255
        np.testing.assert_array_equal(mask, expected)


@given(
    suffix=st.sampled_from([".gpkg", ".geojson", ".fgb"]),
    place=st.floats(0, 1),
    bit=st.integers(0, 7),
    kept=st.sampled_from([1.0, 1.0, 0.97, 0.6, 0.1, 0.0]),
)
@DRAWN
def test_any_outlines_are_scored_against_or_refused(suffix, place, bit, kept):
    _, mask = make_scene(3, 40, 50)
    corner = CORNER @ (5, 5)
    house = shapely.box(corner[0], corner[1] - 6, corner[0] + 6, corner[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pred = write_raster(folder / "town_mask.tif", mask)
        path = folder / f"truth{suffix}"
        write_outlines(path, [house, shapely.affinity.translate(house, 8)], UTM)
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1 << bit
        path.write_bytes(data[: int(kept * len(data))])
        done = run("score", pred, path, "--out", folder / "scores")
        assert (folder / "scores" / "scores.json").exists() == (done.exit_code == 0)
        names = {each.name for each in folder.iterdir()}
        assert names <= {"town_mask.tif", path.name, "scores", f"{path.name}-journal"}


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
KEYS = st.one_of(
    WORDS,
    st.sampled_from(
        ["patch", "loss.theta", "stage.0.epochs", "stage", "weight.values", "seed.x"]
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
    changed = config.read_named("banepa")
    try:
        for assignment in assignments:
            config.change(changed, assignment)
        experiment = config.make_experiment(changed)
    except ValueError as error:
        assert str(error)
        return
    text = config.write_experiment(experiment)
    assert config.make_experiment(config.tomllib.loads(text)) == experiment


@given(place=st.floats(0, 1), bit=st.integers(0, 7), kept=st.sampled_from([1.0, 0.5]))
@DRAWN
def test_any_model_is_loaded_or_refused(bright_model, place, bit, kept):
    with tempfile.TemporaryDirectory() as name:
        path = Path(shutil.copy(bright_model, name))
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1 << bit
        path.write_bytes(data[: int(kept * len(data))])
        try:
            predictor = models.load_predictor(path)
        except ValueError as error:
            assert "\n" not in str(error)
            return
        maps = predictor.predict(np.zeros((1, 32, 32, 3), np.uint8))
        assert np.shape(maps) == (1, 32, 32, 1)
