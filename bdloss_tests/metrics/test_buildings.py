import math

import numpy as np
import pytest
from scipy import ndimage

from bdloss.metrics.buildings import (
    InstanceCounter,
    InstanceCounts,
    count_instances,
    match_one_to_one,
)
from bdloss.metrics.scores import add_counts
from bdloss_tests.drawing import (
    FIELD,
    HOUSE,
    draw,
    numbered_buildings,
    smooth_masks,
)

NAN = math.nan


def iou_of_pairs(true, pred, min_area):
    """The slow way: the IoU of each building with each region, half at the least."""
    masks = [
        [side == number for number in np.unique(side[side > 0])]
        for side in (true, pred)
    ]
    buildings, regions = (
        [mask for mask in side if mask.sum() >= min_area] for side in masks
    )
    table = np.array(
        [[(a & b).sum() / (a | b).sum() for b in regions] for a in buildings]
    ).reshape(len(buildings), len(regions))
    found = []
    while (table >= 0.5).any():
        building, region = np.unravel_index(table.argmax(), table.shape)
        found.append(table[building, region])
        table[building] = table[:, region] = 0
    return found


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected", "iou"),
    [
        pytest.param(
            "##..##", "##..##", {"detected": 2, "regions": 2}, [1, 1], id="detected"
        ),
        pytest.param(
            "##..##", "##....", {"detected": 1, "regions": 1}, [1], id="false negative"
        ),
        pytest.param(
            "##..##", "#.....", {"regions": 1}, [1 / 2], id="half is not enough"
        ),
        pytest.param(
            "##..##",
            "######",  # each is a third of it
            {"detected": 2, "merged": 2, "regions": 1},
            [],
            id="merged",
        ),
        pytest.param(
            "##.###",
            "####..",
            {"detected": 1, "regions": 1},
            [2 / 4],
            id="grown, not merged",
        ),
        pytest.param(
            "####..##",
            "##.#..##",
            {"detected": 2, "split": 1, "regions": 3},
            [2 / 4, 1],
            id="split",
        ),
        pytest.param(
            "####.....##",
            "####.###.##",
            {"detected": 2, "regions": 3, "false_positives": 1},
            [1, 1],
            id="false positive",
        ),
        pytest.param(
            "#.###",
            "##...",
            {"detected": 1, "regions": 1},
            [1 / 2],
            id="half outside, but covers",
        ),
        pytest.param(
            "#####.##",
            "?####.##",
            {"detected": 2, "regions": 2},
            [1, 1],
            id="ignored pixel",
        ),
        pytest.param(
            "##?##.", "#####.", {"detected": 2, "regions": 2}, [1, 1], id="cut by it"
        ),
        pytest.param(
            "####.###",
            "##...###",
            {"detected": 1, "regions": 2},
            [2 / 4, 1],
            id="matched at a half",
        ),
        pytest.param(
            "#####.##",
            "##....##",
            {"detected": 1, "regions": 2},
            [1],
            id="not matched below it",
        ),
    ],
)
def test_instances(y_true, y_pred, expected, iou):
    counts = count_instances(draw(y_true), draw(y_pred) > 0, 255, min_area=1)
    wanted = InstanceCounts(
        buildings=2, matched=len(iou), matched_iou_sum=sum(iou), **expected
    )
    assert counts == wanted
    assert counts.false_negatives == 2 - wanted.detected


def test_a_speck_does_not_split_a_building():
    building = np.zeros((6, 30))
    building[1:5, 2:28] = 1
    pred = building.copy()
    pred[:, 25] = 0  # 8 of 104 pixels beyond
    assert count_instances(building, pred, min_area=1).split == 0
    pred[:, 24] = pred[:, 23] = 0
    pred[:, 25] = building[:, 25]  # 12 of 104 pixels
    assert count_instances(building, pred, min_area=1).split == 1


def test_buildings_and_regions_are_joined_at_corners():
    corner = draw("#. .#")
    counts = count_instances(corner, corner, min_area=1)
    assert (counts.buildings, counts.regions, counts.split) == (1, 1, 0)
    assert (counts.matched, counts.matched_iou) == (1, 1.0)


def test_instances_without_any_building():
    assert count_instances(FIELD, FIELD) == InstanceCounts()
    assert count_instances(HOUSE, FIELD) == InstanceCounts(buildings=1)
    assert count_instances(FIELD, HOUSE) == InstanceCounts(regions=1, false_positives=1)


def test_specks_are_neither_buildings_nor_false_positives():
    true, pred = np.zeros((2, 24, 40))
    true[2:6, 2:7] = pred[2:6, 2:7] = 1  # 20 pixels
    true[2:21, 12] = 1  # 19 pixels
    pred[2:6, 20:25] = 1  # 20
    pred[2:21, 30] = 1  # 19
    matched = {"matched": 1, "matched_iou_sum": 1.0}
    one = InstanceCounts(
        buildings=1, detected=1, regions=2, false_positives=1, **matched
    )
    assert count_instances(true, pred) == one
    two = InstanceCounts(
        buildings=2, detected=1, regions=3, false_positives=2, **matched
    )
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
    assert whole.buildings == ndimage.label((true == 1) & known, np.ones((3, 3)))[1]
    assert whole.regions == ndimage.label((pred == 1) & known, np.ones((3, 3)))[1]
    assert min(whole) > 0  # there is something of each


@pytest.mark.parametrize(
    ("y_true", "y_pred", "precision", "recall", "f1", "iou"),
    [
        pytest.param("##.#.#", "##.#..", 1, 2 / 3, 4 / 5, 1, id="one missed"),
        pytest.param("##....", "##.#.#", 1 / 3, 1, 1 / 2, 1, id="two too many"),
        pytest.param("###.#.", "##..#.", 1, 1, 1, 5 / 6, id="one smaller"),
        pytest.param("###...", "....##", 0, 0, 0, NAN, id="elsewhere"),
        pytest.param("###...", "......", NAN, 0, 0, NAN, id="no prediction"),
        pytest.param("......", "....##", 0, NAN, 0, NAN, id="no truth"),
        pytest.param("......", "......", NAN, NAN, NAN, NAN, id="neither"),
    ],
)
def test_scores_of_matched_buildings(y_true, y_pred, precision, recall, f1, iou):
    counts = count_instances(draw(y_true), draw(y_pred), min_area=1)
    scores = counts.precision, counts.recall, counts.f1, counts.matched_iou
    assert scores == pytest.approx((precision, recall, f1, iou), nan_ok=True)


def test_scores_of_several_images_are_those_of_their_buildings():
    one = count_instances(draw("##.#.#"), draw("##.#.."), min_area=1)
    two = count_instances(draw("####.."), draw("##...#"), min_area=1)
    both = add_counts(InstanceCounts(), one, two)
    assert (both.matched, both.matched_iou) == (3, (1 + 1 + 1 / 2) / 3)
    assert (both.precision, both.recall, both.f1) == (3 / 4, 3 / 4, 3 / 4)


@pytest.mark.parametrize("one", ["labelled_true", "labelled_pred"])
def test_a_whole_is_matched_with_one_of_its_halves(one):
    whole, halves = draw("####"), np.array([[5, 5, 3, 3]])
    y_true, y_pred = (halves, whole) if one == "labelled_true" else (whole, halves)
    counts = count_instances(y_true, y_pred, min_area=1, **{one: True})
    assert (counts.matched, counts.matched_iou_sum) == (1, 1 / 2)


def test_of_equal_pairs_the_lowest_is_matched():
    true, pred = np.array([4, 2, 2, 7, 7]), np.array([1, 9, 8, 6, 5])
    iou = np.array([0.5, 0.5, 0.5, 0.6, 0.7])
    places = match_one_to_one(true, pred, iou)
    assert [(true[place], pred[place]) for place in places] == [(7, 5), (2, 8), (4, 1)]


def test_touching_outlines_are_buildings_of_their_own():
    numbered = np.array([[7, 7, 7, 9, 9, 0, 9, 0, 255]])
    counts = count_instances(
        numbered, numbered, 255, 1, labelled_true=True, labelled_pred=True
    )
    assert (counts.buildings, counts.regions, counts.matched) == (2, 2, 2)
    counts = count_instances(numbered, numbered > 0, 255, 1, labelled_true=True)
    assert (counts.buildings, counts.regions) == (2, 2)
    assert (counts.merged, counts.matched_iou_sum) == (2, 3 / 5)
    counts = count_instances(numbered, numbered > 0, 255, 1)
    assert (counts.buildings, counts.matched_iou) == (2, 1)  # 255 counts not


@pytest.mark.parametrize("labelled", [False, True])
def test_matched_are_those_of_masks_compared_one_by_one(labelled):
    rng = np.random.default_rng(5)
    matched = 0
    for _ in range(200):
        true, pred = labels = numbered_buildings(rng)
        if not labelled:
            corners = np.ones((3, 3))
            labels = ndimage.label(true, corners)[0], ndimage.label(pred, corners)[0]
        wanted = iou_of_pairs(*labels, min_area=4)
        counts = count_instances(
            true, pred, None, 4, labelled_true=labelled, labelled_pred=labelled
        )
        assert counts.matched == len(wanted)
        assert counts.matched_iou_sum == pytest.approx(sum(wanted), abs=1e-12)
        sides = [np.unique(side, return_counts=True) for side in labels]
        large = [((n > 0) & (size >= 4)).sum() for n, size in sides]
        assert [counts.buildings, counts.regions] == large
        matched += counts.matched
    assert matched > 200


@pytest.mark.parametrize("labelled_pred", [False, True])
@pytest.mark.parametrize("labelled_true", [False, True])
def test_labelled_strips_of_any_height_count_as_the_whole(labelled_true, labelled_pred):
    settings = {
        "ignore": 255,
        "min_area": 3,
        "labelled_true": labelled_true,
        "labelled_pred": labelled_pred,
    }
    rng = np.random.default_rng(6)
    for _ in range(60):
        true, pred = numbered_buildings(rng)
        true[rng.random(true.shape) < 0.02] = 255
        whole = count_instances(true, pred, **settings)
        counter = InstanceCounter(**settings)
        cuts = np.unique(rng.integers(1, len(true), rng.integers(1, 8)))
        for rows in zip(np.split(true, cuts), np.split(pred, cuts), strict=True):
            counter.add(*rows)
        assert counter.counts() == whole


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        count_instances(HOUSE, HOUSE[:4])


def test_masks_without_pixels_are_refused():
    empty = np.zeros((0, 5), np.uint8)
    with pytest.raises(ValueError, match="masks must have pixels"):
        count_instances(empty, empty)
