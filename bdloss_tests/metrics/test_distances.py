import math
import pickle

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from bdloss.metrics.buildings import count_instances
from bdloss.metrics.distances import (
    DistanceCounts,
    MatchedDistances,
    SurfaceDistances,
    surface_distances,
)
from bdloss.metrics.scores import add_counts
from bdloss_tests.drawing import (
    CITY,
    FIELD,
    HOUSE,
    draw,
    numbered_buildings,
    smooth_masks,
)


def boundary_pixels(mask):
    """Rows and columns of the inner boundary: the image lies in ground (scipy)."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def by_all_distances(true, pred):
    """The slow way: each boundary pixel beside each of the other boundary (scipy)."""
    table = cdist(boundary_pixels(true), boundary_pixels(pred))
    both = table.min(axis=1), table.min(axis=0)
    far = [np.percentile(part, 95) for part in both]
    return SurfaceDistances(np.concatenate(both).mean(), max(far))


def by_pairs(true, pred, min_area):
    """The slow way: the distances of each building and region that are half alike."""
    buildings, regions = (
        sorted(
            [side == number for number in np.unique(side[side > 0])],
            key=lambda mask: np.flatnonzero(mask)[0],
        )
        for side in (true, pred)
    )
    found = {}
    for building in range(len(buildings)):
        for region in range(len(regions)):
            masks = buildings[building], regions[region]
            iou = np.logical_and(*masks).sum() / np.logical_or(*masks).sum()
            small = min(mask.sum() for mask in masks) < min_area
            if iou >= 0.5 and not small and not {building, ~region} & set(found):
                found[building] = found[~region] = by_all_distances(*masks)
    pairs = [found[number] for number in found if number >= 0]
    return len(pairs), sum(d.assd for d in pairs), sum(d.hd95 for d in pairs)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "assd", "hd95"),
    [
        pytest.param("..##..", "..##..", 0, 0, id="same"),
        # A line is all boundary. Distances: 1 0 0, and 0 0.
        pytest.param(".###..", "..##..", 1 / 5, 0.9, id="one pixel less"),
        # 2 1 0 each way; the 95th of a hundred lies at 1.9 of the steps from 0 to 2.
        pytest.param(".###...", "...###.", 6 / 6, 1.9, id="moved by two"),
        # From all four to the one: 3 2 1 0; back: 0. 0.85 of the way from 2 to 3.
        pytest.param("####", "...#", 6 / 5, 2.85, id="from truth to prediction"),
        pytest.param("...#", "####", 6 / 5, 2.85, id="from prediction to truth"),
        # The middle of the square is inner, so that the hole has 8 of its 9 pixels.
        pytest.param(
            "..... .###. .###. .###. .....",
            "..... .###. .#.#. .###. .....",
            0,
            0,
            id="a hole of one pixel",
        ),
        # At the edge of the image all but the middle two are boundary.
        pytest.param("#### #### ####", "#### #### ####", 0, 0, id="whole image"),
        # Four at 1 and four at the root of 2, and 1 back.
        pytest.param(
            "### ### ###",
            "... .#. ...",
            (5 + 4 * 2**0.5) / 9,
            2**0.5,
            id="image edge",
        ),
    ],
)
def test_surface_distances(y_true, y_pred, assd, hd95):
    true, pred = draw(y_true), draw(y_pred)
    assert surface_distances(true, pred) == pytest.approx((assd, hd95))
    half = surface_distances(true, pred, resolution=0.5)
    assert half == pytest.approx((assd / 2, hd95 / 2))


def test_distances_are_those_of_all_boundary_pixels():
    rng = np.random.default_rng(2)
    apart = 0
    for seed in range(300):
        true, pred = smooth_masks(seed, *rng.integers(5, 40, 2))
        if true.any() and pred.any():
            distances = surface_distances(true, pred)
            assert distances == pytest.approx(by_all_distances(true, pred), abs=1e-12)
            apart += distances.hd95 > 0
    assert apart > 250


def test_distances_are_those_of_monai():
    # In single precision. DeepMind's surface-distance is of another kind.
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(3)
    for seed in range(300):
        true, pred = smooth_masks(seed, *rng.integers(5, 40, 2))
        if true.any() and pred.any():
            batches = [torch.tensor(mask[None, None]) for mask in (pred, true)]
            assd = metrics.compute_average_surface_distance(
                *batches, include_background=True, symmetric=True
            )
            hd95 = metrics.compute_hausdorff_distance(
                *batches, include_background=True, percentile=95
            )
            distances = surface_distances(true, pred)
            assert distances.assd == pytest.approx(assd.item(), rel=1e-6)
            assert distances.hd95 == pytest.approx(hd95.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("y_true", "y_pred"), [(HOUSE, FIELD), (FIELD, HOUSE), (FIELD, FIELD)]
)
def test_distances_to_nothing_are_not_known(y_true, y_pred):
    assert np.isnan(surface_distances(y_true, y_pred)).all()


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        surface_distances(HOUSE, HOUSE[:4])
    with pytest.raises(ValueError, match="same shape"):
        MatchedDistances().add(HOUSE, HOUSE[:4])


@pytest.mark.parametrize("resolution", [0, -0.3, math.nan, math.inf])
def test_a_resolution_that_is_none_is_refused(resolution):
    with pytest.raises(ValueError, match="resolution must be above 0"):
        surface_distances(HOUSE, HOUSE, resolution)
    with pytest.raises(ValueError, match="resolution must be above 0"):
        MatchedDistances(resolution=resolution)


def measure_strips(true, pred, cuts=(), **settings):
    distances = MatchedDistances(**settings)
    for rows in zip(np.split(true, cuts), np.split(pred, cuts), strict=True):
        distances.add(*rows)
    return distances.counts()


@pytest.mark.parametrize("labelled_pred", [False, True])
@pytest.mark.parametrize("labelled_true", [False, True])
def test_matched_are_measured_one_by_one(labelled_true, labelled_pred):
    settings = {"labelled_true": labelled_true, "labelled_pred": labelled_pred}
    rng = np.random.default_rng(8)
    matched = 0
    for _ in range(200):
        true, pred = numbered_buildings(rng)
        labels = (
            true if labelled_true else ndimage.label(true, np.ones((3, 3)))[0],
            pred if labelled_pred else ndimage.label(pred, np.ones((3, 3)))[0],
        )
        counts = measure_strips(true, pred, min_area=4, **settings)
        assert counts == pytest.approx(by_pairs(*labels, min_area=4), abs=1e-9)
        matched += counts.matched
    assert matched > 200


@pytest.mark.parametrize("labelled_pred", [False, True])
@pytest.mark.parametrize("labelled_true", [False, True])
def test_strips_of_any_height_are_measured_as_the_whole(labelled_true, labelled_pred):
    settings = {
        "ignore": 255,
        "min_area": 3,
        "labelled_true": labelled_true,
        "labelled_pred": labelled_pred,
    }
    rng = np.random.default_rng(9)
    for seed in range(60):
        true, pred = numbered_buildings(rng)
        if seed % 3 == 0:
            true, pred = (mask.astype(int) for mask in smooth_masks(seed, *true.shape))
        true[rng.random(true.shape) < 0.02] = 255
        whole = measure_strips(true, pred, **settings)
        cuts = np.unique(rng.integers(1, len(true), rng.integers(1, 8)))
        assert measure_strips(true, pred, cuts, **settings) == whole
        if seed % 6 == 0:
            rows = np.arange(1, len(true))
            assert measure_strips(true, pred, rows, **settings) == whole
        assert whole.matched == count_instances(true, pred, **settings).matched


def test_counts_may_be_asked_for_before_the_end():
    true, pred = (mask.astype(int) for mask in smooth_masks(4, 60, 50))
    distances = MatchedDistances()
    for end in range(7, 64, 7):
        rows = slice(end - 7, end)
        distances.add(true[rows], pred[rows])
        assert distances.counts() == measure_strips(true[:end], pred[:end])
    assert distances.counts().matched


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 2]])
def test_of_two_halves_the_first_in_reading_order_is_measured(cuts):
    whole = draw("####. ####. ####.")
    halves = np.array([[3, 3, 3, 3, 0], [3, 1, 1, 3, 0], [1, 1, 1, 1, 0]])
    first = surface_distances(whole, halves == 3)
    assert first != surface_distances(whole, halves == 1)
    counts = measure_strips(whole, halves, cuts, min_area=1, labelled_pred=True)
    assert counts == (1, *first)
    counts = measure_strips(halves, whole, cuts, min_area=1, labelled_true=True)
    assert counts == (1, *first)


def test_distances_of_several_images_are_those_of_their_buildings():
    one = measure_strips(draw(".###.."), draw("..##.."), min_area=1)
    two = measure_strips(draw("##..##"), draw("##..##"), min_area=1)
    both = add_counts(DistanceCounts(), one, two)
    assert both.matched == 3
    assert both.mean == pytest.approx((1 / 5 / 3, 0.9 / 3))


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        pytest.param(HOUSE, FIELD, id="no prediction"),
        pytest.param(FIELD, HOUSE, id="no truth"),
        pytest.param(FIELD, FIELD, id="neither"),
        pytest.param(CITY, HOUSE, id="none matched"),
    ],
)
def test_without_matched_buildings_nothing_is_known(y_true, y_pred):
    counts = measure_strips(y_true, y_pred)
    assert counts == DistanceCounts()
    assert np.isnan(counts.mean).all()


def test_distances_are_in_metres_at_a_resolution():
    pixels = measure_strips(HOUSE, np.roll(HOUSE, 1, axis=1))
    metres = measure_strips(HOUSE, np.roll(HOUSE, 1, axis=1), resolution=0.3)
    assert pixels.matched == metres.matched == 1
    assert metres.mean == pytest.approx([0.3 * part for part in pixels.mean])


def test_no_more_is_kept_than_what_is_not_finished():
    row = draw(
        """
        ...........
        .#####.###.
        .#####.###.
        .#####.###.
        ...........
        """
    )
    distances, sizes = MatchedDistances(min_area=1), []
    for _ in range(20):
        distances.add(np.tile(row, 30), np.roll(np.tile(row, 30), 1, axis=1))
        sizes.append(len(pickle.dumps(distances)))
    assert distances.counts().matched == 20 * 60
    unfinished = (12 + 8) * 30 * 16  # bytes of a row of boundaries on either side
    assert np.diff(sizes).max() < unfinished / 2  # two numbers for each pair
