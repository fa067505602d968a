"""These run under every backend of Keras."""

import keras
import numpy as np
import pytest
from keras import ops

from bdloss.losses.pooling import POOLINGS, max_pool
from bdloss_tests.drawing import HOUSE, as_batch, draw, plateaus
from bdloss_tests.gradients import gradient

BACKEND = keras.backend.backend()
SYMMETRIES = {
    f"{turns} turns{', flipped' if flip else ''}": (turns, flip)
    for turns in range(4)
    for flip in (False, True)
}


def handed_back(y, upstream, side, pool=max_pool):
    """Return what pooling hands back of an upstream gradient."""
    return gradient(lambda y: ops.sum(ops.multiply(pool(y, side), upstream)), y)


def plain_max_pool(y, side):
    return ops.max_pool(y, side, strides=1, padding="same")


def equal_shares(y, upstream, side):
    """Hand the gradient back window by window, pixel by pixel."""
    half = side // 2
    total = np.zeros_like(y)
    for image, row, column, channel in np.ndindex(*y.shape):
        rows = slice(max(0, row - half), row + half + 1)
        columns = slice(max(0, column - half), column + half + 1)
        window = image, rows, columns, channel
        largest = y[window] == y[window].max()
        total[window] += upstream[image, row, column, channel] * largest / largest.sum()
    return total


def distinct(shape, seed=0):
    """Values of which no two are the same."""
    values = np.random.default_rng(seed).permutation(np.prod(shape))
    return (values / values.size).reshape(shape).astype("float32")


def noise(shape, seed=9):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def move(y, turns, flip):
    y = np.rot90(y, turns, axes=(1, 2))
    return np.ascontiguousarray(y[:, :, ::-1] if flip else y)


@pytest.mark.parametrize("side", [1, 3, 5, 7, 9, 15, 31])
@pytest.mark.parametrize("shape", [(2, 13, 18, 3), (1, 40, 7, 1), (2, 1, 1, 1)])
def test_values_are_those_of_the_plain_pooling(side, shape):
    y = noise(shape)
    pooled = ops.convert_to_numpy(max_pool(y, side))
    np.testing.assert_array_equal(pooled, ops.convert_to_numpy(plain_max_pool(y, side)))


@pytest.mark.parametrize("side", [3, 5, 7, 15])
@pytest.mark.parametrize("shape", [(2, 13, 18, 3), (1, 20, 7, 1)])
def test_gradient_is_that_of_the_plain_pooling_where_no_maxima_tie(side, shape):
    y, upstream = distinct(shape), noise(shape)
    np.testing.assert_allclose(
        handed_back(y, upstream, side),
        handed_back(y, upstream, side, plain_max_pool),
        atol=1e-5,  # of sums of up to 225 numbers of about 1
    )


@pytest.mark.parametrize("side", [3, 5, 7, 15])
@pytest.mark.parametrize("shape", [(2, 9, 12, 2), (1, 11, 6, 1), (1, 1, 1, 1)])
def test_ties_share_equally(side, shape):
    y, upstream = plateaus(shape), noise(shape)
    np.testing.assert_allclose(
        handed_back(y, upstream, side), equal_shares(y, upstream, side), atol=1e-5
    )


def test_ties_may_go_to_one_pixel():
    y = np.random.default_rng(0).integers(0, 3, (1, 7, 9, 1)).astype("float32")
    shared, first = (POOLINGS[name] for name in ("shared", "first"))
    assert shared is max_pool
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(f(y, 3)) for f in POOLINGS.values())
    )
    flat, upstream = np.ones((1, 5, 6, 1), "float32"), np.ones((1, 5, 6, 1), "float32")
    equal, one = (handed_back(flat, upstream, 3, f) for f in (shared, first))
    assert equal.sum() == pytest.approx(one.sum()) == 30
    assert (equal > 0).all()
    assert (one == 0).any()
    np.testing.assert_array_equal(one, np.rint(one))  # no window is divided


def test_rows_take_part_by_their_number_of_maxima():
    # The window in the middle has three maxima above and one below it: a quarter each,
    # where sharing among the rows first would give the lower one a half.
    y = as_batch(draw("### ... #.."))
    upstream = as_batch(draw("... .#. ..."))
    expected = as_batch(draw("### ... #..")) / 4
    np.testing.assert_allclose(handed_back(y, upstream, 3), expected, atol=1e-7)


@pytest.mark.parametrize("case", SYMMETRIES)
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize(
    "y",
    [
        pytest.param(plateaus((2, 10, 14, 1)), id="plateaus"),
        pytest.param(as_batch(HOUSE), id="house"),
        pytest.param(np.zeros((1, 6, 9, 1), "float32"), id="constant"),
    ],
)
def test_gradient_turns_with_the_image(y, side, case):
    upstream = np.random.default_rng(3).random(y.shape).astype("float32")
    turned = handed_back(
        move(y, *SYMMETRIES[case]), move(upstream, *SYMMETRIES[case]), side
    )
    expected = move(handed_back(y, upstream, side), *SYMMETRIES[case])
    np.testing.assert_allclose(turned, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", [3, 5, 15])
def test_windows_hand_out_all_they_get(side):
    y, upstream = plateaus((2, 12, 17, 1)), noise((2, 12, 17, 1))
    total = handed_back(y, upstream, side).sum(axis=(1, 2))
    np.testing.assert_allclose(total, upstream.sum(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_stays_and_the_gradient_is_finite(dtype):
    y = ops.cast(plateaus((1, 40, 30, 1)), dtype)
    assert keras.backend.standardize_dtype(max_pool(y, 31).dtype) == dtype
    found = gradient(
        lambda y: ops.sum(ops.cast(max_pool(ops.cast(y, dtype), 31), "float32")),
        plateaus((1, 40, 30, 1)),
    )
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(40 * 30, rel=1e-2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of TensorFlow")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("shape", [(2, 13, 18, 1), (1, 9, 6, 3), (2, 1, 1, 1)])
def test_graph_of_unknown_sizes_gives_the_same(jit_compile, shape):
    import tensorflow as tf

    sizes = tf.TensorSpec([None, None, None, shape[-1]])

    @tf.function(jit_compile=jit_compile, input_signature=[sizes, sizes])
    def in_graph(y, upstream):
        with tf.GradientTape() as tape:
            tape.watch(y)
            pooled = max_pool(y, 5)
        return pooled, tape.gradient(pooled, y, upstream)

    y, upstream = plateaus(shape), noise(shape)
    for _ in range(3):  # the compiled graph takes over after some calls
        pooled, back = in_graph(y, upstream)
        np.testing.assert_array_equal(pooled, max_pool(y, 5))
        np.testing.assert_allclose(back, handed_back(y, upstream, 5), atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="loops of TensorFlow")
def test_several_steps_in_one_graph_call():
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(1, 3, padding="same")]
    )

    def sharpness(y_true, y_pred):
        return ops.mean(max_pool(y_pred, 3) - y_true)

    model.compile("sgd", sharpness, jit_compile=False, steps_per_execution=2)
    history = model.fit(
        noise((8, 9, 7, 1)), noise((8, 9, 7, 1)), batch_size=2, epochs=3, verbose=0
    )
    losses = history.history["loss"]
    assert losses[0] > losses[1] > losses[2]
