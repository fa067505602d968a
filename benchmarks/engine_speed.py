"""How much faster a CPU predicts with each engine that is installed.

    python benchmarks/engine_speed.py [--engines onnxruntime openvino-bf16]

Prints, for each network and engine, seconds of processor time, or with `--wall` those
that pass, of the bare calls on the windows of a raster and of the whole way from raster
to mask, medians of several rounds in which all take turns; and how much faster than
Keras an engine is, the median of the ratios within a round.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import rasterio
from predict_speed import make_raster
from timing import describe_machine

from bdloss import models
from bdloss.constants import ENGINES, EXACT_ENGINES, KERAS
from bdloss.geo.windows import Window, starts
from bdloss.inference import predict_raster
from bdloss.inference.engines import engine_tag, make_engine

NETWORKS = ("plain", "lite", "resnet34")
WINDOW = 256
WINDOWS = 4  # of a raster each way, which overlap by a quarter
BATCHES = (1, 4)
ROUNDS = 3


def time_it(clock: Callable, work: Callable, predict: Callable, batch: int) -> float:
    """Return the seconds that some work takes by a clock."""
    began = clock()
    work(predict, batch)
    return clock() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    installed = [one for one in EXACT_ENGINES[1:] if importlib.util.find_spec(one)]
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES[1:], default=installed, metavar="ENGINE"
    )
    parser.add_argument("--window", type=int, default=WINDOW, help="pixels")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="each way")
    parser.add_argument("--wall", action="store_true", help="needs quiet cores")
    args = parser.parse_args()
    clock = time.perf_counter if args.wall else time.process_time
    window, overlap = args.window, args.window // 4
    side = window + (args.windows - 1) * (window - overlap)
    places = [
        Window(row, col, window, window)
        for row in starts(side, window, window - overlap)
        for col in starts(side, window, window - overlap)
    ]
    print("| network | engine | batch | bare, s | raster to mask, s | whole / bare |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        raster, mask = Path(folder, "raster.tif"), Path(folder, "mask.tif")
        os.environ["XDG_CACHE_HOME"] = folder
        make_raster(raster, side)
        with rasterio.open(raster) as source:
            pixels = np.moveaxis(source.read(), 0, -1)
        patches = np.stack([pixels[place.slices] for place in places])
        for network in args.networks:
            path = Path(folder, f"{network}.keras")
            models.save_model(models.build_model(network), path, {"multiple": 32})
            predictor = models.load_predictor(path)
            made = {KERAS: predictor.predict}
            made |= {one: make_engine(predictor, one) for one in args.engines}

            def bare(predict: Callable, batch: int) -> None:
                for first in range(0, len(patches), batch):
                    predict(patches[first : first + batch])

            def whole(predict: Callable, batch: int) -> None:
                how = {"window": window, "overlap": overlap, "batch": batch}
                predict_raster(raster, predict, mask, overwrite=True, **how)

            kinds = [(name, batch) for name in made for batch in BATCHES]
            times: dict = {
                (*kind, work): [] for kind in kinds for work in (bare, whole)
            }
            for turn in range(ROUNDS + 1):
                for name, batch, work in times:
                    seconds = time_it(clock, work, made[name], batch)
                    if turn:  # the first compiles
                        times[name, batch, work].append(seconds)
            for name, batch in kinds:
                one, all_of_it = times[name, batch, bare], times[name, batch, whole]
                ratio = statistics.median(np.divide(all_of_it, one))
                print(
                    f"| {network} | {name} | {batch} | {statistics.median(one):.2f} "
                    f"| {statistics.median(all_of_it):.2f} | {ratio:.2f} |",
                    flush=True,
                )
            for name in args.engines:
                gain = np.divide(times[KERAS, 4, whole], times[name, 4, whole])
                text = f"{statistics.median(gain):.2f} times as fast as Keras"
                ratios.append(f"{network}, {name}, raster to mask: {text}")
            keras.backend.clear_session()
    print("", *ratios, sep="\n")
    print(", ".join(map(engine_tag, [KERAS, *args.engines])))
    print(describe_machine())


if __name__ == "__main__":
    main()
