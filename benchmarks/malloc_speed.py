"""What it is worth that a process keeps the memory that it has freed.

    python benchmarks/malloc_speed.py

Prints processor time and page faults of a step, and the peak of memory, with
`bdloss.memory.keep_freed_memory` and without: of training with the recommended loss,
and of prediction from raster to mask. Each measurement is a process of its own; the two
take turns, and medians are shown.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NETWORKS = ("plain", "lite", "resnet34")
STEPS = {"train": 10, "predict": 3}  # of prediction: rasters
SIDE = 1000  # pixels, of a raster
ROUNDS = 3


class Usage(NamedTuple):
    """What a step takes: seconds of processor time, page faults; and the peak, MB."""

    seconds: float
    faults: float
    peak: float


def measure(work: str, network: str, kept: bool) -> Usage:
    """Train some steps, or predict some rasters, after one that does not count."""
    from bdloss.memory import keep_freed_memory

    if kept and not keep_freed_memory():
        sys.exit("this C library cannot be told to keep what is freed")
    from predict_speed import make_raster
    from train_speed import draw_batch

    from bdloss.inference import predict_raster
    from bdloss.losses import CombinedLoss
    from bdloss.models import build_model

    model = build_model(network)
    with tempfile.TemporaryDirectory() as folder:
        raster, mask = Path(folder, "raster.tif"), Path(folder, "mask.tif")
        make_raster(raster, SIDE)
        model.compile("adam", CombinedLoss("oriented", batch=True), jit_compile=False)
        batch = draw_batch(8, 128)

        def step() -> None:
            if work == "train":
                model.train_on_batch(*batch)
            else:
                predict_raster(raster, model.predict_on_batch, mask, overwrite=True)

        step()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(STEPS[work]):
            step()
        after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    return Usage(seconds / STEPS[work], faults / STEPS[work], after.ru_maxrss / 1024)


def ask(work: str, network: str, kept: bool) -> Usage:
    """Measure in a process of its own."""
    words = [sys.executable, __file__, work, network, *(["--kept"] if kept else [])]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return Usage(*(float(word) for word in done.stdout.splitlines()[-1].split()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="?", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("network", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    args = parser.parse_args()
    if args.work:
        print(*measure(args.work, args.network, args.kept))
        return
    print("| work | network | given back: CPU, s | faults | peak, MB |", end="")
    print(" kept: CPU, s | faults | peak, MB | CPU, ratio | peak, ratio |")
    print("| --- | --- |" + " ---: |" * 8, flush=True)
    for work in STEPS:
        for network in args.networks:
            rounds = [
                [ask(work, network, kept) for kept in (False, True)]
                for _ in range(ROUNDS)
            ]
            given, kept = (
                Usage(*map(statistics.median, zip(*side, strict=True)))
                for side in zip(*rounds, strict=True)
            )
            cells = [
                f"{one.seconds:.2f} | {one.faults / 1000:.0f} k | {one.peak:.0f}"
                for one in (given, kept)
            ]
            seconds = statistics.median(b.seconds / a.seconds for a, b in rounds)
            peak = statistics.median(b.peak / a.peak for a, b in rounds)
            print(f"| {work} | {network} |", " | ".join(cells), end=" | ")
            print(f"{seconds:.2f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
