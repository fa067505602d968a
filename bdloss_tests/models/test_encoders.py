import urllib.error

import keras
import numpy as np
import pytest
import safetensors.numpy

from bdloss import models


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


@pytest.mark.parametrize(
    "backbone", ["vgg16", "vgg19", "densenet121", "densenet169", "inceptionresnetv2"]
)
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
    for layer in models.flatten_layers(model):
        if layer.name.startswith("block") and layer.weights:
            theirs = encoder.get_layer(layer.name).get_weights()
            np.testing.assert_array_equal(layer.get_weights()[0], theirs[0])


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
