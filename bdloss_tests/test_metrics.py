import math

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from bdloss.metrics import Counts, IoU, boundary_f1, count_pixels, find_boundary
from bdloss_tests.drawing import CITY, FIELD, HOUSE, draw


def by_distance_transform(y_true, y_pred, tolerance):
    """The slow way: distances to the other boundary (scipy)."""
    cross = ndimage.generate_binary_structure(2, 1)
    bounds = [
        mask & ~ndimage.binary_erosion(mask, cross, border_value=1)
        for mask in (y_true > 0, y_pred > 0)
    ]
    shares = []
    for one, other in (bounds[::-1], bounds):
        near = ndimage.distance_transform_edt(~other) < tolerance
        shares.append((one & near).sum() / one.sum())
    precision, recall = shares
    return precision, recall, 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance", [1, 2, 2.5, 3, 5, 9])
def test_boundary_f1_equals_distance_transforms(tolerance):
    rng = np.random.default_rng(3)
    true, pred = (
        ndimage.gaussian_filter(rng.normal(size=(61, 83)), 4) > 0 for _ in range(2)
    )
    score = boundary_f1(true, pred, tolerance)
    expected = by_distance_transform(true, pred, tolerance)
    assert score == pytest.approx(expected, abs=1e-12)
    assert 0 < score.f1 < 1


@pytest.mark.parametrize(
    ("shift", "expected"), [(0, 1), (2, 1), (3, 2 / 3)], ids=["same", "2 px", "3 px"]
)
def test_distance_is_strictly_less_than_the_tolerance(shift, expected):
    wide = np.hstack([HOUSE, FIELD])
    # moved by 3, 10 of the 16 pixels still lie closer than 3 to the other ring
    score = boundary_f1(wide, np.roll(wide, shift, 1), tolerance=3)
    if shift == 3:
        expected = by_distance_transform(wide, np.roll(wide, 3, 1), 3)[2]
    assert score.f1 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, FIELD, (1, 0, 0), id="missed"),
        pytest.param(FIELD, HOUSE, (0, 1, 0), id="invented"),
        pytest.param(CITY, HOUSE, (0, 1, 0), id="no boundary in truth"),
    ],
)
def test_empty_boundary(y_true, y_pred, expected):
    assert boundary_f1(y_true, y_pred) == expected


def test_without_any_boundary_there_is_no_score():
    assert all(math.isnan(part) for part in boundary_f1(FIELD, CITY))


def test_eight_neighbours_see_corners():
    corner = draw(
        """
        ###
        ###
        ##.
        """
    )
    assert find_boundary(corner, 4).sum() == 2
    assert find_boundary(corner, 8).sum() == 3


def test_edge_of_the_image_counts_only_on_request():
    assert not find_boundary(CITY).any()
    assert find_boundary(CITY, image_edge=True).sum() == 30  # around 8 x 9


def test_ignored_pixels_are_no_background():
    mask = draw("##?..").astype(np.uint8)
    assert not find_boundary(mask, ignore=255).any()
    assert all(math.isnan(part) for part in boundary_f1(mask, mask, ignore=255))


def test_pooled_iou_sums_before_it_divides():
    first = count_pixels(np.array([1, 1, 1, 0]), np.array([1, 1, 1, 1]))
    second = count_pixels(np.array([1, 0, 255]), np.array([0, 0, 1]), ignore=255)
    both = first.plus(second)
    assert both == Counts(intersection=3, union=5, correct=4, total=6)
    assert both.iou == pytest.approx(3 / 5)
    assert both.accuracy == pytest.approx(4 / 6)


def test_iou_while_training_is_the_pooled_one():
    rng = np.random.default_rng(0)
    metric, counts = IoU(0.4, ignore=255), Counts()
    for _ in range(3):
        true = rng.choice([0, 1, 255], (2, 7, 5, 1)).astype("uint8")
        pred = rng.random((2, 7, 5, 1)).astype("float32")
        metric.update_state(true, pred)
        counts = counts.plus(count_pixels(true, pred >= 0.4, ignore=255))
    assert float(ops.convert_to_numpy(metric.result())) == pytest.approx(counts.iou)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: boundary_f1(HOUSE, HOUSE[:4]), "same shape"),
        (lambda: boundary_f1(HOUSE, HOUSE, tolerance=0), "tolerance must be above 0"),
        (lambda: find_boundary(HOUSE, 6), "connectivity must be 4 or 8, got 6"),
        (lambda: count_pixels(HOUSE, HOUSE[:4]), "same shape"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
