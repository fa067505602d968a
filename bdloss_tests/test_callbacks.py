import keras
import numpy as np
import pytest

from bdloss.callbacks import (
    BoundaryWeight,
    ConstantWeight,
    SteppedWeight,
    ThetaSchedule,
    ramp,
    step,
)
from bdloss.losses import BoundaryLoss, CombinedLoss, DiceLoss
from bdloss_tests.drawing import HOUSE, as_batch


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0, 0.1), (2, 0.1), (3, 0.2), (5, 0.4), (6, 0.5), (99, 0.5)]
)
def test_ramp(epoch, weight):
    assert ramp(epoch, 0.1, 0.5, first=2, last=6) == pytest.approx(weight)


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0, 0.1), (1, 0.1), (2, 0.3), (4, 0.3), (5, 0.9), (99, 0.9)]
)
def test_step(epoch, weight):
    assert step(epoch, 0.1, [0.3, 0.9], first=2, every=3) == weight


def compiled(loss, rate=0.01, jit_compile=False, run_eagerly=False):
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )
    model.compile(
        keras.optimizers.SGD(rate),
        loss,
        jit_compile=jit_compile,
        run_eagerly=run_eagerly,
    )
    return model


@pytest.mark.parametrize(
    ("callback", "weights"),
    [
        (BoundaryWeight(0.0, 0.6, first=1, last=4), [0, 0.2, 0.4, 0.6]),
        (SteppedWeight(0.1, [0.3, 0.7], first=2, every=2), [0.1, 0.3, 0.3, 0.7]),
        (ConstantWeight(0.2), [0.2] * 4),
    ],
)
def test_weight_moves_and_stands_in_the_logs(callback, weights):
    model = compiled(CombinedLoss(w=0.9))
    history = model.fit(
        as_batch(HOUSE),
        as_batch(HOUSE),
        epochs=5,
        initial_epoch=1,
        callbacks=[callback],
        verbose=0,
    )
    np.testing.assert_allclose(history.history["w"], weights, atol=1e-6)
    assert float(model.loss.w.value) == pytest.approx(weights[-1])


def test_needs_a_combined_loss():
    with pytest.raises(ValueError, match="needs a model compiled with a CombinedLoss"):
        compiled("mse").fit(
            as_batch(HOUSE),
            as_batch(HOUSE),
            callbacks=[BoundaryWeight(0, 1, 0, 1)],
            verbose=0,
        )


def noise(seed):
    return np.random.default_rng(seed).random((2, 16, 18, 1)).astype("float32")


@pytest.mark.parametrize("combined", [False, True])
def test_theta_takes_effect_in_compiled_steps(combined):
    edge = BoundaryLoss(theta=3)
    loss = CombinedLoss(edge, w=0.3) if combined else edge
    # Without XLA, TensorFlow makes a graph too; JAX compiles nothing.
    jit_compile = keras.backend.backend() == "jax"
    model = compiled(loss, rate=0.0, jit_compile=jit_compile)
    x, y = noise(0), (noise(1) > 0.9).astype("float32")
    history = model.fit(
        x,
        y,
        validation_data=(x[:1], y[:1]),
        epochs=3,
        callbacks=[ThetaSchedule([7], every=2)],
        verbose=0,
    ).history
    assert history["theta"] == [7, 7, 3]
    assert edge.theta == 3
    pred = model.predict_on_batch(x)
    for key, size in (("loss", 2), ("val_loss", 1)):
        expected = []
        for theta in history["theta"]:
            own = BoundaryLoss(theta=theta)
            same = CombinedLoss(own, w=0.3) if combined else own
            expected.append(float(same(y[:size], pred[:size])))
        assert len(set(expected)) == 2
        np.testing.assert_allclose(history[key], expected, rtol=1e-4)


def test_theta_is_that_of_the_epoch_that_is_resumed():
    model = compiled(BoundaryLoss(theta=5), run_eagerly=True)
    settings = {"callbacks": [ThetaSchedule([9, 7], every=2)], "verbose": 0}
    thetas = []
    for first, last in ((0, 1), (1, 3), (3, 6)):
        history = model.fit(
            noise(0), noise(1), initial_epoch=first, epochs=last, **settings
        )
        thetas += history.history["theta"]
        assert model.loss.theta == 5
    assert thetas == [9, 9, 7, 7, 5, 5]


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise KeyboardInterrupt


def test_loss_has_its_own_theta_after_a_training_that_was_interrupted():
    model = compiled(BoundaryLoss(theta=5), run_eagerly=True)
    schedule = ThetaSchedule([9], every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(noise(0), noise(1), callbacks=[schedule, Interrupt()], verbose=0)
    assert model.loss.theta == 9
    model.fit(noise(0), noise(1), callbacks=[schedule], epochs=2, verbose=0)
    assert model.loss.theta == 5
    model.loss = BoundaryLoss(theta=7)  # another one
    model.fit(noise(0), noise(1), callbacks=[schedule], verbose=0)
    assert model.loss.theta == 7


@pytest.mark.parametrize(
    ("loss", "rule"),
    [
        ("mse", "needs a model compiled with a boundary loss, got 'mse'"),
        (CombinedLoss(None), "needs a model compiled with a boundary loss"),
        (CombinedLoss(DiceLoss()), "needs a model compiled with a boundary loss"),
        (BoundaryLoss(7, 9), "must not be less than theta0 = 7, got 5"),
    ],
)
def test_theta_needs_a_loss_that_has_one(loss, rule):
    with pytest.raises(ValueError, match=rule):
        compiled(loss).fit(
            noise(0), noise(1), callbacks=[ThetaSchedule([9, 5], 1)], verbose=0
        )


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: BoundaryWeight(0, 1.5, 0, 1), "end must lie in"),
        (lambda: BoundaryWeight(0, 1, 3, 3), "last must come after first"),
        (lambda: ConstantWeight(-0.1), "w must lie in"),
        (lambda: SteppedWeight(0, [0.1, 2], 0, 1), "values must lie in"),
        (lambda: SteppedWeight(0, [], 0, 1), "there must be values"),
        (lambda: SteppedWeight(0, [0.1], 0, 0), "every at least 1, got .* every=0"),
        (lambda: ThetaSchedule([7, 6], 1), "values must be odd .* got 6"),
        (lambda: ThetaSchedule([-1], 1), "values must be odd .* got -1"),
        (lambda: ThetaSchedule([], 1), "there must be values"),
        (lambda: ThetaSchedule([7], 0), "every at least 1, got .* every=0"),
    ],
)
def test_bad_arguments(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
