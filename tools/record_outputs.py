"""Write down what the commands give, so that two versions of the code can be compared.

python tools/record_outputs.py FOLDER > before.txt
... and after a change that should change nothing:
python tools/record_outputs.py FOLDER > after.txt; diff before.txt after.txt

FOLDER keeps the model, the orthophoto and the scenes, made once; a line is a file and
the digest of what it holds, without times.
"""

import hashlib
import json
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

TRAINING = [
    *("model.filters=2", "model.blocks=1", "patches.size=32", "patches.batch_size=2"),
    *("patches.steps=4", "patches.workers=1", "patches.augment=light"),
    *("dataset.validation=0.4", "weight.policy=search", "weight.first=2"),
    *("weight.every=2", "weight.values=[0.1, 0.9]"),
    "stage=[{epochs=4, learning_rate=1e-2, plateau=1}]",
]
MAPS: dict[str, list[list[str]]] = {
    "windows": [["--overlap", "16"]],
    "flips": [["--tta", "flips", "--prob", "--overlay"]],
    "resolution": [["--resolution", "0.5", "--vector", "geojson"]],
    "shards": [["--shard", "2/2"], ["--shard", "1/2"]],
}


def main(folder: Path) -> None:
    """Run the commands on what lies in a folder; print a line for each file."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.keras").exists():
        _make_inputs(folder)
    out = folder / "out"
    _run("rm", "-rf", str(out))
    town, model = str(folder / "town.tif"), str(folder / "model.keras")
    for name, runs in MAPS.items():
        for options in runs:
            _bdloss("predict", town, "--model", model, "--out", out / name, *options)
        if name == "shards":
            _bdloss("merge", town, "--out", out / name)
    _bdloss("score", out / "flips" / "town_mask.tif", folder / "truth.tif")
    _bdloss("score", folder / "masks", folder / "truths", "--out", out / "scores")
    sets = [word for each in TRAINING for word in ("--set", each)]
    data = ("--dataset", "folder_from_nothing", "--data", folder / "scenes")
    words = ["train", *data, "--out", out / "run", *sets]
    draw = random.Random(3)
    for _ in range(3):  # killed some time after it has begun to learn
        process = subprocess.Popen(_words(*words), stdout=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(12, 20))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    _bdloss(*words)
    for path in sorted(out.rglob("*")):
        if path.is_file() and "logs" not in path.parts:
            sys.stdout.write(f"{path.relative_to(out)} {_digest(path)}\n")


def _make_inputs(folder: Path) -> None:
    import keras

    from bdloss.models import build_model, save_model

    pixels, mask = _scene(1, 400, 300)
    _write(folder / "town.tif", pixels)
    _write(folder / "truth.tif", mask[None])
    for name in "ab":
        pixels, mask = _scene(ord(name), 120, 90)
        _write(folder / "scenes" / "images" / f"{name}.tif", pixels)
        _write(folder / "scenes" / "masks" / f"{name}.tif", mask[None] * 255)
        _write(folder / "truths" / f"{name}.tif", mask[None])
        _write(folder / "masks" / f"{name}_mask.tif", np.roll(mask, 2, axis=0)[None])
    keras.utils.set_random_seed(5)
    model = build_model("plain", filters=4, blocks=2)
    model(np.moveaxis(pixels, 0, -1)[None, :64, :64], training=True)
    settings = {"window": 64, "multiple": 4, "resolution": 0.3, "threshold": 0.5}
    save_model(model, folder / "model.keras", settings)


def _scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(height * width // 1500):
        row, col = random.integers(0, (height - 8, width - 8))
        tall, wide = random.integers(8, 24, 2)
        mask[row : row + tall, col : col + wide] = 1
    pixels = random.normal(70, 12, (3, height, width)) + 110 * mask
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=count,
        height=height,
        width=width,
        crs="EPSG:32645",
        transform=from_origin(353900, 3057500, 0.3, 0.3),
    ) as target:
        target.write(values)


def _words(*words: Any) -> list[str]:
    code = "from bdloss.cli.main import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]


def _bdloss(*words: Any) -> None:
    _run(*_words(*words))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".tif":
        with rasterio.open(path) as source:
            tags = sorted(source.tags().items())
            content = source.read().tobytes() + repr((source.profile, tags)).encode()
    elif path.suffix == ".gpkg":
        from bdloss.geo.ogr import pyogrio

        meta, _, shapes, columns = pyogrio.raw.read(path)
        table = (meta["crs"], list(shapes), [list(column) for column in columns])
        content = repr(table).encode()
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = archive.read("model.weights.h5")
    elif path.name == "metrics.json":
        facts = json.loads(content)
        content = repr([facts.get(part) for part in ("validation", "test")]).encode()
    return hashlib.sha256(content).hexdigest()[:16]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
