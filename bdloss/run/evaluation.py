"""Scores of predictions against truth, pooled and averaged over images."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bdloss.data.datasets import IGNORED
from bdloss.metrics import Counts, boundary_f1, count_pixels

TOLERANCES = (3, 5)  # pixels


def score_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Score predicted masks against true ones.

    Args:
        pairs: True and predicted mask of each image, of shape `(height, width)`; 255
            marks an ignored pixel in the truth and a masked one in the prediction,
            and neither counts.

    Returns:
        `iou` and `accuracy`, pooled over all pixels; `bf1_3` and `bf1_5`, means over
        the images that have a boundary, at tolerances of 3 and 5 pixels; `images` and
        `images_with_boundary`, over how many they were taken. A score that nothing
        speaks for is None.
    """
    counts = Counts()
    images = 0
    scores: dict[int, list[float]] = {tolerance: [] for tolerance in TOLERANCES}
    for true, pred in pairs:
        truth = np.where(pred == IGNORED, IGNORED, true)
        counts = counts.plus(count_pixels(truth, pred, IGNORED))
        images += 1
        for tolerance in TOLERANCES:
            f1 = boundary_f1(truth, pred, tolerance, ignore=IGNORED).f1
            if not math.isnan(f1):
                scores[tolerance].append(f1)
    return {
        "iou": None if math.isnan(counts.iou) else counts.iou,
        **{f"bf1_{t}": _mean(scores[t]) for t in TOLERANCES},
        "accuracy": None if math.isnan(counts.accuracy) else counts.accuracy,
        "images": images,
        "images_with_boundary": len(scores[TOLERANCES[0]]),
    }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
