"""What a margin is worth on a town that was left out: its coverage and its width.

    python -m paper.cut_towns FOLDER --parts 8 --out runs/town_parts
    python benchmarks/margin.py RUN RUN RUN > table.md

The three runs, in the order of `SITES`, have each not seen one of the sites. Of each
site eight blocks are predicted by the model that has not seen it; the blocks of two
sites are units, and the margin that they give is tried on the third. Blocks of a town
are no draws of towns, so nothing is promised: the table says what that is worth.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from bdloss.data.folder import read_folder
from bdloss.inference.calibration import WallScores, predict_walls
from bdloss.metrics.conformal import conformal_radius, risk
from bdloss.models import load_predictor

SITES = ("banepa", "zanzibar_A", "zanzibar_B")
ALPHAS = (0.3, 0.2, 0.1)


def main() -> None:
    """Predict the blocks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs=len(SITES), type=Path)
    parser.add_argument("--data", type=Path, default=Path("runs/town_parts"))
    args = parser.parse_args()
    scenes = read_folder(args.data, validation=0).train
    blocks: dict[str, list[WallScores]] = {}
    for site, folder in zip(SITES, args.runs, strict=True):
        predictor = load_predictor(folder / "model.keras")
        found = (
            predict_walls(predictor, scene, {}, {})[0]
            for scene in scenes
            if scene.name.startswith(site)
        )
        blocks[site] = [one for one in found if len(one.distance)]
    print(
        "| left out | alpha | blocks | radius, m | beyond it | least, most of a block |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for site in SITES:
        for alpha in ALPHAS:
            for kind in WallScores._fields:
                units = [
                    getattr(one, kind)
                    for other in SITES
                    if other != site
                    for one in blocks[other]
                ]
                radius = conformal_radius(units, alpha)
                risks = [risk(getattr(one, kind), radius) for one in blocks[site]]
                wide = f"{radius:.2f}" if kind == "distance" else "by probability"
                print(
                    f"| {site} | {alpha} | {len(units)} | {wide} | "
                    f"{np.mean(risks):.2f} | {min(risks):.2f}, {max(risks):.2f} |"
                )


if __name__ == "__main__":
    main()
