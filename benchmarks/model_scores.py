"""Scores of a model on orthophotos, as `bdloss predict` maps them without options.

    python benchmarks/model_scores.py MODEL TRUTH IMAGE [IMAGE ...] > table.md

The table has some of each of the four groups of scores, in percent but for the counts,
ASSD and PoLiS in metres and the N-ratio. TRUTH is a file of outlines, or a mask.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bdloss.evaluation.predictions import count_prediction
from bdloss.evaluation.scoring import summarise
from bdloss.geo.orthophoto import Orthophoto
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss.models import load_predictor

SHOWN = {  # of the scores, what they are called, and how they are shown
    "iou": ("IoU", "{:.1%}"),
    "boundary_iou": ("Boundary IoU, 3 px", "{:.1%}"),
    "matched_f1_3": ("one-to-one F, 3 px", "{:.1%}"),
    "boundary_ratio": ("boundary, of the true", "{:.2f}"),
    "assd_m": ("ASSD, m", "{:.2f}"),
    "buildings": ("buildings", "{:.0f}"),
    "building_f1": ("F1 of buildings", "{:.1%}"),
    "merged": ("merged", "{:.0f}"),
    "split": ("split", "{:.0f}"),
    "polis": ("PoLiS, m", "{:.2f}"),
    "n_ratio": ("N-ratio", "{:.1f}"),
}


def main() -> None:
    """Predict, score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("truth", type=Path)
    parser.add_argument("images", nargs="+", type=Path)
    args = parser.parse_args()
    predictor = load_predictor(args.model)
    print("| image | m a pixel |", " | ".join(name for name, _ in SHOWN.values()), "|")
    print("| --- | ---: |", " | ".join("---:" for _ in SHOWN), "|")
    for image in args.images:
        orthophoto = Orthophoto.read(image)
        with TemporaryDirectory() as folder:
            out = Products.in_folder(folder, image.stem)
            predict_raster(orthophoto, predictor, out)
            counts = count_prediction(orthophoto, out.mask, args.truth, out.polygons)
        scores = summarise([counts]).as_json()
        cells = [
            "" if scores[key] is None else way.format(scores[key]).rstrip("%")
            for key, (_, way) in SHOWN.items()
        ]
        print(
            f"| {image.stem} | {orthophoto.ground.resolution:g} | {' | '.join(cells)} |"
        )


if __name__ == "__main__":
    main()
