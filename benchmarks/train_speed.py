"""How fast networks train with the combined loss and with BCE, with and without XLA.

    python benchmarks/train_speed.py > table.md   (XLA takes minutes to compile)
    python benchmarks/train_speed.py resnet34 --rounds 9 --modes graph

Prints one table of patches a second: medians of several steps in one run, in each round
of which every column takes its turn, so that what else the machine does falls on all
alike. "BF1" adds the metric `BoundaryF1` beside `IoU`, as a training reports both.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy import ndimage
from timing import Step, describe_machine, time_steps

from bdloss import metrics
from bdloss.losses import CombinedLoss
from bdloss.models import build_model

NETWORKS = ("plain", "resnet34", "inceptionresnetv2")
WAYS: dict[str, tuple[Callable, bool]] = {  # loss, and whether BF1 is a metric
    "BCE": (keras.losses.BinaryCrossentropy, False),
    "combined": (CombinedLoss, False),
    "combined, BF1": (CombinedLoss, True),
}
MODES = {"graph": False, "jit_compile": True}


def draw_batch(batch: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw blobs as masks, and noisy pixels that show them."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(batch, patch, patch))
    mask = ndimage.gaussian_filter(noise, (0, 8, 8))[..., None] > 0
    pixels = random.normal(70, 12, (batch, patch, patch, 3)) + 110 * mask
    return pixels.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def compile_steps(
    network: str, batch: int, patch: int, modes: list[str]
) -> dict[str, Step]:
    """Return a training step of each column; they train the same network."""
    data, shared = draw_batch(batch, patch), build_model(network)
    steps: dict[str, Step] = {}
    for mode in modes:
        for way, (loss, with_bf1) in WAYS.items():
            model = keras.Model(shared.inputs, shared.outputs)
            reported: list[keras.metrics.Metric] = [metrics.IoU()]
            if with_bf1:
                reported.append(metrics.BoundaryF1())
            model.compile("adam", loss(), metrics=reported, jit_compile=MODES[mode])
            steps[f"{way}, {mode}"] = lambda model=model: model.train_on_batch(*data)
    return steps


def take_first_steps(steps: dict[str, Step]) -> None:
    """Take the step of each column that compiles it, and say how long that took."""
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        took = time.perf_counter() - started
        print(f"    {name}: first step {took:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    args = parser.parse_args()
    columns = [f"{way}, {mode}" for mode in args.modes for way in WAYS]
    print(f"| patches of {args.patch}² a second | {' | '.join(columns)} |")
    print("|---" + "|---:" * len(columns) + "|", flush=True)
    for network in args.networks:
        steps = compile_steps(network, args.batch, args.patch, args.modes)
        take_first_steps(steps)
        times = time_steps(steps, args.rounds, warm_up=0)
        cells = [f"{1e3 * args.batch / times[name]:.2f}" for name in columns]
        print(f"| {network} | {' | '.join(cells)} |", flush=True)
        keras.backend.clear_session()
    print(f"\nBatches of {args.batch}. {describe_machine()}.")


if __name__ == "__main__":
    main()
