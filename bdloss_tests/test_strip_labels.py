import numpy as np
import pytest
from scipy import ndimage

from bdloss.strip_labels import StripLabels, StripValues, join_components
from bdloss_tests.drawing import draw, smooth_masks


def label_strips(mask, height, connectivity=4):
    """Return the strips and, for each pixel, the whole that it belongs to."""
    labels = StripLabels(connectivity)
    strips = [
        labels.add(mask[top : top + height]) for top in range(0, len(mask), height)
    ]
    seams = [np.stack([strip.above, strip.continued]) for strip in strips]
    wholes = join_components(seams, labels.count)
    rows = [wholes[strip.components[strip.labels]] for strip in strips]
    return strips, np.vstack(rows)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("height", [1, 7, 20, 93])
def test_strips_have_the_components_of_the_whole(height, connectivity):
    shape = ndimage.generate_binary_structure(2, connectivity // 4)
    noise = np.random.default_rng(7).random((93, 64)) < 0.4
    for mask in (smooth_masks(8, 93, 131)[0], smooth_masks(9, 93, 40)[1], noise):
        _, wholes = label_strips(mask, height, connectivity)
        expected, count = ndimage.label(mask, shape)
        pairs = np.unique(np.stack([wholes, expected]).reshape(2, -1), axis=1)
        assert pairs.shape[1] == count + 1  # each whole is one component
        assert (wholes > 0).tolist() == (mask > 0).tolist()


def test_arms_are_joined_where_they_meet_and_end_where_they_end():
    mask = draw(
        """
        #.#.#
        ###.#
        ....#
        """
    )
    first, second, third = label_strips(mask, 1)[0]
    assert first.below.tolist() == [1, 2, 3]
    assert second.above.tolist() == [1, 2, 3]
    assert second.continued.tolist() == [4, 4, 5]
    assert second.components[second.labels].tolist() == [[4, 4, 4, 0, 5]]
    assert third.above.tolist() == second.below.tolist() == [4, 5]
    ended, continued = third.continued.tolist()
    assert third.below.tolist() == [continued]
    assert ended not in third.components


def test_parts_of_a_strip_that_are_joined_above_are_one():
    first, second = label_strips(draw("### #.#"), 1)[0]
    assert second.labels.tolist() == [[1, 0, 2]]
    assert second.components.tolist() == [0, 2, 2]
    assert second.below.tolist() == [2]
    assert second.above.tolist() == first.below.tolist() == [1]


@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("drawing", ["#. .#", ".# #."])
def test_corners_connect_if_eight_neighbours_do(drawing, height):
    corners = draw(drawing)
    _, wholes = label_strips(corners, height)
    assert sorted(wholes[corners > 0]) == [1, 2]
    _, wholes = label_strips(corners, height, connectivity=8)
    assert wholes.tolist() == corners.tolist()


def test_other_neighbours_are_refused():
    with pytest.raises(ValueError, match="connectivity must be 4 or 8, got 6"):
        StripLabels(connectivity=6)


def test_strips_without_anything():
    _, wholes = label_strips(np.zeros((4, 3)), 2)
    assert not wholes.any()
    assert join_components([], 1).tolist() == [0]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("height", [1, 3, 29])
def test_values_are_components_wherever_they_lie(height, dtype):
    rng = np.random.default_rng(4)
    image = (rng.integers(0, 40, (29, 17)) * (rng.random((29, 17)) < 0.5)).astype(dtype)
    values = StripValues()
    strips = [
        values.add(image[top : top + height]) for top in range(0, len(image), height)
    ]
    numbers = np.vstack([strip.components[strip.labels] for strip in strips])
    pairs = np.unique(np.stack([numbers, image]).reshape(2, -1), axis=1)
    assert pairs.shape[1] == values.count == len(np.unique(image))
    assert ((numbers > 0) == (image > 0)).all()
    assert strips[-1].below.tolist() == list(range(1, values.count))
    assert not any(len(strip.above) + len(strip.continued) for strip in strips)


def test_values_below_zero_are_components_too():
    strip = StripValues().add(np.array([[-3, 0, 5, -3]]))
    assert strip.components[strip.labels].tolist() == [[1, 0, 2, 1]]
    assert strip.components[0] == strip.labels[0, 1] == 0


def test_values_of_a_strip_of_background():
    strip = StripValues().add(np.zeros((2, 3), int))
    assert strip.labels.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert strip.components.tolist() == [0]
