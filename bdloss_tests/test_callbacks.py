import keras
import numpy as np
import pytest

from bdloss.callbacks import BoundaryWeight, ConstantWeight, SteppedWeight, ramp, step
from bdloss.losses import CombinedLoss
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


def compiled(loss):
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )
    model.compile("sgd", loss, jit_compile=False)
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


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: BoundaryWeight(0, 1.5, 0, 1), "end must lie in"),
        (lambda: BoundaryWeight(0, 1, 3, 3), "last must come after first"),
        (lambda: ConstantWeight(-0.1), "w must lie in"),
        (lambda: SteppedWeight(0, [0.1, 2], 0, 1), "values must lie in"),
        (lambda: SteppedWeight(0, [], 0, 1), "there must be values"),
        (lambda: SteppedWeight(0, [0.1], 0, 0), "every at least 1, got .* every=0"),
    ],
)
def test_bad_arguments(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
