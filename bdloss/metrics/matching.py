"""Largest one-to-one matchings of two sides: how many pairs there are at most."""

import numpy as np
from scipy import sparse

FREE = -1  # in the place of a partner


def count_matching(true: np.ndarray, pred: np.ndarray, step: np.ndarray) -> int:
    """Return the size of a maximum matching: pairs of which no two share a pixel.

    Pairs are taken greedily, and the matching is then enlarged until it cannot be (see
    `_enlarge`). SciPy's `maximum_bipartite_matching` starts from nothing: it had not
    matched the boundaries of a tile in eight minutes, where this takes a tenth of a
    second.

    Args:
        true: The true pixel of each pair that may be taken, whole numbers from 0.
        pred: Its predicted pixel, in numbers of its own or of both together.
        step: A number of each pair, such that no pixel is in two pairs of one number;
            pairs with a small one are taken first.

    Example:
        >>> count_matching(*np.array([[0, 0, 1], [5, 6, 5], [0, 1, 1]]))
        2
    """
    if not len(true):
        return 0
    order = np.argsort(step, kind="stable")
    true, pred = _compress(true[order]), _compress(pred[order])
    of_true = np.full(true.max() + 1, FREE)
    of_pred = np.full(pred.max() + 1, FREE)
    ends = np.cumsum(np.bincount(step))[:-1]
    for t, p in zip(np.split(true, ends), np.split(pred, ends), strict=True):
        both = (of_true[t] == FREE) & (of_pred[p] == FREE)
        of_true[t[both]] = p[both]
        of_pred[p[both]] = t[both]

    # Searches start on the side that has fewer pixels left.
    sides = (true, of_true), (pred, of_pred)
    (near, of_near), (far, of_far) = sorted(
        sides, key=lambda side: np.count_nonzero(side[1] == FREE)
    )
    graph = sparse.csr_array((np.ones(len(near), bool), (near, far)))
    while _enlarge(graph, of_near, of_far):
        pass
    return int(np.count_nonzero(of_near != FREE))


def _enlarge(graph: sparse.csr_array, of_near: np.ndarray, of_far: np.ndarray) -> int:
    """Enlarge a matching by paths of pairs that are in turns outside and inside of it.

    A matching is a maximum one if no such path leads from a free pixel to a free one of
    the other side (Berge 1957). Trees of paths grow from all free pixels at once, a
    tree stops at the first free pixel that it reaches, and no pixel is in two trees: so
    all paths found can be used, each for one pair more. If none is found no tree was
    stopped, and there is none. (Azad, Buluc & Pothen 2017 grow such trees in parallel.)

    Args:
        graph: The pairs that may be taken.
        of_near: The partner of each pixel of the side that searches, changed in place.
        of_far: The partner of each pixel of the other side, changed in place.

    Returns:
        How many pairs were gained.
    """
    roots = np.arange(len(of_near))  # of each pixel that a tree has reached
    ends = np.full(len(of_near), FREE)  # by root: the free pixel that its tree found
    parents = np.full(len(of_far), FREE)
    leaves = np.flatnonzero(of_near == FREE)
    while len(leaves):
        near, far = _neighbours(graph, leaves)
        new = parents[far] == FREE
        near, far = near[new], far[new]
        parents[far] = near
        one = parents[far] == near  # of those that reach a pixel at once
        near, far = near[one], far[one]
        root, leaves = roots[near], of_far[far]
        free = leaves == FREE
        ends[root[free]] = far[free]
        root, leaves = root[~free], leaves[~free]
        roots[leaves] = root
        leaves = leaves[ends[root] == FREE]

    # Along each path, what was outside is taken and what was inside is left.
    far = ends[ends != FREE]
    gained = len(far)
    while len(far):
        near = parents[far]
        left = of_near[near]
        of_near[near] = far
        of_far[far] = near
        far = left[left != FREE]
    return gained


def _neighbours(
    graph: sparse.csr_array, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of some pixels: each of them, and the other of the pair."""
    first = graph.indptr[pixels]
    counts = graph.indptr[pixels + 1] - first
    skipped = first - np.cumsum(counts) + counts
    places = np.arange(counts.sum()) + np.repeat(skipped, counts)
    return np.repeat(pixels, counts), graph.indices[places]


def _compress(numbers: np.ndarray) -> np.ndarray:
    """Return numbers from 0 without gaps, in the same order."""
    used = np.bincount(numbers) > 0
    return (np.cumsum(used) - 1)[numbers]
