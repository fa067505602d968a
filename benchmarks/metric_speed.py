"""How long BF1 of a whole tile takes, beside the usual way: two distance transforms.

    python benchmarks/metric_speed.py

Prints the table of `RESULTS.md`: medians of several rounds in one run, each round with
the same tile of 500 buildings, and whether the scores are equal to the last bit.
"""

import platform
import statistics
import time

import numpy as np
from scipy import ndimage

from bdloss.metrics.scores import BoundaryScore, boundary_f1, find_boundary

SIDE = 5000  # pixels, a tile of INRIA
BUILDINGS = 500
SIDES = (25, 120)  # pixels, from the smallest building to the largest
SHIFT = 3  # pixels, the most that the prediction of a building is off
TOLERANCES = (3, 5, 9)  # pixels
ROUNDS = 5


def make_tile(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a true mask, and a predicted one of buildings off by a few pixels."""
    rng = np.random.default_rng(seed)
    true, pred = np.zeros((2, SIDE, SIDE), np.uint8)
    for _ in range(BUILDINGS):
        tall, wide = rng.integers(*SIDES, 2)
        row, col = rng.integers(SHIFT, SIDE - SIDES[1] - SHIFT, 2)
        down, right, taller, wider = rng.integers(-SHIFT, SHIFT + 1, 4)
        true[row : row + tall, col : col + wide] = 1
        pred[
            row + down : row + down + tall + taller,
            col + right : col + right + wide + wider,
        ] = 1
    return true, pred


def score_by_distance_transforms(
    true: np.ndarray, pred: np.ndarray, tolerance: float
) -> BoundaryScore:
    """Return BF1 from the distance of every pixel to both boundaries."""
    true, pred = find_boundary(true), find_boundary(pred)
    near_true = ndimage.distance_transform_edt(~true) < tolerance
    near_pred = ndimage.distance_transform_edt(~pred) < tolerance
    precision = np.count_nonzero(pred & near_true) / np.count_nonzero(pred)
    recall = np.count_nonzero(true & near_pred) / np.count_nonzero(true)
    return BoundaryScore(
        precision, recall, 2 * precision * recall / (precision + recall)
    )


def measure(call) -> tuple[float, BoundaryScore]:
    """Return the seconds that a call took, and what it returned."""
    started = time.perf_counter()
    score = call()
    return time.perf_counter() - started, score


def main() -> None:
    true, pred = make_tile()
    print(
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
    print("| tolerance | BF1 | `boundary_f1` | distance transforms | ratio | equal |")
    print("|---|---|---|---|---|---|")
    for tolerance in TOLERANCES:
        fast, slow, equal = [], [], True
        for _ in range(ROUNDS):
            seconds, score = measure(lambda t=tolerance: boundary_f1(true, pred, t))
            fast.append(seconds)
            seconds, other = measure(
                lambda t=tolerance: score_by_distance_transforms(true, pred, t)
            )
            slow.append(seconds)
            equal = equal and score == other
        ratio = statistics.median(a / b for a, b in zip(fast, slow, strict=True))
        print(
            f"| {tolerance} px | {score.f1:.4f} | {statistics.median(fast):.2f} s "
            f"| {statistics.median(slow):.2f} s | {ratio:.3f} "
            f"| {'yes' if equal else 'NO'} |"
        )


if __name__ == "__main__":
    main()
