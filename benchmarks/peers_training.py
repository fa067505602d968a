"""Whole programs that train on the same scenes, networks of equal size.

    python benchmarks/peers_training.py --environments peers [--rounds 3]

Each program trains a U-Net on ResNet34 of random weights for one epoch on the scenes of
Banepa, in batches of 8 random patches of 256 pixels that are turned, mirrored and made
brighter and darker, which two workers load: `bdloss train`, and torchgeo's
`SemanticSegmentationTask` in a trainer of Lightning, with a data module as its
documentation shows. Both are without validation, and otherwise as they come: ours
minimises BCE + IoU and counts IoU, BF1 and Boundary IoU, torchgeo minimises BCE and
counts IoU and accuracy. The environment of torchgeo is that of `peers.py`.

Epochs of 10 and of 40 batches take turns. Shown are the longer one, from start to end,
with the peak of memory of the process (workers of torchgeo are processes of their own),
and what lies between the two: patches a second, and a second of processor time.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rasterio
from peers import WITHOUT_CUDA, Usage, find_peer, measure

SAMPLE = Path(__file__).parents[1] / "samples" / "banepa"
PATCH, BATCH = 256, 8
STEPS = (10, 40)  # batches an epoch
ROUNDS = 3
EXPERIMENT = """
[dataset]
name = "folder"
validation = 0.0

[model]
backbone = "resnet34"

[loss]
extra = "none"

[[stage]]
epochs = 1
"""
TORCHGEO = """
import kornia.augmentation as K
from lightning.pytorch import Trainer
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import RandomGeoSampler
from torchgeo.trainers import SemanticSegmentationTask

folder, out, patch, batch, steps = *sys.argv[1:3], *map(int, sys.argv[3:])


class Masks(RasterDataset):
    is_image = False


class Town(GeoDataModule):
    def setup(self, stage):
        data = RasterDataset(f"{folder}/images") & Masks(f"{folder}/masks")
        self.train_dataset = data
        self.train_sampler = RandomGeoSampler(data, patch, batch * steps)


town = Town(RasterDataset, batch, patch, num_workers=2)
town.train_aug = K.AugmentationSequential(
    K.Normalize(town.mean, town.std),
    K.RandomHorizontalFlip(),
    K.RandomVerticalFlip(),
    K.RandomRotation90((0, 3)),
    K.RandomBrightness((0.8, 1.2), p=0.5),
    K.RandomContrast((0.8, 1.2), p=0.5),
    data_keys=None,
    keepdim=True,
)
task = SemanticSegmentationTask("unet", "resnet34", task="binary", loss="bce")
task.monitor = "train_loss"  # that of validation is not there
how = {"max_epochs": 1, "limit_val_batches": 0, "default_root_dir": out}
Trainer(accelerator="cpu", **how).fit(task, town)
"""


def write_scenes(folder: Path) -> None:
    """Write the scenes of Banepa with masks, which both programs read."""
    from bdloss.data.folder import read_folder
    from bdloss.data.scenes import load_mask

    shutil.copytree(SAMPLE / "images", folder / "images")
    (folder / "masks").mkdir()
    for scene in read_folder(SAMPLE, validation=0.0).train:
        with rasterio.open(scene.image) as source:
            profile = {"crs": source.crs, "transform": source.transform}
            profile |= {"height": source.height, "width": source.width}
        profile |= {"driver": "GTiff", "count": 1, "dtype": "uint8", "tiled": True}
        path = folder / "masks" / scene.image.name
        with rasterio.open(path, "w", **profile, compress="deflate") as target:
            target.write(load_mask(scene), 1)


def our_command(folder: Path, steps: int) -> list[str]:
    """Return the command of our program that trains so many batches."""
    config = folder / "resnet34.toml"
    config.write_text(EXPERIMENT)
    command = [sys.executable, "-m", "bdloss", "train", "--config", str(config)]
    command += ["--data", str(folder), "--out", str(folder / "ours"), "--fresh"]
    settings = {"size": PATCH, "batch_size": BATCH, "steps": steps, "workers": 2}
    for name, value in settings.items():
        command += ["--set", f"patches.{name}={value}"]
    return command


def torchgeo_command(folder: Path, environments: Path, steps: int) -> list[str]:
    """Return the command of torchgeo that trains so many batches."""
    script = folder / "torchgeo_training.py"
    script.write_text(WITHOUT_CUDA + TORCHGEO)
    python = find_peer(environments.absolute(), "torchgeo")
    words = (python, script, folder, folder / "torchgeo", PATCH, BATCH, steps)
    return [str(word) for word in words]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=Path, default=Path("peers"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scenes(folder)
        cache = folder / "cache"
        os.environ["XDG_CACHE_HOME"] = str(cache)
        commands = {
            "bdloss": [our_command(folder, steps) for steps in STEPS],
            "torchgeo, Lightning": [
                torchgeo_command(folder, arguments.environments, steps)
                for steps in STEPS
            ],
        }
        taken: dict[str, list[list[Usage]]] = {program: [] for program in commands}
        for _ in range(arguments.rounds):
            for program, both in commands.items():
                usages = []
                for command in both:
                    shutil.rmtree(cache, ignore_errors=True)  # as it is the first time
                    usages.append(measure(command))
                taken[program].append(usages)
    patches = BATCH * (STEPS[1] - STEPS[0])
    print("| program | s | processor, s | peak, MB | patches/s | /s of processor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for program, rounds in taken.items():
        whole = [long for _, long in rounds]
        seconds, processor, peak = map(statistics.median, zip(*whole, strict=True))
        rates = [
            statistics.median(patches / (long[i] - short[i]) for short, long in rounds)
            for i in (0, 1)
        ]
        cells = f"{seconds:.1f} | {processor:.1f} | {peak:.0f}"
        print(f"| {program} | {cells} | {rates[0]:.2f} | {rates[1]:.2f} |")


if __name__ == "__main__":
    main()
