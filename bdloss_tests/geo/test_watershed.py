import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bdloss.geo.watershed import SEED_PIXELS, SURE, split_components
from bdloss_tests.drawing import draw, smooth_probabilities

HEIGHT, WIDTH = 44, 61


def components(building):
    return ndimage.label(building >= 127)[0].astype(np.int32)


def seeds_of(building, contact):
    """Seeds as numbers, small ones left out, by SciPy alone."""
    difference = building.astype(int) - contact
    sure = (difference >= SURE * 254) & (building >= 127)
    seeds, _ = ndimage.label(sure)
    small = np.flatnonzero(np.bincount(seeds.ravel()) < SEED_PIXELS)
    return np.where(np.isin(seeds, small), 0, seeds)


def same_partition(labels, other):
    """Whether two images tell the same pixels apart."""
    pairs = np.unique(np.stack([labels.ravel(), other.ravel()]), axis=1)
    return len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]


def test_a_wall_is_shared_by_the_houses_on_its_sides():
    building = np.full((6, 12), 254, np.uint8)
    contact = np.zeros_like(building)
    contact[:, 3:5] = contact[:, 8:9] = 200
    labels = split_components(np.ones((6, 12), np.int32), building, contact)
    assert labels.tolist() == [[2] * 4 + [3] * 5 + [4] * 3] * 6


def test_the_floods_meet_where_contact_is_most_likely():
    building = np.full((6, 11), 254, np.uint8)
    contact = np.zeros_like(building)
    contact[:, 3:8] = 140, 250, 170, 160, 150
    labels = split_components(np.ones((6, 11), np.int32), building, contact)
    assert labels.tolist() == [[2] * 5 + [3] * 6] * 6


def test_seeds_of_a_few_pixels_do_not_count():
    sure = draw(
        """
        ####..####.#
        ####..####.#
        ####..####.#
        ####..###..#
        """
    )
    building = np.full(sure.shape, 254, np.uint8)
    contact = np.where(sure, 0, 200).astype(np.uint8)
    component = np.ones(sure.shape, np.int32)
    assert sure[:, 6:10].sum() == SEED_PIXELS - 1
    assert split_components(component, building, contact) is component
    contact[3, 9] = 0
    labels = split_components(component, building, contact)
    assert set(labels.ravel()) == {2, 3}


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 20, 254]))
@settings(max_examples=60, deadline=None)
def test_each_building_has_a_seed_and_each_pixel_a_building(seed, levels):
    building, contact = smooth_probabilities(seed, (HEIGHT, WIDTH), levels)
    whole, seeds = components(building), seeds_of(building, contact)
    labels = split_components(whole, building, contact)
    np.testing.assert_array_equal(labels > 0, whole > 0)
    for number in np.unique(labels[labels > 0]):
        part = labels == number
        assert ndimage.label(part)[1] == 1
        component = whole[part][0]
        assert (whole[part] == component).all()
        within = np.unique(seeds[(whole == component) & (seeds > 0)])
        if len(within) < 2:
            assert (labels[whole == component] == number).all()
        else:
            assert len(np.unique(seeds[part & (seeds > 0)])) == 1


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_component_is_split_the_same_among_others_and_alone(seed, thin):
    building, contact = smooth_probabilities(seed, (HEIGHT, WIDTH), 20)
    if thin:  # walls of a pixel, between pixels that are all equally sure
        building = np.where(building >= 127, 254, 0).astype(np.uint8)
        side = contact > 127
        contact = (200 * (side != np.roll(side, 1, axis=0))).astype(np.uint8)
    whole = components(building)
    labels = split_components(whole, building, contact)
    for number, box in enumerate(ndimage.find_objects(whole), 1):
        alone = (whole[box] == number).astype(np.int32)
        crop = split_components(alone, building[box], contact[box])
        assert same_partition(crop[alone > 0], labels[whole == number])
