import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from bdloss import models
from bdloss.cli import main as cli
from bdloss.colours import default_colours, rgb_of
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_outlines
from bdloss.inference import predict as front
from bdloss.metrics import match_polygons
from bdloss_tests.scenes import (
    CORNER,
    UTM,
    make_rows,
    make_scene,
    write_folder,
    write_raster,
)

HEAVY = ("tensorflow", "keras", "rasterio", "albumentations", "cv2", "matplotlib")


PREDICT = ("predict", "IMAGE", "--model", "MODEL")
BANEPA = Path(__file__).parents[1] / "samples" / "banepa"


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def model(bright_model, tmp_path):
    return Path(shutil.copy(bright_model, tmp_path))


@pytest.fixture
def image(tmp_path):
    pixels, mask = make_scene(3, 50, 70)
    write_raster(tmp_path / "truth" / "town.tif", mask)
    return write_raster(tmp_path / "town.tif", pixels)


def write_geojson(path, *corners):
    """Write a polygon in degrees; return the path."""
    geometry = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    path.write_text(json.dumps(geometry))
    return path


@pytest.mark.parametrize("command", [[], ["train"], ["predict"]])
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys; from bdloss.cli.main import main; "
        f"main({[*command, '--help']!r}, standalone_mode=False); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_train_predict_and_score(tmp_path):
    folder = write_folder(tmp_path / "town")
    settings = [
        *("model.filters=2", "model.blocks=1", "patches.size=32"),
        *("patches.batch_size=2", "patches.steps=2", "patches.workers=1"),
    ]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = invoke(
        *(
            "train",
            "--dataset",
            "folder_from_nothing",
            "--data",
            folder,
            "--out",
            tmp_path / "run",
        ),
        *(*sets, "--set", "stage.0.epochs=1", "--loss", "none", "--seed", 3),
    )
    assert done.exit_code == 0, done.output
    assert "validation  IoU" in done.stdout
    assert str(tmp_path / "run" / "model.keras") in done.stdout
    written = (tmp_path / "run" / "experiment.toml").read_text()
    for line in ("seed = 3", 'extra = "none"', "filters = 2", "epochs = 1"):
        assert line in written

    done = invoke(
        *("predict", *sorted((folder / "images").iterdir())),
        *("--model", tmp_path / "run" / "model.keras", "--masks", folder / "masks"),
        *("--out", tmp_path / "out", "--tta", "flips", "--no-polygons", "--overlay"),
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("a_mask.tif", "a_overlay.png", "b_mask.tif", "b_overlay.png"),
        "metrics.json",
    }
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(scores) == {"a", "b", "all"}
    assert scores["all"]["images"] == 2


@pytest.fixture
def suburb(tmp_path):
    """A folder of a part of the sample, with its outlines."""
    with rasterio.open(BANEPA / "images" / "banepa_south.tif") as source:
        window = rasterio.windows.Window(400, 200, 160, 128)
        pixels, place = source.read(window=window), source.window_transform(window)
        crs = source.crs
    pixels = np.moveaxis(pixels, 0, -1)
    image = tmp_path / "suburb" / "images" / "a.tif"
    write_raster(image, pixels, crs=crs, transform=place)
    shutil.copy(BANEPA / "buildings.geojson", tmp_path / "suburb")
    return image, pixels, {"crs": crs, "transform": place}


def test_the_model_that_comes_with_us_predicts_and_is_gone_on_with(suburb, tmp_path):
    image, _, _ = suburb
    town = image.parents[1]
    truth = ("--masks", town / "buildings.geojson", "--tta", "none")
    done = invoke("predict", image, *truth, "--out", tmp_path / "before")
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "before" / "a_mask.tif") as source:
        assert source.tags()["model"] == "buildings"
    scores = json.loads((tmp_path / "before" / "metrics.json").read_text())
    assert scores["all"]["iou"] > 0.6

    sets = ("stage.0.epochs=1", "patches.steps=1", "dataset.contact=2")
    done = invoke(
        *("train", "--dataset", "folder", "--data", town, "--out", tmp_path / "run"),
        *(word for setting in sets for word in ("--set", setting)),
        *("--set", "dataset.validation=0.0"),
    )
    assert done.exit_code == 0, done.output
    model = ("--model", tmp_path / "run" / "model.keras")
    done = invoke("predict", image, *model, *truth, "--out", tmp_path / "after")
    assert done.exit_code == 0, done.output


def run_without_keras(*words):
    """Run a command in a process that has no Keras; return what it says."""
    code = (
        "import sys; sys.modules.update(keras=None, tensorflow=None); "
        f"from bdloss.cli.main import main; main({list(map(str, words))!r})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_needs_no_network_does_without_keras(suburb, tmp_path):
    pytest.importorskip("onnxruntime")
    image, _, _ = suburb
    predict = ("predict", image, "--engine", "onnxruntime", "--out")
    done = invoke(*predict, tmp_path / "with")  # brings the model to ONNX
    assert done.exit_code == 0, done.output
    run_without_keras(*predict, tmp_path / "without", "--report")
    for part in ("1/2", "2/2"):
        run_without_keras(*predict, tmp_path / "parts", "--shard", part)
    run_without_keras("merge", image, "--out", tmp_path / "parts")
    masks = [tmp_path / name / "a_mask.tif" for name in ("with", "without", "parts")]
    assert len({mask.read_bytes() for mask in masks}) == 1
    told = run_without_keras("score", masks[0], masks[1], "--out", tmp_path / "score")
    assert "scores.json" in told
    scores = json.loads((tmp_path / "score" / "scores.json").read_text())
    assert '"iou": 1.0' in json.dumps(scores)


def test_images_that_the_model_that_comes_with_us_knows_nothing_of(suburb, tmp_path):
    _, pixels, place = suburb
    image = write_raster(tmp_path / "plain.png", pixels, crs=None, transform=None)
    done = invoke("predict", image, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "Error: the size of its pixels is unknown without a CRS" in done.stderr
    assert str(image) in done.stderr
    assert not (tmp_path / "out").exists()
    done = invoke("predict", image, "--out", tmp_path / "out", "--resolution", "native")
    assert done.exit_code == 0, done.output

    four = write_raster(
        tmp_path / "four.tif",
        np.dstack([pixels, pixels[..., 0]]),
        **place,
        photometric="minisblack",
    )
    done = invoke("predict", four, "--out", tmp_path / "four")
    assert done.exit_code == 2
    assert "bands" in done.stderr and "--bands" in done.stderr
    done = invoke("predict", four, "--bands", "1,2,3", "--out", tmp_path / "four")
    assert done.exit_code == 0, done.output
    deep = write_raster(tmp_path / "deep.tif", pixels.astype(np.uint16) * 64, **place)
    done = invoke("predict", deep, "--out", tmp_path / "deep")
    assert done.exit_code == 0, done.output


def test_a_margin_is_found_and_drawn(model, tmp_path):
    """The model calls bright pixels building: of these scenes it is never wrong."""
    town = tmp_path / "town"
    write_folder(town, [(64, 70)] * 4)
    done = invoke("calibrate", model, "--data", town)
    assert done.exit_code == 2
    assert "Error: a risk of 0.1 needs 9 scenes or more, got 4" in done.stderr
    words = ("calibrate", model, "--data", town, "--alpha", 0.4)
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert {"a", "b", "c", "d"} <= set(done.stdout.splitlines())
    assert "60 % of the true walls of a scene, on average, lie within" in done.stdout
    assert (tmp_path / "bright.margin.json").is_file()
    done = invoke(*words)
    assert done.exit_code == 2 and "exists; give --overwrite" in done.stderr

    image, out = town / "images" / "a.tif", tmp_path / "out"
    truth = ("--masks", town / "masks")
    words = ("predict", image, "--model", model, "--out", out, *truth)
    done = invoke(*words, "--margin", "distance")
    assert done.exit_code == 0, done.output
    assert "margin: 60 % of the true walls of a scene" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        *("a_mask.tif", "a_buildings.gpkg", "a_margin.tif", "a_margin.gpkg"),
        "metrics.json",
    }
    for more, says in (
        (("--margin", "distance", "--simplify", 3), "calibrated with simplify = 1.0"),
        (("--margin", "distance", "--tta", "flips"), "calibrated with tta = none, not"),
        (("--margin", "probability", "--shard", "1/2"), "give it to merge"),
        (("--no-resume", "--shard", "1/2"), "the rows of other shards, too"),
    ):
        done = invoke(*words, *more, "--overwrite")
        assert done.exit_code == 2 and says in done.stderr, done.output
    parts = ("--model", model, "--out", tmp_path / "parts")
    for shard in ("1/2", "2/2"):
        done = invoke("predict", image, *parts, "--shard", shard)
        assert done.exit_code == 0, done.output
    merge = ("merge", image, *parts, "--margin", "distance")
    done = invoke(*merge, "--min-area", 3)
    assert done.exit_code == 2 and "calibrated with min_area = 5.0" in done.stderr
    done = invoke(*merge, "--report")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "parts" / "a_report.html").is_file()
    with (
        rasterio.open(tmp_path / "parts" / "a_margin.tif") as merged,
        rasterio.open(out / "a_margin.tif") as whole,
    ):
        np.testing.assert_array_equal(merged.read(), whole.read())
    margin = tmp_path / "bright.margin.json"
    margin.unlink()
    done = invoke(*words, "--margin", "distance", "--overwrite")
    assert done.exit_code == 2
    assert f"bdloss calibrate makes it: {margin}" in done.stderr


def test_reports_are_written_and_compared(model, image, tmp_path):
    out = tmp_path / "out"
    words = ("predict", image, "--model", model, "--out", out, "--report")
    done = invoke(*words, "--masks", tmp_path / "truth")
    assert done.exit_code == 0, done.output
    page = out / "town_report.html"
    assert str(page) in done.stdout and "IoU" in page.read_text()
    written = page.stat().st_mtime_ns
    done = invoke(*words, "--masks", tmp_path / "truth")  # all of it is kept
    assert done.exit_code == 0 and page.stat().st_mtime_ns == written
    assert f"kept: {page}; --overwrite writes it anew" in done.stdout
    other = ("--out", tmp_path / "other", "--compare")
    done = invoke("predict", image, "--model", model, "--report", *other, out)
    assert done.exit_code == 0, done.output
    assert 'id="swipe"' in (tmp_path / "other" / "town_report.html").read_text()
    words = (
        *("score", out / "town_mask.tif", tmp_path / "truth" / "town.tif"),
        *("--images", image, "--report", "--out"),
    )
    done = invoke(*words, out)
    assert done.exit_code == 2 and "town_report.html exists; give" in done.stderr
    assert not (out / "scores.json").exists()
    assert page.stat().st_mtime_ns == written
    done = invoke(*words, tmp_path / "scores")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "scores" / "town_report.html").is_file()
    village = image.with_name("village.tif")
    village.write_bytes(image.read_bytes())
    words = [village if word == image else word for word in words]
    done = invoke(*words, tmp_path / "none")
    assert done.exit_code == 2 and not (tmp_path / "none").exists()
    assert "no orthophoto is called like a prediction: town" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--compare", "OUT"], "--compare is shown in a --report"),
        (["--report", "--compare", "OUT"], "no outlines to compare with: "),
        (
            ["--report", "--compare", "OUT", "--no-polygons"],
            "--no-polygons leave",
        ),
        (["--report", "--shard", "1/2"], "whole rasters: give it to merge"),
    ],
)
def test_reports_that_cannot_be_written(model, image, tmp_path, words, says):
    words = [tmp_path if word == "OUT" else word for word in words]
    out = tmp_path / "out"
    done = invoke("predict", image, "--model", model, "--out", out, *words)
    assert done.exit_code == 2 and says in done.stderr
    out.mkdir(exist_ok=True)
    (out / "town_report.html").write_text("mine")
    done = invoke("predict", image, "--model", model, "--out", out, "--report")
    assert done.exit_code == 2 and "exists; give --overwrite" in done.stderr
    assert [path.name for path in out.iterdir()] == ["town_report.html"]


def test_four_bands_begin_with_three_of_them_or_anew(suburb, tmp_path):
    image, pixels, place = suburb
    write_raster(
        image, np.dstack([pixels, pixels[..., 0]]), **place, photometric="minisblack"
    )
    sets = ("stage.0.epochs=1", "patches.steps=1", "dataset.validation=0.0")
    words = (
        *("train", "--dataset", "folder", "--data", image.parents[1]),
        *(word for setting in sets for word in ("--set", setting)),
    )
    done = invoke(*words, "--out", tmp_path / "run")
    assert done.exit_code == 2
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("Error")]
    assert "buildings takes 3 bands, the data have 4; dataset.bands" in line
    assert not (tmp_path / "run").exists()
    done = invoke(
        *(*words, "--out", tmp_path / "three", "--set", "dataset.bands=[1, 2, 3]")
    )
    assert done.exit_code == 0, done.output


def test_a_network_that_learns_contact_tells_touching_houses_apart(tmp_path):
    pixels, houses = make_rows(0, 96, 128)
    write_raster(tmp_path / "town" / "images" / "a.tif", pixels)
    write_outlines(tmp_path / "town" / "houses.geojson", houses, UTM)
    settings = [
        *("dataset.contact=2", "dataset.validation=0.0", "loss.extra=none"),
        *("model.filters=8", "model.blocks=2", "patches.size=32"),
        *("patches.steps=40", "patches.workers=1"),
        *("stage.0.epochs=2", "stage.0.learning_rate=1e-2"),
    ]
    done = invoke(
        *("train", "--dataset", "folder_from_nothing", "--data", tmp_path / "town"),
        *("--out", tmp_path / "run"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert done.exit_code == 0, done.output
    done = invoke(
        *("data", "show", "--dataset", "folder", "--data", tmp_path / "town"),
        *("--set", "dataset.contact=2", "--out", tmp_path / "sheet.png"),
    )
    assert "contact in magenta, ignored pixels dark" in done.stdout
    pixels, houses = make_rows(1, 96, 128)
    image = write_raster(tmp_path / "b.tif", pixels)
    matched = {}
    for split in ("--split", "--no-split"):
        out = tmp_path / f"out{split}"
        model = tmp_path / "run" / "model.keras"
        done = invoke("predict", image, "--model", model, "--out", out, split)
        assert done.exit_code == 0, done.output
        found = read_outlines(out / "b_buildings.gpkg", UTM)
        matched[split] = len(match_polygons(houses, found)[0])
    assert matched["--split"] == len(houses) > 15
    assert matched["--no-split"] < len(houses) / 2


def test_predict_scores_what_it_finds(model, image, tmp_path):
    done = invoke(
        *("predict", image, "--model", model, "--out", tmp_path / "out"),
        *("--masks", tmp_path / "truth"),
    )
    assert done.exit_code == 0, done.output
    assert "IoU 1.000   BF1 (3 px) 1.000" in done.stdout


def test_predict_says_what_right_angles_cost(model, image, tmp_path):
    words = ("predict", image, "--model", model, "--out")
    assert invoke(*words, tmp_path / "plain").exit_code == 0
    truth = tmp_path / "plain" / f"{image.stem}_buildings.gpkg"
    straight = ("--masks", truth, "--min-hole", "4", "--regularize")
    done = invoke(*words, tmp_path / "out", *straight)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    said = r"\d+ of \d+ have right angles; \d+ vertices became \d+$"
    assert re.search(said, lines[2])
    number = r"\d\.\d{3}"
    assert re.fullmatch(
        "by right angles: F1 of buildings 1.000 -> 1.000   "
        rf"PoLiS 0.000 -> {number}   C-IoU 1.000 -> {number}   "
        rf"N-ratio 1.000 -> {number}",
        lines[-1],
    )
    names = ("metrics.json", f"{image.stem}_mask.tif", f"{image.stem}_buildings.gpkg")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)


def test_config_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("pach = 64")
    done = invoke("train", "--config", path)
    assert done.exit_code == 2
    assert (
        done.stderr == "Error: unknown setting 'pach'; did you mean 'patches.size'?\n"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--config", "none.toml"], "no such file: none.toml"),
        (["train", "--dataset", "mars"], "dataset must be one of"),
        (["train", "--dataset", "folder"], "the folder data set needs its folder"),
        (["train", "--dataset", "folder", "--config", "a.toml"], "not both"),
        (["train", "--set", "loss.teta=7"], "did you mean 'loss.theta'"),
        (["train", "--dataset", "folder", "--data", "nowhere"], "no such folder"),
        (["train", "--devices", "-1"], "devices must be a number above 0, or all"),
        (["train", "--set", "stage=[]"], "stage must have at least one item, got []"),
        (
            ["train", "--set", "stage.0.learning_rate=0"],
            "must be greater than 0, got 0",
        ),
        (["train", "--set", "patches.size=100"], "patches.size must be a multiple of"),
        (
            ["train", "--set", "loss.extra=sharp"],
            "loss.extra must be 'boundary', 'oriented', 'edge'",
        ),
        (
            ["train", "--set", "loss.lam=1.5"],
            "loss.lam must be less than or equal to 1, got",
        ),
        (
            ["train", "--set", "prediction.tta=turns"],
            "tta must be 'none', 'flips' or 'd4'",
        ),
        (
            ["train", "--set", "dataset.contact=-1"],
            "greater than or equal to 0, got -1",
        ),
        (["train", "--set", "dataset.contact=0.5"], "must be a valid integer, got 0.5"),
        (
            ["train", "--data", "TOWN", "--set", "dataset.contact=2"],
            "dataset.contact needs outlines, got masks: ",
        ),
        (["predict", "none.tif", "--model", "MODEL"], "no such file: none.tif"),
        (["predict", "TEXT", "--model", "MODEL"], "not a raster"),
        (["predict", "GREY", "--model", "MODEL"], "takes 3 bands, grey.tif has 1"),
        (["predict", "IMAGE", "--model", "none.keras"], "no such file: none.keras"),
        (["predict", "IMAGE", "--model", "TEXT"], "not a Keras model"),
        (["predict", "IMAGE", "--model", "MODEL", "--masks", "SMALL"], "of the size"),
        (["predict", "IMAGE", "--model", "MODEL", "--masks", "AWAY"], "overlap"),
        (["predict", "IMAGE", "IMAGE", "--model", "MODEL"], "names of their own"),
        (["predict", "IMAGE", "--model", "MODEL", "--overlap", "32"], "overlap must"),
        (["predict", "IMAGE", "--model", "CLASSES"], "must give one map of buildings"),
        (["predict", "FIVE", "--model", "MODEL"], "five.tif has 5; --bands chooses"),
        (["predict", "PLAIN", "--model", "MODEL", "--min-hole", "4"], "CRS lacks"),
        ([*PREDICT, "--aoi", "5,2,3,4"], "with min below max, got 5,2,3,4"),
        ([*PREDICT, "--aoi", "-9,2,3,4"], "must overlap the raster, got (-9"),
        ([*PREDICT, "--aoi", "1 2 3 4", "--aoi-crs", "mars"], "is like EPSG:4326, got"),
        ([*PREDICT, "--aoi", "AWAY"], "must overlap the raster"),
        ([*PREDICT, "--aoi", "AWAY", "--aoi-crs", "EPSG:4326"], "of four numbers"),
        ([*PREDICT, "--aoi-crs", "EPSG:4326"], "of four numbers"),
        ([*PREDICT, "--aoi", "BOWTIE"], "is valid, got Self-intersection"),
        ([*PREDICT, "--aoi", "NOTHING"], "is a polygon, got none"),
        ([*PREDICT, "--aoi", "TEXT"], "not a file of outlines"),
        ([*PREDICT, "--aoi", "none.gpkg"], "no such file: none.gpkg"),
        (
            ["predict", "PLAIN", "--model", "MODEL", "--aoi", "AWAY"],
            "both have a CRS or both have none",
        ),
        (["export", "CLASSES"], "must give one map of buildings"),
        (["export", "TEXT"], "not a Keras model"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words, says, model, image, tmp_path, monkeypatch
):
    pixels, mask = make_scene(3, 50, 70)
    places = {
        "MODEL": model,
        "IMAGE": image,
        "TEXT": tmp_path / "text.tif",
        "GREY": write_raster(tmp_path / "grey.tif", pixels[..., :1]),
        "FIVE": write_raster(tmp_path / "five.tif", pixels[..., [0, 1, 2, 0, 1]]),
        "SMALL": write_raster(tmp_path / "small.tif", mask[:40]),
        "PLAIN": write_raster(tmp_path / "plain.tif", pixels, crs=None, transform=None),
        "AWAY": write_geojson(tmp_path / "away.geojson", [10, 50], [11, 50], [11, 51]),
        "BOWTIE": write_geojson(
            *(tmp_path / "bowtie.geojson", [80, 20], [90, 35], [90, 20], [80, 35])
        ),
        "NOTHING": tmp_path / "nothing.geojson",
        "CLASSES": tmp_path / "classes.keras",
        "TOWN": write_folder(tmp_path / "masked"),
    }
    places["TEXT"].write_text("hello")
    models.save_model(models.build_model(classes=2, blocks=1), places["CLASSES"], {})
    places["NOTHING"].write_text('{"type": "FeatureCollection", "features": []}')
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = invoke(*(places.get(word, word) for word in words), "--out", tmp_path / "o")
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if "Mpx" not in line]
    lines = [line for line in lines if line.strip()]  # a bar that was erased
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert says in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("kept")
    done = invoke("train", "--out", tmp_path / "file" / "run")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert "Not a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_output_that_exists_is_kept(model, image, tmp_path):
    words = ["predict", image, "--model", model, "--out", tmp_path / "out"]
    first = invoke(*words)
    assert first.exit_code == 0
    again = invoke(*words)
    assert again.exit_code == 0
    assert again.stdout == first.stdout.replace("town.tif: ", "town.tif: kept: ")
    other = invoke(*words, "--threshold", 0.9)
    assert other.exit_code == 2
    assert "town_mask.tif exists, made with threshold 0.5" in other.stderr
    assert invoke(*words, "--overwrite").exit_code == 0


def test_export_writes_beside_the_model(model, tmp_path):
    pytest.importorskip("tf2onnx")
    done = invoke("export", model)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == str(tmp_path / "bright.onnx")
    assert "tile_size             32" in done.stdout
    assert (tmp_path / "bright.onnx").stat().st_size > 500
    again = invoke("export", model)
    assert again.exit_code == 2
    assert "bright.onnx exists; give --overwrite" in again.stderr


def test_bands_are_numbers(model, image, tmp_path):
    words = ["predict", image, "--model", model, "--out", tmp_path / "out", "--bands"]
    assert invoke(*words, "3,2,1").exit_code == 0
    done = invoke(*words, "red")
    assert done.exit_code == 2
    assert "'red' is not a list of numbers like 3,2,1" in done.stderr


def test_shards_merge_to_the_unsharded_result(model, image, tmp_path):
    words = ["predict", image, "--model", model, "--prob", "--out"]
    assert invoke(*words, tmp_path / "one").exit_code == 0
    for shard in ("3/3", "1/3"):
        done = invoke(*words, tmp_path / "out", "--shard", shard)
        assert done.exit_code == 0
        assert f"town.tif: part {shard} of its rows, for merge, in " in done.stdout
    merge = ["merge", image, "--prob", "--out", tmp_path / "out"]
    done = invoke(*merge)
    assert done.exit_code == 2
    assert "rows from 16 on are missing" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["town_mask.partial"]
    assert invoke(*words, tmp_path / "out", "--shard", "2/3").exit_code == 0
    done = invoke(*merge)
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"town_mask.tif", "town_prob.tif", "town_buildings.gpkg"}
    for name in ("town_mask.tif", "town_prob.tif"):
        with (
            rasterio.open(tmp_path / "out" / name) as merged,
            rasterio.open(tmp_path / "one" / name) as whole,
        ):
            np.testing.assert_array_equal(merged.read(), whole.read())
            assert merged.tags() == whole.tags()
    tables = [
        pyogrio.raw.read(tmp_path / folder / "town_buildings.gpkg")[2:]
        for folder in ("out", "one")
    ]
    for merged, whole in zip(*tables, strict=True):
        np.testing.assert_array_equal(merged, whole)


def test_of_several_rasters_those_in_the_area_are_mapped(model, tmp_path):
    pixels = make_scene(3, 50, 70)[0]
    for number, name in enumerate("abc"):
        corner = CORNER @ Affine.translation(100 * number, 0)
        write_raster(tmp_path / f"{name}.tif", pixels, transform=corner)
    area, out = "353905,3057490,353935 3057600", tmp_path / "out"
    words = ["--model", model, "--no-polygons", "--out", out, "--aoi", area]
    done = invoke("predict", *(tmp_path / f"{name}.tif" for name in "abc"), *words)
    assert done.exit_code == 0, done.output
    assert "c.tif: outside of the area of interest\n" in done.stdout
    assert {path.name for path in out.iterdir()} == {"a_mask.tif", "b_mask.tif"}
    with rasterio.open(out / "b_mask.tif") as source:
        known = source.read(1) != 255
    assert known[:33, :17].all()
    assert known.sum() == 33 * 17
    done = invoke("predict", tmp_path / "c.tif", *words)
    assert done.exit_code == 2
    assert "must overlap the raster" in done.stderr


def test_an_area_is_three_shards_or_one(model, image, tmp_path):
    words = [
        "predict",
        image,
        "--model",
        model,
        "--aoi",
        "353905 3057488 353917 3057497",
    ]
    words += ["--aoi-edge", "whole", "--out"]
    assert invoke(*words, tmp_path / "one").exit_code == 0
    for shard in ("1/3", "2/3", "3/3"):
        assert invoke(*words, tmp_path / "out", "--shard", shard).exit_code == 0
    other = invoke(*words[:-2], "cut", "--out", tmp_path / "out", "--shard", "1/3")
    assert other.exit_code == 2
    assert "begun with aoi whole" in other.stderr
    assert invoke("merge", image, "--out", tmp_path / "out").exit_code == 0
    kept = invoke(*words, tmp_path / "out")
    assert "town.tif: kept: " in kept.stdout
    masks = [rasterio.open(tmp_path / f / "town_mask.tif") for f in ("one", "out")]
    np.testing.assert_array_equal(masks[0].read(), masks[1].read())


def write_cog(path, side):
    """Write a cloud-optimised image of noise and a roof, which do not compress."""
    pixels = np.random.default_rng(3).integers(0, 90, (side, side, 3), np.uint8)
    pixels[400:440, 500:560] = 200
    profile = {"driver": "COG", "blocksize": 128, "overviews": "none"}
    return write_raster(path, pixels, **profile)


@pytest.mark.parametrize(
    ("prefix", "query"), [("", ""), ("/vsicurl/", ""), ("", "?key=a/b.c")]
)
def test_a_raster_by_its_address(model, web, tmp_path, prefix, query):
    folder, address = web
    local = write_cog(folder / "town.tif", 576)
    address = f"{prefix}{address}/town.tif{query}"
    words = ["--model", model, "--overlay", "--out"]
    done = invoke("predict", address, *words, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "town.tif: 1 buildings: " in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"town_mask.tif", "town_buildings.gpkg", "town_overlay.png"}
    assert (
        "kept: 1 buildings"
        in invoke("predict", address, *words, tmp_path / "out").stdout
    )
    assert invoke("predict", local, *words, tmp_path / "local").exit_code == 0
    one, other = (tmp_path / name / "town_mask.tif" for name in ("out", "local"))
    with rasterio.open(one) as remote, rasterio.open(other) as near:
        np.testing.assert_array_equal(remote.read(), near.read())
    for shard in ("1/2", "2/2"):
        words = ["--model", model, "--out", tmp_path / "parts", "--shard", shard]
        assert invoke("predict", address, *words).exit_code == 0
    merged = invoke("merge", address, "--out", tmp_path / "parts")
    assert "town.tif: 1 buildings: " in merged.stdout


def test_of_an_address_only_the_area_is_fetched(model, web, tmp_path):
    folder, address = web
    size = write_cog(folder / "town.tif", 3072).stat().st_size
    west, north = CORNER @ (480, 380)
    east, south = CORNER @ (580, 460)
    # Its digest looks at pixels spread over it; a process of its own has no cache.
    words = [f"{address}/town.tif", "--model", model, "--out", tmp_path / "out"]
    area = f"{west},{south},{east},{north}"
    command = [sys.executable, "-m", "bdloss", "predict", *words, "--aoi", area]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 buildings" in done.stdout
    with urllib.request.urlopen(f"{address}/sent") as answer:
        sent = int(answer.read())
    assert 0 < sent < size / 3


def test_a_merge_that_fails_does_not_stop_the_others(model, image, tmp_path):
    other = write_raster(tmp_path / "alone.tif", make_scene(3, 50, 70)[0])
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        words = ["predict", image, "--model", model, "--out", out, "--shard", shard]
        assert invoke(*words).exit_code == 0
    done = invoke("merge", other, image, "--out", out)
    assert done.exit_code == 1
    assert "Error: alone.tif: no shards of alone.tif in this folder" in done.stderr
    assert "Error: 1 of 2 rasters failed" in done.stderr
    assert (out / "town_mask.tif").is_file()


def test_shards_of_a_list_are_files(model, tmp_path):
    for name in "abc":
        write_raster(tmp_path / "towns" / f"{name}.tif", make_scene(3, 50, 70)[0])
    words = ["predict", tmp_path / "towns", "--model", model, "--out", tmp_path / "out"]
    assert invoke(*words, "--no-polygons", "--shard", "1/2").exit_code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_mask.tif", "c_mask.tif"}


@pytest.mark.parametrize("shard", ["0/0", "3/2", "2", "a/b"])
def test_a_shard_that_there_is_not(model, image, tmp_path, shard):
    words = ["predict", image, "--model", model, "--out", tmp_path / "out"]
    assert invoke(*words, "--shard", shard).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_broken_raster_does_not_stop_the_others(model, image, tmp_path):
    folder = tmp_path / "towns"
    for name in ("a.tif", "c.tif"):
        write_raster(folder / name, make_scene(3, 50, 70)[0])
    content = image.read_bytes()
    (folder / "b.tif").write_bytes(content[: len(content) // 2])
    done = invoke("predict", folder, "--model", model, "--out", tmp_path / "out")
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert lines[0].startswith(f"Error: b.tif: damaged raster: {folder / 'b.tif'}, be")
    assert lines[1:] == ["Error: 1 of 3 rasters failed"]
    names = {path.name for path in (tmp_path / "out").glob("*.*") if path.is_file()}
    assert names == {f"{n}_{p}" for n in "ac" for p in ("mask.tif", "buildings.gpkg")}


def test_data_show_draws_patches_and_caches_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = write_folder(tmp_path / "town")
    words = ["data", "show", "--dataset", "folder", "--data", folder]
    out = tmp_path / "sheet.png"
    done = invoke(*words, "--set", "patches.size=32", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}: outlines in yellow, ignored pixels dark\n"
    assert out.stat().st_size > 1000
    assert list((tmp_path / "caches" / "bdloss").iterdir()) == []
    again = invoke(*words, "--set", "patches.size=32", "--out", out)
    assert again.exit_code == 2
    assert "sheet.png exists" in again.stderr
    taken = folder / "images" / "a.tif"
    before = taken.read_bytes()
    done = invoke(*words, "--set", "patches.size=32", "--out", taken, "--overwrite")
    assert done.exit_code == 2
    assert "an output must not replace an input" in done.stderr
    assert taken.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["-dash", ".hidden", "~a", "$a", "gpkg_x", "sqlite_a", "a;b", "a\tb", "ö ä"]
)
def test_a_raster_of_any_name_is_mapped(model, image, tmp_path, name):
    town, out = tmp_path / f"{name}.tif", tmp_path / "out"
    image.rename(town)
    words = ["predict", town, "--model", model, "--out", out]
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}_mask.tif", f"{name}_buildings.gpkg")
    }
    assert "kept: 2 buildings" in invoke(*words).stdout
    scored = invoke("score", out / f"{name}_mask.tif", out / f"{name}_buildings.gpkg")
    assert scored.exit_code == 0, scored.output


def test_what_waits_for_a_writer_is_no_raster(model, tmp_path):
    os.mkfifo(tmp_path / "town.tif")
    words = ["predict", tmp_path / "town.tif", "--model", model, "--out", tmp_path]
    done = invoke(*words)
    assert done.exit_code == 2
    assert f"not a raster: {tmp_path / 'town.tif'}" in done.stderr


def test_a_model_is_a_keras_file(model, image, tmp_path):
    other = model.rename(tmp_path / "bright.zip")
    done = invoke("predict", image, "--model", other, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "a model must be a file that ends in .keras" in done.stderr


def test_data_clear_cache_says_how_much_it_removes(tmp_path):
    entry = tmp_path / f"{'0' * 16}-{'f' * 16}"
    entry.mkdir()
    (entry / "pixels.npy").write_bytes(bytes(25_000_000))
    done = invoke("data", "clear-cache", "--cache", tmp_path)
    assert done.stdout == f"{tmp_path}: 0.03 GB removed\n"
    assert not entry.exists()


def test_theta_from_masks(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = mask[5:15, 21:31] = mask[25:35, 5:15] = 1  # gaps of 6 and 10
    path = write_raster(tmp_path / "mask.tif", mask)
    done = invoke("theta", path, "--out", tmp_path / "gaps.png")
    assert done.exit_code == 0, done.output
    assert "buildings     3, 0 of them alone" in done.stdout
    assert "smallest gap  6 pixels: theta 5" in done.stdout
    assert "theta 5       0% of buildings stand too close" in done.stdout
    assert "theta 7       67% of buildings stand too close" in done.stdout
    assert (tmp_path / "gaps.png").stat().st_size > 1000
    folder = write_folder(tmp_path / "town")
    assert invoke("theta", "--data", folder).exit_code == 0


def test_theta_needs_masks_or_a_data_set(tmp_path):
    done = invoke("theta")
    assert done.exit_code == 2
    assert "give masks and outlines, or --data" in done.stderr


def test_score_compares_folders_of_masks(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        mask = make_scene(seed, 50, 70)[1]
        write_raster(tmp_path / "truth" / f"{name}.tif", mask * 255)
        moved = np.roll(mask, 1, axis=1) if name == "a" else mask
        write_raster(tmp_path / "pred" / f"{name}_mask.tif", moved)
    out = tmp_path / "scores"
    done = invoke("score", tmp_path / "pred", tmp_path / "truth", "--out", out)
    assert done.exit_code == 0, done.output
    area, boundary, buildings, _ = done.stdout.split("\n\n")
    area, boundary, buildings = (
        {line.split()[0]: line.split()[1:] for line in group.splitlines()}
        for group in (area, boundary, buildings)
    )
    assert area["b"] == ["1.0000"] * 2
    assert boundary["b"][:4] == ["1.0000"] * 4
    assert buildings["b"][:4] == ["1.0000"] * 4
    assert 0.5 < float(area["a"][0]) < float(area["all"][0]) < 1
    assert {"scores.json", "scores.md", "a_errors.png"} <= {
        path.name for path in out.iterdir()
    }
    again = invoke("score", tmp_path / "pred", tmp_path / "truth", "--out", out)
    assert again.exit_code == 2


def test_figure_draws_the_stages_of_the_loss(tmp_path):
    mask = make_scene(1, 50, 70)[1]
    truth = write_raster(tmp_path / "truth.tif", mask)
    pred = write_raster(tmp_path / "pred.tif", np.roll(mask, 2, axis=0))
    done = invoke("figure", pred, truth, "--out", tmp_path / "figure.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_fault_of_our_own_is_one_line_and_exit_code_70(
    image, model, monkeypatch, kind
):
    def fail(*_, **__):
        raise kind("no such thing\nand more")

    monkeypatch.setattr(front, "predict_raster", fail)
    words = ("predict", image, "--model", model, "--out", image.parent / "out")
    done = invoke(*words)
    assert done.exit_code == 70
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert line.startswith("Error: this is a fault of bdloss, not of your input: ")
    assert f"{kind.__name__}: no such thing (predict.py, line " in line
    assert line.endswith("--debug shows all of it")
    assert isinstance(invoke(*words, "--debug").exception, kind)


def test_debug_shows_where_bad_input_was_noticed(model):
    done = invoke("predict", "none.tif", "--model", model, "--debug")
    assert isinstance(done.exception, FileNotFoundError)


def test_whatever_is_wrong_with_one_raster_the_others_are_mapped(
    image, model, tmp_path, monkeypatch
):
    pixels, _ = make_scene(3, 50, 70)
    other = write_raster(tmp_path / "odd.tif", pixels)
    real = front.predict_raster

    def odd(orthophoto, *args, **settings):
        if orthophoto.path == other:
            raise TypeError("odd")
        return real(orthophoto, *args, **settings)

    monkeypatch.setattr(front, "predict_raster", odd)
    out = tmp_path / "out"
    done = invoke("predict", other, image, "--model", model, "--out", out)
    assert done.exit_code == 1
    assert "Error: odd.tif: this is a fault of bdloss" in done.stderr
    assert "1 of 2 rasters failed" in done.stderr
    assert (out / f"{image.stem}_mask.tif").is_file()


def test_no_output_replaces_an_input(image, model, tmp_path):
    pixels, mask = make_scene(3, 50, 70)
    second = write_raster(tmp_path / f"{image.stem}_mask.tif", pixels)
    truth = write_raster(tmp_path / "truth.tif", mask)
    link = tmp_path / "link.png"
    link.symlink_to(truth)
    cases = [
        ("predict", image, second, "--model", model, "--out", tmp_path),
        ("predict", image, "--model", model, "--out", tmp_path, "--masks", tmp_path),
        ("predict", image, "--model", model, "--out", tmp_path, "--masks", second),
        ("export", model, "-o", model),
        ("figure", truth, truth, "--out", link),
        ("theta", truth, "--out", truth),
    ]
    before = {path: path.read_bytes() for path in (image, second, truth, model)}
    for words in cases:
        done = invoke(*words, "--overwrite")
        assert done.exit_code == 2, words
        assert "must not replace an input" in done.stderr or "not --out" in done.stderr
        assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "words",
    [
        ["--min-area", "nan"],
        ["--simplify", "inf"],
        ["--resolution", "inf"],
        ["--resolution", "-0.3"],
        ["--resolution", "coarse"],
        ["--threshold", "nan"],
    ],
)
def test_numbers_are_finite(image, model, words, tmp_path):
    out = tmp_path / "out"
    done = invoke("predict", image, "--model", model, "--out", out, *words)
    assert done.exit_code == 2
    assert (
        "is not a finite number" in done.stderr
        or "neither auto, native " in done.stderr
    )
    assert not out.exists()


def test_nan_may_be_what_has_no_data(model, tmp_path):
    pixels, _ = make_scene(3, 50, 70)
    values = pixels.astype("float32")
    values[:20] = np.nan
    image = write_raster(tmp_path / "float.tif", values)
    words = ("predict", image, "--model", model, "--out", tmp_path / "out")
    for _ in range(2):  # and once more what was made with it is known
        done = invoke(*words, "--nodata", "nan")
        assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out" / "float_mask.tif") as source:
        mask = source.read(1)
    assert (mask[:20] == 255).all()
    assert (mask[20:] != 255).all()
    assert "kept" in done.stdout


CLASSES = {"house": 7, "road": 9}


@pytest.fixture
def classes(tmp_path):
    """A folder of scenes whose masks have three values, and words that say so."""
    root = tmp_path / "town"
    for seed, name in enumerate("ab"):
        pixels, mask = make_scene(seed, 64, 70)
        road = np.roll(mask, 20, axis=1) & (mask == 0)
        write_raster(root / "images" / f"{name}.tif", pixels)
        write_raster(root / "masks" / f"{name}.tif", 7 * mask + 9 * road)
    named = [f"dataset.classes.{name}={value}" for name, value in CLASSES.items()]
    return root, [word for each in named for word in ("--set", each)]


def test_data_knows_the_classes_of_masks(classes, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    root, named = classes
    data = ("--dataset", "folder", "--data", root, *named)
    done = invoke("data", "check", *data)
    assert done.exit_code == 0, done.output
    assert "faults      0, and 0 to look at" in done.stdout
    shares = [line for line in done.stdout.splitlines() if line.startswith("train")]
    assert "% house, " in shares[0] and "% road, 0.0% ignored" in shares[0]
    words = ("data", "show", *data, "--set", "patches.size=32")
    done = invoke(*words, "--out", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    colours = default_colours(2)
    assert f"outlines house {colours[0]}, road {colours[1]}, ignored" in done.stdout
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    for colour in map(rgb_of, colours):
        assert (sheet == colour).all(axis=-1).sum() > 100


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["dataset.classes.house=7"], "values of its classes, got 9 at row"),
        (["dataset.classes.house='#ff0000'"], "need a mask of three bands"),
        (
            ["dataset.classes.house='#ff0000'", "dataset.classes.road='#FF0000'"],
            "house and road are both '#FF0000'",
        ),
        (
            [
                "dataset.classes.house=7",
                "dataset.classes.road=9",
                "loss.class_weights.x=1",
            ],
            "loss.class_weights are of house, road, contact, got 'x'",
        ),
    ],
)
def test_classes_that_are_not_there_are_one_line(
    classes, tmp_path, monkeypatch, named, says
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    root, _ = classes
    sets = [word for each in named for word in ("--set", each)]
    data = ("--dataset", "folder", "--data", root)
    done = invoke("train", *data, *sets, "--out", tmp_path / "run")
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line]
    assert lines[-1].startswith("Error: ") and says in lines[-1]
    assert "mask" not in says or str(root / "masks" / "a.tif") in lines[-1]
    assert not (tmp_path / "run").exists()


def test_one_class_of_masks_is_scored_drawn_and_measured(classes, tmp_path):
    root, _ = classes
    masks = root / "masks"
    with rasterio.open(masks / "a.tif") as source:
        values = source.read(1)
    house = write_raster(tmp_path / "house.tif", np.where(values == 7, 1, 0))
    done = invoke("score", house, masks / "a.tif", "--class", 1)
    assert done.exit_code == 0 and "0.0000" in done.stdout  # none has the value 1
    seven = write_raster(tmp_path / "seven.tif", np.where(values == 7, 7, 3))
    done = invoke("score", seven, masks / "a.tif", "--class", 7)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split()[-2:] == ["1.0000", "1.0000"]
    whole = invoke("score", seven, masks / "a.tif")
    assert whole.stdout.splitlines()[1].split()[-2:] != ["1.0000", "1.0000"]
    out = tmp_path / "figure.png"
    done = invoke("figure", seven, masks / "a.tif", "--class", 7, "--out", out)
    assert done.exit_code == 0, done.output
    said = [
        invoke("theta", path, *words).stdout.splitlines()[1:]
        for path, words in (
            (house, ()),
            (masks / "a.tif", ("--class", 7)),
            (masks / "a.tif", ()),
        )
    ]
    assert said[0] == said[1] != said[2]
    assert invoke("theta", "--data", root, "--class", 7).exit_code == 2


def test_a_model_of_classes_maps_them_and_is_not_scored_as_one(image, tmp_path):
    path = tmp_path / "classes.keras"
    network = models.build_model(classes=2, filters=2, blocks=1, activation="softmax")
    models.save_model(network, path, {"classes": list(CLASSES), "window": 32})
    words = ("predict", image, "--model", path, "--out", tmp_path / "out")
    done = invoke(*words, "--masks", tmp_path / "truth")
    assert done.exit_code == 2
    assert "--masks scores one class, the model has house, road" in done.stderr
    assert not (tmp_path / "out").exists()
    done = invoke(*words, "--threshold", "0.2", "--overlay")
    assert done.exit_code == 0, done.output
    assert " outlines: " in done.stdout
    with rasterio.open(tmp_path / "out" / "town_mask.tif") as source:
        assert source.tags(1)["class_2"] == "road"
        assert set(np.unique(source.read(1))) <= {0, 1, 2}


def test_data_check_lists_every_fault(tmp_path):
    root = write_folder(tmp_path / "town", [(64, 64), (64, 70), (64, 66)])
    for name in ("a.tif", "c.tif"):
        (root / "images" / name).write_text("no raster")
    done = invoke("data", "check", "--dataset", "folder", "--data", root)
    assert done.exit_code == 1
    assert done.output.count("unreadable  not a raster: ") == 2
    done = invoke(
        "train", "--dataset", "folder", "--data", root, "--out", tmp_path / "r"
    )
    assert done.exit_code == 2
    assert "Error: unreadable: not a raster" in done.stderr
    assert "(and 1 more: bdloss data check)" in done.stderr
