"""A training that starts from a trained model."""

import logging

import numpy as np
import pytest

from bdloss import models
from bdloss.training import run as training
from bdloss.training.experiment import load_experiment, make_experiment
from bdloss.training.network import ModelSettings, build_network
from bdloss.training.start import copy_weights, network_of
from bdloss_tests.scenes import write_folder

OWN = {"filters": 2, "blocks": 1}


def save(path, targets=("building",), bands=3, **settings):
    """Save a network of random weights as `bdloss train` does; return it."""
    chosen = ModelSettings(**{**OWN, **settings})
    network = build_network(chosen, bands, targets)
    for layer in network.layers:  # biases begin as zeros, which tell nothing
        layer.set_weights([np.random.random(w.shape) for w in layer.get_weights()])
    classes = models.class_names(targets)
    metadata = {
        "network": chosen.model_dump(exclude=training.OF_TRAINING),
        "classes": classes,
        "scenes": {"vienna1": "d1", "a": "d2"},
        **({"targets": list(targets)} if len(targets) > len(classes) else {}),
    }
    models.save_model(network, path, metadata)
    return network


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "trained.keras"
    return path, save(path)


def save_of_others(path):
    models.save_model(build_network(ModelSettings(**OWN), 3), path, {})


def head_of(network):
    return network.get_layer("final").get_weights()


def body_of(network):
    heads = head_of(network)
    return network.get_weights()[: -len(heads)]


def same(some, others):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backbone", ["plain", "convnn", "lite", "resnet18"])
def test_a_network_starts_with_all_weights(tmp_path, backbone):
    settings = ModelSettings(backbone=backbone, filters=2, blocks=1)
    trained, network = (build_network(settings, 3) for _ in range(2))
    path = tmp_path / "trained.keras"
    known = {"network": settings.model_dump(), "classes": ["building"]}
    models.save_model(trained, path, known)
    assert copy_weights(network, ["building"], "sigmoid", path) == []
    same(network.get_weights(), trained.get_weights())


def test_weights_are_mixed_but_for_new_heads(tmp_path):
    path = tmp_path / "trained.keras"
    trained = save(path, ["roof", "road"])
    wanted = ["water", "road"]
    network = save(tmp_path / "other.keras", wanted)
    before = [np.copy(w) for w in network.get_weights()]
    assert copy_weights(network, wanted, "sigmoid", path, share=0.25) == ["water"]
    weights = zip(network.get_weights(), before, trained.get_weights(), strict=True)
    *body, kernel, bias = weights
    for mixed, mine, theirs in body:
        np.testing.assert_allclose(mixed, 0.75 * mine + 0.25 * theirs, rtol=1e-6)
    for mixed, mine, theirs in (kernel, bias):
        np.testing.assert_array_equal(mixed[..., 0], mine[..., 0])
        road = 0.75 * mine[..., 1] + 0.25 * theirs[..., 1]
        np.testing.assert_allclose(mixed[..., 1], road, rtol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_map_of_another_name_has_a_new_head(tmp_path, activation):
    path = tmp_path / "trained.keras"
    trained = save(path, ["roof", "road"], activation=activation)
    settings = ModelSettings(**OWN, activation=activation)
    wanted = ["water", "road", "tree"]
    network = build_network(settings, 3, wanted)
    before = [np.copy(w) for w in head_of(network)]
    assert copy_weights(network, wanted, activation, path) == ["water", "tree"]
    same(body_of(network), body_of(trained))
    first = int(activation == "softmax")  # the background
    for mine, new, theirs in zip(
        head_of(network), before, head_of(trained), strict=True
    ):
        np.testing.assert_array_equal(mine[..., first + 1], theirs[..., first + 1])
        for at in (first, first + 2):
            np.testing.assert_array_equal(mine[..., at], new[..., at])
        if first:
            np.testing.assert_array_equal(mine[..., 0], theirs[..., 0])


def test_another_activation_has_new_heads(model):
    path, trained = model
    settings = ModelSettings(**OWN, activation="softmax")
    network = build_network(settings, 3)
    assert copy_weights(network, ["building"], "softmax", path) == ["building"]
    same(body_of(network), body_of(trained))


def test_the_file_says_the_network(model, tmp_path):
    path, _ = model
    name, made = load_experiment(
        "banepa", None, {}, ["model.activation=softmax", "dataset.contact=0"], path
    )
    assert name == "banepa"
    assert made.model.start == str(path)
    assert (made.model.backbone, made.model.filters, made.model.blocks) == (
        "plain",
        2,
        1,
    )
    assert made.model.activation == "softmax"
    settings = tmp_path / "own.toml"
    settings.write_text(f'model = {{start = "{path}", filters = 2}}')
    assert load_experiment(None, settings, {})[1].model.blocks == 1


def test_a_run_starts_there_and_says_so(model, tmp_path, caplog):
    path, trained = model
    folder = write_folder(tmp_path / "town")
    settings = {
        "dataset": {"root": str(folder), "validation": 0, "contact": 0},
        "model": network_of(path, {"start": str(path)}),
        "patches": {"size": 32, "batch_size": 2, "steps": 1, "workers": 1},
        "stage": [{"epochs": 2}],
    }
    begun = []

    def see(trainer):
        begun.append(trainer.model.get_weights())

    out = tmp_path / "run"
    caplog.set_level(logging.INFO, "bdloss")
    training.train(make_experiment(settings), out, verbose=0, on_start=see)
    same(begun[0], trained.get_weights())
    assert f"start: the weights of {path}\n" in caplog.text
    made, first = (models.read_metadata(one) for one in (out / "model.keras", path))
    assert made["network"] == first["network"]
    # What the first model has learned from, this one has too.
    earlier = {f"{path.stem}/{name}": first["scenes"][name] for name in first["scenes"]}
    assert earlier and earlier.items() <= made["scenes"].items()
    assert len(made["scenes"]) == len(earlier) + 2

    labelled = (90 * 130 + 70 * 84) * 0.3**2
    settings["model"]["keep"] = labelled / 3**0.5  # so a quarter of all
    training.train(make_experiment(settings), tmp_path / "kept", verbose=0)
    found, tuned = (
        models.load_model(folder / "model.keras")[0].get_weights()
        for folder in (tmp_path / "kept", out)
    )
    for mixed, mine, theirs in zip(found, tuned, trained.get_weights(), strict=True):
        np.testing.assert_allclose(mixed, 0.75 * mine + 0.25 * theirs, rtol=1e-5)
    assert any((one != other).any() for one, other in zip(found, tuned, strict=True))
    assert f"kept: a share of 0.25 of the first weights, for {labelled:.0f} sq" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        (lambda path: None, {}, "no such file: "),
        (lambda path: path.write_text("no model"), {}, "not a Keras model: "),
        (
            lambda path: models.save_model(
                build_network(ModelSettings(**OWN), 3), path, {}
            ),
            {},
            "a model to start from must be of bdloss train, got ",
        ),
        (save, {"filters": 8}, "has model.filters = 2, not 8; leave it out"),
        (save, {"backbone": "lite"}, "has model.backbone = 'plain', not 'lite'; "),
    ],
)
def test_models_that_cannot_be_started_from(tmp_path, make, given, says):
    path = tmp_path / "other.keras"
    make(path)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        network_of(path, given)


def test_other_bands_and_layers_are_refused(tmp_path):
    path = tmp_path / "trained.keras"
    save(path, bands=4)
    network = build_network(ModelSettings(**OWN), 3)
    with pytest.raises(ValueError, match="takes 4 bands, the data have 3; dataset"):
        copy_weights(network, ["building"], "sigmoid", path)
    save(path, blocks=2)
    with pytest.raises(ValueError, match=r"the network of .* has other layers"):
        copy_weights(network, ["building"], "sigmoid", path)


def test_the_encoder_has_one_source_of_weights():
    given = {"backbone": "lite", "encoder_weights": "imagenet", "start": "a.keras"}
    with pytest.raises(ValueError, match="has weights of the encoder too"):
        make_experiment({"model": given})
