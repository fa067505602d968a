import json
import urllib.error
import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy

from bdloss import models
from bdloss.losses import CombinedLoss
from bdloss.models.unet import _leaves

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


ENCODERS = ["vgg16", "vgg19", "resnet34", "densenet121", "densenet169"]
ENCODERS += ["inceptionresnetv2"]  # the six of the paper
FIVE_BANDS = np.concatenate([PIXELS, PIXELS[..., :2]], axis=-1)

array = keras.ops.convert_to_numpy


def by_name(model):
    return {layer.name: layer for layer in _leaves(model)}


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
    for layer in _leaves(model):
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


@pytest.mark.parametrize(
    ("backbone", "weights", "error", "rule"),
    [
        ("resnet34", "imagenet", FileNotFoundError, r"get \S+/resnet34\S+tensors and"),
        ("lite", "lite.h5", ValueError, "of lite must be imagenet, or none, got 'lite"),
        ("vgg16", "none.h5", FileNotFoundError, "no such file of encoder weights"),
        ("vgg16", __file__, ValueError, "not a file of vgg16 weights"),
    ],
)
def test_bad_encoder_weights(backbone, weights, error, rule):
    with pytest.raises(error, match=rule):
        models.build_model(backbone, encoder_weights=weights)


@pytest.mark.parametrize("backbone", [name for name in ENCODERS if name[0] != "r"])
def test_imagenet_without_network_says_where_to_put_the_file(backbone, monkeypatch):
    def fail(url, *words):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    monkeypatch.setenv("KERAS_HOME", "/nowhere")
    name = backbone.replace("inceptionresnetv2", "inception_resnet_v2")
    rule = rf"put \S+/{name}_weights\S+_notop.h5 into /nowhere/models, or give"
    with pytest.raises(FileNotFoundError, match=rule):
        models.build_model(backbone, encoder_weights="imagenet")


def test_weights_of_an_encoder_come_from_a_file(tmp_path):
    path = tmp_path / "vgg16.weights.h5"
    encoder = keras.applications.VGG16(include_top=False, weights=None)
    encoder.save_weights(path)
    model = models.build_model("vgg16", encoder_weights=str(path))
    for name, layer in by_name(model).items():
        if name.startswith("block") and layer.weights:
            theirs = encoder.get_layer(name).get_weights()
            np.testing.assert_array_equal(layer.get_weights()[0], theirs[0])


def test_weights_of_lite_come_with_the_package():
    first, again, random = (
        models.build_model("lite", encoder_weights=weights).get_layer("lite_stem")
        for weights in ("imagenet", "imagenet", None)
    )
    np.testing.assert_array_equal(array(first.kernel), array(again.kernel))
    assert (array(first.kernel) != array(random.kernel)).all()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"hello", "not a safetensors file"),
        (safetensors.numpy.save({"x": np.zeros(2)}), r"no conv1.weight"),
    ],
)
def test_other_files_are_no_resnet(content, rule, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rule) as refused:
        models.build_model("resnet18", encoder_weights=str(path))
    assert "\n" not in str(refused.value)


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


@pytest.mark.parametrize("backbone", ["plain", "convnn", "lite", "resnet18"])
def test_momentum_of_batch_norm_is_a_setting(backbone):
    model = models.build_model(backbone, momentum=0.99)
    found = {
        layer.momentum
        for layer in _leaves(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert found == {0.99}


def test_scaling_is_the_encoders_own():
    grey = np.full((1, 2, 2, 3), 127.5, "float32")
    for backbone, expected in [
        ("plain", [0, 0, 0]),
        ("resnet34", [0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225]),
        # ImageNet's mean pixel in blue, green, red (Simonyan & Zisserman 2014)
        ("vgg16", [127.5 - 103.939, 127.5 - 116.779, 127.5 - 123.68]),
        ("densenet121", [0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225]),
    ]:
        scaling = models.build_model(backbone).get_layer("scaling")
        pixel = keras.ops.convert_to_numpy(scaling(grey))[0, 0, 0]
        assert pixel == pytest.approx(expected, abs=1e-4), backbone


def test_saved_model_predicts_the_same(tmp_path):
    model = models.build_model("plain", filters=4)
    path = tmp_path / "model.keras"
    models.save_model(model, path, {"window": 64, "threshold": 0.4, "multiple": 16})
    predictor = models.load_predictor(path)
    np.testing.assert_array_equal(
        predictor.predict(PIXELS), model.predict_on_batch(PIXELS)
    )
    assert (predictor.bands, predictor.window, predictor.threshold) == (3, 64, 0.4)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("bdloss.json"))["window"] == 64


def test_model_of_another_program_is_accepted(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )
    model.save(tmp_path / "other.keras")
    predictor = models.load_predictor(tmp_path / "other.keras")
    assert (predictor.name, predictor.bands, predictor.window) == ("other", 3, 512)


def test_files_that_are_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        models.load_predictor(tmp_path / "none.keras")
    text = tmp_path / "text.keras"
    text.write_text("hello")
    with pytest.raises(ValueError, match="not a Keras model"):
        models.load_predictor(text)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ValueError, match="not a Keras model"):
        models.load_predictor(tmp_path / "zip.keras")
    two = models.build_model("plain", classes=2, filters=2, blocks=1)
    two.save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match="one map of buildings"):
        models.load_predictor(tmp_path / "two.keras")


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: models.build_model("resnet35"), "backbone must be .* got 'resnet35'"),
        (
            lambda: models.set_trainable(models.build_model("plain"), "encoder"),
            "trainable must be one of",
        ),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


def test_window_must_fit_the_network():
    predictor = models.Predictor("x", lambda batch: batch, 3, 256, 16, 0.5, None)
    predictor.check_window(48)
    with pytest.raises(ValueError, match=r"multiple of 16 pixels .* got 40"):
        predictor.check_window(40)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("[]", "must be a table"),
        ("{", "damaged bdloss.json"),
        ('{"window": "64"}', "window of a model must be a whole number above 0"),
        ('{"window": true}', "window of a model must be a whole number above 0"),
        ('{"multiple": 0}', "multiple of a model must be"),
        ('{"multiple": null}', "multiple of a model must be"),
        ('{"threshold": "a"}', r"threshold of a model must be in \[0, 1\]"),
        ('{"threshold": NaN}', r"threshold of a model must be in \[0, 1\]"),
        ('{"resolution": "x"}', "resolution of a model must be a number of metres"),
        ('{"resolution": 0}', "resolution of a model must be a number of metres"),
        ('{"tta": 4}', "tta of a model must be a text"),
    ],
)
def test_odd_facts_of_a_model_are_named(tmp_path, facts, says):
    path = tmp_path / "model.keras"
    models.save_model(models.build_model(filters=2, blocks=1), path, {})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, models.METADATA: facts.encode()}.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=says) as refused:
        models.load_predictor(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["layer of another", "no table"])
def test_odd_networks_are_no_models(tmp_path, change):
    path = tmp_path / "model.keras"
    models.save_model(models.build_model(filters=2, blocks=1), path, {})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = parts["config.json"].decode()
    parts["config.json"] = (
        "[]" if change == "no table" else config.replace("Conv2D", "TheirConv2D")
    ).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="not a Keras model") as refused:
        models.load_predictor(path)
    assert "\n" not in str(refused.value)


def test_a_window_must_fit_into_memory():
    predictor = models.Predictor("x", lambda batch: batch, 3, 256, 16, 0.5, None)
    with pytest.raises(ValueError, match=r"a window of 1600000 .* needs 40960 GB of"):
        predictor.check_window(1_600_000)


def test_a_model_whose_list_of_parts_is_damaged_is_named(bright_model, tmp_path):
    path = tmp_path / "bright.keras"
    data = bytearray(bright_model.read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"not a Keras model: {path}"):
        models.load_predictor(path)
