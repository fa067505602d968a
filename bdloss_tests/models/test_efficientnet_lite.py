import keras
import numpy as np
import pytest

from bdloss import models
from bdloss.models import efficientnet_lite

# What PyTorch makes of the published weights in single precision on `picture()`:
# mean and standard deviation of the features, and the first four at row 1, column 2.
PYTORCH = [
    (0.04352959, 8.038496, (-0.94007057, -5.3788614, 11.739911, 2.7696977)),
    (-0.5252783, 11.073024, (0.38638854, 14.711599, -0.16973701, 2.283088)),
    (0.19757085, 9.867708, (13.910006, -13.071938, -0.5577493, 0.16595078)),
    (0.10075277, 5.68738, (5.6722136, -1.9039617, -1.8972714, 9.516022)),
]
HALF = 0.02  # of the deviation: what half precision may change after eleven blocks


def picture():
    rows, cols = np.mgrid[:64, :96]
    waves = (np.sin(rows / 7 + cols / 11), np.cos(cols / 5))
    bands = [127 + 120 * wave for wave in waves] + [rows * 255 / 63]
    return np.stack(bands, axis=-1)[None].astype("float32")


@pytest.fixture(scope="module")
def features():
    pixels = keras.Input((None, None, 3))
    model = keras.Model(
        pixels, efficientnet_lite.encode(efficientnet_lite.scale_pixels()(pixels))
    )
    efficientnet_lite.load_weights(model)
    return model.predict_on_batch(picture())


@pytest.mark.parametrize("level", range(4))
def test_features_are_those_of_pytorch(features, level):
    mean, deviation, values = PYTORCH[level]
    found = features[level]
    assert found.shape[1:3] == (64 // 2 ** (level + 1), 96 // 2 ** (level + 1))
    assert found.mean() == pytest.approx(mean, abs=HALF * deviation)
    assert found.std() == pytest.approx(deviation, rel=HALF)
    assert found[0, 1, 2, :4] == pytest.approx(values, abs=HALF * deviation)


def test_weights_of_lite_come_with_the_package():
    first, again, random = (
        models.build_model("lite", encoder_weights=weights).get_layer("lite_stem")
        for weights in ("imagenet", "imagenet", None)
    )
    kernel = first.get_weights()[0]
    np.testing.assert_array_equal(kernel, again.get_weights()[0])
    assert (kernel != random.get_weights()[0]).all()
