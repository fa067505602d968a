"""Cross-entropy near edges, against SciPy."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from bdloss.losses import EdgeCrossentropy, binary_crossentropy, edge_crossentropy
from bdloss.losses.region import near_edges


def band_of(mask, known, theta):
    """Pixels that have a building's pixel beside background in their window."""
    background = ndimage.binary_dilation((mask == 0) & known, np.ones((3, 3)))
    edge = (mask == 1) & known & background
    return ndimage.binary_dilation(edge, np.ones((theta, theta))) & known


@pytest.mark.parametrize("theta", [3, 9])
@pytest.mark.parametrize("from_logits", [False, True])
def test_edge_crossentropy_is_the_mean_over_the_band(theta, from_logits):
    random = np.random.default_rng(theta)
    mask = np.kron(random.random((6, 7)) < 0.4, np.ones((8, 8))).astype("float32")
    known = ndimage.zoom(random.random((6, 7)), 8, order=1) < 0.9
    logits = random.normal(size=mask.shape).astype("float32")
    pred = 1 / (1 + np.exp(-logits))
    band = band_of(mask, known, theta)
    assert 0 < band.sum() < known.sum() < mask.size
    entropy = -np.log(np.where(mask == 1, pred, 1 - pred))
    found = edge_crossentropy(
        np.where(known, mask, 255)[None],
        (logits if from_logits else pred)[None],
        theta=theta,
        ignore=255,
        from_logits=from_logits,
    )
    assert float(found[0]) == pytest.approx(entropy[band].mean(), rel=1e-5)


def test_near_edges_are_the_whole_image_where_the_window_is():
    mask = np.zeros((1, 9, 9, 1), "float32")
    mask[:, 4, 4] = 1
    near = ops.convert_to_numpy(near_edges(mask, 17))
    assert near.min() == 1
    pred = np.full_like(mask, 0.2)
    whole = float(binary_crossentropy(mask, pred)[0])
    assert float(edge_crossentropy(mask, pred, theta=17)[0]) == pytest.approx(whole)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_without_edges_has_no_loss(value):
    mask = np.full((1, 12, 10), value)
    assert float(edge_crossentropy(mask, np.full(mask.shape, 0.3), ignore=255)[0]) == 0


@pytest.mark.parametrize("theta", [1, 4, -3])
def test_a_window_has_a_middle_and_more_than_that(theta):
    with pytest.raises(ValueError, match="theta"):
        EdgeCrossentropy(theta=theta)
