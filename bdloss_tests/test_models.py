import json
import zipfile

import keras
import numpy as np
import pytest

from bdloss import models

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


def by_name(model):
    return {layer.name: layer for layer in models._leaves(model)}


@pytest.mark.parametrize("backbone", ["plain", "convnn"])
def test_pixels_to_probabilities(backbone):
    model = models.build_model(backbone, filters=4)
    maps = model.predict_on_batch(PIXELS)
    assert maps.shape == (1, 64, 96, 1)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() < maps.max() <= 1


@pytest.mark.parametrize(
    "backbone",
    [
        *("vgg16", "vgg19", "resnet34", "densenet121", "densenet169"),
        "inceptionresnetv2",
    ],
)
def test_encoder_trains_is_saved_and_predicts_the_same(backbone, tmp_path):
    model = models.build_model(backbone)
    models.set_trainable(model, "all")
    model.compile("sgd", "binary_crossentropy", run_eagerly=True)  # no long tracing
    before = [w.copy() for w in model.get_weights()]
    model.train_on_batch(PIXELS, np.ones((1, 64, 96, 1)))
    moved = [
        (w != old).any() for w, old in zip(model.get_weights(), before, strict=True)
    ]
    assert np.mean(moved) > 0.9
    maps = model.predict_on_batch(PIXELS)
    assert maps.shape == (1, 64, 96, 1)
    assert maps.dtype == np.float32
    models.save_model(model, tmp_path / "model.keras", {"multiple": 32})
    again = models.load_predictor(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(PIXELS), maps, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "weights", "error", "rule"),
    [
        ("resnet34", "imagenet", FileNotFoundError, "has no ImageNet weights to fetch"),
        ("vgg16", "none.h5", FileNotFoundError, "no such file of encoder weights"),
        ("vgg16", __file__, ValueError, "not a file of vgg16 weights"),
    ],
)
def test_bad_encoder_weights(backbone, weights, error, rule):
    with pytest.raises(error, match=rule):
        models.build_model(backbone, encoder_weights=weights)


def test_imagenet_without_network_says_where_to_put_the_file(monkeypatch):
    def fail(*words, **settings):
        raise Exception(
            "URL fetch failure on https://x.org/vgg16_notop.h5: None -- unreachable"
        )

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    monkeypatch.setenv("KERAS_HOME", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"put \S+vgg16\S+ into /nowhere/m"):
        models.build_model("vgg16", encoder_weights="imagenet")


def test_other_band_counts_pass_through_a_convolution():
    model = models.build_model("resnet34", bands=5)
    assert model.input_shape == (None, None, None, 5)
    assert by_name(model)["bands"].kernel.shape == (1, 1, 5, 3)


def test_convnn_has_no_skips():
    names = by_name(models.build_model("convnn", filters=4))
    assert not [name for name in names if "skip" in name]
    assert [name for name in by_name(models.build_model("plain")) if "skip" in name]


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


@pytest.mark.parametrize("backbone", ["plain", "resnet34"])
def test_frozen_encoder_keeps_its_weights_and_averages(backbone):
    model = models.build_model(backbone, filters=4)
    models.set_trainable(model, "decoder")
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    before = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    model.train_on_batch(PIXELS, np.ones((1, 64, 96, 1)))
    moved = {
        w.path.split("/")[-2]
        for w in model.weights
        if (before[w.path] != keras.ops.convert_to_numpy(w)).any()
    }
    assert moved
    assert all(name.startswith(models.DECODER) for name in moved)


def test_batch_norm_of_the_encoder_trains_in_the_second_stage():
    model = models.build_model("resnet34")
    models.set_trainable(model, "decoder and batch norm")
    trains = {layer.name for layer in models._leaves(model) if layer.trainable_weights}
    assert "conv1_bn" in trains
    assert "conv1_conv" not in trains
    models.set_trainable(model, "all")
    assert by_name(model)["conv1_conv"].trainable_weights


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
