"""What a few labelled houses are worth, from three beginnings.

    python benchmarks/finetune.py MODEL --out runs/finetune > table.md

MODEL knows houses of other towns and has not seen Banepa. What is labelled is a square
of the sample's training scene that shows so many houses, at a place drawn anew for each
seed (with the fewest houses at several). A network begins there with MODEL, by
`configs/folder.toml`; with ImageNet weights of its encoder; and with nothing, these two
at the learning rate of a training from nothing, with as many steps. Scores are of the
sample's test scene without flips, in percent: mean and 95 % interval. Runs that are
there are kept, so it goes on when it was stopped.
"""

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rasterio
import shapely
from scipy import stats

from bdloss.data.folder import read_folder
from bdloss.data.scenes import load_scene
from bdloss.evaluation import scoring
from bdloss.geo.vector import read_outlines
from bdloss.geo.windows import Window
from bdloss.models import load_predictor
from bdloss.training import run as training
from bdloss.training.experiment import Experiment, load_experiment

SAMPLE = Path("samples/banepa")
TRAIN, TEST = "banepa_north", "banepa_south"
HOUSES = (10, 30, 100, 0)  # 0: all of the scene
SEEDS = (0, 1, 2)
DRAWS = 5  # places of the fewest houses
MARGIN = 16  # pixels around the houses
COMMON = [f"dataset.test=['{TEST}']", "dataset.contact=2"]
FROM_NOTHING = [
    *("model.start=", "model.backbone=lite"),
    *("stage.0.learning_rate=2e-3", "stage.0.trainable=all"),
]
BEGINNINGS = {  # what is set
    "MODEL": [],
    "ImageNet": [*FROM_NOTHING, "model.encoder_weights=imagenet"],
    "nothing": FROM_NOTHING,
}
SHOWN = {
    "iou": "IoU",
    "boundary_iou": "Boundary IoU, 3 px",
    "matched_f1_3": "one-to-one F, 3 px",
    "building_f1": "F1 of buildings",
}


class Run(NamedTuple):
    """A training: from what, on how many houses, where, and its seed."""

    beginning: str
    houses: int
    seed: int
    draw: int

    def folder(self, out: Path) -> Path:
        """Return its run folder."""
        return out / "_".join(map(str, self))


def plan() -> Iterator[Run]:
    """Yield all trainings, those of few houses first."""
    for houses in HOUSES:
        for beginning in BEGINNINGS:
            several = houses == HOUSES[0] and beginning == "MODEL"
            for draw in range(DRAWS if several else 1):
                yield from (Run(beginning, houses, seed, draw) for seed in SEEDS)


def draw_square(source: rasterio.DatasetReader, run: Run) -> Window:
    """Return the smallest square around a place that shows so many houses."""
    if not run.houses:
        return Window(0, 0, source.height, source.width)
    polygons = read_outlines(SAMPLE / "buildings.geojson", source.crs)
    middles = shapely.get_coordinates(shapely.centroid(polygons))
    columns, rows = ~source.transform @ middles.T
    inside = (columns >= 0) & (columns < source.width)
    inside &= (rows >= 0) & (rows < source.height)
    random = np.random.default_rng((run.seed, run.houses, run.draw))
    row, column = (int(side) for side in random.random(2) * source.shape)
    reach = np.maximum(abs(rows[inside] - row), abs(columns[inside] - column))
    half = int(np.sort(reach)[run.houses - 1]) + MARGIN
    top, left = max(0, row - half), max(0, column - half)
    bottom, right = min(source.height, row + half), min(source.width, column + half)
    return Window(top, left, bottom - top, right - left)


def write_labelled(run: Run, folder: Path) -> None:
    """Write a folder of what is labelled, and of the test scene."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    with rasterio.open(SAMPLE / "images" / f"{TRAIN}.tif") as source:
        square = draw_square(source, run)
        place = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": source.count,
            "height": square.height,
            "width": square.width,
            "crs": source.crs,
            "transform": source.transform
            @ rasterio.Affine.translation(square.col, square.row),
        }
        pixels = source.read()[:, *square.slices]
    with rasterio.open(images / "labelled.tif", "w", **place) as target:
        target.write(pixels)
    shutil.copy(SAMPLE / "images" / f"{TEST}.tif", images)
    shutil.copy(SAMPLE / "buildings.geojson", folder)


def make_experiment(run: Run, data: Path, model: Path) -> Experiment:
    """Return the experiment of a run."""
    sets = [*COMMON, *BEGINNINGS[run.beginning]]
    if run.beginning == "MODEL":
        sets.append(f"model.start={model}")
    overrides = {"dataset.root": data, "seed": run.seed}
    return load_experiment("folder", None, overrides, sets)[1]


def score_start(model: Path) -> dict:
    """Score the model as it is on the test scene."""
    experiment = make_experiment(Run("MODEL", 0, 0, 0), SAMPLE, model)
    predictor = load_predictor(model)
    (scene,) = read_folder(SAMPLE, 0, [TEST]).test
    data = load_scene(scene)
    maps = predictor.targets
    mask = training.predict_mask(experiment, predictor.predict, maps, data.pixels)
    return scoring.score_masks([(data.mask, mask)]).as_json()


def show_mean(values: list[float]) -> str:
    """Return a mean, and its 95 % interval if there are several."""
    mean, number = statistics.fmean(values), len(values)
    if number < 2:
        return f"{mean:.1f}"
    error = statistics.stdev(values) / number**0.5
    return f"{mean:.1f} ± {stats.t.ppf(0.975, number - 1) * error:.1f}"


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="one that has not seen Banepa")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--part", default="1/1", metavar="I/N", help="of the runs")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    for run in list(plan())[part - 1 :: parts]:
        folder = run.folder(args.out)
        if not (folder / "metrics.json").exists():
            data = args.out / "data" / folder.name
            write_labelled(run, data)
            training.train(make_experiment(run, data, args.model), folder, verbose=0)
    rows = {("none", 0): [score_start(args.model)]}
    for run in plan():
        result = run.folder(args.out) / "metrics.json"
        if result.exists():  # else of another part
            test = json.loads(result.read_text())["test"]
            rows.setdefault((run.beginning, run.houses), []).append(test)
    print("| houses | from | runs |", " | ".join(SHOWN.values()), "|")
    print("| ---: | --- | ---: |", " | ".join("---:" for _ in SHOWN), "|")
    for (beginning, houses), tests in rows.items():
        values = [[100 * test[key] for test in tests] for key in SHOWN]
        labelled = "0" if beginning == "none" else houses or "all"
        start = "MODEL as it is" if beginning == "none" else beginning
        cells = " | ".join(map(show_mean, values))
        print(f"| {labelled} | {start} | {len(tests)} | {cells} |")


if __name__ == "__main__":
    main()
