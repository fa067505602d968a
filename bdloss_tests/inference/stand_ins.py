"""Callables that stand for a model: what they give is known of every pixel."""

import numpy as np

from bdloss.models import Predictor


def pointwise(batch):
    return batch[..., :1] / np.float32(255)


def several(batch):
    """Of each pixel three maps, of which the windows' weights matter to all."""
    return np.concatenate([blended(batch[..., band:]) for band in range(3)], axis=-1)


def blended(batch):
    """Of each pixel, its window's mean and where it is: the weights matter."""
    side = batch.shape[1]
    ramp = np.linspace(0, 1, side * side).reshape(1, side, side, 1)
    mean = batch.mean(axis=(1, 2, 3), keepdims=True) / 255
    return (batch[..., :1] / 255 + mean + ramp) / 3


def bright(batch):
    """A network that calls bright pixels buildings."""
    return (batch.mean(-1, keepdims=True) / 255).astype(np.float32)


PREDICTOR = Predictor(
    name="bright",
    predict=bright,
    band_count=3,
    patch_size=32,
    multiple=16,
    threshold=0.5,
    resolution=0.3,
    digest="bright",
)
