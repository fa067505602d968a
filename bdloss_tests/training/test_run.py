import contextlib
import csv
import json
import logging
from pathlib import Path

import keras
import numpy as np
import pytest

import bdloss
from bdloss import models
from bdloss.evaluation import scoring
from bdloss.files import locked
from bdloss.geo import raster
from bdloss.inference.sliding_window import predict_array
from bdloss.training import checkpoints
from bdloss.training import run as training
from bdloss.training.experiment import make_experiment, write_experiment
from bdloss.training.run_folder import RunFolder
from bdloss_tests.scenes import full_disk, make_scene, write_folder, write_raster

FILES = {
    "model.keras",
    "experiment.toml",
    "history.csv",
    "curves.png",
    "samples.png",
    "metrics.json",
    "report.html",
    "logs",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Settings of an experiment that takes seconds and learns."""
    folder = write_folder(tmp_path_factory.mktemp("town"))
    return {
        "dataset": {"root": str(folder), "validation": 0.3, "test": ["b"]},
        "model": {"filters": 4, "blocks": 2},
        "patches": {"size": 32, "batch_size": 4, "steps": 10, "workers": 1},
        "prediction": {"tta": "flips"},
        "weight": {"start": 0.0, "end": 0.4, "first": 0, "last": 2},
        "stage": [
            {"epochs": 3, "learning_rate": 1e-2},
            {"epochs": 2, "learning_rate": 5e-3, "schedule": "cosine"},
        ],
    }


def changed(small, **tables):
    """Return settings with some in their tables changed."""
    return {
        **small,
        **{
            name: {**small.get(name, {}), **table} if isinstance(table, dict) else table
            for name, table in tables.items()
        },
    }


@contextlib.contextmanager
def logged():
    """Yield a list that what is logged is written to."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("bdloss")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "town"
    with logged() as lines:
        result = training.train(make_experiment(small), out, verbose=0)
    return out, result, lines


def test_run_folder_is_whole(run):
    out, result, _ = run
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "metrics.json").read_text()) == result
    page = (out / "report.html").read_text("utf-8")
    assert page.count('src="data:image/png') == 2 and "filters = 4" in page
    assert f"<td>{result['test']['iou']:.4g}</td>" in page


def test_network_has_learned(run):
    _, result, _ = run
    assert result["test"]["iou"] > 0.7
    assert result["test"]["images"] == 1
    assert 0 < result["test"]["bf1_3"] <= 1


def test_history_covers_all_stages(run):
    out, result, _ = run
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert result["epochs"] == 5
    weights = [float(row["w"]) for row in rows]
    assert weights == pytest.approx([0, 0.2, 0.4, 0.4, 0.4])
    names = {"loss", "iou", "bf1", "boundary_iou"}
    assert names | {f"val_{name}" for name in names} <= set(rows[0])
    assert 0 < float(rows[-1]["val_bf1"]) <= 1


def test_model_knows_what_it_was_trained_on(run, small):
    predictor = models.load_predictor(run[0] / "model.keras")
    assert (predictor.name, predictor.band_count) == ("plain", 3)
    assert predictor.patch_size == 32
    assert predictor.resolution == pytest.approx(0.3, rel=0.01)
    assert predictor.multiple == 4
    assert predictor.tta == "flips"
    metadata = models.read_metadata(run[0] / "model.keras")
    image = Path(small["dataset"]["root"]) / "images" / "a.tif"
    assert metadata["scenes"] == {"a": raster.identify(image)["image"]}
    assert metadata["network"]["filters"] == 4


def test_scores_are_of_what_flips_give_on_average(run):
    out, result, _ = run
    predict = models.load_predictor(out / "model.keras").predict
    pixels, mask = make_scene(1, 70, 84)  # the scene b of the folder
    scores = {}
    for tta in ("none", "flips"):
        map_ = predict_array(pixels, predict, window=32, overlap=8, batch=4, tta=tta)
        pred = (map_ >= 0.5).astype(np.uint8)
        scores[tta] = scoring.score_masks([(mask, pred)]).as_json()
    assert result["test"] == pytest.approx(scores["flips"])
    assert scores["none"]["iou"] != scores["flips"]["iou"]


def test_scores_are_at_the_resolution_that_a_model_is_best_at(small, tmp_path):
    settings = changed(
        small,
        model={"blocks": 1},
        patches={"steps": 1},
        prediction={"resolution": 0.6},
        stage=[{"epochs": 1}],
    )
    result = training.train(make_experiment(settings), tmp_path / "out", verbose=0)
    assert models.load_predictor(tmp_path / "out" / "model.keras").resolution == 0.6
    assert result["test"]["pixels"] == 35 * 42  # of 70 * 84 at 0.3 m


def test_weight_of_a_baseline_stays_and_is_said(small, tmp_path):
    settings = changed(
        small,
        loss={"extra": "dice"},
        model={"blocks": 1},
        patches={"steps": 1},
        stage=[{"epochs": 2, "learning_rate": 1e-2}],
    )
    with logged() as lines:
        training.train(make_experiment(settings), tmp_path / "out", verbose=0)
    assert "weight: w = 0.5 throughout" in "\n".join(lines)
    text = (tmp_path / "out" / "history.csv").read_text()
    assert {row["w"] for row in csv.DictReader(text.splitlines())} == {"0.5"}


def test_header_says_what_it_trains_on(run):
    text = "\n".join(run[2])
    assert "training: 1 scene, 0.01 megapixels (0.3 m), " in text
    assert "% building, 0.0% ignored" in text
    assert "network: plain, " in text
    assert "device: 1 CPU, tensorflow, float32, XLA auto" in text
    assert "stage: 2 epochs, learning rate 0.005 (cosine), all trains" in text
    assert "min: 5 epochs of 10 batches" in text


def test_metrics_say_how_they_came_about(run):
    _, result, _ = run
    assert result["memory_mb"] > 50
    assert result["seconds"] > 0
    assert result["seed"] == 0
    assert result["versions"]["bdloss"] == bdloss.__version__
    assert result["machine"].endswith("1 CPU")
    assert {"git", "epochs"} <= set(result)
    assert {"iou", "bf1_3", "bf1_5"} <= set(result["validation"]) & set(result["test"])


def test_finished_run_is_not_run_again(small, run):
    before = {path: path.stat().st_mtime_ns for path in run[0].iterdir()}
    with logged() as lines:
        result = training.train(make_experiment(small), run[0])
    assert result == run[1]
    assert lines == [f"finished: {run[0]} is not run again; --fresh starts over"]
    assert {path: path.stat().st_mtime_ns for path in run[0].iterdir()} == before


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            {"model": {"backbone": "convnn"}},
            "begun with model.backbone = plain, not convnn; give another",
        ),
        ({"stage": [{"epochs": 9}]}, "begun with stage.0.epochs = 3, not 9; give"),
    ],
)
def test_run_of_another_experiment_is_kept(small, run, change, rule):
    with pytest.raises(ValueError, match=rule):
        training.train(make_experiment(changed(small, **change)), run[0])
    assert {path.name for path in run[0].iterdir()} == FILES


def test_folder_of_something_else_is_kept(small, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "logs").mkdir()
    (tmp_path / "model.keras").write_text("of another")
    for fresh in (False, True):
        with pytest.raises(FileExistsError, match="is no run; give another --out"):
            training.train(make_experiment(small), tmp_path, fresh=fresh)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"letter.txt", "logs", "model.keras"}


def test_two_processes_do_not_train_into_one_folder(small, tmp_path):
    experiment = make_experiment(
        changed(small, patches={"steps": 1}, stage=[{"epochs": 1}])
    )
    out = tmp_path / "out"
    out.mkdir()
    with (
        locked(out),
        pytest.raises(ValueError, match="in use by another process"),
    ):
        training.train(experiment, out, verbose=0)
    assert not list(out.iterdir())
    training.train(experiment, out, verbose=0)
    assert (out / "metrics.json").is_file()


def test_run_that_was_killed_at_once_goes_on(tmp_path):
    (tmp_path / ".experiment.bdloss-partial.toml").write_text("seed")
    RunFolder(tmp_path).check_is_run()


@pytest.mark.parametrize("text", ["", "[]", '{"test": 3}', '{"validation": {}}'])
def test_a_damaged_result_is_named(small, tmp_path, text):
    experiment = make_experiment(small)
    (tmp_path / "experiment.toml").write_text(write_experiment(experiment))
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"damaged; give --fresh .*metrics\.json"):
        training.train(experiment, tmp_path, verbose=0)


def test_bad_data_leaves_no_folder(small, tmp_path):
    for change, error in [
        ({"root": ""}, ValueError),
        ({"root": str(tmp_path / "nowhere")}, FileNotFoundError),
        ({"name": "mars"}, ValueError),
        ({"test": ["c"]}, ValueError),
    ]:
        with pytest.raises(error):
            experiment = make_experiment(changed(small, dataset=change))
            training.train(experiment, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_loses_nothing_that_was_finished(
    small, tmp_path, monkeypatch
):
    experiment = make_experiment(
        changed(
            small,
            stage=[{"epochs": 2}],
            patches={"steps": 2},
            fit={"tensorboard": False},
        )
    )
    expected = training.train(experiment, tmp_path / "undisturbed", verbose=0)
    out = tmp_path / "disturbed"
    kept = checkpoints.save_state

    def fill_up(state, *places, **settings):
        with full_disk(20_000) if state.epoch == 2 else contextlib.nullcontext():
            kept(state, *places, **settings)

    monkeypatch.setattr(checkpoints, "save_state", fill_up)
    with pytest.raises(OSError, match="too large"):
        training.train(experiment, out, verbose=0)
    monkeypatch.undo()
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["epoch-00001.npz"]
    result = training.train(experiment, out, verbose=0)
    assert result["test"] == expected["test"]


def test_scenes_must_have_the_same_bands(small, tmp_path):
    root = write_folder(tmp_path / "town", [(64, 64)])
    pixels, mask = make_scene(5, 60, 70, bands=4)
    write_raster(root / "images" / "z.tif", pixels, photometric="minisblack")
    write_raster(root / "masks" / "z.tif", mask)
    settings = changed(small, dataset={"root": str(root), "test": []})
    with pytest.raises(ValueError, match=r"z\.tif has 4 bands, that of a has 3"):
        training.train(make_experiment(settings), tmp_path / "out")


def test_mixed_precision_trains_and_is_saved_in_full(small, tmp_path):
    settings = changed(
        small,
        fit={"mixed_precision": True},
        model={"blocks": 1},
        patches={"steps": 4},
        stage=[{"epochs": 2, "learning_rate": 1e-2}],
    )
    training.train(make_experiment(settings), tmp_path / "out", verbose=0)
    model = models.load_model(tmp_path / "out" / "model.keras")[0]
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    text = (tmp_path / "out" / "history.csv").read_text()
    losses = [float(row["loss"]) for row in csv.DictReader(text.splitlines())]
    assert losses[1] < losses[0]


def test_windows_see_what_the_whole_raster_shows(run):
    """Where one window alone covers, far from its rim by the receptive field."""
    model = models.load_model(run[0] / "model.keras")[0]
    pixels = make_scene(9, 160, 208)[0]
    whole = model.predict_on_batch(pixels[None])[0, :, :, 0]
    tiled = predict_array(pixels, model.predict_on_batch, window=112, overlap=64)
    for alone in (np.s_[:48, :48], np.s_[112:, 160:]):  # the other rims: 64 pixels off
        np.testing.assert_allclose(tiled[alone], whole[alone], atol=1e-5)
    assert np.abs(tiled - whole).mean() < 0.02
