"""Connected components of a mask that comes in strips of rows, joined at the seams."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy import sparse

from bdloss.errors import InputError


class LabelledStrip(NamedTuple):
    """The components of a strip, and which of them go on from the strip above.

    Components are numbered on from strip to strip; 0 is background.

    Attributes:
        labels: Array of shape `(height, width)`, int32: from 1 in each strip.
        components: The component of each label. Parts of a strip that are joined in
            one above are one.
        above: Components that reach the last row of the strip above.
        continued: What number each of these has here, where it ends or goes on.
        below: Components that reach the last row: `above` of the next strip.
    """

    labels: np.ndarray
    components: np.ndarray
    above: np.ndarray
    continued: np.ndarray
    below: np.ndarray


class StripLabels:
    """Label the strips of a mask.

    Between strips only the components of the last row are kept.

    Args:
        connectivity: 4 where pixels connect that share an edge, 8 where those do too
            that share a corner.

    Raises:
        ValueError: If connectivity is neither 4 nor 8.

    Example:
        >>> labels = StripLabels()
        >>> labels.add(np.array([[1, 0, 1, 0, 1]])).below.tolist()
        [1, 2, 3]
        >>> strip = labels.add(np.array([[1, 1, 1, 0, 0]]))
        >>> dict(zip(strip.above.tolist(), strip.continued.tolist(), strict=True))
        {1: 4, 2: 4, 3: 5}
    """

    def __init__(self, connectivity: int = 4) -> None:
        if connectivity not in (4, 8):
            raise InputError(f"connectivity must be 4 or 8, got {connectivity}")
        self._connectivity = connectivity
        self.count = 1  # of all components so far, with the background
        self._below = np.zeros(0, int)
        self._last: np.ndarray | None = None  # places in `_below` from 1, a row

    def add(self, mask: np.ndarray) -> LabelledStrip:
        """Label the next rows.

        Args:
            mask: Strip of shape `(height, width)`; what is not 0 is labelled.

        Returns:
            Labels and components of the strip.
        """
        count, labels = cv2.connectedComponents(
            (mask != 0).astype(np.uint8), connectivity=self._connectivity
        )
        first, last = labels[0], labels[-1]
        above = self._below
        if self._last is None:
            self._last = np.zeros_like(first)
        # Nodes are the labels of the strip, then the components left open above it.
        pairs = self._meet(first, self._last)
        pairs[1] += count - 1
        numbers = _connect(pairs, count + len(above))
        found = int(numbers.max())
        numbers[numbers > 0] += self.count - 1
        self.count += found
        components = numbers[:count]
        self._below = np.unique(components[last[last > 0]])
        places = np.searchsorted(self._below, components[last]) + 1
        self._last = np.where(last > 0, places, 0)
        return LabelledStrip(labels, components, above, numbers[count:], self._below)

    def _meet(self, row: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Return the pairs of a row and the one above that are neighbours."""
        pairs = [np.stack([row, above])]
        if self._connectivity == 8:
            pairs += [np.stack([row[1:], above[:-1]]), np.stack([row[:-1], above[1:]])]
        neighbours = np.hstack(pairs)
        return neighbours[:, (neighbours > 0).all(axis=0)]


class StripValues:
    """Take each value but 0 of an image as one component, whether it touches or not.

    It stands for `StripLabels` where the components are known beforehand: an image of
    numbered buildings. A value may come back in any strip, so that none ever ends, and
    each is numbered once for all: nothing is above or continued.

    Example:
        >>> values = StripValues()
        >>> strip = values.add(np.array([[7, 7, 2, 0, 7]]))
        >>> strip.components[strip.labels].tolist(), strip.below.tolist()
        ([[2, 2, 1, 0, 2]], [1, 2])
    """

    def __init__(self) -> None:
        self._numbers = {0: 0}

    @property
    def count(self) -> int:
        """How many components there are so far, with the background."""
        return len(self._numbers)

    def add(self, values: np.ndarray) -> LabelledStrip:
        """Number the next rows.

        Args:
            values: Strip of shape `(height, width)`; 0 is background.

        Returns:
            Labels and components of the strip.
        """
        # Sorted are the runs of equal values, which are far fewer than the pixels.
        flat = values.ravel()
        starts = find_runs(flat)
        found, runs = np.unique(np.append(0, flat[starts]), return_inverse=True)
        # The background comes first, whatever values lie below it.
        order = np.append(np.flatnonzero(found == 0), np.flatnonzero(found))
        labels = np.argsort(order).astype(np.int32)[runs[1:]]
        lengths = np.diff(np.append(starts, flat.size))
        components = [
            self._numbers.setdefault(value, self.count)
            for value in found[order].tolist()
        ]
        none = np.zeros(0, int)
        return LabelledStrip(
            np.repeat(labels, lengths).reshape(values.shape),
            np.array(components),
            above=none,
            continued=none,
            below=np.arange(1, self.count),
        )


def find_runs(*rows: np.ndarray) -> np.ndarray:
    """Return where runs of equal values begin, in one row or in several at once.

    Args:
        rows: Arrays of one length, at least 1.

    Example:
        >>> find_runs(np.array([5, 5, 5, 8, 8]), np.array([1, 1, 2, 2, 2])).tolist()
        [0, 2, 3]
    """
    begins = np.zeros(len(rows[0]), bool)
    begins[:1] = True
    for row in rows:
        begins[1:] |= row[1:] != row[:-1]
    return np.flatnonzero(begins)


def join_components(strips: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the number of the whole that each component of all strips belongs to.

    Args:
        strips: `above` and `continued` of each strip, of shape `(2, components)`.
        count: How many components there are, with the background.

    Returns:
        Numbers of the wholes, from 0 for the background.
    """
    return _connect(np.hstack([np.zeros((2, 0), int), *strips]), count)


def _connect(pairs: np.ndarray, count: int) -> np.ndarray:
    """Return the component of each node, numbered by the first node in it."""
    edges = np.ones(pairs.shape[1], bool)
    graph = sparse.coo_array((edges, tuple(pairs)), (count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
