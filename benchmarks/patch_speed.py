"""How fast patches come, beside what others do, and what they cost a training.

    python benchmarks/patch_speed.py

Prints the tables of `RESULTS.md`: medians of several rounds in one run, in each of
which every way takes its turn, so that what else the machine does falls on all alike.
"""

import platform
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import keras
import numpy as np
import rasterio
from rasterio.windows import Window

from bdloss.data.augment import augmentation
from bdloss.data.cache import StoredArray, load_cached
from bdloss.data.patches import Patches
from bdloss.data.scenes import Scene, SceneData
from bdloss.losses import CombinedLoss
from bdloss.models import build_model

SIDE = 5000  # pixels, a tile of INRIA
STRIP = 2  # rows, as in INRIA's files
PATCH = 512  # pixels
BATCH = 8
GDAL_CACHE = 16  # MB; GDAL's own would hold all of one tile, but not 155 of them
ROUNDS = 5
TURN = 1.0  # seconds, at least, that a way has in a round
TRAINED = 256  # side of the patches of the training, pixels
STEPS = 4  # batches in an epoch of the training
SCENES = 155  # INRIA's training split
EPOCHS = 4  # of reading from all of them


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            measure_patches(Path(folder))
        measure_memory(Path(folder))
    measure_training()


def write_tile(folder: Path, compress: str) -> Scene:
    """Write a textured tile and its mask as TIFFs in strips."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (3, SIDE // 50, SIDE // 50), np.uint8)
    pixels = coarse.repeat(50, axis=1).repeat(50, axis=2)
    pixels += random.integers(0, 56, pixels.shape, np.uint8)
    mask = (pixels[:1] > 120).astype(np.uint8) * 255
    paths = []
    for name, bands in (("image", pixels), ("mask", mask)):
        paths.append(folder / f"{compress}_{name}.tif")
        profile = {"count": len(bands), "height": SIDE, "width": SIDE}
        with rasterio.open(
            paths[-1],
            "w",
            driver="GTiff",
            dtype="uint8",
            interleave="pixel",
            blockysize=STRIP,
            compress=compress,
            **profile,
        ) as target:
            target.write(bands)
    return Scene(compress, *paths)


def read_by_rasterio(scene: Scene, whole: bool) -> Callable[[int], tuple]:
    """Return what cuts a random patch out of a window, or out of the whole tile."""
    image, mask = rasterio.open(scene.image), rasterio.open(scene.truth)

    def cut(seed: int) -> tuple:
        row, col = np.random.default_rng(seed).integers(SIDE - PATCH + 1, size=2)
        if whole:
            part = (..., slice(row, row + PATCH), slice(col, col + PATCH))
            read = [source.read()[part] for source in (image, mask)]
        else:
            window = Window(col, row, PATCH, PATCH)
            read = [source.read(window=window) for source in (image, mask)]
        return np.ascontiguousarray(np.moveaxis(read[0], 0, -1)), read[1][0]

    return cut


def measure_patches(folder: Path) -> None:
    scene = write_tile(folder, "none")
    packed = write_tile(folder, "deflate")
    cached = [load_cached(scene, folder / "cache")]
    seeds = count()

    def patches(strength: str) -> Callable[[int], tuple]:
        made = Patches(
            cached, PATCH, BATCH, steps=10**6, augment=augmentation(strength)
        )
        return lambda seed: made[seed]

    ways: dict[str, tuple[Callable, int, int]] = {  # how, patches at once, workers
        "whole tile, rasterio": (read_by_rasterio(scene, whole=True), 1, 1),
        "window of strips, rasterio": (read_by_rasterio(scene, whole=False), 1, 1),
        "window of deflated strips": (read_by_rasterio(packed, whole=False), 1, 1),
    }
    for strength, name in (("none", "plain"), ("light", "light"), ("strong", "strong")):
        for workers in (1, 2):
            ways[f"ours, {name}, {workers} worker{'s' * (workers - 1)}"] = (
                *(patches(strength), BATCH),
                workers,
            )
    block = bytes(2**22)
    for workers, name in ((1, "1 worker"), (2, "2 workers")):
        # What the machine gives two threads that need no lock of Python.
        ways[f"ours, checksums, {name}"] = (lambda seed: zlib.crc32(block), 1, workers)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (take, size, workers) in ways.items():
            started = time.perf_counter()

            def work(take: Callable, started: float) -> int:
                taken = 0
                while time.perf_counter() - started < TURN:
                    take(next(seeds))
                    taken += 1
                return taken

            with ThreadPoolExecutor(workers) as pool:
                works = [pool.submit(work, take, started) for _ in range(workers)]
            taken = size * sum(done.result() for done in works)
            elapsed = time.perf_counter() - started
            rates[name].append(taken / elapsed)
    plain = rates["ours, plain, 1 worker"]
    print("| patches of 512 x 512 | a second | ours, plain, is so many times as fast |")
    print("|---|---|---|")
    for name, values in rates.items():
        if "checksums" in name:
            continue
        times = statistics.median(a / b for a, b in zip(plain, values, strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {times:.1f} |")
    for name in ("plain", "light", "strong", "checksums"):
        one, two = (rates[f"ours, {name}, {w}"] for w in ("1 worker", "2 workers"))
        times = statistics.median(b / a for a, b in zip(one, two, strict=True))
        print(f"\n{name}: two workers give {times:.2f} times one", end="")
    print("\n")


def measure_memory(folder: Path) -> None:
    """Read at random from as many scenes as INRIA trains on, in sparse files."""
    scenes = []
    for i in range(SCENES):
        arrays = []
        for name, shape in (("pixels", (SIDE, SIDE, 3)), ("mask", (SIDE, SIDE))):
            path = folder / f"{i}_{name}.npy"
            with path.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + int(np.prod(shape)))
            arrays.append(StoredArray(path, Scene("", path, path), shape))
        scenes.append(SceneData(*arrays))
    made = Patches(scenes, PATCH, BATCH, steps=SCENES, augment=augmentation("strong"))
    print(f"{SCENES} scenes of {SIDE} x {SIDE} x 3, {SCENES * BATCH} patches an epoch")
    print("| after epoch | resident memory, MB |\n|---|---|")
    for made.epoch in range(EPOCHS):
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(lambda index: made[index][1].sum(), range(len(made))):
                pass
        print(f"| {made.epoch + 1} | {resident() / 1e6:.0f} |")
    print()


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


class OneBatch(keras.utils.PyDataset):
    """The same batch again and again."""

    def __init__(self, batch: tuple, steps: int):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple:
        return self.batch


def measure_training() -> None:
    """Train on our patches and on one constant batch, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        scene = load_cached(write_tile(Path(folder), "none"), Path(folder) / "cache")
        fed = Patches(
            [scene],
            TRAINED,
            BATCH,
            steps=STEPS,
            augment=augmentation("strong"),
            workers=2,
        )
        feeds = {"constant": OneBatch(fed[0], STEPS), "fed": fed}
        model = build_model("convnn")
        model.compile("adam", CombinedLoss("boundary", w=0.3), jit_compile=False)
        seconds: dict[str, list[float]] = {name: [] for name in feeds}
        for turn in range(ROUNDS + 1):
            for name, feed in feeds.items():
                started = time.perf_counter()
                model.fit(feed, epochs=1, shuffle=False, verbose=0)
                if turn:  # the first one traces
                    seconds[name].append((time.perf_counter() - started) / STEPS)
    pairs = zip(seconds["fed"], seconds["constant"], strict=True)
    times = statistics.median(a / b for a, b in pairs)
    print(f"| ConvNN, {BATCH} x {TRAINED} x {TRAINED} | ms a step |\n|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values) * 1e3:.0f} |")
    print(f"\na step fed takes {times:.2f} times one on a constant batch")


if __name__ == "__main__":
    main()
