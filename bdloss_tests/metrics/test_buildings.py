import numpy as np
import pytest
from scipy import ndimage

from bdloss.metrics.buildings import InstanceCounter, InstanceCounts, count_instances
from bdloss_tests.drawing import FIELD, HOUSE, draw, smooth_masks


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param("##..##", "##..##", {"detected": 2, "regions": 2}, id="detected"),
        pytest.param(
            "##..##", "##....", {"detected": 1, "regions": 1}, id="false negative"
        ),
        pytest.param("##..##", "#.....", {"regions": 1}, id="half is not enough"),
        pytest.param(
            "##..##", "######", {"detected": 2, "merged": 2, "regions": 1}, id="merged"
        ),
        pytest.param(
            "##.###", "####..", {"detected": 1, "regions": 1}, id="grown, not merged"
        ),
        pytest.param(
            "####..##",
            "##.#..##",
            {"detected": 2, "split": 1, "regions": 3},
            id="split",
        ),
        pytest.param(
            "####.....##",
            "####.###.##",
            {"detected": 2, "regions": 3, "false_positives": 1},
            id="false positive",
        ),
        pytest.param(
            "#.###",
            "##...",
            {"detected": 1, "regions": 1},
            id="half outside, but matches",
        ),
        pytest.param(
            "#####.##", "?####.##", {"detected": 2, "regions": 2}, id="ignored pixel"
        ),
        pytest.param("##?##.", "#####.", {"detected": 2, "regions": 2}, id="cut by it"),
    ],
)
def test_instances(y_true, y_pred, expected):
    counts = count_instances(draw(y_true), draw(y_pred) > 0, 255, min_area=1)
    wanted = InstanceCounts(buildings=2, **expected)
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


def test_buildings_that_touch_at_a_corner_are_two():
    corner = draw("#. .#")
    assert count_instances(corner, corner, min_area=1).buildings == 2


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
    one = InstanceCounts(buildings=1, detected=1, regions=2, false_positives=1)
    assert count_instances(true, pred) == one
    two = InstanceCounts(buildings=2, detected=1, regions=3, false_positives=2)
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


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        count_instances(HOUSE, HOUSE[:4])


def test_masks_without_pixels_are_refused():
    empty = np.zeros((0, 5), np.uint8)
    with pytest.raises(ValueError, match="masks must have pixels"):
        count_instances(empty, empty)
