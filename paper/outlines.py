"""What outlines of a study's networks are worth: whole, split, with straight walls."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from bdloss.errors import InputError
from bdloss.evaluation.tables import as_markdown
from bdloss.files import atomic_path
from paper.plan import Run, Study, choose_runs, make_settings
from paper.summary import paired_difference, show_difference, show_mean

NOTE = """# Outlines of real towns

Made by `python -m paper outlines`; do not edit. Test scenes of each run: mean ±
standard deviation over folds and seeds. A difference is that to the first row, taken
fold by fold and seed by seed, with the 95 % interval of Student's t. Scores are of the
outlines that are written against true outlines, IoU is that of the mask; in percent but
for PoLiS and the N-ratio. Buildings are those of a fold."""
FACTORS = {  # of the scores that are shown, and what they are called
    "iou": ("IoU of the mask", 100),
    "buildings": ("buildings", 1),
    "building_f1": ("F1 of buildings", 100),
    "merged": ("merged", 1),
    "split": ("split", 1),
    "polis": ("PoLiS, m", 1),
    "c_iou": ("C-IoU", 100),
    "n_ratio": ("N-ratio", 1),
}


class Way(NamedTuple):
    """How outlines are made of a network's maps.

    Attributes:
        label: Of its row.
        variant: Name of the network, a loss or an ablation of the study.
        settings: Of the `Products`.
    """

    label: str
    variant: str
    settings: dict[str, Any]


WAYS = [
    Way("buildings alone", "iou", {}),
    Way("with contact, whole", "contact", {"split": False}),
    Way("with contact, split", "contact", {"split": True}),
    Way("the same, holes of 4 m2 filled", "contact", {"min_hole": 4.0}),
    Way("and right angles", "contact", {"min_hole": 4.0, "regularize": True}),
]


def compare_outlines(study: Study, runs: Path, out: Path) -> str:
    """Score the outlines of finished runs; return and write a table.

    A fold and seed count where the run of each network is finished.

    Args:
        study: The study, of which `WAYS` names networks.
        runs: Its run folders.
        out: File of the table, Markdown.

    Raises:
        ValueError: If they are of no fold and seed.
    """
    finished = [
        {
            (run.dataset, run.seed): run
            for run in choose_runs(study, [variant])
            if (run.folder(runs) / "edge.json").is_file()
        }
        for variant in dict.fromkeys(way.variant for way in WAYS)
    ]
    pairs = set.intersection(*map(set, finished))
    if not pairs:
        raise InputError(f"no finished runs of the study to compare in {runs}")
    found: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for network in finished:
        for place, run in network.items():
            if place in pairs:
                click.echo(f"{run.folder(runs)}", err=True)
                for label, scores in score_run(study, run, runs).items():
                    found.setdefault(label, {})[place] = scores
    table = as_markdown(tabulate_outlines(found))
    with atomic_path(out) as partial:
        partial.write_text(f"{NOTE}\n\n{table}\n")
    return table


def score_run(study: Study, run: Run, runs: Path) -> dict[str, dict[str, Any]]:
    """Return the scores of a run's test scenes by the ways of its network.

    The outlines are kept in its folder, for pictures.
    """
    from bdloss.training.experiment import make_experiment
    from bdloss.training.run import read_splits

    ways = [way for way in WAYS if way.variant == run.variant.name]
    experiment = make_experiment(make_settings(study, run, runs))
    scenes = read_splits(experiment).test
    return _score_scenes(run.folder(runs), scenes, ways, experiment.prediction.tta)


def _score_scenes(
    folder: Path, scenes: Sequence[Any], ways: Sequence[Way], tta: str
) -> dict[str, Any]:
    """Predict scenes once, and score the outlines made of them in each way."""
    from bdloss.evaluation.predictions import count_prediction
    from bdloss.evaluation.scoring import summarise
    from bdloss.geo.orthophoto import Orthophoto
    from bdloss.inference.predict import predict_raster
    from bdloss.inference.products import Products, write_products
    from bdloss.models import load_predictor

    predictor = load_predictor(folder / "model.keras")
    counts: dict[str, list[Any]] = {way.label: [] for way in ways}
    for scene in scenes:
        orthophoto = Orthophoto.read(scene.image)
        mask = folder / "outlines" / f"{scene.name}_mask.tif"
        for half in (1, 2):  # shards keep their rows, for as many ways as there are
            predict_raster(
                orthophoto,
                predictor,
                Products(mask=mask),
                shard=(half, 2),
                overwrite=True,
                tta=tta,
            )
        for number, way in enumerate(ways):
            name = f"{scene.name}_{way.variant}{number}"
            products = Products(
                mask=mask, polygons=mask.with_name(f"{name}.gpkg"), **way.settings
            )
            write_products(orthophoto, products)
            counted = count_prediction(orthophoto, mask, scene.truth, products.polygons)
            counts[way.label].append(counted)
        products.store.remove()
    return {label: summarise(some).as_json() for label, some in counts.items()}


def tabulate_outlines(
    found: Mapping[str, Mapping[tuple[str, int], Mapping[str, Any]]],
) -> list[list[str]]:
    """Return a row a way: each score, and what it is more than that of the first.

    Args:
        found: Scores, as in `scores.json`, of each way by fold and seed.
    """
    head = ["outlines", "runs"]
    for label, _ in FACTORS.values():
        head += [label, "difference [95 %]"]
    table = [head]
    first: dict[str, dict[tuple[str, int], float]] = {}
    for way, runs in found.items():
        row = [way, str(len(runs))]
        for key, (_, factor) in FACTORS.items():
            ours = {
                run: factor * (math.nan if scores[key] is None else scores[key])
                for run, scores in runs.items()
            }
            theirs = first.setdefault(key, ours)
            gain = show_difference(paired_difference(ours, theirs))
            row += [show_mean(ours), "" if theirs is ours else gain]
        table.append(row)
    return table
