import keras
import numpy as np
import pytest

from bdloss import models
from bdloss.losses import CombinedLoss

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
FIVE_BANDS = np.concatenate([PIXELS, PIXELS[..., :2]], axis=-1)
ENCODERS = ["vgg16", "resnet34", "densenet121"]  # the six of the paper
LARGE = ["vgg19", "densenet169", "inceptionresnetv2"]
ENCODERS += [pytest.param(name, marks=pytest.mark.slow) for name in LARGE]

array = keras.ops.convert_to_numpy


def by_name(model):
    return {layer.name: layer for layer in models.flatten_layers(model)}


@pytest.mark.parametrize("backbone", ["plain", "convnn"])
def test_pixels_to_probabilities(backbone):
    model = models.build_model(backbone, filters=4)
    maps = model.predict_on_batch(PIXELS)
    assert maps.shape == (1, 64, 96, 1)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() < maps.max() <= 1


@pytest.fixture(scope="module", params=["plain", "lite", *ENCODERS])
def model(request):
    return models.build_model(request.param, bands=5, filters=4)


def share_moved(model):
    """Train a step; return the shares of weights that moved, averages included."""
    weights = {"bands": [], "decoder": [], "batch norm": [], "encoder": []}
    for layer in models.flatten_layers(model):
        if layer.name == "bands":  # random, so it trains from the first stage on
            weights["bands"] += layer.weights
        elif layer.name.startswith(("decoder", "center", "final")):
            weights["decoder"] += layer.weights
        elif isinstance(layer, keras.layers.BatchNormalization):
            weights["batch norm"] += layer.weights
        else:
            weights["encoder"] += layer.weights
    before = {kind: [array(w).copy() for w in own] for kind, own in weights.items()}
    model.compile("sgd", "binary_crossentropy", run_eagerly=True)  # no long tracing
    model.train_on_batch(FIVE_BANDS, np.ones((1, 64, 96, 1)))
    return {
        kind: np.mean(
            [(array(w) != old).any() for w, old in zip(own, before[kind], strict=True)]
        )
        for kind, own in weights.items()
        if own  # VGG has no batch norm, and plain takes any bands
    }


@pytest.mark.parametrize("which", models.TRAINABLE)
def test_a_stage_trains_what_it_says_and_nothing_else(model, which):
    models.set_trainable(model, which)
    for kind, share in share_moved(model).items():
        if kind in which or which == "all" or kind == "bands":
            assert share > 0.9, kind
        else:
            assert share == 0, kind


def test_saved_network_predicts_the_same(model, tmp_path):
    models.save_model(model, tmp_path / "model.keras", {"multiple": 32})
    again, _ = models.load_model(tmp_path / "model.keras")
    maps = array(model(FIVE_BANDS))
    assert maps.shape == (1, 64, 96, 1)
    assert maps.std() > 0
    np.testing.assert_allclose(array(again(FIVE_BANDS)), maps, atol=1e-6)


@pytest.mark.parametrize("backbone", ["plain", "lite", "resnet18"])
def test_half_precision_trains_and_gives_single(backbone):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.build_model(backbone, filters=4)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile("adam", CombinedLoss("boundary", w=0.5), run_eagerly=True)
    truth = np.zeros((1, 64, 96, 1))
    truth[:, 20:40, 20:60] = 1
    assert np.isfinite(model.train_on_batch(PIXELS, truth))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert model.get_layer("scaling").compute_dtype == "float16"
    assert array(model(PIXELS)).dtype == np.float32


def test_convnn_has_skips_unless_it_is_told_not_to():
    with_skips, without = (
        by_name(models.build_model("convnn", filters=4, blocks=3, skips=skips))
        for skips in (True, False)
    )
    joined = [name for name in with_skips if "skip" in name]
    assert joined == ["decoder2_skip", "decoder1_skip", "decoder0_skip"]
    assert not [name for name in without if "skip" in name]
    convolutions = [name for name in with_skips if "_conv" in name]
    assert len(convolutions) == 6  # three each way
    # The finest maps of both halves come together at the size of the image.
    finest = with_skips["decoder0_skip"]
    assert [t.shape[-1] for t in finest.input] == [8, 4]


@pytest.mark.parametrize("backbone", ["plain", "resnet18"])
def test_classes_that_exclude_each_other_add_to_at_most_one(backbone, tmp_path):
    keras.utils.set_random_seed(2)
    model = models.build_model(backbone, classes=3, filters=4, activation="softmax")
    models.save_model(model, tmp_path / "model.keras", {})
    again, _ = models.load_model(tmp_path / "model.keras")
    maps = array(again(PIXELS))
    assert maps.shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(maps, array(model(PIXELS)))
    assert 0 < maps.min() < maps.sum(axis=-1).max() < 1
    head = keras.Model(model.input, model.get_layer("probability").input)
    logits = np.exp(array(head(PIXELS)))
    expected = logits[..., 1:] / logits.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(maps, expected, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["plain", "convnn", "lite", "resnet18"])
def test_momentum_of_batch_norm_is_a_setting(backbone):
    model = models.build_model(backbone, momentum=0.99)
    found = {
        layer.momentum
        for layer in models.flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert found == {0.99}


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: models.build_model("resnet35"), "backbone must be .* got 'resnet35'"),
        (
            lambda: models.set_trainable(models.build_model("plain"), "encoder"),
            "trainable must be one of",
        ),
        (
            lambda: models.build_model("plain", activation="tanh"),
            "activation must be one of sigmoid, softmax, got 'tanh'",
        ),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
