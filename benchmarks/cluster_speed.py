"""How prediction by Dask scales: many small rasters, workers whose model sleeps.

    python benchmarks/cluster_speed.py [--workers 2 8 64] [--seconds 5]

Each worker is a thread of this process, and its model sleeps instead of computing, so
that a machine of few cores shows what sharing out costs: the efficiency is the time
that the models slept, of that of all workers until the last raster was merged. What one
raster costs the client and the scheduler is printed too, from which follows where
scaling stops: with as many workers as rasters fit into the time of one at that cost.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rasterio

from bdloss.geo.orthophoto import Orthophoto
from bdloss.inference import Products, cluster
from bdloss.models import Predictor

SIDE = 64  # pixels, of a raster: one window
ROUNDS = 12  # rasters for each worker


def write_rasters(folder: Path, number: int) -> list[Path]:
    """Write small rasters."""
    folder.mkdir(exist_ok=True)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 3,
        "height": SIDE,
        "width": SIDE,
        "crs": "EPSG:32645",
        "transform": rasterio.Affine(0.3, 0, 353_900, 0, -0.3, 3_057_500),
    }
    paths = [folder / f"{index}.tif" for index in range(number)]
    for index, path in enumerate(paths):
        with rasterio.open(path, "w", **profile) as target:
            target.write(np.full((3, SIDE, SIDE), index % 200, np.uint8))
    return paths


def measure(workers: int, seconds: float, folder: Path) -> tuple[int, float]:
    """Return how many rasters were predicted, and how long it took."""

    def sleep(batch: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return batch[..., :1] / np.float32(255)

    predictor = Predictor(
        name="sleeps",
        predict=sleep,
        band_count=3,
        patch_size=SIDE,
        multiple=1,
        threshold=0.5,
        resolution=0.3,
        digest="sleeps",
    )
    cluster._model_of = lambda model, digest: predictor
    cluster._look = lambda tokens, models: ""
    images = write_rasters(folder, ROUNDS * workers)
    return len(images), predict_all(workers, images, folder / f"out{workers}")


def measure_sharing(workers: int, number: int, folder: Path) -> float:
    """Return the processor time of a raster that nothing is done with, in ms."""
    cluster._predict_unit = lambda unit: (None, [])
    cluster._look = lambda tokens, models: ""
    images = write_rasters(folder, 1) * number
    used = time.process_time()
    predict_all(workers, images, folder / "none")
    return 1000 * (time.process_time() - used) / number


def predict_all(workers: int, images: list[Path], out: Path) -> float:
    """Predict rasters by threads; return the seconds that it took."""
    from distributed import Client, LocalCluster

    threads = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address=None,
    )
    with threads, Client(threads) as client:
        began = time.perf_counter()
        tasks = [
            cluster.Task.plan(
                Orthophoto.read(image),
                products=Products.in_folder(out, image.stem),
                model=Path("sleeps"),
                digest="sleeps",
                settings={"engine": "keras", "overlap": 0, "batch": 1},
            )
            for image in images
        ]
        for _, result in cluster.predict_on_workers(client, tasks):
            if isinstance(result, Exception):
                raise result
        return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print(
        "| workers | rasters | model, s | all, s | efficiency, % | CPU a raster, ms |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for workers in arguments.workers:
        used = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            rasters, took = measure(workers, arguments.seconds, Path(folder))
        used = time.process_time() - used
        slept = rasters * arguments.seconds / workers
        print(
            f"| {workers} | {rasters} | {arguments.seconds:g} | {took:.1f} "
            f"| {100 * slept / took:.0f} | {1000 * used / rasters:.0f} |",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        cost = measure_sharing(8, 2000, Path(folder))
    print(f"client and scheduler alone: {cost:.1f} ms of processor time a raster")


if __name__ == "__main__":
    main()
