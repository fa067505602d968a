"""How long boundary scores of a whole tile take, beside two distance transforms.

    python benchmarks/metric_speed.py

Prints the tables of `RESULTS.md`: medians of several rounds in one run, each round with
the same tile of 500 buildings. Distance transforms are the usual way to BF1, and
whether both are equal to the last bit is said. The last table is the memory that
matching takes: the tile, with a square of noise in it, is repeated to a larger image.
"""

import platform
import statistics
import time
import tracemalloc

import numpy as np
from scipy import ndimage

from bdloss.metrics.boundary_iou import BOUNDARY_DISTANCE, boundary_iou
from bdloss.metrics.matched_boundaries import BoundaryMatcher, matched_boundary_f1
from bdloss.metrics.scores import (
    TOLERANCE,
    BoundaryScore,
    boundary_f1,
    find_boundary,
)

SIDE = 5000  # pixels, a tile of INRIA
BUILDINGS = 500
SIDES = (25, 120)  # pixels, from the smallest building to the largest
SHIFT = 3  # pixels, the most that the prediction of a building is off
TOLERANCES = (3, 5, 9)  # pixels
ROUNDS = 5
REPEATS = (1, 4)  # of the tile, down and across
STRIP_HEIGHT = 1000  # pixels
NOISE_SIDE = 200  # pixels


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


def measure(call):
    """Return the seconds that a call took, and what it returned."""
    started = time.perf_counter()
    score = call()
    return time.perf_counter() - started, score


def print_bf1(true: np.ndarray, pred: np.ndarray) -> None:
    """Print the time that BF1 takes at several tolerances."""
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


def print_other_scores(true: np.ndarray, pred: np.ndarray) -> None:
    """Print the time that Boundary IoU and the one-to-one F1 take."""
    calls = {
        f"`boundary_iou`, {BOUNDARY_DISTANCE} px": lambda: boundary_iou(true, pred),
        f"`matched_boundary_f1`, {TOLERANCE:.0f} px": lambda: (
            matched_boundary_f1(true, pred).f1
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    scores, slow = {}, []
    for _ in range(ROUNDS):
        for name, call in calls.items():
            taken, scores[name] = measure(call)
            seconds[name].append(taken)
        taken, _ = measure(lambda: score_by_distance_transforms(true, pred, TOLERANCE))
        slow.append(taken)
    print("| score | value | time | distance transforms | ratio |")
    print("|---|---|---|---|---|")
    for name, fast in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(fast, slow, strict=True))
        print(
            f"| {name} | {scores[name]:.4f} | {statistics.median(fast):.2f} s "
            f"| {statistics.median(slow):.2f} s | {ratio:.3f} |"
        )


def print_memory(true: np.ndarray, pred: np.ndarray) -> None:
    """Print what matching boundaries takes of memory, beside the strips it is given."""
    rng = np.random.default_rng(0)
    true, pred = true.copy(), pred.copy()
    for mask in (true, pred):
        mask[:NOISE_SIDE, :NOISE_SIDE] = rng.random((NOISE_SIDE, NOISE_SIDE)) < 0.3
    print("| side, pixels | boundary pixels | matched | time | peak, MB |")
    print("|---|---|---|---|---|")
    for repeats in REPEATS:
        strips = [
            [np.tile(mask[top : top + STRIP_HEIGHT], repeats) for mask in (true, pred)]
            for top in range(0, SIDE, STRIP_HEIGHT)
        ]
        tracemalloc.start()
        matcher, started = BoundaryMatcher(), time.perf_counter()
        for strip in repeats * strips:
            matcher.add(*strip)
        counts = matcher.counts()
        taken = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(
            f"| {repeats * SIDE} | {counts.true + counts.pred} | {counts.matched} "
            f"| {taken:.1f} s | {peak / 1e6:.0f} |"
        )


def main() -> None:
    true, pred = make_tile()
    print(
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
    for table in (print_bf1, print_other_scores, print_memory):
        table(true, pred)
        print()


if __name__ == "__main__":
    main()
