import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from keras import layers

from bdloss import models
from bdloss.inference import onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
load_onnx = pytest.importorskip("onnx").load
to_array = pytest.importorskip("onnx.numpy_helper").to_array

SAMPLE = "samples/banepa/images/banepa_south.tif"
FACTS = {"window": 64, "multiple": 32, "threshold": 0.3, "resolution": 0.15}


def with_custom_layers():
    """A network with the layers that are ours."""
    pixels = keras.Input((None, None, 3))
    x = models.Caffe()(pixels)
    x = models.ScaledSum(0.02)([x, layers.Conv2D(3, 3, padding="same")(x)])
    return keras.Model(pixels, layers.Conv2D(1, 1, activation="sigmoid")(x))


NETWORKS = {
    "plain": lambda: models.build_model("plain", filters=4, blocks=2),
    "four bands": lambda: models.build_model("convnn", bands=4, filters=4, blocks=2),
    "mobilenetv2": lambda: models.build_model("mobilenetv2"),
    "custom layers": with_custom_layers,
}


def read_sample(bands):
    with rasterio.open(SAMPLE) as source:
        pixels = source.read(window=rasterio.windows.Window(100, 200, 64, 128))
    patches = np.stack([pixels[:, :64], pixels[:, 64:]])
    return np.concatenate([patches, patches[:, : bands - 3]], axis=1)


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name == "mobilenetv2" else [])
        for name in NETWORKS
    ]
)
def predictor(request, tmp_path):
    path = tmp_path / "model.keras"
    keras.utils.set_random_seed(3)
    model = NETWORKS[request.param]()
    pixels = np.moveaxis(read_sample(model.input_shape[-1]), 1, -1)
    for _ in range(20):  # batch norm comes to know them
        model(pixels, training=True)
    models.save_model(model, path, FACTS)
    return models.load_predictor(path)


def test_the_file_gives_what_keras_gives(predictor, tmp_path):
    path = tmp_path / "model.onnx"
    metadata = onnx.export_onnx(predictor, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_outputs(), session.get_inputs()
    assert (taken.name, taken.type) == ("image", "tensor(float)")
    assert taken.shape == ["batch", predictor.band_count, 64, 64]
    assert (given.name, given.shape) == ("maps", ["batch", 2, 64, 64])

    patches = read_sample(predictor.band_count)
    expected = predictor.predict(np.moveaxis(patches, 1, -1))[..., 0]
    assert expected.std() > 0.01
    image = patches.astype(np.float32) / 255  # as Deepness and GeoDeep do
    (maps,) = session.run(None, {"image": image})
    np.testing.assert_allclose(maps[:, 1], expected, rtol=0, atol=1e-4)
    (one,) = session.run(None, {"image": image[:1]})
    np.testing.assert_allclose(one, maps[:1], rtol=0, atol=1e-5)

    texts = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(text) for key, text in texts.items()} == metadata
    assert metadata["resolution"] == 15  # centimetres
    # As they make classes of probabilities.
    threshold = float(np.median(expected))
    maps[maps < threshold] = 0
    np.testing.assert_array_equal(maps.argmax(axis=1), maps[:, 1] >= threshold)
    assert [path.name for path in tmp_path.iterdir()].count("model.onnx") == 1


@pytest.mark.parametrize("predictor", ["plain"], indirect=True)
def test_a_model_gives_the_same_file_each_time(predictor, tmp_path):
    files = [tmp_path / f"{number}.onnx" for number in (1, 2)]
    for path in files:
        onnx.export_onnx(predictor, path)
    assert files[0].read_bytes() == files[1].read_bytes()


class ByHand(keras.Model):
    """A network that is no graph of layers."""

    def __init__(self):
        super().__init__()
        self.larger, self.weigh = layers.UpSampling2D(2), layers.Conv2D(1, 1)

    def call(self, inputs, training=None):
        return self.weigh(self.larger(inputs))


def with_two_sizes():
    """A network, one part of which is a network of its own."""
    pixels = keras.Input((None, None, 3))
    x = layers.UpSampling2D((2, 3))(layers.Conv2D(4, 3, activation="relu")(pixels))
    inner = keras.Model(pixels, layers.UpSampling2D(2)(layers.Conv2D(2, 3)(x)))
    outer = keras.Input((None, None, 3))
    return keras.Model(outer, layers.Conv2D(1, 3)(inner(outer)))


def with_bands_first():
    """A network whose upsampling stays as it is, of the second and the last axis."""
    pixels = keras.Input((None, None, 3))
    x = layers.UpSampling2D((1, 2), data_format="channels_first")(pixels)
    return keras.Model(pixels, layers.Conv2D(1, 3)(x))


@pytest.mark.parametrize("make", [with_two_sizes, with_bands_first, ByHand])
def test_maps_are_made_larger_in_one_step(make, tmp_path):
    keras.utils.set_random_seed(3)
    network = make()
    pixels = np.random.default_rng(0).random((2, 9, 7, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(network(pixels))
    path = tmp_path / "network.onnx"
    onnx.convert_network(network, path, (None, None, None, 3))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.ptp(keras.ops.convert_to_numpy(network(pixels)) - expected)
    graph = load_onnx(path).graph
    scales = {tensor.name: to_array(tensor).tolist() for tensor in graph.initializer}
    nearest = [
        scales[node.input[2]]
        for node in graph.node
        if node.op_type == "Resize" and b"nearest" in [a.s for a in node.attribute]
    ]
    if make is with_two_sizes:
        assert nearest == [[1, 1, 2, 3], [1, 1, 2, 2]]
        assert "Tile" not in {node.op_type for node in graph.node}
    used = {name for node in graph.node for name in node.input}
    assert set(scales) <= used


def test_an_axis_that_the_converter_leaves_is_taken_away(tmp_path):
    helper = pytest.importorskip("onnx.helper")
    given, found = (
        helper.make_tensor_value_info(name, 1, [None] * 4) for name in ("maps", "out")
    )
    turn = helper.make_node("Reshape", ["maps", "shape"], ["out"])
    graph = helper.make_graph([turn], "turn", [given], [found])
    arrays = {"shape": np.array([1, -1, 0, 0, 1])}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    model.ir_version = 8
    maps = np.arange(12, dtype=np.float32).reshape(2, 1, 3, 2)
    for turns in range(2):  # what is finished stays as it is
        onnx._finish_output(model, arrays)
        onnx._keep_used(model, arrays)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (turned,) = session.run(None, {"maps": maps})
        np.testing.assert_array_equal(turned, np.moveaxis(maps, 1, -1))
        assert len(model.graph.node) == 2, turns


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
def test_weights_are_not_copied_again_and_again(tmp_path):
    def read_memory(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1000 * int(line.split()[1]) for line in lines if field in line)

    pixels = keras.Input((None, None, 1))
    small = with_custom_layers()
    onnx.convert_network(small, tmp_path / "small.onnx", (None, None, None, 3))
    wide = layers.Conv2D(3000, 1)(layers.Conv2D(3000, 1)(pixels))
    network = keras.Model(pixels, layers.Conv2D(1, 1)(wide))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = read_memory("VmRSS")
    onnx.convert_network(network, tmp_path / "large.onnx", (None, None, None, 1))
    size = (tmp_path / "large.onnx").stat().st_size
    assert size > 4 * 3000**2
    assert read_memory("VmHWM") - before < 12 * size


@pytest.mark.parametrize("contact", [False, True])
def test_each_class_has_a_channel_and_contact_has_none(tmp_path, contact):
    keras.utils.set_random_seed(3)
    activation = "sigmoid" if contact else "softmax"
    model = models.build_model(
        "plain", classes=2 + contact, filters=4, blocks=2, activation=activation
    )
    classes = ["house", "road"]
    targets = [*classes, "contact"] if contact else classes
    metadata = {**FACTS, "classes": classes, "targets": targets}
    models.save_model(model, tmp_path / "model.keras", metadata)
    predictor = models.load_predictor(tmp_path / "model.keras")
    told = onnx.export_onnx(predictor, tmp_path / "model.onnx")
    assert told["class_names"] == {"0": "background", "1": "house", "2": "road"}
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    patches = read_sample(3)
    (maps,) = session.run(None, {"image": patches.astype(np.float32) / 255})
    assert maps.shape == (2, 3, 64, 64)
    assert (maps[:, 0] == 0).all()
    expected = predictor.predict(np.moveaxis(patches, 1, -1))[..., :2]
    np.testing.assert_allclose(np.moveaxis(maps[:, 1:], 1, -1), expected, atol=1e-4)


def test_what_the_readers_are_told():
    predictor = models.Predictor(
        name="town",
        predict=None,
        band_count=4,
        patch_size=64,
        multiple=16,
        threshold=0.3,
        resolution=0.075,
    )
    assert onnx.describe_model(predictor, 128) == {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "building"},
        "resolution": 7.5,
        "tile_size": 128,
        "tiles_overlap": 25,
        "seg_thresh": 0.3,
        "seg_small_segment": 0,
        "standardization_mean": [0, 0, 0, 0],
        "standardization_std": [1, 1, 1, 1],
    }
    unknown = replace(predictor, resolution=None)
    assert "resolution" not in onnx.describe_model(unknown, 128)


def test_bad_input_leaves_nothing(tmp_path, monkeypatch):
    network = with_custom_layers()
    predictor = models.Predictor(
        name="town",
        predict=network.predict_on_batch,
        band_count=3,
        patch_size=64,
        multiple=16,
        threshold=0.5,
        resolution=0.3,
        load_network=lambda: network,
    )
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"multiple of 16 pixels .* got 40"):
        onnx.export_onnx(predictor, path, window=40)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        onnx.export_onnx(predictor, tmp_path / "none" / "model.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match="TensorFlow, got Keras on jax"):
            onnx.export_onnx(predictor, path)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"needs onnx and tf2onnx: pip install"):
            onnx.export_onnx(predictor, path)
    with pytest.raises(ValueError, match="only a Keras model is exported"):
        onnx.export_onnx(replace(predictor, load_network=None), path)
    assert not list(tmp_path.iterdir())
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"model\.onnx exists"):
        onnx.export_onnx(predictor, path)
    assert path.read_text() == "precious"
