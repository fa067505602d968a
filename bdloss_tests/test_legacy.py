"""The losses under Keras 2, as functions: only where `tf_keras` is installed."""

import os

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras")
os.environ["SM_FRAMEWORK"] = "tf.keras"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
sm = pytest.importorskip("segmentation_models")

from bdloss import losses  # noqa: E402


def combined(y_true, y_pred):
    return (
        losses.binary_crossentropy(y_true, y_pred)
        + 0.5 * losses.boundary_loss(y_true, y_pred)
        + 0.5 * losses.iou_loss(y_true, y_pred)
    )


def photos():
    """Bright squares on dark ground, and where they are."""
    rng = np.random.default_rng(2)
    masks = np.zeros((4, 64, 32, 1), "float32")
    for mask in masks:
        row, column = rng.integers(2, 16, 2)
        mask[row : row + 30, column : column + 12] = 1
    return masks + rng.uniform(0, 0.2, (4, 64, 32, 3)).astype("float32"), masks


@pytest.mark.parametrize("eager", [False, True])
def test_unet_of_segmentation_models_trains(eager):
    tf_keras.utils.set_random_seed(0)
    model = sm.Unet("resnet18", encoder_weights=None, input_shape=(None, None, 3))
    assert isinstance(model, tf_keras.Model)
    model.compile(tf_keras.optimizers.Adam(1e-3), combined, run_eagerly=eager)
    costs = model.fit(*photos(), batch_size=2, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(costs).all()
    assert costs[-1] < costs[0]


def convolution(loss, **settings):
    """Compile a network of one layer that starts the same each time."""
    tf_keras.utils.set_random_seed(0)
    pixels = tf_keras.Input((None, None, 3))
    layer = tf_keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    model = tf_keras.Model(pixels, layer(pixels))
    model.compile("sgd", loss, **settings)
    return model


def test_compiled_and_not_give_the_same():
    plain, compiled = (convolution(combined, jit_compile=jit) for jit in (False, True))
    for _ in range(3):
        expected = plain.train_on_batch(*photos())
        assert compiled.train_on_batch(*photos()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["boundary", "iou", "dice", "ss", "combined"])
def test_a_loss_object_is_a_function_too(name):
    loss = losses.get(name)
    cost = convolution(lambda y, p: loss.call(y, p)).train_on_batch(*photos())
    x, y = photos()
    pred = convolution("mse").predict(x, verbose=0)
    assert cost == pytest.approx(float(loss(y, pred)), rel=1e-5)
