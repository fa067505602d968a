"""Whole programs side by side: a raster in, a map out, by networks of equal size.

    python benchmarks/peers.py --environments peers [--side 3000]

Each program predicts the same raster with a U-Net on ResNet34, of random weights, in
windows of 512 pixels that overlap by 128, four at a time: `bdloss predict` with each
engine that is installed, and torchgeo's grid sampler in the loop that its tutorials
show, whose maps are averaged where windows overlap and written by rasterio. Peers live
in environments of their own, which are made of PyPI if they are not there. Programs
take turns; medians of seconds, of processor time and of the peak of memory are shown,
start-up included.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rasterio
from predict_speed import make_raster

WINDOW, OVERLAP, BATCH = 512, 128, 4
ROUNDS = 3
PEERS = {
    "torchgeo": ["torch==2.13.0", "torchgeo==0.8.1", "requests"]
}  # builds for CPUs
TORCHGEO = """
import sys
import numpy as np, rasterio, torch
try:
    import torchvision
except RuntimeError:  # built for CUDA, which this torch is not; nothing here uses it
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor boxes, Tensor scores, float most) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
import segmentation_models_pytorch as smp
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler

path, out, window, overlap, batch = *sys.argv[1:3], *map(int, sys.argv[3:])
model = smp.Unet("resnet34", encoder_weights=None, in_channels=3, classes=1).eval()
with rasterio.open(path) as source:
    profile, transform = source.profile, source.transform
    height, width, side = source.height, source.width, source.res[0]
data = RasterDataset(path)
sampler = GridGeoSampler(data, size=window, stride=window - overlap)
loader = DataLoader(data, batch, sampler=sampler, collate_fn=stack_samples)
total, count = np.zeros((2, height, width), np.float32)
with torch.inference_mode():
    for sample in loader:
        maps = torch.sigmoid(model(sample["image"].float() / 255))[:, 0].numpy()
        for one, bounds in zip(maps, sample["bounds"]):
            x, y = bounds[0].start, bounds[1].stop
            col = round((x - transform.c) / side)
            row = round((transform.f - y) / side)
            part = total[row : row + window, col : col + window]
            part += one[: part.shape[0], : part.shape[1]]
            count[row : row + window, col : col + window] += 1
profile.update(count=1, dtype="uint8", compress="deflate")
with rasterio.open(out, "w", **profile) as target:
    target.write((total > 0.5 * count).astype(np.uint8), 1)
"""


class Usage(NamedTuple):
    """What a program took: seconds, of the processor too; and the peak, MB."""

    seconds: float
    processor: float
    peak: float


def find_peer(environments: Path, name: str) -> Path:
    """Return the Python of a peer's environment, made if it is not there."""
    folder = environments / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "-q", *PEERS[name]]
        subprocess.run(install, check=True)
        (folder / "ready").touch()
    return python


def measure(command: list[str]) -> Usage:
    """Run a program, and return what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(said)
    seconds = time.perf_counter() - began
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def save_network(path: Path) -> None:
    """Save a U-Net on ResNet34 of random weights."""
    from bdloss.models import build_model, save_model

    model = build_model("resnet34", encoder_weights=None)
    save_model(model, path, {"window": WINDOW, "multiple": 32, "resolution": 0.3})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=Path, default=Path("peers"))
    parser.add_argument("--side", type=int, default=3000, help="pixels")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, model = folder / "town.tif", folder / "model.keras"
        make_raster(image, arguments.side)
        save_network(model)
        ours = [sys.executable, "-m", "bdloss", "predict", str(image), "--model"]
        ours += [str(model), "--overwrite", "--window", str(WINDOW)]
        ours += ["--overlap", str(OVERLAP), "--batch", str(BATCH), "--out"]
        engines = ["keras"]
        engines += [
            e for e in ("onnxruntime", "openvino") if importlib.util.find_spec(e)
        ]
        programs = {
            f"bdloss, {engine}": [*ours, str(folder / engine), "--engine", engine]
            for engine in engines
        }
        script = folder / "torchgeo_loop.py"
        script.write_text(TORCHGEO)
        python = find_peer(arguments.environments.absolute(), "torchgeo")
        numbers = map(str, (WINDOW, OVERLAP, BATCH))
        peer_map = folder / "torchgeo.tif"
        programs["torchgeo, a loop"] = [
            *(str(python), str(script), str(image), str(peer_map), *numbers)
        ]
        taken: dict[str, list[Usage]] = {program: [] for program in programs}
        for _ in range(arguments.rounds):
            for program, command in programs.items():
                taken[program].append(measure(command))
        with rasterio.open(image) as source, rasterio.open(peer_map) as made:
            assert (source.transform, source.crs) == (made.transform, made.crs)
    print("| program | s | processor, s | peak, MB |")
    print("| --- | ---: | ---: | ---: |")
    for program, usages in taken.items():
        seconds, processor, peak = map(statistics.median, zip(*usages, strict=True))
        print(f"| {program} | {seconds:.1f} | {processor:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
