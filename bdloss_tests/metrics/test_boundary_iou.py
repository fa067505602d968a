import math

import numpy as np
import pytest
from scipy import ndimage

from bdloss.errors import InputError
from bdloss.metrics.boundary_iou import (
    BoundaryIoUCounts,
    boundary_iou,
    count_boundary_iou,
    find_boundary_region,
)
from bdloss.metrics.scores import add_counts, find_boundary
from bdloss_tests.drawing import CITY, FIELD, HOUSE, draw, smooth_masks

HALL = np.pad(np.ones((10, 12)), 4)


def region_by_distances(mask, ignored, distance, image_edge):
    """The definition: building with background at most so many steps of a king away."""
    ground = (mask == 0) & ~ignored
    if image_edge:
        ground = np.pad(ground, 1, constant_values=True)
    away = np.full(ground.shape, np.inf)
    if ground.any():
        away = ndimage.distance_transform_cdt(~ground, "chessboard")
    if image_edge:
        away = away[1:-1, 1:-1]
    return (mask != 0) & ~ignored & (away <= distance)


def iou_by_distances(y_true, y_pred, distance, image_edge, ignore):
    ignored = y_true == ignore
    true, pred = (
        region_by_distances(mask, ignored, distance, image_edge)
        for mask in (y_true, y_pred)
    )
    union = (true | pred).sum()
    return (true & pred).sum() / union if union else math.nan


def erode_again_and_again(mask, distance):
    """What Cheng et al. do: zeros around it, and as many small erosions."""
    padded = np.pad(mask != 0, 1)
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=distance)
    return (padded & ~eroded)[1:-1, 1:-1]


@pytest.mark.parametrize("image_edge", [False, True])
@pytest.mark.parametrize("distance", [1, 2, 3, 7, 40])
def test_boundary_iou_is_that_of_its_definition(distance, image_edge):
    rng = np.random.default_rng(distance)
    scores = []
    for seed in range(50):
        shape = rng.integers(1, 40, 2)
        true, pred = (mask.astype(np.uint8) for mask in smooth_masks(seed, *shape))
        if seed % 3 == 0:
            true, pred = (rng.random((2, *shape)) < rng.random()).astype(np.uint8)
        true[rng.random(shape) < rng.choice([0, 0.02, 0.3])] = 255
        found = boundary_iou(true, pred, distance, image_edge, ignore=255)
        expected = iou_by_distances(true, pred, distance, image_edge, 255)
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
        scores.append(found)
    assert len({score for score in scores if 0 < score < 1}) > 20


@pytest.mark.parametrize("distance", [1, 3, 5])
def test_at_the_edge_of_the_image_it_is_the_region_of_cheng(distance):
    for seed in range(20):
        mask = smooth_masks(seed, 31, 44)[0]
        found = find_boundary_region(mask, distance, image_edge=True)
        assert np.array_equal(found, erode_again_and_again(mask, distance))


@pytest.mark.parametrize("image_edge", [False, True])
def test_a_region_of_one_pixel_is_the_boundary_of_eight_neighbours(image_edge):
    mask = smooth_masks(1, 31, 44)[0]
    found = find_boundary_region(mask, 1, image_edge)
    assert np.array_equal(found, find_boundary(mask, 8, image_edge))


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        pytest.param(0, 1, id="same"),
        pytest.param(1, 56 / 88, id="1 px"),  # 44 of the sides, 12 of the ends
        pytest.param(2, 40 / 104, id="2 px, as deep as the region"),  # the sides alone
    ],
)
def test_a_hall_off_by_some_pixels(shift, expected):
    # 10 x 12 pixels, of which 6 x 8 lie deeper than 2: regions of 72
    found = boundary_iou(HALL, np.roll(HALL, shift, 1), distance=2)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, FIELD, 0, id="false negative"),
        pytest.param(FIELD, HOUSE, 0, id="false positive"),
        pytest.param(CITY, HOUSE, 0, id="no boundary in truth"),
        pytest.param(FIELD, FIELD, math.nan, id="both empty"),
        pytest.param(FIELD, CITY, math.nan, id="no boundary in both"),
        pytest.param(CITY * 255, HOUSE, math.nan, id="all ignored"),
    ],
)
def test_empty_regions(y_true, y_pred, expected):
    found = boundary_iou(y_true, y_pred, ignore=255)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param("##??", "##..", math.nan, id="no background to both"),
        pytest.param("###?.", "###..", math.nan, id="hides the end of both"),
        pytest.param("??##..", ".###..", 1, id="no building of the prediction"),
        pytest.param("?.##.#", "####.#", 2 / 3, id="says nothing of its neighbour"),
    ],
)
def test_ignored_pixels_are_alike_to_truth_and_prediction(y_true, y_pred, expected):
    found = boundary_iou(draw(y_true), draw(y_pred), distance=1, ignore=255)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("image_edge", [False, True])
@pytest.mark.parametrize("distance", [1, 3, 5])
@pytest.mark.parametrize("height", [1, 7, 20])
def test_regions_counted_in_strips_add_up_to_the_whole(height, distance, image_edge):
    true, pred = (mask.astype(np.uint8) for mask in smooth_masks(5, 43, 61))
    true[12:20, 30:40] = 255
    total = BoundaryIoUCounts()
    for top in range(0, len(true), height):
        first = max(0, top - distance)
        part = slice(first, top + height + distance)
        rows = slice(top - first, top - first + height)
        counts = count_boundary_iou(
            true[part], pred[part], distance, image_edge, 255, rows
        )
        total = add_counts(total, counts)
    assert total == count_boundary_iou(true, pred, distance, image_edge, 255)
    assert total.iou == boundary_iou(true, pred, distance, image_edge, 255)
    assert 0 < total.iou < 1


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: boundary_iou(HOUSE, HOUSE[:4]), "must have the same shape"),
        (lambda: boundary_iou(HOUSE[0], HOUSE[0]), r"\(height, width\)"),
        (lambda: boundary_iou(HOUSE[:0], HOUSE[:0]), "masks must have pixels"),
        (lambda: boundary_iou(HOUSE, HOUSE, 0), "whole number .* from 1, got 0"),
        (lambda: boundary_iou(HOUSE, HOUSE, 2.5), "whole number .* from 1, got 2.5"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(InputError, match=rule):
        call()
