"""Speed and memory of prediction over rasters.

    python benchmarks/predict_speed.py

prints what stands in RESULTS.md: megapixels a second of the whole way from raster to
mask against the bare calls of the model on the same windows, with and without
test-time augmentation, on each backend of Keras that is installed; and the most memory
against the size of the raster, with a model that does nothing, for what is made of its
rows: a mask; outlines; a margin around them; scores; and a page to look at. Each figure
comes from a process of its own.
"""

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rasterio

from bdloss.geo.windows import Window, starts
from bdloss.inference import Products, predict_raster

SIDES = (2_000, 5_000, 10_000, 20_000)  # pixels, of the rasters for memory
WINDOW, OVERLAP, BATCH = 512, 128, 4
TILE = 512  # pixels
# Pixels, of the rasters for speed: 14 windows each way, 7 where they are seen often.
SPEED_SIDES = {"none": 5_504, "flips": 2_816, "d4": 2_816}
ASKED = {"none": 1, "flips": 4, "d4": 8}  # times that the model sees a window
ROUNDS = 3
MADE = (  # in this order: outlines are what is scored against
    "mask",
    "outlines",
    "margin by distance",
    "margin by probability",
    "page",
    "margin by distance, page",
    "score",
    "score, page",
)
BACKENDS = ("tensorflow", "jax", "torch", "openvino")


def make_raster(path: Path, side: int, width: int = 0, sparse: bool = False) -> None:
    """Write a raster of noise and blocks, square unless it has another width.

    Of a sparse one every twentieth tile is there, each way.
    """
    random = np.random.default_rng(1)
    tile = random.integers(1, 200, (3, TILE, TILE), np.uint8)
    for row in range(20, TILE, 128):  # 16 houses on 2.4 hectares
        for col in range(15, TILE, 128):
            tile[:, row : row + 50, col : col + 70] = 230
    width = width or side
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 3,
        "height": side,
        "width": width,
        "crs": "EPSG:32645",
        "transform": rasterio.Affine(0.3, 0, 353_900, 0, -0.3, 3_057_500),
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "bigtiff": "if_safer",
        **({"nodata": 0, "sparse_ok": True} if sparse else {}),
    }
    step = TILE * (20 if sparse else 1)
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, side, step):
            for col in range(0, width, step):
                sides = min(TILE, width - col), min(TILE, side - row)
                place = rasterio.windows.Window(col, row, *sides)
                target.write(tile[:, : sides[1], : sides[0]], window=place)


def pointwise(batch: np.ndarray) -> np.ndarray:
    """A model that costs nothing."""
    return batch[..., :1] / np.float32(255)


def measure_memory(path: Path, made: str) -> None:
    """Print processor time, the peak of memory, that of imports, and of a page."""
    began, imports = time.process_time(), peak()
    page = path.with_suffix(".html")
    if made == "mask":
        predict_raster(path, pointwise, path.with_suffix(".mask.tif"), threshold=0.85)
    else:
        make_products(path, made, page)
    seconds = time.process_time() - began
    size = page.stat().st_size / 1e6 if page.exists() else 0
    print(f"{seconds:.1f} {peak():.0f} {imports:.0f} {size:.1f}")


def peak() -> float:
    """Return the most memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_products(path: Path, made: str, page: Path) -> None:
    """Predict a raster with outlines, and what else is to be made."""
    from bdloss.evaluation.predictions import PredictionScores
    from bdloss.geo.orthophoto import Orthophoto
    from bdloss.inference.margin import DISTANCE, PROBABILITY, Margin
    from bdloss.models import Predictor
    from bdloss.report.prediction import write_report

    digest = "of pointwise"
    predictor = Predictor(
        name="pointwise",
        predict=pointwise,
        band_count=3,
        patch_size=WINDOW,
        multiple=1,
        threshold=0.85,
        resolution=0.3,
        digest=digest,
    )
    margin = None
    if "margin" in made:
        margin = Margin(
            radius=0.9, doubt=0.1, alpha=0.1, unit="scene", units=12, model=digest
        )
    truth = path.parent / f"{path.stem}_outlines" / f"{path.stem}_buildings.gpkg"
    by = PROBABILITY if "probability" in made else DISTANCE
    products = Products.in_folder(
        path.parent / f"{path.stem}_{made}", path.stem, margin=margin, margin_by=by
    )
    predict_raster(path, predictor, products)
    judged = None
    if "score" in made:
        judged = PredictionScores(truth).add(
            Orthophoto.read(path),
            products.mask,
            products.polygons,
            judge="page" in made,
        )
    if "page" in made:
        known = {"truth": truth} if "score" in made else {}
        write_report(products.as_prediction(path, **known), page, judged)


def measure_speed(path: Path, tta: str) -> None:
    """Print seconds of the bare calls and of the whole way, the same model; a ratio."""
    from bdloss.models import build_model

    model = build_model("convnn", blocks=4)
    with rasterio.open(path) as source:
        pixels = np.moveaxis(source.read(), 0, -1)
    across = starts(SPEED_SIDES[tta], WINDOW, WINDOW - OVERLAP)
    places = [Window(row, col, WINDOW, WINDOW) for row in across for col in across]
    patches = [np.ascontiguousarray(pixels[place.slices]) for place in places]
    patches += patches[-1:] * (-len(patches) % BATCH)
    batches = [np.stack(patches[i : i + BATCH]) for i in range(0, len(patches), BATCH)]
    model.predict_on_batch(batches[0])
    bare, whole = [], []
    for _ in range(ROUNDS):  # in turns, since other work may come and go
        began = time.perf_counter()
        for batch in batches:
            for _ in range(ASKED[tta]):
                model.predict_on_batch(batch)
        bare.append(time.perf_counter() - began)
        began = time.perf_counter()
        predict_raster(
            path,
            model.predict_on_batch,
            path.with_suffix(".mask.tif"),
            window=WINDOW,
            overlap=OVERLAP,
            batch=BATCH,
            tta=tta,
            overwrite=True,
        )
        whole.append(time.perf_counter() - began)
    ratio = np.median(np.divide(whole, bare))
    print(f"{np.median(bare):.1f} {np.median(whole):.1f} {ratio:.2f}")


def ask(*words: object, backend: str = "tensorflow") -> list[float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, *(str(word) for word in words)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measure", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "--sides",
        nargs="*",
        default=[str(side) for side in SIDES],
        help="Of the rasters for memory: 5000, 4000x200000, 100000x100000-sparse.",
    )
    parser.add_argument("--made", nargs="*", default=MADE, choices=MADE)
    parser.add_argument("--tta", nargs="*", default=list(ASKED), choices=list(ASKED))
    parser.add_argument(
        "--backends",
        nargs="+",
        default=[name for name in BACKENDS if importlib.util.find_spec(name)],
        help="Of Keras; the first is measured at each --tta, the others at the first.",
    )
    arguments = parser.parse_args()
    if arguments.measure:
        kind, path, setting = arguments.measure
        if kind == "memory":
            measure_memory(Path(path), setting)
        else:
            measure_speed(Path(path), setting)
        return
    with tempfile.TemporaryDirectory() as folder:
        print("| backend | TTA | Mpx | bare, s | raster to mask, s | ratio | Mpx/s |")
        print("|---|---|---|---|---|---|---|", flush=True)
        first, *others = arguments.backends
        rows = [(first, tta) for tta in arguments.tta]
        rows += [(backend, tta) for backend in others for tta in arguments.tta[:1]]
        for backend, tta in rows:
            path = Path(folder) / f"{SPEED_SIDES[tta]}.tif"
            make_raster(path, SPEED_SIDES[tta])
            bare, whole, ratio = ask("speed", path, tta, backend=backend)
            size = SPEED_SIDES[tta] ** 2 / 1e6
            print(
                f"| {backend} | {tta} | {size:.0f} | {bare} | {whole} | {ratio:.2f} "
                f"| {size / whole:.2f} |",
                flush=True,
            )
        print("\n| height x width | made | CPU, s | peak, MB | of imports | page, MB |")
        print("| ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
        for side in arguments.sides:
            path = Path(folder) / f"{side}.tif"
            size, _, sparse = side.partition("-")
            make_raster(path, *map(int, size.split("x")), sparse=bool(sparse))
            for made in arguments.made:
                seconds, most, imports, page = ask("memory", path, made)
                shown = f"{page}" if page else ""
                print(
                    f"| {side} | {made} | {seconds} | {most:.0f} | {imports:.0f} "
                    f"| {shown} |",
                    flush=True,
                )
                path.with_suffix(".html").unlink(missing_ok=True)
            path.unlink()


if __name__ == "__main__":
    main()
