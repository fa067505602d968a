import math
import os
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from bdloss import metrics
from bdloss.metrics import (
    BoundaryCounts,
    BoundaryF1,
    Counts,
    InstanceCounter,
    InstanceCounts,
    IoU,
    add_counts,
    boundary_f1,
    boundary_f1_per_class,
    count_boundary,
    count_instances,
    count_pixels,
    find_boundary,
)
from bdloss_tests.drawing import CITY, FIELD, HOUSE, draw

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
    both = add_counts(first, second)
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
        counts = add_counts(counts, count_pixels(true, pred >= 0.4, ignore=255))
    assert float(ops.convert_to_numpy(metric.result())) == pytest.approx(counts.iou)


def smooth_masks(seed, *shape):
    """Two masks that are alike, with boundaries of many shapes."""
    rng = np.random.default_rng(seed)
    common, *own = rng.normal(size=(3, *shape))
    return tuple(ndimage.gaussian_filter(common + noise, 3) > 0.02 for noise in own)


def test_classes_are_scored_each_against_all_others():
    scores = boundary_f1_per_class(TRUE_LABELS, PRED_LABELS, tolerance=2)
    # class 1: rings of 10 pixels, moved by 2; each has 3 + 2 + 2 near the other's
    # class 2: its left side, one column further on, is near; that of the image is none
    assert set(scores) == {0, 1, 2, 3}
    assert scores[1] == pytest.approx((7 / 10, 7 / 10, 7 / 10))
    assert scores[2].f1 == 1
    assert scores[3] == (0, 1, 0)  # invented
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
    ("y_true", "y_pred", "expected"),
    [
        pytest.param("##..##", "##..##", {"found": 2, "regions": 2}, id="found"),
        pytest.param("##..##", "##....", {"found": 1, "regions": 1}, id="missed"),
        pytest.param("##..##", "#.....", {"regions": 1}, id="half is not enough"),
        pytest.param(
            "##..##", "######", {"found": 2, "merged": 2, "regions": 1}, id="merged"
        ),
        pytest.param(
            "##.###", "####..", {"found": 1, "regions": 1}, id="grown, not merged"
        ),
        pytest.param(
            "####..##",
            "##.#..##",
            {"found": 2, "split": 1, "regions": 3},
            id="split",
        ),
        pytest.param(
            "####.....##",
            "####.###.##",
            {"found": 2, "regions": 3, "invented": 1},
            id="invented",
        ),
        pytest.param(
            "#.###", "##...", {"found": 1, "regions": 1}, id="half outside, but takes"
        ),
        pytest.param(
            "#####.##", "?####.##", {"found": 2, "regions": 2}, id="ignored pixel"
        ),
        pytest.param("##?##.", "#####.", {"found": 2, "regions": 2}, id="cut by it"),
    ],
)
def test_instances(y_true, y_pred, expected):
    counts = count_instances(draw(y_true), draw(y_pred) > 0, 255, min_area=1)
    wanted = InstanceCounts(buildings=2, **expected)
    assert counts == wanted
    assert counts.missed == 2 - wanted.found


def test_a_speck_does_not_split_a_building():
    building = np.zeros((6, 30))
    building[1:5, 2:28] = 1
    pred = building.copy()
    pred[:, 25] = 0  # 8 of 104 pixels beyond
    assert count_instances(building, pred, min_area=1).split == 0
    pred[:, 24] = pred[:, 23] = 0
    pred[:, 25] = building[:, 25]  # 12 of 104 pixels
    assert count_instances(building, pred, min_area=1).split == 1


def test_buildings_that_touch_at_a_corner_are_two():
    corner = draw("#. .#")
    assert count_instances(corner, corner, min_area=1).buildings == 2


def test_instances_without_any_building():
    assert count_instances(FIELD, FIELD) == InstanceCounts()
    assert count_instances(HOUSE, FIELD) == InstanceCounts(buildings=1)
    assert count_instances(FIELD, HOUSE) == InstanceCounts(regions=1, invented=1)


def test_specks_are_neither_buildings_nor_invented():
    true, pred = np.zeros((2, 24, 40))
    true[2:6, 2:7] = pred[2:6, 2:7] = 1  # 20 pixels
    true[2:21, 12] = 1  # 19 pixels
    pred[2:6, 20:25] = 1  # 20
    pred[2:21, 30] = 1  # 19
    one = InstanceCounts(buildings=1, found=1, regions=2, invented=1)
    assert count_instances(true, pred) == one
    two = InstanceCounts(buildings=2, found=1, regions=3, invented=2)
    assert count_instances(true, pred, min_area=19) == two
    counter = InstanceCounter()
    for row in range(24):  # a building is as large as all bands that it lies in
        counter.add(true[row : row + 1], pred[row : row + 1])
    assert counter.counts() == one


def test_region_over_a_building_and_a_speck_merges_nothing():
    true, pred = np.zeros((2, 12, 30))
    true[2:7, 2:8] = true[3, 10:14] = 1
    pred[2:7, 2:14] = 1
    assert count_instances(true, pred).merged == 0
    assert count_instances(true, pred, min_area=4).merged == 2


@pytest.mark.parametrize("height", [1, 7, 20])
def test_instances_counted_in_bands_are_those_of_the_whole(height):
    true, pred = (mask.astype(np.uint8) for mask in smooth_masks(8, 93, 131))
    true[30:33, 40:90] = 255
    counter = InstanceCounter(255, min_area=1)
    for top in range(0, len(true), height):
        rows = slice(top, top + height)
        counter.add(true[rows], pred[rows])
    whole = count_instances(true, pred, 255, min_area=1)
    assert counter.counts() == whole
    known = true != 255
    assert whole.buildings == ndimage.label((true == 1) & known)[1]
    assert whole.regions == ndimage.label((pred == 1) & known)[1]
    assert min(whole) > 0  # there is something of each


@pytest.mark.parametrize("settings", [{}, {"connectivity": 8, "image_edge": True}])
@pytest.mark.parametrize("tolerance", [1, 3, 4.5])
def test_bf1_while_training_is_that_of_the_images(settings, tolerance):
    metric = BoundaryF1(tolerance, threshold=0.4, ignore=255, **settings)
    scores = []
    for seed in range(3):
        true, pred = (mask.astype("float32") for mask in smooth_masks(seed, 37, 45))
        true[20:24, 5:20] = 255
        blank = np.zeros_like(true)
        true, pred = np.stack([true, blank, true]), np.stack([pred, blank, blank])
        metric.update_state(true[..., None], np.where(pred, 0.4, 0.39)[..., None])
        scores += [
            boundary_f1(t, p, tolerance, ignore=255, **settings).f1
            for t, p in zip(true, pred, strict=True)
        ]
    known = [score for score in scores if not math.isnan(score)]
    assert 0 < np.mean(known) < 1
    assert float(metric.result()) == pytest.approx(np.mean(known), abs=1e-6)
    assert float(metric.count) == len(known) == 6
    metric.reset_state()
    assert float(metric.result()) == float(metric.count) == 0


def test_bf1_of_classes_is_their_mean():
    true, pred = smooth_masks(4, 30, 41)
    classes = np.stack([true, pred, np.zeros_like(true)], -1)[None]
    others = np.stack([pred, true, np.zeros_like(true)], -1)[None]
    metric = BoundaryF1()
    metric.update_state(classes, others.astype("float32"))
    assert float(metric.result()) == pytest.approx(boundary_f1(true, pred).f1)
    assert float(metric.count) == 2


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bf1_runs_in_compiled_steps_of_any_size(jit_compile):
    pixels = keras.Input((None, None, 1))
    model = keras.Model(pixels, keras.layers.Rescaling(1.0)(pixels))
    model.compile(loss="mse", metrics=[BoundaryF1(), IoU()], jit_compile=jit_compile)
    true, pred = (
        mask.astype("float32")[None, ..., None] for mask in smooth_masks(6, 29, 38)
    )
    logs = model.evaluate(pred, true, return_dict=True, verbose=0)
    expected = boundary_f1(true[0, ..., 0], pred[0, ..., 0]).f1
    assert logs["bf1"] == pytest.approx(expected, abs=1e-6)
    assert logs["iou"] == pytest.approx(count_pixels(true, pred).iou, abs=1e-6)


def test_bf1_metric_comes_back_from_its_settings():
    metric = BoundaryF1(5, 0.3, 8, True, 255, "bf1_5")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert isinstance(again, BoundaryF1)
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: boundary_f1(HOUSE, HOUSE[:4]), "same shape"),
        (lambda: boundary_f1(HOUSE, HOUSE, tolerance=0), "tolerance must be above 0"),
        (lambda: find_boundary(HOUSE, 6), "connectivity must be 4 or 8, got 6"),
        (lambda: count_pixels(HOUSE, HOUSE[:4]), "same shape"),
        (lambda: count_instances(HOUSE, HOUSE[:4]), "same shape"),
        (lambda: BoundaryF1(tolerance=-1), "tolerance must be above 0"),
        (lambda: BoundaryF1(connectivity=6), "connectivity must be 4 or 8, got 6"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


def test_batches_of_other_shapes_are_refused_not_stretched():
    two, one = np.ones((2, 8, 9, 1), "float32"), np.ones((1, 8, 9, 1), "float32")
    for metric in (metrics.IoU(), metrics.BoundaryF1()):
        for y_true, y_pred in ((two, one), (one[..., 0], one)):
            with pytest.raises(ValueError, match="must have the same shape"):
                metric.update_state(y_true, y_pred)


def test_what_is_not_0_is_building_while_training_too():
    metric = metrics.IoU(ignore=7)
    true = np.array([[[255], [255], [0], [7]]], "uint8")
    metric.update_state(true, np.array([[[0.9], [0.1], [0.9], [0.9]]], "float32"))
    assert float(metric.result()) == pytest.approx(1 / 3)


def test_masks_without_pixels_are_refused():
    empty = np.zeros((0, 5), np.uint8)
    for function in (metrics.count_instances, metrics.boundary_f1):
        with pytest.raises(ValueError, match="masks must have pixels"):
            function(empty, empty)
