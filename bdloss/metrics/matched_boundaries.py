"""Boundary F1 of masks whose boundary pixels are matched one to one.

As in the benchmark of Berkeley (Martin, Fowlkes & Malik 2004), a boundary pixel of the
prediction can account for one of the truth and no more. BF1 lets it account for all
that are near: an edge with teeth, of twice the length, has a BF1 of 1.
"""

import copy
from typing import NamedTuple

import numpy as np
from scipy import sparse

from bdloss.errors import InputError
from bdloss.metrics.matching import count_matching
from bdloss.metrics.scores import (
    TOLERANCE,
    BoundaryCounts,
    BoundaryScore,
    add_counts,
    check_shapes,
    disk,
    find_boundary,
)

BLOCK_PIXELS = 2**20  # of an image, looked at together
NONE = -1  # in the place of the number of a boundary pixel


class MatchedBoundaryCounts(NamedTuple):
    """Boundary pixels counted in images: see `add_counts`.

    Attributes:
        true: Boundary pixels of the truth.
        pred: Boundary pixels of the prediction.
        matched: Pairs of them in the largest one-to-one matching.
    """

    true: int = 0
    pred: int = 0
    matched: int = 0

    @property
    def score(self) -> BoundaryScore:
        """Precision, recall and F1; NaN without any boundary, as in `boundary_f1`."""
        return BoundaryCounts(self.pred, self.matched, self.true, self.matched).score


def matched_boundary_f1(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    tolerance: float = TOLERANCE,
    image_edge: bool = False,
    ignore: int | None = None,
) -> BoundaryScore:
    """Return the F1 of boundaries matched one to one (Martin et al., PAMI 2004).

    Of all ways to pair boundary pixels of truth and prediction that are near, each in
    one pair at most, one with the most pairs counts: precision is its share of the
    predicted pixels, recall that of the true ones. The matching is exact.

    The boundary is what of a building has one of its 8 neighbours outside: with 4,
    teeth of one pixel would make it no longer. Two pixels are near if they are
    strictly closer than the tolerance, as in `boundary_f1`: so the score is at most
    the BF1 of the same boundaries, and what lies between the two is what BF1 counted
    more than once.

    Args:
        y_true: True mask of shape `(height, width)`; non-zero is building.
        y_pred: Predicted mask of the same shape; non-zero is building.
        tolerance: Distance in pixels, above 0.
        image_edge: Whether building pixels at the edge of the image are boundary.
        ignore: Value in `y_true` of pixels that do not count. To truth and prediction
            alike they are neither boundary nor background.

    Returns:
        Precision, recall and F1. An empty boundary is matched wholly, so that F1 is 0
        if one mask alone has a boundary; without one in truth and prediction all three
        are NaN, and the image belongs in no mean.

    Raises:
        ValueError: If the shapes differ, or the tolerance is not above 0.

    Example:
        >>> mask = np.zeros((12, 16), int)
        >>> mask[2:8, 2:14] = 1
        >>> matched_boundary_f1(mask, np.roll(mask, 2, axis=0)).f1
        1.0
        >>> teeth = mask.copy()
        >>> teeth[1, 2:14:2] = 1
        >>> matched_boundary_f1(mask, teeth).f1  # 32 of 32, and of 38
        0.9142857142857143
    """
    matcher = BoundaryMatcher(tolerance, ignore, image_edge)
    matcher.add(y_true, y_pred)
    return matcher.counts().score


class BoundaryMatcher:
    """Match the boundary pixels of an image that comes in strips of rows.

    The counts are those of the whole, whatever the height of the strips. Pixels are
    forgotten when no later row can change how many of them are matched: between
    strips those near the last rows are kept, and those that hang together with them,
    pixel by near pixel of the other boundary. Buildings end, so that memory does not
    grow with the height; noise without end does not, and all of it is kept.

    Args:
        tolerance: As in `matched_boundary_f1`.
        ignore: As in `matched_boundary_f1`.
        image_edge: As in `matched_boundary_f1`.

    Raises:
        ValueError: If the tolerance is not above 0.

    Example:
        >>> mask = np.zeros((12, 16), int)
        >>> mask[2:8, 2:14] = 1
        >>> matcher = BoundaryMatcher()
        >>> for top in range(0, 12, 5):
        ...     matcher.add(mask[top : top + 5], mask[top : top + 5])
        >>> matcher.counts()
        MatchedBoundaryCounts(true=32, pred=32, matched=32)
    """

    def __init__(
        self,
        tolerance: float = TOLERANCE,
        ignore: int | None = None,
        image_edge: bool = False,
    ):
        near = disk(tolerance)
        self._reach = len(near) // 2
        steps = np.argwhere(near) - self._reach
        self._steps = steps[np.argsort((steps**2).sum(1), kind="stable")]
        self._ignore = ignore
        self._image_edge = image_edge
        self._counts = MatchedBoundaryCounts()
        # Truth, prediction and known pixels of two rows: the boundary in the last of
        # them depends on the row to come.
        self._masks: np.ndarray | None = None
        # Boundary pixels have numbers, in truth and prediction together. Those of the
        # rows that the next ones can reach are kept by their place.
        self._last: np.ndarray | None = None
        self._components = np.zeros(0, np.int32)  # of each pixel that is kept
        self._pairs = np.zeros((3, 0), np.int32)  # true, predicted, index of the step

    def add(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Match the next rows.

        Args:
            y_true: Strip of the true mask, of shape `(height, width)`.
            y_pred: Strip of the predicted mask, of the same shape.

        Raises:
            ValueError: If the shapes differ, or the width is not that of the strips
                above.
        """
        check_shapes(y_true, y_pred, images=True)
        height, width = y_true.shape
        if self._masks is not None and width != self._masks.shape[2]:
            raise InputError(
                "strips of an image must have the same width, "
                f"got {self._masks.shape[2]} and {width}"
            )
        rows = max(1, BLOCK_PIXELS // width)
        for top in range(0, height, rows):
            self._add(y_true[top : top + rows], y_pred[top : top + rows])

    def counts(self) -> MatchedBoundaryCounts:
        """Return the counts of all rows so far, as of an image that ends with them."""
        if self._masks is None:
            return self._counts
        whole = copy.copy(self)
        whole._link(self._find_boundaries(self._masks)[:, -1:])
        rest = MatchedBoundaryCounts(matched=count_matching(*whole._pairs))
        return add_counts(whole._counts, rest)

    def _add(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        known = np.full(y_true.shape, True)
        if self._ignore is not None:
            known = y_true != self._ignore
        masks = np.stack([(y_true != 0) | ~known, (y_pred != 0) | ~known, known])
        done = 0  # rows whose boundary is linked already
        if self._masks is not None:
            done = self._masks.shape[1] - 1
            masks = np.concatenate([self._masks, masks], axis=1)
        self._masks = masks[:, -2:].copy()
        if masks.shape[1] > done + 1:
            self._link(self._find_boundaries(masks)[:, done:-1])

    def _find_boundaries(self, masks: np.ndarray) -> np.ndarray:
        """Return the boundaries of truth and prediction."""
        *sides, known = masks
        return np.stack(
            [find_boundary(side, 8, self._image_edge) & known for side in sides]
        )

    def _link(self, boundaries: np.ndarray) -> None:
        """Pair the pixels of the next rows, and count what they leave behind.

        Args:
            boundaries: Those of truth and prediction, of shape `(2, height, width)`.
        """
        _, height, width = boundaries.shape
        if self._last is None:
            self._last = np.full((2, self._reach, width), NONE, np.int32)

        # Number the new pixels, and find the pairs that they are in.
        old, new = len(self._components), int(np.count_nonzero(boundaries))
        numbers = np.full(boundaries.shape, NONE, np.int32)
        numbers[boundaries] = np.arange(old, old + new)
        numbers = np.concatenate([self._last, numbers], axis=1)
        pairs = _find_pairs(numbers, self._steps)
        pairs = pairs[:, (pairs[:2] >= old).any(axis=0)]

        # Each of them is a component, until a pair joins it to another.
        first = int(self._components.max(initial=NONE)) + 1
        components = np.concatenate([self._components, np.arange(first, first + new)])
        joined = _connect(components[pairs[:2]], first + new)
        components = joined[components]

        # A component is open while later rows can reach one of its pixels.
        self._last = numbers[:, height:].copy()
        reached = self._last != NONE
        is_open = np.zeros(first + new, bool)
        is_open[components[self._last[reached]]] = True

        # All others are counted and forgotten.
        pairs = np.hstack([self._pairs, pairs])
        is_left = is_open[components[pairs[0]]]
        true, pred = (int(np.count_nonzero(side)) for side in boundaries)
        matched = count_matching(*pairs[:, ~is_left])
        self._counts = add_counts(
            self._counts, MatchedBoundaryCounts(true, pred, matched)
        )
        is_kept = is_open[components]
        renumbered = _number(is_kept)
        self._components = _number(is_open)[components[is_kept]]
        self._pairs = pairs[:, is_left]
        self._pairs[:2] = renumbered[self._pairs[:2]]
        self._last[reached] = renumbered[self._last[reached]]


def _find_pairs(numbers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the pixels of truth and prediction that lie a step apart.

    Args:
        numbers: Those of the pixels of truth and prediction by their place, of shape
            `(2, height, width)`.
        steps: Rows and columns from a true pixel to a near one, of shape `(steps, 2)`.

    Returns:
        Numbers of the true and of the predicted pixel and index of the step, of shape
        `(3, pairs)`.
    """
    reach = int(steps.max())
    padded = np.pad(
        numbers, ((0, 0), (reach, reach), (reach, reach)), constant_values=NONE
    )
    width = padded.shape[2]
    true, pred = padded.reshape(2, -1)
    places = np.flatnonzero(true != NONE)
    found = []
    for index, (down, right) in enumerate(steps):
        others = pred[places + (down * width + right)]
        near = others != NONE
        pairs = true[places[near]], others[near]
        found.append(np.stack([*pairs, np.full(len(pairs[0]), index, np.int32)]))
    return np.hstack(found)


def _connect(pairs: np.ndarray, count: int) -> np.ndarray:
    """Return the component of each of so many nodes."""
    edges = np.ones(pairs.shape[1], bool)
    graph = sparse.coo_array((edges, tuple(pairs)), (count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def _number(kept: np.ndarray) -> np.ndarray:
    """Return the number that each has among those that are kept."""
    return np.cumsum(kept, dtype=np.int32) - 1
