import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import ndimage

from bdloss import losses
from bdloss.losses import BoundaryLoss, CombinedLoss, IoULoss
from bdloss_tests.drawing import CITY, FIELD, HOUSE, as_batch, draw

ALL = [
    IoULoss(ignore=255),
    BoundaryLoss(ignore=255),
    CombinedLoss(ignore=255),
    CombinedLoss(None, ignore=255),
    BoundaryLoss(smooth=0.0, ignore=255, name="verbatim"),
]
HARD = {
    "both empty": (FIELD, FIELD),
    "missed": (HOUSE, FIELD),
    "invented": (FIELD, HOUSE),
    "both full": (CITY, CITY),
    "all wrong": (CITY, FIELD),
    "constant": (HOUSE, CITY / 2),
    "thin line": (HOUSE, np.eye(8, 9)),
    "all ignored": (CITY * 255, HOUSE),
}


def value_and_gradient(loss, y_true, y_pred):
    import tensorflow as tf

    y_pred = tf.convert_to_tensor(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred)
    return float(value), tape.gradient(value, y_pred).numpy()


def random_mask(seed, height, width):
    """Blobs that touch each other and the edges."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return (ndimage.gaussian_filter(noise, 1.5) > 0).astype(np.float32)


def boundary_f1_by_distance(y_true, y_pred, smooth):
    """BF1 from distances: another way to what the pooling does at theta = 5."""

    def find(mask):
        grown = ndimage.minimum_filter(mask, 3, mode="constant", cval=1)
        return (mask > 0) & (grown == 0)

    def share(boundary, other):
        near = (
            ndimage.distance_transform_edt(~other) < 3
            if other.any()
            else np.zeros_like(other)
        )
        if boundary.sum() + smooth == 0:
            return 1.0
        return ((boundary & near).sum() + smooth) / (boundary.sum() + smooth)

    true, pred = find(y_true), find(y_pred)
    precision, recall = share(pred, true), share(true, pred)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


@pytest.mark.parametrize("smooth", [1.0, 0.0])
def test_boundary_loss_is_one_minus_the_score_by_distances(smooth):
    for seed in range(40):
        height, width = 5 + 7 * seed % 41, 6 + 11 * seed % 37
        true, pred = (random_mask(2 * seed + i, height, width) for i in (0, 1))
        loss = BoundaryLoss(smooth=smooth)(as_batch(true), as_batch(pred))
        expected = 1 - boundary_f1_by_distance(true, pred, smooth)
        assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, HOUSE, 0, id="same"),
        pytest.param(FIELD, FIELD, 0, id="both empty"),
        pytest.param(HOUSE, FIELD, 1 - 1 / 26, id="missed"),
        pytest.param(HOUSE, np.roll(HOUSE, 1, 1), 1 - 21 / 31, id="shifted"),
    ],
)
def test_iou_loss(y_true, y_pred, expected):
    loss = IoULoss()(as_batch(y_true), as_batch(y_pred))
    assert float(loss) == pytest.approx(expected)


def test_combined_loss_is_the_weighted_sum():
    y_true, y_pred = as_batch(HOUSE), as_batch(0.2 + 0.6 * np.roll(HOUSE, 2, 1))
    bce = losses.binary_crossentropy(y_true, y_pred)[0]
    iou = losses.iou_loss(y_true, y_pred)[0]
    edge = losses.boundary_loss(y_true, y_pred, theta=7)[0]
    loss = CombinedLoss(BoundaryLoss(theta=7), w=0.3)(y_true, y_pred)
    assert float(loss) == pytest.approx(float(bce + 0.3 * edge + 0.7 * iou))
    alone = CombinedLoss(None)(y_true, y_pred)
    assert float(alone) == pytest.approx(float(bce + iou))


def test_binary_crossentropy_is_a_mean_over_valid_pixels():
    y_true, y_pred = draw("#.?#"), np.array([[0.9, 0.2, 0.5, 0.6]], "float32")
    expected = -(np.log(0.9) + np.log(0.8) + np.log(0.6)) / 3
    value = losses.binary_crossentropy(y_true[None], y_pred[None], ignore=255)
    assert float(value[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_value_and_gradient_are_finite_on_every_mask(loss, case, dtype):
    y_true, y_pred = HARD[case]
    value, gradient = value_and_gradient(
        loss, as_batch(y_true), as_batch(y_pred).astype(dtype)
    )
    limit = 1 if isinstance(loss, IoULoss | BoundaryLoss) else 20
    assert 0 <= value <= limit
    assert np.isfinite(gradient).all()


def test_gradient_removes_what_was_invented():
    soft = as_batch(0.05 + 0.9 * HOUSE)
    _, gradient = value_and_gradient(BoundaryLoss(), as_batch(FIELD), soft)
    assert gradient[as_batch(HOUSE) == 1].sum() > 0.1
    assert gradient[as_batch(HOUSE) == 0].sum() < -0.1


def test_boundary_loss_does_not_see_the_level_of_a_prediction():
    soft = 0.3 + 0.3 * np.roll(HOUSE, 3, 1)
    loss = BoundaryLoss()
    low, gradient = value_and_gradient(loss, as_batch(HOUSE), as_batch(soft))
    high, _ = value_and_gradient(loss, as_batch(HOUSE), as_batch(soft + 0.3))
    assert low == pytest.approx(high, abs=1e-6)
    assert np.abs(gradient).max() > 1e-3
    assert gradient.sum() == pytest.approx(0, abs=1e-6)


def test_sums_do_not_overflow_in_float16():
    y_true = np.zeros((1, 512, 512, 1), "uint8")
    y_true[:, 100:400, 50:450] = 1
    loss = IoULoss()(y_true, ops.cast(y_true, "float16"))
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_masks_of_integers_are_accepted():
    for dtype in ("bool", "uint8", "int32"):
        loss = CombinedLoss()(as_batch(HOUSE).astype(dtype), as_batch(HOUSE))
        assert float(loss) == pytest.approx(0, abs=1e-5)


HALF_KNOWN = draw(
    """
    ???......
    ???......
    ??###....
    ??###....
    ??###....
    ???......
    ???......
    ???......
    """
)


@pytest.mark.parametrize("loss", [IoULoss, BoundaryLoss, CombinedLoss])
def test_rim_of_ignored_pixels_is_no_boundary(loss):
    true = as_batch(HALF_KNOWN)
    for guess in (0.0, 0.5, 1.0):
        pred = np.where(true == 255, guess, true)
        assert float(loss(ignore=255)(true, pred)) == pytest.approx(0, abs=1e-5)


def test_ignored_pixels_have_no_gradient():
    pred = np.random.default_rng(0).uniform(0.1, 0.9, (1, 8, 9, 1)).astype("float32")
    _, gradient = value_and_gradient(
        CombinedLoss(ignore=255), as_batch(HALF_KNOWN), pred
    )
    assert not gradient[as_batch(HALF_KNOWN) == 255].any()
    assert gradient.any()


def test_class_absent_from_both_costs_nothing():
    y_true = np.concatenate([as_batch(HOUSE), as_batch(FIELD)], -1)
    y_pred = np.concatenate([as_batch(FIELD), as_batch(FIELD)], -1)
    one = float(BoundaryLoss()(as_batch(HOUSE), as_batch(FIELD)))
    assert float(BoundaryLoss()(y_true, y_pred)) == pytest.approx(one / 2)
    weighted = BoundaryLoss(class_weights=[3, 1])(y_true, y_pred)
    assert float(weighted) == pytest.approx(one * 3 / 4)


def test_logits_and_channels_first_give_the_same():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 8, 9, 2)).astype("float32")
    y_true = (rng.random((2, 8, 9, 2)) > 0.5).astype("float32")
    expected = float(CombinedLoss()(y_true, ops.sigmoid(logits)))
    assert float(CombinedLoss(from_logits=True)(y_true, logits)) == pytest.approx(
        expected, rel=1e-5
    )
    first = CombinedLoss(from_logits=True, data_format="channels_first")
    moved = (np.moveaxis(y, -1, 1) for y in (y_true, logits))
    assert float(first(*moved)) == pytest.approx(expected, rel=1e-5)


def test_mask_without_class_axis_is_one_class():
    values = losses.boundary_loss(HOUSE[None], FIELD[None])
    assert values.shape == (1,)
    assert float(values[0]) == pytest.approx(8 / 9)


@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    theta=st.sampled_from([3, 5, 9]),
)
@settings(max_examples=30, deadline=None)
def test_boundary_loss_lies_between_0_and_1(seed, height, width, theta):
    rng = np.random.default_rng(seed)
    true = random_mask(seed, height, width)
    pred = rng.random((height, width)).astype("float32")
    value, gradient = value_and_gradient(
        BoundaryLoss(theta=theta), as_batch(true), as_batch(pred)
    )
    assert 0 <= value <= 1
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_config_round_trip(loss):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def small_model(loss):
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile("sgd", loss, jit_compile=False)
    return model


def test_compiled_model_is_saved_and_loaded_in_safe_mode(tmp_path):
    model = small_model(CombinedLoss(BoundaryLoss(theta=7), w=0.3))
    x, y = as_batch(HOUSE), as_batch(HOUSE)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0)
    )


def test_w_changes_a_compiled_loss_without_a_new_trace():
    traces = []

    class Counted(CombinedLoss):
        def call(self, y_true, y_pred):
            traces.append(1)
            return super().call(y_true, y_pred)

    model = small_model(Counted(w=0.0))
    x, y = as_batch(HOUSE), as_batch(HOUSE)
    before = model.test_on_batch(x, y)
    once = len(traces)
    model.loss.w.assign(1.0)
    after = model.test_on_batch(x, y)
    assert len(traces) == once > 0
    iou, edge = (float(loss(y, model(x))) for loss in (IoULoss(), BoundaryLoss()))
    assert after - before == pytest.approx(edge - iou, rel=1e-4)


def test_sample_weight_of_each_image():
    y_true, y_pred = as_batch(HOUSE, HOUSE), as_batch(HOUSE, FIELD)
    weights = np.array([1.0, 0.0])
    assert float(BoundaryLoss()(y_true, y_pred, weights)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: BoundaryLoss(theta=4), "theta must be an odd number of pixels, got 4"),
        (lambda: BoundaryLoss(theta0=7, theta=5), "theta must not be less than theta0"),
        (lambda: CombinedLoss(w=1.5), r"w must lie in \[0, 1\], got 1.5"),
        (lambda: CombinedLoss("sharp"), "extra must be one of .* got 'sharp'"),
        (
            lambda: CombinedLoss(BoundaryLoss(ignore=255)),
            "extra must have the settings",
        ),
        (lambda: IoULoss()(np.ones((2, 3)), np.ones((2, 3))), "rank 3"),
        (
            lambda: IoULoss()(np.ones((1, 4, 5)), np.ones((1, 5, 4))),
            "same shape",
        ),
        (
            lambda: IoULoss(class_weights=[1, 2])(as_batch(HOUSE), as_batch(HOUSE)),
            "one weight a class, got 2 for 1",
        ),
        (lambda: IoULoss(data_format="chw")(CITY[None], CITY[None]), "data_format"),
    ],
)
def test_bad_arguments(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


def test_boundary_loss_without_any_help_warns():
    with pytest.warns(UserWarning, match="alone does not train"):
        CombinedLoss("boundary", w=1.0, bce=False)
