"""The experiments of the paper: the numbers of Sections 4.1 to 4.3."""

import re
from pathlib import Path

import pytest

from bdloss.training import experiment as experiments
from bdloss.training.weight_search import extra_epochs

AICD, INRIA, POTSDAM = (
    experiments.make_experiment(experiments.read_named(name))
    for name in ("aicd", "inria", "potsdam")
)
PAPER = {"aicd": AICD, "inria": INRIA, "potsdam": POTSDAM}


def stages(experiment):
    return [(s.epochs, s.learning_rate, s.trainable) for s in experiment.stage]


def test_inria_is_trained_in_four_stages():
    assert stages(INRIA) == [
        (3, 3e-3, "decoder"),
        (5, 1e-3, "decoder and batch norm"),
        (100, 1e-4, "all"),
        (60, 1e-5, "all"),
    ]
    assert INRIA.epochs == 168
    assert {(s.schedule, s.plateau) for s in INRIA.stage} == {("constant", 0)}


def test_inria_is_that_of_section_4_2():
    model = INRIA.model
    assert (model.backbone, model.encoder_weights) == ("inceptionresnetv2", "imagenet")
    assert (INRIA.patches.size, INRIA.patches.sampling) == (512, "grid")
    assert (INRIA.patches.augment, INRIA.prediction.tta) == ("strong", "flips")


@pytest.mark.parametrize("name", PAPER)
def test_weight_is_searched_after_the_8th_epoch_for_every_30(name):
    weight = PAPER[name].weight
    assert weight.policy == "search"
    assert (weight.first, weight.every, weight.probe_epochs) == (8, 30, 0)
    assert weight.values == [0.1, 0.3, 0.5, 0.7, 0.9]
    loss = PAPER[name].loss
    assert (loss.extra, loss.theta0, loss.theta, loss.boundary, loss.bce) == (
        *("boundary", 3, 5, "pooling", True),
    )


def test_potsdam_has_five_channels_at_20_cm():
    dataset = POTSDAM.dataset
    assert (dataset.bands, dataset.resolution) == ("rgbir+dsm", 0.2)
    assert POTSDAM.model.backbone == "resnet34"
    assert (POTSDAM.patches.augment, POTSDAM.prediction.tta) == ("strong", "flips")


def test_potsdam_divides_its_rate_by_10_after_10_epochs_on_a_plateau():
    (stage,) = POTSDAM.stage
    assert (stage.learning_rate, stage.plateau, stage.factor) == (1e-3, 10, 0.1)
    assert stage.trainable == "all"


def test_aicd_is_trained_without_augmentation_and_postprocessing():
    assert (AICD.patches.augment, AICD.prediction.tta) == ("none", "none")
    model = AICD.model
    assert (model.backbone, model.skips, model.blocks) == ("convnn", True, 5)


@pytest.mark.parametrize("name", PAPER)
def test_file_says_its_epochs_with_all_branches(name):
    experiment = PAPER[name]
    paths = experiments._configs()
    text = next(p for p in paths if p.name == f"{name}.toml").read_text()
    whole = experiment.epochs + extra_epochs(experiment.weight, 0, experiment.epochs)
    assert f"# {experiment.epochs} epochs, {whole} with all branches" in text
    assert re.search(r"\bOn two cores\b.*batch takes \d", text.replace("\n# ", " "))


@pytest.mark.parametrize("name", PAPER)
def test_batch_norm_has_the_momentum_of_keras(name):
    assert PAPER[name].model.momentum == 0.99


def test_configs_are_those_of_the_checkout():
    root = Path(experiments.__file__).parents[2]
    assert root / "configs" == experiments._configs()[0].parent
