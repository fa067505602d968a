"""How fast networks train with the combined loss and with BCE, with and without XLA.

    python benchmarks/train_speed.py > table.md   (XLA takes minutes to compile)
    python benchmarks/train_speed.py resnet34 --rounds 9 --modes graph

Prints one table of patches a second: medians of several steps in one run, in each round
of which every column takes its turn, so that what else the machine does falls on all
alike. "BF1" adds the metric `BoundaryF1` beside `IoU`, as a training reports both.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy import ndimage

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
) -> dict[str, Callable]:
    """Return a training step of each column; they train the same network."""
    data, shared = draw_batch(batch, patch), build_model(network)
    steps: dict[str, Callable] = {}
    for mode in modes:
        for way, (loss, with_bf1) in WAYS.items():
            model = keras.Model(shared.inputs, shared.outputs)
            reported: list[keras.metrics.Metric] = [metrics.IoU()]
            if with_bf1:
                reported.append(metrics.BoundaryF1())
            model.compile("adam", loss(), metrics=reported, jit_compile=MODES[mode])
            steps[f"{way}, {mode}"] = lambda model=model: model.train_on_batch(*data)
    return steps


def time_steps(steps: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Return the median seconds of each step, after one that compiles it."""
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        took = time.perf_counter() - started
        print(f"    {name}: first step {took:.0f} s", file=sys.stderr, flush=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def describe_machine() -> str:
    """Say what the figures were taken on."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = [
            tf.config.experimental.get_device_details(gpu)["device_name"]
            for gpu in tf.config.list_physical_devices("GPU")
        ]
        version = f"TensorFlow {tf.__version__}"
    else:
        details, version = [], keras.backend.backend()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return (
        f"{', '.join(details) or (names or [platform.processor()])[0]}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; "
        f"{version}, Keras {keras.__version__}, float32"
    )


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
        seconds = time_steps(
            compile_steps(network, args.batch, args.patch, args.modes), args.rounds
        )
        cells = [f"{args.batch / seconds[name]:.2f}" for name in columns]
        print(f"| {network} | {' | '.join(cells)} |", flush=True)
        keras.backend.clear_session()
    print(f"\nBatches of {args.batch}. {describe_machine()}.")


if __name__ == "__main__":
    main()
