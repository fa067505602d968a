import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import ndimage

from bdloss import losses
from bdloss.callbacks import carry_weight
from bdloss.losses import (
    BinaryCrossentropy,
    BoundaryLoss,
    CombinedLoss,
    DiceLoss,
    EdgeCrossentropy,
    IoULoss,
    OrientedBoundaryLoss,
    SSLoss,
    VGGFeatures,
    VGGLoss,
    classes,
    inputs,
)
from bdloss.metrics import boundary_f1
from bdloss_tests.drawing import CITY, FIELD, HOUSE, as_batch, draw
from bdloss_tests.gradients import value_and_gradient

# Of hypothesis: JAX compiles each size of an image anew.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 25


@keras.saving.register_keras_serializable("bdloss_tests")
def see_pixels_and_their_mean(maps):
    """Features at two depths, in place of those of a large network."""
    return [maps, ops.mean(maps, axis=(1, 2), keepdims=True)]


VGG = VGGLoss(see_pixels_and_their_mean, ignore=255)
BOUNDED = [  # whose value lies in [0, 1]
    IoULoss(ignore=255),
    DiceLoss(ignore=255),
    SSLoss(0.2, ignore=255),
    BoundaryLoss(ignore=255),
    OrientedBoundaryLoss(ignore=255),
    IoULoss(smooth=0.0, ignore=255, name="iou_verbatim"),
    DiceLoss(smooth=0.0, ignore=255, name="dice_verbatim"),
    BoundaryLoss(smooth=0.0, ignore=255, name="verbatim"),
    OrientedBoundaryLoss(smooth=0.0, ignore=255, name="oriented_verbatim"),
    BoundaryLoss(boundary="sobel", ignore=255, name="sobel"),
    BoundaryLoss(pool="first", ignore=255, name="first"),
]
ALL = [
    *BOUNDED,
    VGG,
    BinaryCrossentropy(ignore=255),
    EdgeCrossentropy(ignore=255),
    CombinedLoss(ignore=255),
    CombinedLoss(None, ignore=255),
    CombinedLoss("oriented", batch=True, ignore=255, name="combined_of_a_batch"),
    CombinedLoss(VGG, w=0.1, ignore=255, name="combined_vgg"),
]
EACH = pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
EACH_CLASS = pytest.mark.parametrize(
    "loss",
    {type(loss): loss for loss in reversed(ALL)}.values(),
    ids=lambda loss: loss.name,
)
HARD = {
    "both empty": (FIELD, FIELD),
    "missed": (HOUSE, FIELD),
    "invented": (FIELD, HOUSE),
    "both full": (CITY, CITY),
    "all wrong": (CITY, FIELD),
    "constant": (HOUSE, CITY / 2),
    "half empty": (FIELD, CITY / 2),
    "thin line": (HOUSE, np.eye(8, 9)),
    "single pixel": (np.pad([[1.0]], (4, 4))[:8], HOUSE),
    "touching all edges": (CITY - HOUSE, HOUSE),
    "one pixel image": (CITY[:1, :1], FIELD[:1, :1]),
    "all ignored": (CITY * 255, HOUSE),
}


def loss_and_gradient(loss, y_true, y_pred):
    return value_and_gradient(lambda pred: loss(y_true, pred), y_pred)


def random_mask(seed, height, width):
    """Blobs that touch each other and the edges."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return (ndimage.gaussian_filter(noise, 1.5) > 0).astype(np.float32)


def random_masks(seed, count, height, width):
    """Masks and guesses: blobs, coarse to fine, full to empty, moved and unrelated."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2 * count, height, width))
    noise = ndimage.gaussian_filter(noise, (0, *rng.uniform(0.5, 3, 2)))
    levels = rng.normal(0, 1.5, (2 * count, 1, 1)) * noise.std()
    true, other = np.split((noise > levels).astype(np.float32), 2)
    moved = np.roll(true, rng.integers(-4, 5, 2), (1, 2))
    pick = rng.random((count, 1, 1)) < 0.5
    return true, np.where(pick, moved, other)


def score_by_distances(true, pred, theta0, theta, smooth):
    """BF1 of `(batch, height, width)`: another way to what the pooling does."""

    def find(mask):
        grown = ndimage.minimum_filter(mask, (1, theta0, theta0), mode="nearest")
        return (mask > 0) & (grown == 0)

    def near(boundary):
        # the images lie too far apart to see each other
        if theta == 5:
            distance = ndimage.distance_transform_edt(~boundary, (1e4, 1, 1))
            return (distance < 3) & boundary.any((1, 2), keepdims=True)
        return ndimage.binary_dilation(boundary, np.ones((1, theta, theta)))

    def share(boundary, region):
        inside, whole = (part.sum((1, 2)) for part in (boundary & region, boundary))
        with np.errstate(invalid="ignore"):
            return np.where(
                whole + smooth > 0, (inside + smooth) / (whole + smooth), 1.0
            )

    true, pred = find(true), find(pred)
    precision, recall = share(pred, near(true)), share(true, near(pred))
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


@pytest.mark.parametrize("smooth", [1.0, 0.0])
@pytest.mark.parametrize(("theta0", "theta"), [(3, 5), (3, 3), (5, 9)])
def test_boundary_loss_is_one_minus_the_score_by_distances(theta0, theta, smooth):
    for seed in range(8):  # 1600 masks of each setting
        height, width = 3 + 17 * seed % 41, 2 + 11 * seed % 37
        true, pred = random_masks(seed, 200, height, width)
        values = losses.boundary_loss(
            true, pred, theta0=theta0, theta=theta, smooth=smooth
        )
        expected = 1 - score_by_distances(true, pred, theta0, theta, smooth)
        np.testing.assert_allclose(ops.convert_to_numpy(values), expected, atol=1e-6)


def test_boundary_loss_without_smoothing_is_one_minus_the_metric():
    for seed in range(5):
        true, pred = random_masks(100 + seed, 100, 5 + 13 * seed, 61 - 10 * seed)
        values = ops.convert_to_numpy(losses.boundary_loss(true, pred, smooth=0.0))
        scores = [
            boundary_f1(*pair, tolerance=3, connectivity=8).f1
            for pair in zip(true, pred, strict=True)
        ]
        expected = 1 - np.array(scores)
        expected[np.isnan(expected)] = 0  # no boundary in truth and prediction
        np.testing.assert_allclose(values, expected, atol=1e-6)


def l_shape():
    mask = np.zeros((31, 40), np.float32)
    mask[7:24, 8:19] = 1
    mask[14:24, 8:33] = 1
    return mask


def round_shape():
    rows, columns = np.mgrid[:31, :40]
    return ((rows - 15) ** 2 + (columns - 19) ** 2 < 91).astype(np.float32)


@pytest.mark.parametrize("shape", [l_shape, round_shape])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda y: ndimage.grey_dilation(y, (3, 3)), id="too large"),
        pytest.param(lambda y: ndimage.grey_erosion(y, (3, 3)), id="too small"),
        *(
            pytest.param(lambda y, by=by: np.roll(y, by, (0, 1)), id=f"moved by {by}")
            for by in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1)]
        ),
    ],
)
def test_one_pixel_costs_nothing_at_theta_5(shape, change):
    true = shape()
    pred = change(true)
    assert (pred != true).any()
    for smooth in (1.0, 0.0):
        loss = BoundaryLoss(theta=5, smooth=smooth)(true[None], pred[None])
        assert float(loss) == pytest.approx(0, abs=1e-6)


def test_three_pixels_cost():
    true = np.hstack([HOUSE, FIELD])
    # 4 above, 4 below and 3 at the side that lies in the other house are found
    loss = BoundaryLoss()(as_batch(true), as_batch(np.roll(true, 3, 1)))
    assert float(loss) == pytest.approx(1 - 12 / 17)


# The first of the pixels that tie is another one in an image that is turned.
@pytest.mark.parametrize(
    "loss", [loss for loss in ALL if loss.name != "first"], ids=lambda loss: loss.name
)
def test_flips_and_turns_of_both_turn_the_gradient_with_them(loss):
    def move(y, turn, flip):
        y = np.rot90(y, turn, (1, 2))
        return np.ascontiguousarray(y[:, :, ::-1] if flip else y)

    true, pred = (as_batch(*masks) for masks in random_masks(5, 2, 13, 22))
    pred = (0.1 + 0.7 * pred).astype(np.float32)  # maxima tie on plateaus
    value, gradient = loss_and_gradient(loss, true, pred)
    assert value > 0.01
    assert np.abs(gradient).max() > 1e-4
    for turn in range(4):
        for flip in (False, True):
            moved = (move(y, turn, flip) for y in (true, pred))
            other, turned = loss_and_gradient(loss, *moved)
            assert other == pytest.approx(value, abs=1e-6)
            np.testing.assert_allclose(turned, move(gradient, turn, flip), atol=1e-6)


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


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, HOUSE, 0, id="same"),
        pytest.param(FIELD, FIELD, 0, id="both empty"),
        pytest.param(HOUSE, FIELD, 1 - 1 / 26, id="missed"),
        pytest.param(HOUSE, np.roll(HOUSE, 1, 1), 1 - 41 / 51, id="shifted"),
        pytest.param(HOUSE, HOUSE / 2, 1 - 26 / 38.5, id="half"),
    ],
)
def test_dice_loss(y_true, y_pred, expected):
    loss = DiceLoss()(as_batch(y_true), as_batch(y_pred))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, HOUSE, 0, id="same"),
        pytest.param(FIELD, FIELD, 0, id="both empty"),
        pytest.param(HOUSE, FIELD, 0.8, id="missed"),
        pytest.param(FIELD, HOUSE, 0.2 * 25 / 72, id="no building"),
        pytest.param(CITY, HOUSE, 0.8 * 47 / 72, id="no background"),
        pytest.param(HOUSE, CITY / 2, 1 / 2, id="half"),
        pytest.param(
            HOUSE, np.roll(HOUSE, 1, 1), 0.2 * 5 / 47 + 0.8 * 5 / 25, id="shifted"
        ),
    ],
)
def test_ss_loss(y_true, y_pred, expected):
    loss = SSLoss(lam=0.2)(as_batch(y_true), as_batch(y_pred))
    assert float(loss) == pytest.approx(expected)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_ss_loss_of_hard_predictions_is_that_of_counted_pixels(lam):
    for seed in range(10):  # 2000 masks of each lam
        true, pred = random_masks(seed, 200, 2 + 19 * seed % 23, 3 + 7 * seed % 31)
        if seed == 0:
            true[0], true[1] = 0, 1  # no building, and no background
        tp, fp, fn, tn = (
            ((true == t) & (pred == p)).sum((1, 2))
            for t, p in ((1, 1), (0, 1), (1, 0), (0, 0))
        )
        with np.errstate(invalid="ignore"):
            specificity = np.where(tn + fp, tn / (tn + fp), 1)
            sensitivity = np.where(tp + fn, tp / (tp + fn), 1)
        expected = 1 - (lam * specificity + (1 - lam) * sensitivity)
        values = ops.convert_to_numpy(losses.ss_loss(true, pred, lam=lam))
        np.testing.assert_allclose(values, expected, atol=2e-7)


def test_vgg_loss_sums_over_depths_the_mean_of_squares():
    loss = VGG(as_batch(HOUSE), as_batch(FIELD))
    assert float(loss) == pytest.approx(25 / 72 + (25 / 72) ** 2)
    half_known = np.where(HOUSE + np.arange(9) // 5 > 1, 255, HOUSE)
    loss = VGG(as_batch(half_known), as_batch(FIELD))  # 10 of 25 are ignored
    assert float(loss) == pytest.approx(15 / 72 + (15 / 72) ** 2)


def test_vgg_loss_sees_each_class_by_itself():
    y_true = np.concatenate([as_batch(HOUSE, FIELD), as_batch(FIELD, HOUSE)], -1)
    y_pred = np.concatenate([as_batch(FIELD, CITY), as_batch(FIELD, CITY)], -1)
    house, ground, all_of_it = (part / 72 + (part / 72) ** 2 for part in (25, 47, 72))
    values = losses.vgg_loss(y_true, y_pred, extractor=see_pixels_and_their_mean)
    expected = [(house + 0) / 2, (all_of_it + ground) / 2]
    assert ops.convert_to_numpy(values) == pytest.approx(expected)


def test_vgg_loss_of_the_network():
    loss = VGGLoss(VGGFeatures(None, ["block1_conv1", "block2_conv1"]))
    true, pred = as_batch(HOUSE), as_batch(np.roll(HOUSE, 2, 1) / 2)
    true_features, pred_features = (
        loss.extractor(ops.convert_to_tensor(y, "float32")) for y in (true, pred)
    )
    expected = sum(
        np.square(ops.convert_to_numpy(b) - ops.convert_to_numpy(a)).mean()
        for a, b in zip(true_features, pred_features, strict=True)
    )
    value, gradient = loss_and_gradient(loss, true, pred.astype("float32"))
    assert value == pytest.approx(expected, rel=1e-4)
    assert value > 1e-4
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 1e-5


def test_sobel_boundary_lies_on_both_sides_of_an_edge():
    wall = draw("...####... " * 5)
    # A wall moved by one: of its two double lines all lies within 2 pixels.
    same = losses.boundary_loss(wall[None], np.roll(wall, 1, 1)[None], boundary="sobel")
    assert float(same[0]) == pytest.approx(0, abs=1e-6)
    missed = losses.boundary_loss(wall[None], 0 * wall[None], boundary="sobel")
    assert float(missed[0]) == pytest.approx(1 - 2 / 22)  # R = 1 / (4 x 5 + 1)
    pooled = losses.boundary_loss(wall[None], 0 * wall[None])
    assert float(pooled[0]) == pytest.approx(1 - 2 / 12)  # R = 1 / (2 x 5 + 1)


def test_pooling_changes_the_gradient_at_ties_alone():
    true = as_batch(HOUSE)
    flat = as_batch(np.roll(HOUSE, 2, 1))  # a mask: of its pixels most tie
    rough = 0.9 * np.random.default_rng(0).random(flat.shape).astype("float32")
    for pred, same in ((flat, False), (rough, True)):
        shared, first = (
            loss_and_gradient(BoundaryLoss(pool=pool), true, pred)
            for pool in ("shared", "first")
        )
        assert shared[0] == pytest.approx(first[0])
        assert np.allclose(shared[1], first[1], atol=1e-6) is same


def test_combined_loss_is_the_weighted_sum():
    y_true, y_pred = as_batch(HOUSE), as_batch(0.2 + 0.6 * np.roll(HOUSE, 2, 1))
    bce = losses.binary_crossentropy(y_true, y_pred)[0]
    iou = losses.iou_loss(y_true, y_pred)[0]
    edge = losses.boundary_loss(y_true, y_pred, theta=7)[0]
    loss = CombinedLoss(BoundaryLoss(theta=7), w=0.3)(y_true, y_pred)
    assert float(loss) == pytest.approx(float(bce + 0.3 * edge + 0.7 * iou))
    alone = CombinedLoss(None)(y_true, y_pred)
    assert float(alone) == pytest.approx(float(bce + iou))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    "extra", ["boundary", "oriented", "edge", "dice", "ss", "vgg", None]
)
def test_combined_loss_equals_the_sum_of_the_functions(extra, from_logits):
    shared = {
        "ignore": 255,
        "from_logits": from_logits,
        "class_weights": [1, 3],
        "data_format": "channels_first",
    }
    own = {
        "boundary": {"theta": 7},
        "oriented": {"theta": 3},
        "edge": {"theta": 3},
        "dice": {"smooth": 0.5},
        "ss": {"lam": 0.2},
        "vgg": {"extractor": see_pixels_and_their_mean},
    }
    rng = np.random.default_rng(4)
    y_true = np.where(rng.random((2, 2, 13, 17)) < 0.9, rng.random((13, 17)) < 0.4, 255)
    y_pred = rng.normal(size=y_true.shape).astype("float32")
    if not from_logits:
        y_pred = 1 / (1 + np.exp(-y_pred))
    w = 0.3 if extra else 0.0

    def total(y_true, y_pred):
        values = losses.binary_crossentropy(y_true, y_pred, **shared)
        values = values + (1 - w) * losses.iou_loss(y_true, y_pred, **shared)
        if extra:
            names = {"oriented": "oriented_boundary_loss", "edge": "edge_crossentropy"}
            function = getattr(losses, names.get(extra, f"{extra}_loss"))
            values = values + w * function(y_true, y_pred, **own[extra], **shared)
        return ops.mean(values)

    part = losses.EXTRAS[extra](**own[extra]) if extra else None
    loss = CombinedLoss(part, w=w, **shared)
    value, gradient = loss_and_gradient(loss, y_true, y_pred)
    expected, slope = loss_and_gradient(total, y_true, y_pred)
    assert value == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    assert np.abs(slope).max() > 1e-3


def test_combined_loss_prepares_truth_and_prediction_once(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return inputs.prepare(*args, **options)

    monkeypatch.setattr(classes, "prepare", counted)
    loss = CombinedLoss(BoundaryLoss(theta=7), w=0.3, ignore=255)
    loss(as_batch(HOUSE), as_batch(HOUSE))
    assert calls == [loss.options]
    assert loss.options["ignore"] == 255


def test_a_part_may_say_what_the_combined_loss_says():
    y_true, y_pred = as_batch(HALF_KNOWN), as_batch(0.2 + 0.6 * HOUSE)
    alike = CombinedLoss(BoundaryLoss(ignore=255), ignore=255)(y_true, y_pred)
    plain = CombinedLoss(BoundaryLoss(), ignore=255)(y_true, y_pred)
    assert float(alike) == float(plain)


def test_keras_loss_of_one_value_an_image_may_be_the_extra(tmp_path):
    theirs = keras.losses.Dice(axis=(1, 2, 3))
    loss = CombinedLoss(theirs, w=0.3, ignore=255)
    y_true, y_pred = as_batch(HALF_KNOWN), as_batch(0.2 + 0.6 * HOUSE)
    known = as_batch(HALF_KNOWN) != 255
    shown = ((y * known).astype("float32") for y in (y_true, y_pred))
    dice = theirs.call(*(ops.convert_to_tensor(y) for y in shown))
    parts = (losses.binary_crossentropy, losses.iou_loss)
    bce, iou = (float(part(y_true, y_pred, ignore=255)[0]) for part in parts)
    expected = bce + 0.3 * float(dice[0]) + 0.7 * iou
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-5)
    model = small_model(loss)
    model.fit(as_batch(HOUSE), as_batch(HOUSE), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").loss
    assert type(again.extra) is keras.losses.Dice
    assert list(again.extra.axis) == [1, 2, 3]


def test_keras_loss_of_another_shape_is_refused_when_a_model_trains():
    model = small_model(CombinedLoss(keras.losses.Dice()))
    with pytest.raises(ValueError, match="extra must return one value an image"):
        model.fit(as_batch(HOUSE), as_batch(HOUSE), verbose=0)


def test_call_leads_to_the_pooling_through_named_functions():
    names = []

    def note(frame, event, argument):
        if event == "call" and "/bdloss/losses/" in frame.f_code.co_filename:
            names.append(frame.f_code.co_name)

    loss = BoundaryLoss()
    y_true, y_pred = (ops.convert_to_tensor(as_batch(HOUSE)) for _ in range(2))
    sys.setprofile(note)
    try:
        loss.call(y_true, y_pred)
    finally:
        sys.setprofile(None)
    assert names[: names.index("max_pool") + 1] == [
        "call",
        "options",
        "prepare",
        *["_as_maps", "check_data_format"] * 2,
        "_check_shapes",
        *["_is_eager", "_check_values"],
        "score",
        "soft_boundary_f1",
        "soft_precision_recall",
        *["check_windows", "check_smooth", "check_boundary"],
        *["extract_boundary", "check_pool"],
        "max_pool",
    ]


def test_binary_crossentropy_is_a_mean_over_valid_pixels():
    y_true, y_pred = draw("#.?#"), np.array([[0.9, 0.2, 0.5, 0.6]], "float32")
    expected = -(np.log(0.9) + np.log(0.8) + np.log(0.6)) / 3
    value = losses.binary_crossentropy(y_true[None], y_pred[None], ignore=255)
    assert float(value[0]) == pytest.approx(expected, rel=1e-5)


@EACH
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_value_and_gradient_are_finite_on_every_mask(loss, case, dtype):
    y_true, y_pred = HARD[case]
    value, gradient = loss_and_gradient(
        loss, as_batch(y_true), as_batch(y_pred).astype(dtype)
    )
    limit = 1 if loss in BOUNDED else 20
    assert 0 <= value <= limit
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("wrong", [50.0, -50.0])
def test_logits_that_are_wrong_beyond_doubt_keep_their_gradient(wrong):
    true = as_batch(FIELD if wrong > 0 else CITY)
    loss = BinaryCrossentropy(from_logits=True)
    logits = np.full_like(true, wrong)
    value, gradient = loss_and_gradient(loss, true, logits)
    assert value == pytest.approx(50)
    assert gradient == pytest.approx(np.full_like(true, np.sign(wrong) / 72))


def test_gradient_removes_what_was_invented():
    soft = as_batch(0.05 + 0.9 * HOUSE)
    _, gradient = loss_and_gradient(BoundaryLoss(), as_batch(FIELD), soft)
    assert gradient[as_batch(HOUSE) == 1].sum() > 0.1
    assert gradient[as_batch(HOUSE) == 0].sum() < -0.1


def test_boundary_loss_does_not_see_the_level_of_a_prediction():
    soft = 0.3 + 0.3 * np.roll(HOUSE, 3, 1)
    loss = BoundaryLoss()
    low, gradient = loss_and_gradient(loss, as_batch(HOUSE), as_batch(soft))
    high, _ = loss_and_gradient(loss, as_batch(HOUSE), as_batch(soft + 0.3))
    assert low == pytest.approx(high, abs=1e-6)
    assert np.abs(gradient).max() > 1e-3
    assert gradient.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", BOUNDED, ids=lambda loss: loss.name)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_do_not_overflow_at_half_precision(loss, dtype):
    true = np.zeros((1, 1024, 1024), "uint8")
    true[:, 100:900, 50:950] = 1
    true[:, ::7] = 0
    assert float(loss(true, ops.cast(true, dtype))) == pytest.approx(0, abs=1e-6)
    blank = ops.zeros(true.shape, dtype)
    missed = 0.8 if isinstance(loss, SSLoss) else 1.0
    assert float(loss(true, blank)) == pytest.approx(missed, abs=1e-3)


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


@pytest.mark.parametrize(
    "loss", [IoULoss, DiceLoss, SSLoss, BoundaryLoss, CombinedLoss]
)
def test_rim_of_ignored_pixels_is_no_boundary(loss):
    true = as_batch(HALF_KNOWN)
    for guess in (0.0, 0.5, 1.0):
        pred = np.where(true == 255, guess, true)
        assert float(loss(ignore=255)(true, pred)) == pytest.approx(0, abs=1e-5)


@EACH
def test_ignored_pixels_have_no_gradient(loss):
    pred = np.random.default_rng(0).uniform(0.1, 0.9, (1, 8, 9, 1)).astype("float32")
    _, gradient = loss_and_gradient(loss, as_batch(HALF_KNOWN), pred)
    assert not gradient[as_batch(HALF_KNOWN) == 255].any()
    assert gradient.any()


def of_batch(loss):
    """The same loss, with sums over all images."""
    return type(loss).from_config({**loss.get_config(), "batch": True})


@pytest.mark.parametrize(
    "loss",
    # Features are of whole images, and Sobel's filter is told of the edge otherwise.
    [loss for loss in ALL if "vgg" not in loss.name and loss.name != "sobel"],
    ids=lambda loss: loss.name,
)
def test_a_batch_is_like_one_image_of_all_its_images(loss):
    true, pred = random_masks(5, 3, 17, 20)
    pred = ndimage.gaussian_filter(pred.astype("float32"), (0, 1, 1))
    true[1] = 0  # nothing there
    true[2, :9] = 255
    gap = np.full((17, 8), 255)
    true, pred, one_true, one_pred = (
        y[..., None].astype("float32")
        for y in (
            true,
            pred,
            np.hstack([part for mask in true for part in (mask, gap)])[None],
            np.hstack([part for mask in pred for part in (mask, gap / 510)])[None],
        )
    )
    values = ops.convert_to_numpy(of_batch(loss).call(true, pred))
    assert values == pytest.approx([float(of_batch(loss)(one_true, one_pred))] * 3)
    alone = ops.convert_to_numpy(loss.call(true, pred))
    assert loss.batch or np.ptp(alone) > 0.01


def test_features_of_a_batch_have_one_distance():
    true, pred = (mask[..., None] for mask in random_masks(5, 3, 17, 20))
    alone = ops.convert_to_numpy(VGG.call(true, pred.astype("float32")))
    values = ops.convert_to_numpy(of_batch(VGG).call(true, pred.astype("float32")))
    assert values == pytest.approx([alone.mean()] * 3)


@EACH_CLASS
def test_one_image_is_a_batch(loss):
    y_true, y_pred = as_batch(HALF_KNOWN), as_batch(0.2 + 0.6 * HOUSE)
    plain = float(loss(y_true, y_pred))
    assert float(of_batch(loss)(y_true, y_pred)) == pytest.approx(plain, abs=1e-7)


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
    classes=st.integers(1, 3),
    windows=st.sampled_from([(3, 3), (3, 5), (3, 9), (5, 5), (7, 15)]),
    smooth=st.sampled_from([0.0, 1e-3, 1.0]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    known=st.sampled_from([0.0, 0.5, 1.0]),
    hard=st.booleans(),
)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_value_lies_between_0_and_1(
    seed, height, width, classes, windows, smooth, dtype, known, hard
):
    rng = np.random.default_rng(seed)
    shape = (2, height, width, classes)
    true = np.where(rng.random(shape) < known, rng.random(shape) < 0.4, 255)
    pred = ops.cast(np.rint(rng.random(shape)) if hard else rng.random(shape), dtype)
    for loss in (
        BoundaryLoss(*windows, smooth, ignore=255),
        BoundaryLoss(3, windows[1], smooth, "sobel", ignore=255),
        BoundaryLoss(*windows, smooth, pool="first", ignore=255),
        IoULoss(smooth, ignore=255),
        DiceLoss(smooth, ignore=255),
        SSLoss(seed / 999, ignore=255),
    ):
        value, gradient = loss_and_gradient(loss, true, pred)
        assert 0 <= value <= 1
        assert np.isfinite(gradient).all()


@EACH
def test_config_round_trip(loss):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def small_model(loss, jit_compile=False, dtype=None):
    layer = keras.layers.Conv2D(
        1,
        5,
        padding="same",
        activation="sigmoid",
        dtype=dtype,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.2, seed=3),
    )
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=jit_compile)
    return model


@EACH_CLASS
def test_compiled_model_is_saved_and_loaded_in_safe_mode(loss, tmp_path):
    model = small_model(loss)
    x, y = as_batch(HOUSE), as_batch(HOUSE)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0)
    )


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch.compile needs a C++ compiler"
)
@EACH_CLASS
def test_compiling_by_xla_changes_nothing(loss):
    rng = np.random.default_rng(2)
    x = rng.random((2, 16, 19, 1)).astype("float32")
    y = np.where(rng.random(x.shape) < 0.9, x > 0.6, 255).astype("uint8")
    plain, compiled = (small_model(loss, jit_compile=jit) for jit in (False, True))
    steps = [
        [model.train_on_batch(x, y) for _ in range(3)] for model in (plain, compiled)
    ]
    assert steps[1] == pytest.approx(steps[0], rel=1e-4)
    assert len(set(steps[0])) == 3


@EACH_CLASS
def test_mixed_precision_trains(loss):
    x = as_batch(HOUSE, np.roll(HOUSE, 2, 1), FIELD)
    model = small_model(loss, dtype="mixed_float16")
    assert keras.backend.standardize_dtype(model(x).dtype) == "float16"
    history = model.fit(x, x, epochs=15, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.95 * history[0]


def test_w_changes_a_compiled_loss_without_a_new_trace():
    traces = []

    class Counted(CombinedLoss):
        def call(self, y_true, y_pred):
            traces.append(1)
            return super().call(y_true, y_pred)

    model = small_model(Counted(w=0.0))
    carry_weight(model)
    x, y = as_batch(HOUSE), as_batch(HOUSE)
    counts, costs = [], []
    for w in (0.0, 0.0, 0.0, 1.0):  # Keras on JAX looks at the loss in every call
        model.loss.w.assign(w)
        costs.append(model.test_on_batch(x, y, return_dict=True)["loss"])
        counts.append(len(traces))
    new = np.diff(counts)  # PyTorch calls the loss in every step
    assert new[-1] == new[-2]
    before, after = costs[-2:]
    pred = model.predict_on_batch(x)
    iou, edge = (float(loss(y, pred)) for loss in (IoULoss(), BoundaryLoss()))
    assert after - before == pytest.approx(edge - iou, rel=1e-4)


@EACH
def test_sample_weight_of_each_image(loss):
    y_true, y_pred = as_batch(HOUSE, HOUSE), as_batch(HOUSE / 2, FIELD)
    first, second = ops.convert_to_numpy(loss.call(y_true, y_pred))
    assert (first == second) if loss.batch else abs(first - second) > 0.01
    weighted = float(loss(y_true, y_pred, np.array([0.5, 3.0])))
    assert weighted == pytest.approx((0.5 * first + 3 * second) / 2, rel=1e-5)


def test_losses_by_name():
    assert losses.get("boundary", theta=7).theta == 7
    assert isinstance(losses.get("ss"), SSLoss)
    for name in losses.NAMES.keys() - {"vgg"}:
        assert type(losses.get(name)) is losses.NAMES[name]
    # Keras knows ours under names of our own, and keeps its own.
    ours = keras.saving.get_registered_object("bdloss>BinaryCrossentropy")
    assert ours is BinaryCrossentropy
    theirs = keras.losses.get("BinaryCrossentropy")
    assert type(theirs) is keras.losses.BinaryCrossentropy


def test_combined_loss_knows_its_extras_by_name():
    for name in ("boundary", "dice", "ss"):
        assert type(CombinedLoss(name).extra) is type(losses.get(name))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: BoundaryLoss(theta=4), "theta must be an odd number of pixels, got 4"),
        (lambda: BoundaryLoss(theta0=7, theta=5), "theta must not be less than theta0"),
        (lambda: CombinedLoss(w=1.5), r"w must lie in \[0, 1\], got 1.5"),
        (lambda: CombinedLoss("sharp"), "extra must be one of .* got 'sharp'"),
        (
            lambda: CombinedLoss(BoundaryLoss(ignore=255)),
            "ignore is said to the combined loss, for all its parts: "
            r"CombinedLoss\(..., ignore=255\)",
        ),
        (
            lambda: CombinedLoss(VGG, ignore=0),
            r"CombinedLoss\(..., ignore=255\); got it in extra alone",
        ),
        (
            lambda: CombinedLoss(OrientedBoundaryLoss(batch=True)),
            "batch is said to the combined loss, for all its parts: "
            r"CombinedLoss\(..., batch=True\)",
        ),
        (lambda: CombinedLoss(CombinedLoss()), "extra must be one of boundary, "),
        (lambda: CombinedLoss(lambda a, b: a), "or None, got <function"),
        (
            lambda: CombinedLoss(keras.losses.Dice())(as_batch(HOUSE), as_batch(HOUSE)),
            r"one value an image, of shape \(batch,\), got shape \(\) from Dice",
        ),
        (
            lambda: CombinedLoss(keras.losses.MeanSquaredError())(
                as_batch(HOUSE), as_batch(HOUSE)
            ),
            r"got shape \(1, 8, 9\) from MeanSquaredError",
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
        (lambda: IoULoss(data_format="chw"), "data_format must be .* got 'chw'"),
        (
            lambda: losses.iou_loss(CITY[None], CITY[None], data_format="chw"),
            "data_format must be .* got 'chw'",
        ),
        (lambda: SSLoss(lam=-0.1), r"lam must lie in \[0, 1\], got -0.1"),
        (
            lambda: losses.ss_loss(CITY[None], CITY[None], lam=float("nan")),
            r"lam must lie in \[0, 1\], got nan",
        ),
        (lambda: DiceLoss(smooth=-1), "smooth must be at least 0 pixels, got -1"),
        (lambda: BoundaryLoss(smooth=-1), "smooth must be at least 0 pixels, got -1"),
        (
            lambda: losses.iou_loss(CITY[None], CITY[None], smooth=-1),
            "smooth must be at least 0 pixels, got -1",
        ),
        (
            lambda: BoundaryLoss(boundary="canny"),
            "boundary must be one of pooling, sobel, got 'canny'",
        ),
        (lambda: BoundaryLoss(5, 5, boundary="sobel"), "theta0 = 3, got 5"),
        (
            lambda: BoundaryLoss(pool="last"),
            "pool must be one of shared, first, got 'last'",
        ),
        (
            lambda: losses.boundary_loss(CITY[None], CITY[None], pool="last"),
            "pool must be one of shared, first, got 'last'",
        ),
        (
            lambda: losses.boundary_loss(CITY[None], CITY[None], theta=-5),
            "theta must be an odd number of pixels, got -5",
        ),
        (lambda: IoULoss(class_weights=[1, -1]), "class_weights must be at least 0"),
        (lambda: IoULoss(class_weights=[0, 0]), "class_weights must be .* not all 0"),
        (lambda: losses.get("sharp"), "a loss is one of bce, iou, .* got 'sharp'"),
    ],
)
def test_bad_arguments(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


def test_boundary_loss_without_any_help_warns():
    with pytest.warns(UserWarning, match="alone does not train"):
        CombinedLoss("boundary", w=1.0, bce=False)


@pytest.mark.parametrize("name", sorted(losses.NAMES.keys() - {"vgg"}))
def test_masks_of_0_and_255_are_refused(name):
    loss = losses.get(name)
    for mask in (255 * HOUSE, -HOUSE, np.where(HOUSE, np.nan, 0)):
        with pytest.raises(ValueError, match="masks must be 0 or 1 where they are not"):
            loss(as_batch(mask), as_batch(HOUSE))
    soft = as_batch(0.2 + 0.6 * HOUSE)
    assert np.isfinite(float(loss(soft, as_batch(HOUSE))))
    with pytest.raises(ValueError, match="got others"):
        losses.get(name, validate=True)(soft, as_batch(HOUSE))
    known = losses.get(name, validate=True, ignore=255)
    assert np.isfinite(float(known(as_batch(HALF_KNOWN), as_batch(HOUSE))))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="traced by TensorFlow"
)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize(
    "loss", [IoULoss, DiceLoss, BoundaryLoss, OrientedBoundaryLoss, SSLoss]
)
def test_other_masks_in_a_compiled_step_have_no_loss(loss, smooth):
    import tensorflow as tf

    own = {} if loss is SSLoss else {"smooth": smooth}
    made = loss(validate=True, **own)
    traced = tf.function(lambda y_true, y_pred: made(y_true, y_pred))
    bad, good = (as_batch(y).astype("float32") for y in (255 * HOUSE, HOUSE))
    assert np.isnan(float(traced(bad, good)))
    assert float(traced(good, good)) == pytest.approx(0, abs=1e-6)


def test_a_compiled_step_sees_other_masks_if_it_is_asked_to():
    x = as_batch(HOUSE)
    bad = np.where(x > 0, 3, 0)
    plain, checked = (
        small_model(CombinedLoss(validate=v)).train_on_batch(x, x)
        for v in (False, True)
    )
    assert float(checked) == pytest.approx(float(plain), rel=1e-5)
    model = small_model(CombinedLoss(validate=True))
    if keras.backend.backend() != "tensorflow":  # whose first step is not compiled
        with pytest.raises(ValueError, match="masks must be 0 or 1"):
            model.train_on_batch(x, bad)
    else:
        assert np.isnan(model.train_on_batch(x, bad))


@pytest.mark.parametrize("loss", [CombinedLoss, BinaryCrossentropy, BoundaryLoss])
def test_what_is_no_number_where_pixels_are_ignored_does_not_matter(loss):
    true = as_batch(HALF_KNOWN)
    pred = (0.2 + 0.6 * as_batch(HOUSE)).astype("float32")
    for from_logits in (False, True):
        made = loss(ignore=255, from_logits=from_logits)
        value, gradient = loss_and_gradient(made, true, pred)
        for unknown in (np.nan, np.inf):
            odd = np.where(true == 255, unknown, pred).astype("float32")
            found, slope = loss_and_gradient(made, true, odd)
            assert found == pytest.approx(value, rel=1e-6)
            np.testing.assert_allclose(slope, gradient, atol=1e-7)


@pytest.mark.parametrize("loss", BOUNDED, ids=lambda loss: loss.name)
def test_a_prediction_that_is_no_number_is_no_good_one(loss):
    pred = np.full_like(as_batch(HOUSE), np.nan)
    assert np.isnan(float(loss(as_batch(HOUSE), pred)))


def test_logits_beyond_all_measure_have_a_finite_loss():
    logits = np.where(as_batch(HOUSE) > 0, np.inf, -np.inf).astype("float32")
    for loss in (BinaryCrossentropy, CombinedLoss):
        value, gradient = loss_and_gradient(loss(from_logits=True), CITY[None], logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
