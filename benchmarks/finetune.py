"""What a few labelled houses are worth, from three beginnings.

    python benchmarks/finetune.py MODEL --out runs/finetune > table.md

MODEL knows houses of other towns, and has not seen Banepa. Squares of the sample's
training scene that show so many houses are what is labelled: at a place drawn anew for
each seed (for the smallest number at several). A network begins there from MODEL, by
`configs/folder.toml`; from ImageNet weights of its encoder; and from nothing, these two
with the learning rate of a training from nothing and as many steps. Scores are of the
sample's test scene. Runs that are there are kept, so it goes on when it was stopped.
"""

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rasterio
import shapely
from scipy import stats

from bdloss.data.folder import read_folder
from bdloss.data.scenes import load_scene
from bdloss.evaluation import scoring
from bdloss.files import atomic_path
from bdloss.geo.geobox import geobox_of
from bdloss.geo.vector import read_outlines
from bdloss.geo.windows import Window
from bdloss.models import load_predictor
from bdloss.training import run
from bdloss.training.experiment import Experiment, load_experiment

SAMPLE = Path("samples/banepa")
TRAIN, TEST = "banepa_north", "banepa_south"
HOUSES = (10, 30, 100, None)  # None: all of the scene
SEEDS = (0, 1, 2)
DRAWS = 5  # places of the fewest houses
STEP = 16  # pixels that a square grows by
BEGINNINGS = {
    "MODEL": [],
    "ImageNet": ["model.encoder_weights=imagenet"],
    "nothing": [],
}
FROM_NOTHING = ["model.backbone=lite", "stage.0.learning_rate=2e-3"]
SHOWN = {
    "iou": "IoU",
    "boundary_iou": "Boundary IoU, 3 px",
    "matched_f1": "one-to-one F, 3 px",
    "building_f1": "F1 of buildings",
}


def write_labelled(houses: int | None, seed: int, folder: Path) -> None:
    """Write a folder of a square of the training scene, and of the test scene."""
    with rasterio.open(SAMPLE / "images" / f"{TRAIN}.tif") as source:
        pixels, profile, transform = source.read(), source.profile, source.transform
        box = geobox_of(source)
    height, width = pixels.shape[1:]
    window = Window(0, 0, height, width)
    if houses is not None:
        polygons = read_outlines(SAMPLE / "buildings.geojson", box.crs)
        middles = shapely.get_coordinates(shapely.centroid(polygons))
        columns, rows = ~transform @ middles.T
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        random = np.random.default_rng((seed, houses))
        row, column = random.random() * height, random.random() * width
        reach = np.maximum(abs(rows[inside] - row), abs(columns[inside] - column))
        half = int(np.sort(reach)[houses - 1]) + STEP
        top, left = max(0, int(row) - half), max(0, int(column) - half)
        bottom, right = min(height, int(row) + half), min(width, int(column) + half)
        window = Window(top, left, bottom - top, right - left)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    profile.update(
        width=window.width,
        height=window.height,
        transform=transform @ rasterio.Affine.translation(window.col, window.row),
        compress="deflate",
        photometric="rgb",
    )
    with rasterio.open(folder / "images" / "labelled.tif", "w", **profile) as target:
        target.write(pixels[:, *window.slices])
    shutil.copy(SAMPLE / "images" / f"{TEST}.tif", folder / "images")
    shutil.copy(SAMPLE / "buildings.geojson", folder)


def make_experiment(beginning: str, data: Path, model: Path, seed: int) -> Experiment:
    """Return the experiment of a beginning."""
    sets = ["dataset.test=['banepa_south']", "dataset.contact=2", "prediction.tta=flips"]
    start = model if beginning == "MODEL" else None
    if start is None:
        sets += ["model={}", *FROM_NOTHING, *BEGINNINGS[beginning]]
    overrides = {"dataset.root": data, "seed": seed}
    return load_experiment("folder", None, overrides, sets, start)[1]


def score_start(model: Path) -> dict:
    """Score the model as it is on the test scene."""
    _, experiment = load_experiment("folder", None, {"dataset.root": SAMPLE}, start=model)
    predictor = load_predictor(model)
    (scene,) = read_folder(SAMPLE, 0, [TEST]).test
    data = load_scene(scene)
    settings = experiment.prediction.model_copy(update={"tta": "flips"})
    experiment = experiment.model_copy(update={"prediction": settings})
    targets = predictor.targets
    pred = run.predict_mask(experiment, predictor.predict, targets, data.pixels)
    return scoring.score_masks([(data.mask, pred)]).as_json()


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a model that has not seen Banepa")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--only", choices=BEGINNINGS, help="train this beginning only")
    args = parser.parse_args()
    found: dict[tuple[str, int | None], list[dict]] = {}
    for houses in HOUSES:
        draws = DRAWS if houses == min(filter(None, HOUSES)) else 1
        for beginning in BEGINNINGS:
            for seed in SEEDS:
                for draw in range(draws):
                    name = f"{houses or 'all'}_{beginning}_{seed}_{draw}"
                    folder = args.out / name
                    if draw and beginning != "MODEL":
                        continue
                    result = folder / "metrics.json"
                    if not result.exists() and args.only in (None, beginning):
                        data = args.out / f"data_{houses or 'all'}_{seed}_{draw}"
                        write_labelled(houses, 100 * draw + seed, data)
                        made = make_experiment(beginning, data, args.model, seed)
                        run.train(made, folder, verbose=0)
                    if result.exists():
                        test = json.loads(result.read_text())["test"]
                        found.setdefault((beginning, houses), []).append(test)
    start = score_start(args.model)
    print("| houses | from | runs |", " | ".join(SHOWN.values()), "|")
    print("| ---: | --- | ---: |", " | ".join("---:" for _ in SHOWN), "|")
    values = " | ".join(f"{100 * start[key]:.1f}" for key in SHOWN)
    print(f"| 0 | MODEL | 1 | {values} |")
    for (beginning, houses), rows in found.items():
        cells = []
        for key in SHOWN:
            values = [100 * row[key] for row in rows]
            reach = (
                stats.t.ppf(0.975, len(values) - 1)
                * statistics.stdev(values)
                / len(values) ** 0.5
                if len(values) > 1
                else float("nan")
            )
            cells.append(f"{statistics.fmean(values):.1f} ± {reach:.1f}")
        print(f"| {houses or 'all'} | {beginning} | {len(rows)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
