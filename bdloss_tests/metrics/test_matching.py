import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from bdloss.metrics.matching import count_matching


def drawn_pairs(rng, shape, density):
    """Some of all pairs of two sides, each with a number that is its pixels' alone."""
    true, pred = np.nonzero(rng.random(shape) < density)
    return true, pred, (pred - true) % max(shape)  # a diagonal has a pixel once


def test_no_matching_is_larger():
    rng = np.random.default_rng(7)
    shares = set()
    for _ in range(300):
        shape = rng.integers(1, 40, 2)
        true, pred, step = drawn_pairs(rng, shape, rng.choice([0.02, 0.05, 0.1, 0.5]))
        allowed = np.zeros(shape)
        allowed[true, pred] = 1
        rows, cols = linear_sum_assignment(allowed, maximize=True)
        expected = int(allowed[rows, cols].sum())
        partners = sparse.csgraph.maximum_bipartite_matching(sparse.csr_array(allowed))
        assert (partners >= 0).sum() == expected
        assert count_matching(true, pred, step) == expected
        shares.add(expected / min(shape))
    assert len(shares) > 50


def test_a_path_through_all_pairs_is_found():
    # Taken in the order of their numbers, the pairs (1, 0), (2, 1) ... leave the first
    # true and the last predicted pixel alone, a path through all others apart.
    count = 500
    pixels = np.arange(count)
    true = np.concatenate([pixels[1:], pixels])
    pred = np.concatenate([pixels[:-1], pixels])
    step = np.repeat([0, 1], [count - 1, count])
    assert count_matching(true, pred, step) == count
    assert count_matching(true[:-1], pred[:-1], step[:-1]) == count - 1


def test_a_pixel_is_in_one_pair_only():
    star = np.zeros(9, int), np.arange(9), np.arange(9)
    assert count_matching(*star) == 1
    assert count_matching(star[1], star[0], star[2]) == 1


def test_without_pairs_nothing_is_matched():
    assert count_matching(*np.zeros((3, 0), int)) == 0
