import keras
import numpy as np
import openvino
import pytest
from keras import layers

from bdloss.inference.onnx import convert_network
from bdloss.inference.openvino_graph import merge_upsampling

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


def decode(up=(), conv=(), skips=1, axis=-1, sides=(None, None)):
    """Return a network that ends as a decoder does: 3 x 5 bands up, a skip beside."""
    given = keras.Input((*sides, 3))
    small = layers.Conv2D(5, 2, 2, name="small")(given)
    large = layers.UpSampling2D(**{"size": 2, **dict(up)})(small)
    if skips:
        beside = [layers.Conv2D(5 + i, 1)(given) for i in range(skips)]
        large = layers.Concatenate(axis)([large, *beside])
    how = {"kernel_size": 3, "padding": "same", "use_bias": False, **dict(conv)}
    maps = layers.BatchNormalization()(layers.Conv2D(4, **how)(large))
    return keras.Model(given, layers.Activation("relu")(maps))


def merge(network, path):
    """Return how many steps were merged, and what is then computed."""
    convert_network(network, path, network.input_shape)
    core = openvino.Core()
    model = core.read_model(path)
    merged = merge_upsampling(model)
    compiled = core.compile_model(model, "CPU", SETTINGS)
    return merged, lambda batch: np.array(compiled(batch)[0])


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param({"skips": 1}, 1, id="skip"),
        pytest.param({"skips": 0}, 1, id="no skip"),
        pytest.param({"skips": 2}, 1, id="two skips"),
        pytest.param({"conv": {"use_bias": True}}, 1, id="bias"),
        pytest.param({"conv": {"kernel_size": 1}}, 0, id="1 x 1"),
        pytest.param({"conv": {"kernel_size": 5}}, 0, id="5 x 5"),
        pytest.param({"conv": {"strides": 2}}, 0, id="stride"),
        pytest.param({"conv": {"dilation_rate": 2}}, 0, id="dilated"),
        pytest.param({"conv": {"padding": "valid"}}, 0, id="no padding"),
        pytest.param({"axis": 1}, 0, id="one above the other"),
        pytest.param({"up": {"size": 4}, "skips": 0}, 0, id="four times"),
        pytest.param({"sides": (8, 14)}, 1, id="known sides"),
        pytest.param(
            {"up": {"interpolation": "bilinear"}, "sides": (8, 14)}, 0, id="bilinear"
        ),
    ],
)
def test_one_step_computes_what_two_do(tmp_path, network, expected):
    keras.utils.set_random_seed(2)
    network = decode(**network)
    for weight in network.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    weights = network.get_layer("small").kernel
    weights.assign(np.random.default_rng(3).normal(size=weights.shape))
    batch = np.random.default_rng(0).normal(size=(2, 8, 14, 3)).astype(np.float32)
    wanted = network.predict_on_batch(batch)
    assert wanted.std() > 0.1
    merged, compute = merge(network, tmp_path / "network.onnx")
    assert merged == expected
    assert abs(compute(batch) - wanted).max() < 1e-6 * wanted.max() + 1e-6
