import re
import tomllib

import pytest
import tomli_w

from bdloss.data.folder import FolderSettings
from bdloss.settings import flatten
from bdloss.training import experiment as experiments
from bdloss.training.experiment import Experiment, make_experiment
from bdloss.training.schedules import StageSettings


def test_experiments_that_come_with_us_are_valid():
    assert {"banepa", "folder", "inria"} <= set(experiments.config_names())
    for name in experiments.config_names():
        make_experiment(experiments.read_named(name))


@pytest.mark.parametrize(
    "data", ['a "quoted" \\ path', "of\ntwo\tlines", "\x7f\x01é 🏠"]
)
def test_written_experiment_can_be_read_again(data):
    experiment = Experiment(
        dataset=FolderSettings(root=data, validation=["north"]),
        stage=[StageSettings(epochs=3), StageSettings(epochs=5)],
    )
    again = make_experiment(tomllib.loads(experiments.write_experiment(experiment)))
    assert again == experiment
    assert again.epochs == 8


def test_changes_of_the_command_line():
    settings = {"stage": [{"epochs": 3}, {"epochs": 5}]}
    for assignment in [
        "loss.theta=7",
        "stage.1.epochs=1",
        "stage.0.learning_rate=1e-4",
        "model.backbone=resnet34",
        'dataset.test=["north", "south"]',
    ]:
        experiments.change(settings, assignment)
    experiment = make_experiment(settings)
    assert experiment.loss.theta == 7
    assert [stage.epochs for stage in experiment.stage] == [3, 1]
    assert experiment.stage[0].learning_rate == 1e-4
    assert experiment.model.backbone == "resnet34"
    assert experiment.dataset.test == ["north", "south"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"pach": 512}, "unknown setting 'pach'; did you mean 'patches.size'?"),
        ({"patches": {"sise": 5}}, "'patches.sise'; did you mean 'patches.size'?"),
        (
            {"loss": {"teta": 7}},
            "unknown setting 'loss.teta'; did you mean 'loss.theta",
        ),
        (
            {"stage": [{}, {"epoch": 7}]},
            "'stage.1.epoch'; did you mean 'stage.1.epochs",
        ),
        ({"dataset": {"shadows": 1}}, "unknown setting 'dataset.shadows'"),
        (
            {"dataset": {"name": "mars"}},
            "dataset.name must be one of 'folder', 'inria'",
        ),
        ({"dataset": {"validation": "b"}}, "must be a valid number or must be a list"),
        (
            {"dataset": {"resolution": 1e-9}},
            "must be 0, or from 0.001 to 1000.0 metres",
        ),
        (
            {"patches": {"size": "big"}},
            "patches.size must be a valid integer, got 'big'",
        ),
        (
            {"patches": {"batch_size": True}},
            "batch_size must be a valid integer, got T",
        ),
        ({"loss": 3}, "loss must be a table, got 3"),
        ({"stage": {}}, "stage must be a list, got {}"),
        ({"stage": []}, "stage must have at least one item"),
        (
            {"stage": [{"learning_rate": 0}]},
            "learning_rate must be greater than 0, got 0",
        ),
        ({"stage": [{"learning_rate": -1}]}, "must be greater than 0, got -1"),
        ({"patches": {"size": 100}}, "must be a multiple of 16 for plain, got 100"),
        (
            {"patches": {"size": 48}, "model": {"backbone": "vgg16"}},
            "multiple of 32 for vgg16, got 48",
        ),
        (
            {"loss": {"extra": "sharp"}},
            "loss.extra must be 'boundary', 'oriented', 'edge'",
        ),
        ({"loss": {"boundary": "canny"}}, "boundary must be 'pooling' or 'sobel'"),
        (
            {"loss": {"pool": "last"}},
            "loss.pool must be 'shared' or 'first', got 'last",
        ),
        ({"loss": {"bce": 1}}, "loss.bce must be a valid boolean, got 1"),
        ({"loss": {"lam": 1.2}}, "loss.lam must be less than or equal to 1, got 1.2"),
        ({"weight": {"baseline": -1}}, "weight.baseline must be greater than or equal"),
        (
            {"model": {"encoder_weights": "imagenet"}},
            "model.encoder_weights are of networks with an encoder, got 'imagenet' for "
            "plain",
        ),
        ({"fit": {"tolerance": float("inf")}}, "tolerance must be a finite number"),
        (
            {"fit": {"tolerance": 1e5}},
            "must be less than or equal to 100, got 100000.0",
        ),
        ({"model": {"filters": 10**6}}, "model.filters must be less than or equal to"),
        (
            {"patches": {"size": 640_000}},
            "a batch of 8 patches of 640000 pixels needs ",
        ),
        ({"stage": [{"epochs": 10**26}]}, "stage.0.epochs must be less than or equal"),
        ({"prediction": {"tta": "turns"}}, "tta must be 'none', 'flips' or 'd4', got "),
        (
            {"patches": {"sampling": "all"}},
            "sampling must be 'random' or 'grid', got 'al",
        ),
        (
            {"patches": {"sampling": "grid", "building_bias": 0.5}},
            "building_bias is of sampling = ",
        ),
        ({"model": {"skips": False}}, "skips can be left out of convnn only, got "),
        (
            {"model": {"momentum": 1.5}},
            "model.momentum must be less than or equal to 1",
        ),
        ({"weight": {"end": 2}}, "weight.end must be less than or equal to 1, got 2"),
        (
            {"weight": {"values": [0.1, 2]}},
            "weight.values.1 must be less than or equal",
        ),
        ({"weight": {"values": []}}, "weight.values must have at least one item"),
        (
            {"weight": {"values": ["x"]}},
            "weight.values.0 must be a valid number, got 'x",
        ),
        ({"weight": {"every": 0}}, "weight.every must be greater than 0, got 0"),
        ({"weight": {"probe_epochs": 31}}, "weight.probe_epochs must lie in"),
        ({"weight": {"first": -1}}, "weight.first must be greater than or equal to 0"),
        ({"stage": [{"plateau": -1}]}, "stage.0.plateau must be greater than or equal"),
        ({"stage": [{"factor": 1}]}, "stage.0.factor must be less than 1, got 1"),
        ({"stage": [{"plateau": 1, "schedule": "cosine"}]}, "plateau needs schedule"),
        ({"fit": {"clipnorm": -1}}, "fit.clipnorm must be greater than or equal to 0"),
        ({"fit": {"patience": -1}}, "fit.patience must be greater than or equal to 0"),
        ({"fit": {"tolerance": 0}}, "fit.tolerance must be greater than 0, got 0"),
        ({"weight": {"first": 5, "last": 5}}, "weight.last must come after"),
    ],
)
def test_bad_settings(settings, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        make_experiment(settings)


OLD = {  # as the experiment.toml of a run of 0.1 had them
    "dataset": "potsdam",
    "data": "Potsdam",
    "validation": ["2_10"],
    "test": [],
    "bands": "irrg",
    "shadows": "both",
    "classes": [],
    "scenes": 800,
    "backbone": "convnn",
    "patch": 64,
    "batch": 4,
    "clip": 1.0,
    "tta": "flips",
    "seed": 3,
    "loss": {"theta": 7},
}


def test_settings_of_0_1_are_read_with_one_warning_that_names_those_of_now(
    tmp_path, caplog
):
    path = tmp_path / "old.toml"
    path.write_text(tomli_w.dumps(OLD))
    settings = experiments.read_file(path)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "bands is now dataset.bands" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert make_experiment(settings) == make_experiment(
        {
            "seed": 3,
            "dataset": {
                "name": "potsdam",
                "root": "Potsdam",
                "validation": ["2_10"],
                "bands": "irrg",
            },
            "model": {"backbone": "convnn"},
            "patches": {"size": 64, "batch_size": 4},
            "fit": {"clipnorm": 1.0},
            "prediction": {"tta": "flips"},
            "loss": {"theta": 7},
        }
    )
    assert len(caplog.records) == 1


def test_every_setting_of_0_1_has_one_of_now():
    known = flatten(Experiment().model_dump())
    for name in experiments.DATASETS:
        dataset = {"name": name}
        known |= flatten(make_experiment({"dataset": dataset}).model_dump())
    for old, new in experiments.RENAMED.items():
        assert new in known
        assert old not in known


def test_classes_are_set_one_by_one_and_written_as_a_table(tmp_path):
    settings = {"dataset": {"name": "folder", "root": "town"}}
    for assignment in ("dataset.classes.house=7", "dataset.classes.low wall=9"):
        experiments.change(settings, assignment)
    experiment = make_experiment(settings)
    assert experiment.dataset.class_names == ("house", "low wall")
    path = tmp_path / "experiment.toml"
    path.write_text(experiments.write_experiment(experiment))
    assert make_experiment(experiments.read_file(path)) == experiment
    assert list(experiment.dataset.class_colours) == ["house", "low wall"]
    assert make_experiment({}).dataset.class_colours == {}


def test_names_of_0_1_are_taken_from_the_command_line(caplog):
    settings = {"dataset": {"name": "folder", "root": "town"}}
    for assignment in ("dataset=synthetic", "scenes=7", "patch=64"):
        experiments.change(settings, assignment)
    assert [record.getMessage() for record in caplog.records] == [
        "renamed: dataset is now dataset.name",
        "renamed: scenes is now dataset.scenes",
        "renamed: patch is now patches.size",
    ]
    experiment = make_experiment(settings)
    assert (experiment.dataset.name, experiment.dataset.scenes) == ("synthetic", 7)
    assert (experiment.dataset.root, experiment.patches.size) == ("town", 64)


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("seed", "must read key=value, got 'seed'"),
        ("stage.2.epochs=1", "counted from 0 to 0, got 2"),
        ("seed.x=1", "does not name a setting"),
        ("seed.x.y=1", "does not name a setting"),
    ],
)
def test_bad_changes(assignment, rule):
    with pytest.raises(ValueError, match=rule):
        experiments.change({"seed": 1, "stage": [{}]}, assignment)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        experiments.read_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("patch = = 3")
    with pytest.raises(ValueError, match="not a TOML file"):
        experiments.read_file(tmp_path / "bad.toml")
    with pytest.raises(ValueError, match=r"dataset must be one of .* got 'mars'"):
        experiments.read_named("mars")


def test_odd_values_of_the_command_line_are_texts():
    for text in ("[" * 5000, "1\nfoo = 2"):
        settings = {}
        experiments.change(settings, f"seed={text}")
        assert settings == {"seed": text}


def test_deep_files_are_no_experiments(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(ValueError, match="not a TOML file"):
        experiments.read_file(path)


def test_a_mark_of_an_editor_does_not_matter(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seed = 4", "utf-8-sig")
    assert experiments.read_file(path) == {"seed": 4}
