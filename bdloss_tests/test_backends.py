"""These run under every backend of Keras: `KERAS_BACKEND=jax pytest ...`."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from bdloss import losses
from bdloss.callbacks import SteppedWeight
from bdloss.losses import BoundaryLoss, CombinedLoss, IoULoss
from bdloss.models import build_model
from bdloss_tests.gradients import gradient

SHAPE = (2, 13, 18, 2)  # two images of two classes


def maps(seed=0):
    """Hard truth and soft prediction, blobs that touch each other and the edges."""
    noise = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2, 0)) * 8
    true = (smooth[0] > 0).astype("float32")
    return true, (1 / (1 + np.exp(-smooth.sum(axis=0)))).astype("float32")


def pool(y, side):
    size = (1, side, side, 1)
    return ndimage.maximum_filter(y, size, mode="constant", cval=-np.inf)


def area(y):
    return y.astype("float64").sum(axis=(1, 2))


def expected_boundary(true, pred, theta0=3, theta=5):
    edge_true, edge_pred = (pool(1 - y, theta0) - (1 - y) for y in (true, pred))
    found = (area(edge_pred * pool(edge_true, theta)) + 1) / (area(edge_pred) + 1)
    known = (area(edge_true * pool(edge_pred, theta)) + 1) / (area(edge_true) + 1)
    return 1 - 2 * found * known / (found + known)


def expected_iou(true, pred):
    both = area(true * pred)
    return 1 - (both + 1) / (area(true) + area(pred) - both + 1)


def expected_dice(true, pred):
    return 1 - (2 * area(true * pred) + 1) / (area(true) + area(pred) + 1)


def expected_bce(true, pred):
    return -area(np.where(true == 1, np.log(pred), np.log(1 - pred))) / (13 * 18)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.boundary_loss, expected_boundary),
        (losses.iou_loss, expected_iou),
        (losses.dice_loss, expected_dice),
        (losses.binary_crossentropy, expected_bce),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_those_of_numpy(loss, expected, seed):
    true, pred = maps(seed)
    values = ops.convert_to_numpy(loss(true, pred))
    np.testing.assert_allclose(values, expected(true, pred).mean(axis=-1), atol=1e-6)


def plain_boundary_loss(true, pred, theta0=3, theta=5):
    """Eqs. 1 to 4 written the usual way."""

    def pool(y, side):
        return ops.max_pool(y, side, strides=1, padding="same")

    edge_true, edge_pred = (pool(1 - y, theta0) - (1 - y) for y in (true, pred))
    near_true, near_pred = pool(edge_true, theta), pool(edge_pred, theta)
    found, known = (
        (ops.sum(edge * near, axis=(1, 2)) + 1) / (ops.sum(edge, axis=(1, 2)) + 1)
        for edge, near in ((edge_pred, near_true), (edge_true, near_pred))
    )
    return ops.mean(1 - 2 * found * known / (found + known), axis=-1)


@pytest.mark.parametrize("theta", [5, 7])
def test_boundary_loss_is_the_plain_one_where_no_maxima_tie(theta):
    true = ops.convert_to_tensor(maps()[0])
    noise = np.random.default_rng(1).random(SHAPE).astype("float32")

    def total(loss):
        return lambda pred: ops.sum(loss(true, pred, theta=theta))

    ours, plain = total(losses.boundary_loss), total(plain_boundary_loss)
    assert float(ours(noise)) == pytest.approx(
        float(plain(ops.convert_to_tensor(noise))), abs=1e-6
    )
    slope = gradient(ours, noise)
    np.testing.assert_allclose(slope, gradient(plain, noise), atol=1e-6)
    assert np.abs(slope).max() > 1e-3


def photos(count=4, side=32):
    """Bright squares on dark ground, and where they are."""
    rng = np.random.default_rng(2)
    masks = np.zeros((count, side, side, 1), "float32")
    for mask in masks:
        row, column = rng.integers(2, side // 2, 2)
        mask[row : row + 12, column : column + 9] = 1
    return 200 * masks + rng.uniform(0, 55, (count, side, side, 3)), masks


@pytest.mark.parametrize(
    ("network", "policy"),
    [
        ({"backbone": "plain", "filters": 4, "blocks": 2}, "float32"),
        ({"backbone": "plain", "filters": 4, "blocks": 2}, "mixed_float16"),
        pytest.param({"backbone": "resnet34"}, "float32", marks=pytest.mark.slow),
    ],
    ids=["plain", "plain in mixed precision", "resnet34"],
)
def test_network_trains(network, policy):
    keras.utils.set_random_seed(0)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = build_model(**network)
        model.compile(keras.optimizers.Adam(1e-3), CombinedLoss(w=0.5))
        history = model.fit(*photos(), batch_size=2, epochs=4, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy(before)
    costs = history.history["loss"]
    assert np.isfinite(costs).all()
    assert costs[-1] < costs[0]


def test_weight_takes_effect_in_a_compiled_step():
    model = build_model(filters=4, blocks=2)
    model.compile(keras.optimizers.SGD(0.0), CombinedLoss(w=0.9))
    model.trainable = False  # batch norm keeps still too
    x, y = photos()
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=3,
        callbacks=[SteppedWeight(0.0, [0.5, 1.0], first=1, every=1)],
        verbose=0,
    )
    pred = model.predict(x, verbose=0)
    rise = float(BoundaryLoss()(y, pred)) - float(IoULoss()(y, pred))
    np.testing.assert_allclose(np.diff(history.history["loss"]), rise / 2, atol=1e-4)
    assert abs(rise) > 1e-2
    lone = [model.test_on_batch(x, y, return_dict=True)["loss"]]
    model.loss.w.assign(0.0)
    lone.append(model.test_on_batch(x, y, return_dict=True)["loss"])
    assert lone[0] - lone[1] == pytest.approx(rise, abs=1e-4)
