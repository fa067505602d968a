"""Whole programs side by side: a raster in, a map out, by networks of equal size.

    python benchmarks/peers.py --environments peers [--side 3000] [--programs keras]

Each program predicts the same raster with a U-Net on ResNet34, of random weights, in
windows of 512 pixels that overlap by 128, four at a time: `bdloss predict` with each
engine that is installed, geoai's `semantic_segmentation`, torchgeo's grid sampler in
the loop that its tutorials show, whose maps are averaged where windows overlap and
written by rasterio, raster-vision's learner with its labels of probabilities, as in its
tutorials, and orthoseg's `predict_layer`, whose tiles rasterio puts together: they tell
building or not, no probability. Programs take turns; medians of seconds, of processor
time and of the peak of memory (of the largest process) are shown, start-up included,
and how much larger the steps of probability are across edges of windows than elsewhere.

Peers live in environments of their own, which are made of PyPI if they are not there
(that of geoai takes half an hour). That of orthoseg is made for Debian 12, with
libgdal-dev, libsqlite3-mod-spatialite, python3-dev and python3-venv.
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

import numpy as np
import rasterio
from predict_speed import make_raster

from bdloss.constants import EXACT_ENGINES

WINDOW, OVERLAP, BATCH = 512, 128, 4
ROUNDS = 3
PEERS = {  # builds for CPUs
    "torchgeo": ["torch==2.13.0", "torchgeo==0.8.1", "requests"],
    "geoai": ["torch==2.13.0", "geoai-py==0.40.1"],
    "rastervision": [
        "torch==2.13.0",
        "rastervision_core==0.31.1",
        "rastervision_pytorch_learner==0.31.1",
        "segmentation_models_pytorch==0.6.0",
    ],
    "orthoseg": [
        "orthoseg==0.7.1",
        "gdal==3.6.2",  # as libgdal
        "geofileops==0.10.2",  # the last one for it
        "pandas<3",
        "tensorflow==2.21.0",
        # Beside TensorFlow, two libgdal in a process crash it: there is to be one.
        "rasterio==1.4.4",
        "pyogrio==0.11.1",
        "--no-binary=rasterio,pyogrio",
    ],
}
PYTHONS = {"orthoseg": "/usr/bin/python3"}  # whose SQLite loads SpatiaLite
ENGINES = [engine for engine in EXACT_ENGINES if importlib.util.find_spec(engine)]
WITHOUT_CUDA = """
import sys
import torch
try:
    import torchvision
except RuntimeError:  # built for CUDA, which this torch is not; nothing here uses it
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor boxes, Tensor scores, float most) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
"""
GEOAI = """
from geoai.train import get_smp_model, semantic_segmentation

path, out, likely, window, overlap, batch = *sys.argv[1:4], *map(int, sys.argv[4:])
torch.save(get_smp_model(encoder_weights=None).state_dict(), out + ".pth")
how = {"window_size": window, "overlap": overlap, "batch_size": batch}
semantic_segmentation(path, out, out + ".pth", probability_path=likely, **how)
"""
TORCHGEO = """
import numpy as np, rasterio
import segmentation_models_pytorch as smp
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler

path, out, likely, window, overlap, batch = *sys.argv[1:4], *map(int, sys.argv[4:])
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
profile.update(dtype="float32")
with rasterio.open(likely, "w", **profile) as target:
    target.write(total / np.maximum(count, 1), 1)
"""
RASTERVISION = """
from pathlib import Path
import segmentation_models_pytorch as smp
from rastervision.core.data import ClassConfig, SemanticSegmentationSmoothLabels
from rastervision.pytorch_learner import (
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationSlidingWindowGeoDataset,
    SolverConfig,
)

path, out, likely, window, overlap, batch = *sys.argv[1:4], *map(int, sys.argv[4:])
classes = ClassConfig(names=["background", "building"], null_class="background")
windows = {"size": window, "stride": window - overlap}
data = SemanticSegmentationSlidingWindowGeoDataset.from_uris(path, **windows)
settings = SemanticSegmentationLearnerConfig(
    data=SemanticSegmentationGeoDataConfig(class_config=classes, num_workers=0),
    solver=SolverConfig(batch_sz=batch),
)
model = smp.Unet("resnet34", encoder_weights=None, classes=2)
learner = SemanticSegmentationLearner(settings, model=model, training=False)
labels = SemanticSegmentationSmoothLabels.from_predictions(
    data.windows,
    learner.predict_dataset(data, numpy_out=True),
    extent=data.scene.extent,
    num_classes=2,
)
folder = Path(out).with_suffix("")
labels.save(str(folder), data.scene.raster_source.crs_transformer, classes)
(folder / "labels.tif").rename(out)
(folder / "scores.tif").rename(likely)
"""
ORTHOSEG = """
import shutil
import sys
from pathlib import Path
import geofileops  # before TensorFlow, after which SpatiaLite crashes
import rasterio
from orthoseg.lib.predicter import predict_layer
from orthoseg.model.model_factory import get_model
from orthoseg.util.image_util import FileLayerSource
from rasterio.merge import merge

path, out, _, window, overlap, batch = *sys.argv[1:4], *map(int, sys.argv[4:])
shutil.rmtree(Path(out).with_suffix(""), ignore_errors=True)  # or it is done already
with rasterio.open(path) as source:
    bounds, crs, side = source.bounds, source.crs.to_string(), source.res[0]
layer = {
    "layername": "town",
    "layersources": FileLayerSource(path, ["town"]),
    "projection": crs,
    "bbox": tuple(bounds),
    "roi_filepath": None,
    "grid_xmin": bounds.left,
    "grid_ymin": bounds.bottom,
    "image_format": "image/tiff",
    "image_pixels_ignore_border": 0,
}
predict_layer(
    get_model("resnet34+unet", window, window, 3, 1, "sigmoid", None),
    layer,
    image_pixel_x_size=side,
    image_pixel_y_size=side,
    image_pixel_width=window - overlap,
    image_pixel_height=window - overlap,
    image_pixels_overlap=overlap // 2,  # on each side
    output_image_dir=Path(out).with_suffix(""),
    output_vector_path=None,
    classes=["building"],
    min_probability=0,  # of tiles that are written at all
    batch_size=batch,
)
tiles = sorted(Path(out).with_suffix("").rglob("*_pred.tif"))
merge(tiles, bounds=tuple(bounds), res=side, method="max", dst_path=out)
"""
SCRIPTS = {
    "torchgeo": WITHOUT_CUDA + TORCHGEO,
    "geoai": WITHOUT_CUDA + GEOAI,
    "rastervision": WITHOUT_CUDA + RASTERVISION,
    "orthoseg": ORTHOSEG,
}


class Program(NamedTuple):
    """A program, and where it writes its mask and, if it does, its probabilities."""

    command: list[str]
    mask: Path
    probabilities: Path


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
        made_by = PYTHONS.get(name, sys.executable)
        subprocess.run([made_by, "-m", "venv", folder], check=True)
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


def save_network(path: Path, network: str) -> None:
    """Save a network of ours, of random weights."""
    from bdloss.models import build_model, save_model

    model = build_model(network, encoder_weights=None)
    save_model(model, path, {"window": WINDOW, "multiple": 32, "resolution": 0.3})


def our_program(engine: str, image: Path, model: Path) -> Program:
    """Return the program that predicts an image by an engine of ours."""
    out = image.parent / engine
    command = [sys.executable, "-m", "bdloss", "predict", str(image), "--model"]
    command += [str(model), "--overwrite", "--window", str(WINDOW), "--prob"]
    command += ["--overlap", str(OVERLAP), "--batch", str(BATCH), "--out", str(out)]
    maps = (out / f"{image.stem}_{kind}.tif" for kind in ("mask", "prob"))
    return Program([*command, "--engine", engine], *maps)


def peer_program(peer: str, image: Path, environments: Path) -> Program:
    """Return the program that predicts an image by a peer."""
    folder = image.parent
    script = folder / f"{peer}_loop.py"
    script.write_text(SCRIPTS[peer])
    maps = [folder / f"{peer}{kind}.tif" for kind in ("", "_prob")]
    python = find_peer(environments.absolute(), peer)
    words = (python, script, image, *maps, WINDOW, OVERLAP, BATCH)
    return Program([str(word) for word in words], *maps)


def measure_seams(path: Path) -> float:
    """Return how many times larger steps across edges of windows are than others.

    Args:
        path: Raster of probabilities, in its last band.
    """
    with rasterio.open(path) as source:
        values = source.read(source.count).astype(float)
    stride = WINDOW - OVERLAP
    last = min(values.shape) - WINDOW - stride  # the last windows may lie elsewhere
    begins = np.arange(stride, last, stride)
    edges = np.concatenate([begins, begins - stride + WINDOW])
    ratios = []
    for axis in (0, 1):
        means = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)[: last + WINDOW]
        others = np.delete(means, edges - 1)
        ratios.append(means[edges - 1].mean() / others.mean())
    return float(np.mean(ratios))


def main() -> None:
    """Print the table."""
    every = [*ENGINES, *SCRIPTS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=Path, default=Path("peers"))
    parser.add_argument("--side", type=int, default=3000, help="pixels")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--programs", nargs="+", choices=every, default=every)
    parser.add_argument("--network", default="resnet34", help="of ours")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        image, model = Path(name) / "town.tif", Path(name) / "model.keras"
        make_raster(image, arguments.side)
        save_network(model, arguments.network)
        programs: dict[str, Program] = {}
        for named in arguments.programs:
            if named in ENGINES:
                programs[f"bdloss, {named}"] = our_program(named, image, model)
            else:
                programs[named] = peer_program(named, image, arguments.environments)
        taken: dict[str, list[Usage]] = {named: [] for named in programs}
        for _ in range(arguments.rounds):
            for named, program in programs.items():
                taken[named].append(measure(program.command))
        seams: dict[str, str] = {}
        for named, program in programs.items():
            if program.probabilities.exists():
                seams[named] = f"{measure_seams(program.probabilities):.2f}"
            with rasterio.open(image) as source, rasterio.open(program.mask) as made:
                assert (source.transform, source.crs) == (made.transform, made.crs)
    print("| program | s | processor, s | peak, MB | steps at edges |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for named, usages in taken.items():
        seconds, processor, peak = map(statistics.median, zip(*usages, strict=True))
        cells = f"{seconds:.1f} | {processor:.1f} | {peak:.0f}"
        print(f"| {named} | {cells} | {seams.get(named, '')} |")


if __name__ == "__main__":
    main()
