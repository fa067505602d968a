import numpy as np
import pytest
from keras import ops

from bdloss.losses.boundary import (
    check_windows,
    extend_boundary,
    extract_boundary,
    soft_boundary_f1,
    soft_precision_recall,
)
from bdloss_tests.drawing import CITY, FIELD, HOUSE, as_batch, draw, plateaus
from bdloss_tests.gradients import gradient

RING = draw(
    """
    .........
    .........
    ..#####..
    ..#...#..
    ..#...#..
    ..#...#..
    ..#####..
    .........
    """
)
DOT = draw(
    """
    .........
    .........
    .........
    ....#....
    .........
    .........
    .........
    .........
    """
)


def to_numpy(y):
    return ops.convert_to_numpy(y)


def test_boundary_of_a_house_is_its_outer_ring_of_pixels():
    found = to_numpy(extract_boundary(as_batch(HOUSE)))[0, :, :, 0]
    np.testing.assert_array_equal(found, RING)


def test_wider_window_finds_a_wider_boundary():
    found = to_numpy(extract_boundary(as_batch(HOUSE), theta0=5))[0, :, :, 0]
    assert found.sum() == 24  # all of 5 x 5 but the centre
    assert found[4, 4] == 0


def test_edge_of_the_image_is_no_boundary():
    assert to_numpy(extract_boundary(as_batch(CITY))).sum() == 0


def test_theta_is_the_side_of_the_extended_dot():
    extended = to_numpy(extend_boundary(as_batch(DOT), theta=5))[0, :, :, 0]
    expected = np.zeros_like(DOT)
    expected[1:6, 2:7] = 1
    np.testing.assert_array_equal(extended, expected)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, HOUSE, 1, id="same"),
        pytest.param(FIELD, FIELD, 1, id="both empty"),
        pytest.param(CITY, CITY, 1, id="both full"),
        pytest.param(HOUSE, FIELD, 1 / 9, id="missed"),  # P = 1, R = 1 / (16 + 1)
        pytest.param(FIELD, HOUSE, 1 / 9, id="invented"),
        pytest.param(HOUSE, np.roll(HOUSE, 1, axis=1), 1, id="shifted by one"),
        # P = 1: the dot lies within 2 pixels of the ring; R: 11 of 16 lie so near it
        pytest.param(HOUSE, DOT, 24 / 29, id="dot"),  # 2R / (1 + R), R = 12 / 17
    ],
)
def test_soft_boundary_f1(y_true, y_pred, expected):
    score = to_numpy(soft_boundary_f1(as_batch(y_true), as_batch(y_pred)))
    assert score == pytest.approx(np.array([[expected]]))


def test_precision_is_over_the_predicted_and_recall_over_the_true_boundary():
    two = np.hstack([HOUSE, HOUSE])
    one = np.hstack([HOUSE, FIELD])
    precision, recall = soft_precision_recall(as_batch(two), as_batch(one))
    assert float(precision[0, 0]) == pytest.approx(1)
    assert float(recall[0, 0]) == pytest.approx((16 + 1) / (32 + 1))


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(FIELD, FIELD, 1, id="both empty"),
        pytest.param(HOUSE, FIELD, 0, id="missed"),
        pytest.param(FIELD, HOUSE, 0, id="invented"),
        pytest.param(HOUSE, HOUSE, 1, id="same"),
    ],
)
def test_without_smoothing_zero_by_zero_is_defined(y_true, y_pred, expected):
    score = soft_boundary_f1(as_batch(y_true), as_batch(y_pred), smooth=0.0)
    assert to_numpy(score) == pytest.approx(np.array([[expected]]))


def test_one_score_an_image():
    score = soft_boundary_f1(as_batch(HOUSE, HOUSE), as_batch(HOUSE, FIELD))
    assert to_numpy(score) == pytest.approx(np.array([[1], [1 / 9]]))


@pytest.mark.parametrize(
    ("theta0", "theta", "rule"),
    [
        (2, 5, "theta0 must be an odd number of pixels, got 2"),
        (3, 4, "theta must be an odd number of pixels, got 4"),
        (-3, 5, "theta0 must be an odd number of pixels, got -3"),
        (7, 5, "theta must not be less than theta0, got theta=5, theta0=7"),
    ],
)
def test_windows_that_cannot_be(theta0, theta, rule):
    with pytest.raises(ValueError, match=rule):
        check_windows(theta0, theta)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_score_and_gradient_turn_with_the_images(turns, flip):
    def move(y):
        y = np.rot90(y, turns, axes=(1, 2))
        return np.ascontiguousarray(y[:, :, ::-1] if flip else y)

    true = as_batch(np.hstack([HOUSE, RING]))
    flat = as_batch(np.hstack([np.roll(HOUSE, 2, 1), HOUSE]) / 2 + 0.25)
    for pred in (flat, plateaus(flat.shape)):
        value, slope = score_and_gradient(true, pred)
        turned_value, turned_slope = score_and_gradient(move(true), move(pred))
        assert turned_value == pytest.approx(value, abs=1e-6)
        np.testing.assert_allclose(turned_slope, move(slope), atol=1e-6)
        assert np.abs(slope).max() > 1e-3


def score_and_gradient(true, pred):
    def score(pred):
        return ops.sum(soft_boundary_f1(true, pred))

    return float(score(pred)), gradient(score, pred)
