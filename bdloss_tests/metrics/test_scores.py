import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from bdloss.metrics.scores import (
    BoundaryCounts,
    Counts,
    add_counts,
    boundary_f1,
    boundary_f1_per_class,
    count_boundary,
    count_pixels,
    find_boundary,
)
from bdloss_tests.drawing import CITY, FIELD, HOUSE, draw, smooth_masks

TRUE_LABELS, PRED_LABELS = (
    np.array([[int(mark) for mark in row] for row in text.split()])
    for text in (
        """
        000000000000
        011110002222
        011110002222
        011110002222
        000000002222
        000000000000
        """,
        """
        000000000000
        000111100222
        000111100222
        000111133222
        000000033222
        000000000000
        """,
    )
)


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
        pytest.param(HOUSE, FIELD, (1, 0, 0), id="false negative"),
        pytest.param(FIELD, HOUSE, (0, 1, 0), id="false positive"),
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
    both = add_counts(first, second)
    assert both == Counts(intersection=3, union=5, correct=4, total=6)
    assert both.iou == pytest.approx(3 / 5)
    assert both.accuracy == pytest.approx(4 / 6)


def test_classes_are_scored_each_against_all_others():
    scores = boundary_f1_per_class(TRUE_LABELS, PRED_LABELS, tolerance=2)
    # class 1: rings of 10 pixels, moved by 2; each has 3 + 2 + 2 near the other's
    # class 2: its left side, one column further on, is near; that of the image is none
    assert set(scores) == {0, 1, 2, 3}
    assert scores[1] == pytest.approx((7 / 10, 7 / 10, 7 / 10))
    assert scores[2].f1 == 1
    assert scores[3] == (0, 1, 0)  # a false positive
    for label in (0, 1, 2):
        expected = by_distance_transform(
            np.equal(TRUE_LABELS, label), np.equal(PRED_LABELS, label), tolerance=2
        )
        assert scores[label] == pytest.approx(expected)


def test_classes_with_ignored_pixels():
    true = TRUE_LABELS.copy()
    true[PRED_LABELS == 3] = 9
    scores = boundary_f1_per_class(true, PRED_LABELS, tolerance=2, ignore=9)
    assert set(scores) == {0, 1, 2, 3}
    assert all(math.isnan(part) for part in scores[3])


@pytest.mark.skipif("BFSCORE" not in os.environ, reason="needs MATLAB's images")
def test_matlab_gives_the_same():
    """Images and scores of github.com/minar09/bfscore_python, in folder $BFSCORE."""
    folder = Path(os.environ["BFSCORE"])
    true, pred = (
        cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        for name in ("gt_0.png", "pred_0.png")
    )
    matlab = {2: 0.7114, 3: 0.6259, 7: 0.1463, 8: 0.7828, 9: 0.8175}
    matlab |= {15: 0.6070, 17: 0.7602}
    scores = boundary_f1_per_class(true, pred, list(matlab), tolerance=2)
    found = {label: score.f1 for label, score in scores.items()}
    assert found == pytest.approx(matlab, abs=5e-5)
    assert np.mean(list(found.values())) == pytest.approx(0.6359, abs=5e-5)


@pytest.mark.parametrize("tolerance", [1, 2.5, 3, 5])
@pytest.mark.parametrize("height", [1, 7, 20])
def test_boundaries_counted_in_bands_add_up_to_the_whole(tolerance, height):
    true, pred = (mask.astype(np.uint8) for mask in smooth_masks(5, 43, 61))
    true[12:20, 30:40] = 255
    around = math.ceil(tolerance)
    total = BoundaryCounts()
    for top in range(0, len(true), height):
        first = max(0, top - around)
        part = slice(first, top + height + around)
        rows = slice(top - first, top - first + height)
        counts = count_boundary(
            true[part], pred[part], tolerance, ignore=255, rows=rows
        )
        total = add_counts(total, counts)
    assert total == count_boundary(true, pred, tolerance, ignore=255)
    assert total.score == boundary_f1(true, pred, tolerance, ignore=255)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: boundary_f1(HOUSE, HOUSE[:4]), "same shape"),
        (lambda: boundary_f1(HOUSE, HOUSE, tolerance=0), "tolerance must be above 0"),
        (lambda: boundary_f1(HOUSE, HOUSE, math.inf), "tolerance must be above 0"),
        (lambda: find_boundary(HOUSE, 6), "connectivity must be 4 or 8, got 6"),
        (lambda: count_pixels(HOUSE, HOUSE[:4]), "same shape"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


def test_masks_without_pixels_are_refused():
    empty = np.zeros((0, 5), np.uint8)
    with pytest.raises(ValueError, match="masks must have pixels"):
        boundary_f1(empty, empty)


@pytest.mark.parametrize("ignore", [0, 1, 2, 255])
def test_any_value_may_be_the_ignored_one(ignore):
    rng = np.random.default_rng(2)
    true = rng.choice([0, 1, 7], (20, 30)).astype(np.uint8)
    true[:4], true[9, 9] = ignore, ignore
    plain = np.where(true == ignore, 255, true != 0)
    pred = rng.integers(0, 2, true.shape, np.uint8)
    found = count_boundary(true, pred, ignore=ignore)
    assert found == count_boundary(plain, pred, ignore=255)
    assert found.pred > 0
