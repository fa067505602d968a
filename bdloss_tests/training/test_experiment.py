import tomllib

import pytest

from bdloss.training import experiment as experiments
from bdloss.training.experiment import Experiment, Stage, make_experiment


def test_experiments_that_come_with_us_are_valid():
    assert {"banepa", "folder", "inria"} <= set(experiments.config_names())
    for name in experiments.config_names():
        make_experiment(experiments.read_named(name))


@pytest.mark.parametrize(
    "data", ['a "quoted" \\ path', "of\ntwo\tlines", "\x7f\x01é 🏠"]
)
def test_written_experiment_can_be_read_again(data):
    experiment = Experiment(data=data, validation=["north"], stage=[Stage(3), Stage(5)])
    again = make_experiment(tomllib.loads(experiments.write_experiment(experiment)))
    assert again == experiment
    assert again.epochs == 8


def test_changes_of_the_command_line():
    settings = {"stage": [{"epochs": 3}, {"epochs": 5}]}
    for assignment in [
        "loss.theta=7",
        "stage.1.epochs=1",
        "stage.0.learning_rate=1e-4",
        "backbone=resnet34",
        'test=["north", "south"]',
    ]:
        experiments.change(settings, assignment)
    experiment = make_experiment(settings)
    assert experiment.loss.theta == 7
    assert [stage.epochs for stage in experiment.stage] == [3, 1]
    assert experiment.stage[0].learning_rate == 1e-4
    assert experiment.backbone == "resnet34"
    assert experiment.test == ["north", "south"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"pach": 512}, "unknown setting 'pach'; did you mean 'patch'?"),
        ({"loss": {"teta": 7}}, "unknown setting 'loss.teta'; did you mean"),
        ({"stage": [{"epoch": 7}]}, "unknown setting 'stage.0.epoch'; did you mean"),
        ({"patch": "big"}, "patch must be a whole number, got 'big'"),
        ({"batch": True}, "batch must be a whole number, got True"),
        ({"loss": 3}, "loss must be a table, got 3"),
        ({"stage": {}}, "stage must be written"),
        ({"stage": []}, "at least one"),
        ({"stage": [{"learning_rate": 0}]}, "learning_rate must be above 0, got 0"),
        ({"stage": [{"learning_rate": -1}]}, "learning_rate must be above 0, got -1"),
        ({"patch": 100}, "patch must be a multiple of 16 for plain, got 100"),
        ({"patch": 48, "backbone": "vgg16"}, "multiple of 32 for vgg16, got 48"),
        ({"loss": {"extra": "sharp"}}, "loss.extra must be one of"),
        (
            {"loss": {"boundary": "canny"}},
            "loss.boundary must be one of pooling, sobel",
        ),
        ({"loss": {"bce": 1}}, "loss.bce must be a bool, got 1"),
        ({"loss": {"lam": 1.2}}, r"loss.lam must lie in \[0, 1\], got 1.2"),
        ({"weight": {"baseline": -1}}, "weight.baseline must lie in"),
        (
            {"encoder_weights": "imagenet"},
            "encoder_weights are of networks with an encoder, got 'imagenet' for plain",
        ),
        ({"tolerance": float("inf")}, "tolerance must be above 0, got inf"),
        ({"tolerance": 1e5}, "tolerance must be at most 100.0, got 100000.0"),
        ({"filters": 10**6}, "filters must be at most 1024"),
        ({"patch": 640_000}, "a batch of 8 patches of 640000 pixels needs "),
        ({"resolution": 1e-9}, "resolution must be 0, or from 0.001 to 1000.0 metres"),
        ({"stage": [{"epochs": 10**26}]}, "stage.epochs must be at most 100000"),
        ({"tta": "turns"}, "tta must be one of none, flips, d4, got 'turns'"),
        ({"sampling": "all"}, "sampling must be one of random, grid, got 'all'"),
        ({"sampling": "grid", "building_bias": 0.5}, "building_bias is of sampling = "),
        (
            {"skips": False},
            "skips can be left out of convnn only, got ",
        ),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\], got 1.5"),
        ({"weight": {"end": 2}}, "weight.end must lie in"),
        ({"weight": {"values": [0.1, 2]}}, "weight.values must lie in"),
        ({"weight": {"values": []}}, "weight.values needs at least one"),
        ({"weight": {"values": ["x"]}}, "weight.values must be a list of numbers"),
        ({"weight": {"every": 0}}, "weight.every must be above 0, got 0"),
        ({"weight": {"probe_epochs": 31}}, "weight.probe_epochs must lie in"),
        ({"weight": {"first": -1}}, "weight.first must be at least 0"),
        ({"stage": [{"plateau": -1}]}, "stage.plateau must be at least 0"),
        ({"stage": [{"factor": 1}]}, "stage.factor must lie between 0 and 1"),
        ({"stage": [{"plateau": 1, "schedule": "cosine"}]}, "plateau needs schedule"),
        ({"clip": -1}, "clip must be at least 0"),
        ({"patience": -1}, "patience must be at least 0"),
        ({"tolerance": 0}, "tolerance must be above 0, got 0"),
        ({"weight": {"first": 5, "last": 5}}, "weight.last must come after"),
    ],
)
def test_bad_settings(settings, rule):
    with pytest.raises(ValueError, match=rule.replace("?", r"\?")):
        make_experiment(settings)


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("patch", "must read key=value, got 'patch'"),
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
