import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from bdloss.metrics.conformal import (
    conformal_radius,
    distances_to_walls,
    fewest_units,
    points_on_walls,
    risk,
)

SPLITS = 500


def draw_unit(random, worse=1.0):
    """Distances of a scene: some are easy, some hard, some have missed buildings."""
    scale = worse * random.gamma(2.0, 0.3)
    distances = random.exponential(scale, random.integers(20, 200))
    missed = random.random() < 0.3
    return np.concatenate([distances, 20 * random.random(int(10 * missed))])


def risks_over_splits(alpha, number, worse=1.0):
    """The risk on a unit that was not seen, for each of the splits."""
    found = []
    for split in range(SPLITS):
        random = np.random.default_rng((split, number))
        seen = [draw_unit(random) for _ in range(number)]
        radius = conformal_radius(seen, alpha)
        found.append(risk(draw_unit(random, worse), radius))
    return np.array(found)


@pytest.mark.parametrize(
    ("alpha", "number"), [(0.1, 12), (0.1, 40), (0.1, 80), (0.2, 40)]
)
def test_the_promise_is_kept_on_average_over_draws(alpha, number):
    risks = risks_over_splits(alpha, number)
    error = risks.std(ddof=1) / math.sqrt(SPLITS)
    assert risks.mean() <= alpha + 3 * error
    assert risks.mean() >= alpha - 2 / (number + 1) - 3 * error


def test_the_promise_breaks_where_scenes_are_of_another_kind():
    risks = risks_over_splits(0.1, 40, worse=4.0)
    error = risks.std(ddof=1) / math.sqrt(SPLITS)
    assert risks.mean() > 0.1 + 10 * error


@given(
    lists=st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf]), min_size=1),
        min_size=4,
        max_size=12,
    ),
    alpha=st.sampled_from([0.2, 0.25, 0.5]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_smaller_radius_would_do(lists, alpha):
    units = [np.array(one) for one in lists]
    number = len(units)

    def bound(radius):
        mean = np.mean([risk(one, radius) for one in units])
        return number / (number + 1) * mean + 1 / (number + 1)

    radius = conformal_radius(units, alpha)
    smaller = [d for d in {0.0, 0.5, 1.0, 2.0} if d < radius]
    assert all(bound(d) > alpha for d in smaller)
    assert math.isinf(radius) or bound(radius) <= alpha + 1e-9
    if math.isinf(radius):
        assert bound(1e9) > alpha


def test_a_promise_needs_units():
    assert [fewest_units(alpha) for alpha in (0.5, 0.3, 0.1, 0.01)] == [1, 3, 9, 99]
    three = [np.array([0.0])] * 3
    with pytest.raises(ValueError, match="needs 9 units or more, got 3"):
        conformal_radius(three, 0.1)
    for alpha in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\), got"):
            conformal_radius(three, alpha)
    with pytest.raises(ValueError, match="every unit must have a boundary"):
        conformal_radius([*three, np.zeros(0)], 0.5)


def test_each_unit_weighs_the_same():
    long, short = np.full(1000, 9.0), np.array([1.0])
    assert conformal_radius([short] * 3 + [long], 0.4) == 1.0
    assert conformal_radius([short] + [long] * 3, 0.4) == 9.0


def distances_to_outlines(true, pred, step, extent=None):
    return distances_to_walls(points_on_walls(true, step, extent), pred)


def test_walls_are_measured_to_the_nearest_outline():
    true = [shapely.box(0, 0, 10, 10)]
    pred = [shapely.box(0, 0, 10, 12), shapely.box(30, 30, 40, 40)]
    distances = distances_to_outlines(true, pred, step=0.25)
    assert len(distances) == 160
    far = distances[distances > 1e-9]
    # The upper wall is 2 away in its midst, nearer to the side walls at its ends.
    assert far.max() == pytest.approx(2)
    assert len(far) == 40
    assert (distances_to_outlines(true, [], step=1) == math.inf).all()
    assert not len(distances_to_outlines([], pred, step=1))


def test_where_an_image_ends_is_no_wall():
    true, pred = [shapely.box(0, 0, 10, 10)], [shapely.box(0, 0, 9, 10)]
    extent = shapely.box(0, 0, 50, 10)
    distances = distances_to_outlines(true, pred, 0.1, extent)
    assert distances.min() > 0.9
    assert len(distances) == pytest.approx(100, abs=2)  # the right wall alone


def test_holes_have_walls_too():
    ring = shapely.box(0, 0, 10, 10) - shapely.box(3, 3, 7, 7)
    filled = [shapely.box(0, 0, 10, 10)]
    distances = distances_to_outlines([ring], filled, step=0.5)
    assert len(distances) == 80 + 32
    assert (distances > 2.9).sum() == 32


@pytest.mark.parametrize("seed", range(5))
def test_mapie_finds_the_same_radius(seed):
    """Its risk control of recall: walls are labels, as likely as they are near."""
    control = pytest.importorskip("mapie.risk_control")
    random, alpha = np.random.default_rng(seed), 0.137
    units = [
        random.geometric(random.uniform(0.1, 0.4), random.integers(5, 40)) / 10
        for _ in range(12)
    ]
    width = max(map(len, units))
    near = np.zeros((len(units), width))
    true = np.zeros((len(units), width), int)
    for i, distances in enumerate(units):
        near[i, : len(distances)] = np.exp(-distances)
        true[i, : len(distances)] = 1
    radii = np.arange(60) / 10
    controller = control.MultiLabelClassificationController(
        lambda rows: np.stack([1 - near[rows[:, 0]], near[rows[:, 0]]], axis=-1),
        method="crc",
        target_level=1 - alpha,
        predict_params=np.sort(np.exp(-(radii + 0.05))),
    )
    controller.calibrate(np.arange(len(units))[:, np.newaxis], true)
    (best,) = controller.best_predict_param
    assert -math.log(best) == pytest.approx(conformal_radius(units, alpha) + 0.05)
