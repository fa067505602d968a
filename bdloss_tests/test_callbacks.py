import keras
import numpy as np
import pytest

from bdloss.callbacks import BoundaryWeight, ramp
from bdloss.losses import CombinedLoss
from bdloss_tests.drawing import HOUSE, as_batch


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0, 0.1), (2, 0.1), (3, 0.2), (5, 0.4), (6, 0.5), (99, 0.5)]
)
def test_ramp(epoch, weight):
    assert ramp(epoch, 0.1, 0.5, first=2, last=6) == pytest.approx(weight)


def compiled(loss):
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )
    model.compile("sgd", loss, jit_compile=False)
    return model


def test_weight_moves_and_stands_in_the_logs():
    model = compiled(CombinedLoss(w=0.9))
    history = model.fit(
        as_batch(HOUSE),
        as_batch(HOUSE),
        epochs=5,
        initial_epoch=1,
        callbacks=[BoundaryWeight(0.0, 0.6, first=1, last=4)],
        verbose=0,
    )
    np.testing.assert_allclose(history.history["w"], [0, 0.2, 0.4, 0.6], atol=1e-6)
    assert float(model.loss.w.value) == pytest.approx(0.6)


def test_needs_a_combined_loss():
    with pytest.raises(ValueError, match="needs a model compiled with a CombinedLoss"):
        compiled("mse").fit(
            as_batch(HOUSE),
            as_batch(HOUSE),
            callbacks=[BoundaryWeight(0, 1, 0, 1)],
            verbose=0,
        )


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [((0, 1.5, 0, 1), "end must lie in"), ((0, 1, 3, 3), "last must come after first")],
)
def test_bad_arguments(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        BoundaryWeight(*arguments)
