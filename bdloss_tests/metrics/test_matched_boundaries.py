import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.spatial.distance import cdist

from bdloss.errors import InputError
from bdloss.metrics import matched_boundaries
from bdloss.metrics.matched_boundaries import (
    BoundaryMatcher,
    MatchedBoundaryCounts,
    matched_boundary_f1,
)
from bdloss.metrics.scores import (
    add_counts,
    boundary_f1,
    count_boundary,
    count_pixels,
)
from bdloss_tests.drawing import CITY, FIELD, HOUSE, draw, smooth_masks

TOLERANCES = [1, 2, 2.5, 3, 5]  # pixels


def boundary_by_neighbours(mask, ignored, image_edge):
    """The definition: building with one of its 8 neighbours on the ground."""
    ground = (mask == 0) & ~ignored
    near_ground = ndimage.binary_dilation(
        ground, np.ones((3, 3)), border_value=image_edge
    )
    return (mask != 0) & ~ignored & near_ground


def match_by_distances(y_true, y_pred, tolerance, image_edge=False):
    """Counts from all distances at once and one matching of the whole (SciPy)."""
    ignored = y_true == 255
    true, pred = (
        np.argwhere(boundary_by_neighbours(mask, ignored, image_edge))
        for mask in (y_true, y_pred)
    )
    matched = 0
    if len(true) and len(pred):
        near = sparse.csr_array(cdist(true, pred) < tolerance)
        partners = sparse.csgraph.maximum_bipartite_matching(near)
        matched = int((partners >= 0).sum())
    return MatchedBoundaryCounts(len(true), len(pred), matched)


def match(y_true, y_pred, tolerance=3, height=None, image_edge=False):
    matcher = BoundaryMatcher(tolerance, 255, image_edge)
    height = height or len(y_true)
    for top in range(0, len(y_true), height):
        matcher.add(y_true[top : top + height], y_pred[top : top + height])
    return matcher.counts()


def masks_by_chance(seed):
    """Masks of any size: smooth ones and noise, with ignored pixels in some."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 30, 2)
    true, pred = smooth_masks(seed, *shape)
    if seed % 3 == 0:
        true, pred = rng.random((2, *shape)) < rng.random()
    true = true.astype(np.uint8)
    true[rng.random(shape) < rng.choice([0, 0.02, 0.3])] = 255
    return true, pred.astype(np.uint8)


@pytest.mark.parametrize("image_edge", [False, True])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_no_other_matching_is_larger(tolerance, image_edge):
    scores = set()
    for seed in range(50):
        true, pred = masks_by_chance(seed)
        found = match(true, pred, tolerance, image_edge=image_edge)
        assert found == match_by_distances(true, pred, tolerance, image_edge)
        score = matched_boundary_f1(true, pred, tolerance, image_edge, ignore=255)
        assert score == pytest.approx(found.score, nan_ok=True)
        scores.add(score.f1)
    assert len({score for score in scores if 0 < score < 1}) > 15


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_it_is_at_most_bf1_of_the_same_boundaries(tolerance):
    below = 0
    for seed in range(30):
        true, pred = masks_by_chance(seed)
        score = matched_boundary_f1(true, pred, tolerance, ignore=255)
        bf1 = boundary_f1(true, pred, tolerance, connectivity=8, ignore=255)
        if math.isnan(bf1.f1):
            assert math.isnan(score.f1)
            continue
        assert all(a <= b for a, b in zip(score, bf1, strict=True))
        below += score.f1 < bf1.f1
    assert below > 5 or tolerance == 1  # where a pixel is near to itself alone


def test_truth_and_prediction_may_change_places():
    for seed in range(30):
        true, pred = smooth_masks(seed, 40, 50)
        there, back = matched_boundary_f1(true, pred), matched_boundary_f1(pred, true)
        assert there == (back.recall, back.precision, pytest.approx(back.f1))


@pytest.mark.parametrize("image_edge", [False, True])
@pytest.mark.parametrize("height", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_strips_are_matched_as_the_whole(tolerance, height, image_edge):
    true, pred = (mask.astype(np.uint8) for mask in smooth_masks(5, 63, 81))
    true[12:20, 30:40] = 255
    rng = np.random.default_rng(2)
    true[30:50, 50:] ^= rng.random((20, 31)) < 0.4
    pred[30:50, 50:] ^= rng.random((20, 31)) < 0.4
    whole = match(true, pred, tolerance, image_edge=image_edge)
    assert match(true, pred, tolerance, height, image_edge) == whole
    assert whole == match_by_distances(true, pred, tolerance, image_edge)
    assert 0 < whole.score.f1 < 1


@settings(deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    tolerance=st.sampled_from(TOLERANCES),
    heights=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    block=st.integers(1, 400),
)
def test_strips_of_any_heights_are_matched_as_the_whole(
    seed, tolerance, heights, block
):
    true, pred = masks_by_chance(seed)
    whole = match(true, pred, tolerance)
    matcher = BoundaryMatcher(tolerance, ignore=255)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matched_boundaries, "BLOCK_PIXELS", block)
        top = 0
        while top < len(true):
            for height in heights:
                if top < len(true):
                    rows = slice(top, top + height)
                    matcher.add(true[rows], pred[rows])
                    top += height
    assert matcher.counts() == whole


def test_what_was_counted_so_far_can_be_asked_for():
    true, pred = smooth_masks(3, 45, 50)
    matcher = BoundaryMatcher()
    assert matcher.counts() == MatchedBoundaryCounts()
    for top in range(0, 45, 9):
        matcher.add(true[top : top + 9], pred[top : top + 9])
        so_far = match_by_distances(true[: top + 9], pred[: top + 9], 3)
        assert matcher.counts() == matcher.counts() == so_far


def block_of_houses():
    """Draw six houses of 24 x 36 pixels, with streets of 14 between them."""
    town = np.zeros((90, 164), np.uint8)
    for top in (14, 52):
        for left in (14, 64, 114):
            town[top : top + 24, left : left + 36] = 1
    return town


def with_teeth(town, size):
    """Draw teeth, squares of so many pixels and as far apart, on all sides."""
    toothed = town.copy()
    for turned in range(4):
        side, teeth = np.rot90(town, turned), np.rot90(toothed, turned)
        columns = np.arange(side.shape[1]) // size % 2 == 0
        for deep in range(1, size + 1):
            teeth[:-deep, columns] |= side[deep:, columns]
    return toothed


@pytest.mark.parametrize(
    ("size", "longer", "iou"),
    [  # in 2 (4) pixels of a side there are 3 (8) boundary pixels
        pytest.param(1, 3 / 2, 0.935, id="1 px every 2"),
        pytest.param(2, 8 / 4, 0.878, id="2 px every 4"),
    ],
)
def test_teeth_are_seen(size, longer, iou):
    town = block_of_houses()
    teeth = with_teeth(town, size)
    score = matched_boundary_f1(town, teeth, tolerance=3)
    assert score.recall == 1
    assert score.precision == pytest.approx(1 / longer, abs=0.02)
    assert score.f1 == pytest.approx(2 / (1 + longer), abs=0.02)
    assert score.f1 <= 0.85
    counts = count_boundary(town, teeth, 3, connectivity=8)
    assert counts.pred / counts.true == pytest.approx(longer, abs=0.05)
    assert counts.score.f1 == boundary_f1(town, teeth, 3).f1 == 1  # BF1 does not
    assert count_pixels(town, teeth).iou == pytest.approx(iou, abs=1e-3)


@pytest.mark.parametrize(
    ("moved", "iou"),
    [
        pytest.param((0, 2), 34 / 38, id="right"),
        pytest.param((2, 0), 22 / 26, id="down"),
        pytest.param((2, 2), 22 * 34 / (2 * 24 * 36 - 22 * 34), id="both"),
    ],
)
def test_a_shift_by_less_than_the_tolerance_is_no_error(moved, iou):
    town = block_of_houses()
    pred = np.roll(town, moved, (0, 1))
    score = matched_boundary_f1(town, pred, tolerance=3)
    assert score == (1, 1, 1)
    counts = count_boundary(town, pred, 3, connectivity=8)
    assert counts.pred == counts.true
    assert counts.score.f1 == boundary_f1(town, pred, 3).f1 == 1
    assert count_pixels(town, pred).iou == pytest.approx(iou)


@pytest.mark.parametrize(
    ("tolerance", "matched"),
    [pytest.param(2, 0, id="at 2 px"), pytest.param(2.001, 2, id="closer")],
)
def test_pixels_are_near_if_strictly_closer_than_the_tolerance(tolerance, matched):
    true, pred = draw("...... #....#"), draw("...... ..##..")
    assert match(true, pred, tolerance).matched == matched


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        pytest.param(HOUSE, HOUSE, (1, 1, 1), id="same"),
        pytest.param(HOUSE, FIELD, (1, 0, 0), id="false negative"),
        pytest.param(FIELD, HOUSE, (0, 1, 0), id="false positive"),
        pytest.param(CITY, HOUSE, (0, 1, 0), id="no boundary in truth"),
        pytest.param(FIELD, FIELD, (math.nan,) * 3, id="both empty"),
        pytest.param(FIELD, CITY, (math.nan,) * 3, id="no boundary in both"),
        pytest.param(CITY * 255, HOUSE, (math.nan,) * 3, id="all ignored"),
        pytest.param(draw("#..#."), draw(".##.."), (0, 0, 0), id="none near"),
    ],
)
def test_empty_boundaries(y_true, y_pred, expected):
    score = matched_boundary_f1(y_true, y_pred, tolerance=1, ignore=255)
    assert score == pytest.approx(expected, nan_ok=True)


def test_counts_of_images_add_up():
    one, two = match(HOUSE, FIELD), match(HOUSE, HOUSE)
    assert add_counts(one, two) == MatchedBoundaryCounts(true=32, pred=16, matched=16)
    assert add_counts(one, two).score == (1, 1 / 2, pytest.approx(2 / 3))


def test_no_more_is_kept_of_a_high_image_than_of_a_low_one():
    true, pred = (np.tile(part, (3, 4)) for part in (block_of_houses(),) * 2)
    pred = np.roll(pred, (1, 2), (0, 1))
    rng = np.random.default_rng(0)
    noise = rng.random((60, 200)) < 0.3
    true[100:160, 100:300] ^= noise
    pred[100:160, 100:300] ^= rng.random(noise.shape) < 0.3

    def peak(times):
        matcher = BoundaryMatcher()
        tracemalloc.start()
        for _ in range(times):
            for top in range(0, len(true), 45):
                matcher.add(true[top : top + 45], pred[top : top + 45])
        counts, (_, highest) = matcher.counts(), tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return counts, highest

    (low, memory), (high, more_memory) = peak(2), peak(16)
    assert high.matched == 8 * low.matched > 0
    assert more_memory < 1.1 * memory


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: matched_boundary_f1(HOUSE, HOUSE[:4]), "must have the same shape"),
        (lambda: matched_boundary_f1(HOUSE[0], HOUSE[0]), r"\(height, width\)"),
        (lambda: matched_boundary_f1(HOUSE[:0], HOUSE[:0]), "masks must have pixels"),
        (lambda: matched_boundary_f1(HOUSE, HOUSE, 0), "must be above 0 pixels, got 0"),
        (lambda: BoundaryMatcher(math.nan), "must be above 0 pixels, got nan"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(InputError, match=rule):
        call()


def test_strips_of_two_widths_are_refused():
    matcher = BoundaryMatcher()
    matcher.add(HOUSE, HOUSE)
    with pytest.raises(InputError, match="the same width, got 9 and 5"):
        matcher.add(HOUSE[:, :5], HOUSE[:, :5])
