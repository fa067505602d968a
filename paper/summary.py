"""Tables and figures of a study, from the runs that are finished."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bdloss.errors import InputError
from paper.plan import Run, Study, Variant, make_settings
from paper.results import (
    MEASURES,
    Finished,
    Results,
    read_results,
    write_results,
)
from paper.trainer import COST, EDGE, check_starts

CONFIDENCE = 0.95
SIDE = 128  # pixels of the windows that are drawn
DRAWN = 4
NETWORKS = {
    "plain": "U-Net",
    "convnn": "ConvNN",
    "lite": "U-Net on EfficientNet-Lite0",
}
BOUNDARIES = ("precision_3", "recall_3", "boundary_ratio")
# What teeth do not fool, see docs/scores.md.
SHARPNESS = ("iou", "boundary_iou", "matched_f1_3", "boundary_ratio", "building_f1")
CLAIMS = (  # of the paper, as numbers: convergence, noise, edges, neighbours
    *("epochs_iou", "epochs_bf1", "noise_iou", "noise_bf1"),
    *("edge_iou", "edge_bf1_3", "merged"),
)
CLAIMS_NOTE = (
    "Epochs until the validation score is 95 % of its last value; the mean change from "
    "one epoch to the next over the second half, in percent points."
)
ABLATED = ("iou", "bf1_3", "bf1_5", "boundary_ratio")  # what their table shows
INSTANCES = {  # scores, and their headings
    "buildings": "buildings",
    "detected": "detected",
    "false_negatives": "false negatives",
    "split": "split",
    "merged": "merged",
    "false_positives": "false positives",
}


class Difference(NamedTuple):
    """A mean difference over seeds, and its confidence interval; NaN for one seed."""

    mean: float
    low: float
    high: float
    pairs: int


def paired_difference(
    ours: Mapping[Any, float], theirs: Mapping[Any, float]
) -> Difference:
    """Return how much more one loss scores than another, seed by seed.

    Args:
        ours: Score of each seed, or of each fold and seed.
        theirs: Score of each of what it is compared with.

    Returns:
        Over those of both, with the interval of Student's t at 95 %.

    Example:
        >>> paired_difference({0: 3.0, 1: 5.0, 2: 7.0}, {0: 1.0, 1: 3.0, 2: 5.0})
        Difference(mean=2.0, low=2.0, high=2.0, pairs=3)
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return Difference(math.nan, math.nan, math.nan, 0)
    gains = np.array([ours[seed] - theirs[seed] for seed in seeds])
    mean = float(gains.mean())
    if len(seeds) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    spread = float(gains.std(ddof=1)) / math.sqrt(len(seeds))
    reach = spread * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1))
    return Difference(mean, mean - reach, mean + reach, len(seeds))


def runs_of(
    study: Study, results: Results, dataset: str, name: str | None = None
) -> dict[tuple[str, int], Finished]:
    """Return the runs on a data set, of a loss if it is named, by fold and seed."""
    return {
        (fold, seed): one
        for (fold, which, seed), one in results.items()
        if fold in study.folds[dataset] and name in (None, which)
    }


def values_by_seed(
    study: Study, results: Results, dataset: str, name: str, measure: str
) -> dict[tuple[str, int], float]:
    """Return what a loss came to, one of `MEASURES`, by fold and seed that have it."""
    values = {
        key: MEASURES[measure].of(one)
        for key, one in runs_of(study, results, dataset, name).items()
    }
    return {key: value for key, value in values.items() if value is not None}


def name_network(study: Study, dataset: str, variant: Variant) -> str:
    """Return what the network of a row is called."""
    settings = make_settings(study, Run(study.folds[dataset][0], variant, 0), Path())
    model = settings.get("model", {})
    backbone = model.get("backbone", "plain")
    name = NETWORKS.get(backbone, f"U-Net on {backbone}")
    return name if model.get("skips", True) else f"{name} without skips"


def tabulate(
    study: Study,
    results: Results,
    variants: Sequence[Variant],
    datasets: Sequence[str],
    measures: Sequence[str],
) -> list[list[str]]:
    """Return a row a loss, with each score and what it is more than the reference's.

    Args:
        study: The study.
        results: Its finished runs.
        variants: Losses or ablations; one that was not run has no row.
        datasets: Data sets to show beside each other.
        measures: What to show, some of `MEASURES`.
    """
    folded = any(len(study.folds[dataset]) > 1 for dataset in datasets)
    head = ["", "network", "runs" if folded else "seeds"]
    for dataset in datasets:
        place = f"{study.labels[dataset]}: " if len(datasets) > 1 else ""
        for measure in measures:
            head += [f"{place}{MEASURES[measure].label}", "difference [95 %]"]
    table = [head]
    for variant in variants:
        counts = [len(runs_of(study, results, name, variant.name)) for name in datasets]
        networks = [name_network(study, name, variant) for name in datasets]
        row = [
            variant.label,
            ", ".join(dict.fromkeys(networks)),
            ", ".join(map(str, dict.fromkeys(counts))),
        ]
        for dataset in datasets:
            for measure in measures:
                ours, theirs = (
                    values_by_seed(study, results, dataset, name, measure)
                    for name in (variant.name, study.reference)
                )
                gain = show_difference(paired_difference(ours, theirs))
                ran = bool(runs_of(study, results, dataset, variant.name))
                row += [
                    show_mean(ours) if ours or not ran else "not scored",
                    "" if variant.name == study.reference else gain,
                ]
        if any(counts):
            table.append(row)
    return table


def tabulate_beside(
    study: Study, results: Results, dataset: str, measures: Sequence[str]
) -> list[list[str]]:
    """Return a row for each other loss, with what the drawn one scores more than it."""
    table = [["more than", "pairs", *(MEASURES[measure].label for measure in measures)]]
    for variant in [*study.losses, *study.ablations]:
        gains = []
        for measure in measures:
            ours, theirs = (
                values_by_seed(study, results, dataset, name, measure)
                for name in (study.compared, variant.name)
            )
            gains.append(paired_difference(ours, theirs))
        pairs = max(gain.pairs for gain in gains)
        if pairs and variant.name != study.compared:
            cells = [show_difference(gain) for gain in gains]
            table.append([variant.label, str(pairs), *cells])
    return table


def tabulate_buildings(study: Study, results: Results, dataset: str) -> list[list[str]]:
    """Return how many buildings were detected, split and merged, on average."""
    table = [["loss", *INSTANCES.values()]]
    for variant in study.losses:
        runs = list(runs_of(study, results, dataset, variant.name).values())
        if runs:
            means = [np.mean([one.scores[key] for one in runs]) for key in INSTANCES]
            table.append([variant.label, *(f"{mean:.1f}" for mean in means)])
    return table


def tabulate_costs(study: Study, path: Path, dataset: str) -> list[list[str]]:
    """Return the seconds a step of each loss, if they were measured."""
    labels = {variant.name: variant.label for variant in study.losses}
    table = [["loss", "seconds a step", f"of {labels[study.reference]}'s"]]
    if path.is_file():
        costs = json.loads(path.read_text())[dataset]
        table += [
            [labels[name], f"{seconds:.3f}", f"{seconds / costs[study.reference]:.2f}"]
            for name, seconds in costs.items()
        ]
    return table


def describe_test(study: Study, results: Results, dataset: str) -> str:
    """Say over how many images and pixels the scores of a data set are taken."""
    runs = runs_of(study, results, dataset)
    of_folds = {fold: one.scores for (fold, _), one in runs.items()}
    images, pixels, seen = (
        sum(scores[key] for scores in of_folds.values())
        for key in ("images", "pixels", "images_with_boundary")
    )
    folds = f" in {len(of_folds)} folds" if len(of_folds) > 1 else ""
    return (
        f"{images} test scenes{folds}, {pixels / 1e6:.2f} megapixels. IoU "
        f"is pooled over the pixels, BF1 a mean over the {seen} scenes that have a "
        "boundary in truth or prediction."
    )


def show_mean(values: Mapping[Any, float]) -> str:
    """Return mean and standard deviation over seeds; of one seed, its score."""
    numbers = list(values.values())
    if not numbers:
        return "not run"
    if len(numbers) == 1:
        return f"{numbers[0]:.2f}"
    return f"{np.mean(numbers):.2f} ± {np.std(numbers, ddof=1):.2f}"


def show_difference(gain: Difference) -> str:
    """Return a difference and its interval."""
    if not gain.pairs:
        return ""
    if gain.pairs == 1:
        return f"{gain.mean:+.2f}"
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def draw_study(study: Study, runs: Path, out: Path) -> None:
    """Write `tables.md` and its pictures from the runs that are finished."""
    from bdloss.evaluation.tables import as_markdown

    check_starts(study, runs)
    results, missing = read_results(study, runs, out / "runs.json")
    if not results:
        raise InputError(f"no finished run of the study in {runs} or {out}")
    out.mkdir(parents=True, exist_ok=True)
    write_results(results, out / "runs.json")
    folded = any(len(folds) > 1 for folds in study.folds.values())
    over, by = "seeds", "seed by seed"
    if folded:
        over, by = "folds and seeds", "fold by fold and seed by seed"
    parts = [
        "Made by `python -m paper draw`; do not edit. Scores are of the test "
        f"scenes, in percent: mean ± standard deviation over {over}. A difference is "
        f"that to the first row, taken {by}, with the 95 % interval of "
        "Student's t; a single seed has none."
    ]
    near = f"Near the edge is within {EDGE} pixels of the edge of a test scene."

    def add(heading: str, table: list[list[str]]) -> None:
        if len(table) > 1:
            parts.append(f"## {heading}\n\n{as_markdown(table)}")

    def add_losses(
        heading: str, datasets: Sequence[str], measures: Sequence[str]
    ) -> None:
        add(heading, tabulate(study, results, study.losses, datasets, measures))

    add_losses("Table 1: IoU", list(study.folds), ["iou"])
    add_losses("Table 2: BF1", list(study.folds), ["bf1_3", "bf1_5"])
    pair = [v for v in study.losses if v.name in (study.reference, study.compared)]
    drawn = next(v.label for v in study.losses if v.name == study.compared)
    for dataset, label in study.labels.items():
        finished = runs_of(study, results, dataset).values()
        if not finished:
            continue
        parts.append(f"{label}: {describe_test(study, results, dataset)}")
        add_losses(f"Boundaries, {label}", [dataset], BOUNDARIES)
        if any(MEASURES["matched_f1_3"].of(one) is not None for one in finished):
            add_losses(f"Scores that see teeth, {label}", [dataset], SHARPNESS)
            beside = tabulate_beside(study, results, dataset, SHARPNESS)
            add(f"{drawn}, beside the others, {label}", beside)
        add_losses(f"Convergence, noise, edges, neighbours, {label}", [dataset], CLAIMS)
        parts.append(f"{CLAIMS_NOTE} {near}")
        add(f"Buildings, {label}", tabulate_buildings(study, results, dataset))
        add(f"Cost, {label}", tabulate_costs(study, runs / COST, dataset))
        ablated = tabulate(
            study, results, [*pair, *study.ablations], [dataset], ABLATED
        )
        add(f"Ablations, {label}", ablated)
        names = draw_gains(study, results, dataset, out)
        names += draw_curves(study, results, dataset, out)
        names += draw_windows(study, results, dataset, runs, out)
        parts += [f"![{name}]({name})" for name in names]
        if dataset in study.credits:
            parts.append(study.credits[dataset])
    machines = sorted({one.machine for one in results.values()})
    parts.append("Run on: " + "; ".join(machines))
    if missing:
        parts.append(f"Not finished: {', '.join(missing)}")
    (out / "tables.md").write_text("\n\n".join(parts) + "\n")
    print(f"{out / 'tables.md'}: {len(results)} runs; {len(missing)} are not finished")


def draw_gains(study: Study, results: Results, dataset: str, out: Path) -> list[str]:
    """Draw what each loss scores more than the reference; return the file.

    The length of the boundary is no gain: it is drawn as it is, of all losses.
    """
    from bdloss import plots

    labels = {variant.name: variant.label for variant in study.losses}
    panels: dict[str, dict[str, tuple[float, float, float]]] = {}
    centres: dict[str, float] = {}
    for measure in SHARPNESS:
        length = measure == "boundary_ratio"
        than = "100: as long" if length else f"more than {labels[study.reference]}"
        title = f"{MEASURES[measure].label}\n{than}"
        centres[title] = 100.0 if length else 0.0
        panel = panels[title] = {}
        for name, label in labels.items():
            ours, theirs = (
                values_by_seed(study, results, dataset, one, measure)
                for one in (name, study.reference)
            )
            if length:
                theirs = dict.fromkeys(ours, 0.0)
            elif name == study.reference:
                continue
            gain = paired_difference(ours, theirs)
            if gain.pairs:
                panel[label] = (gain.mean, gain.low, gain.high)
    file = f"{dataset}_gains.png"
    plots.draw_intervals(panels, list(labels.values()), centres, out / file)
    return [file]


def draw_curves(study: Study, results: Results, dataset: str, out: Path) -> list[str]:
    """Draw validation IoU and BF1 over epochs; return the files (Figs. 3, 4, 7, 8)."""
    from bdloss import plots

    names = []
    labels = {"val_iou": "IoU", "val_bf1": "BF1, 3 px"}
    for key, label in labels.items():
        histories = {
            variant.label: [
                one.history
                for one in runs_of(study, results, dataset, variant.name).values()
            ]
            for variant in study.losses
        }
        histories = {name: some for name, some in histories.items() if some}
        names.append(f"{dataset}_{key}.png")
        plots.draw_comparison(
            histories, key, out / names[-1], f"{label}, patches of validation"
        )
    return names


def draw_windows(
    study: Study, results: Results, dataset: str, runs: Path, out: Path
) -> list[str]:
    """Draw what the two losses make of windows where they differ most (Figs. 2, 5 ...).

    Of the first fold and seed that both have; which windows, `choose_windows` says.
    Returns the file, if there is one.
    """
    from bdloss import plots
    from bdloss.data.scenes import load_scene
    from bdloss.models import load_predictor
    from bdloss.training.experiment import make_experiment, read_file
    from bdloss.training.run import predict_mask, read_splits

    pair = (study.reference, study.compared)
    name = f"{dataset}_windows.png"
    ran = [runs_of(study, results, dataset, name).keys() for name in pair]
    if not ran[0] & ran[1]:
        return []
    fold, seed = min(ran[0] & ran[1])
    variants = [next(v for v in study.losses if v.name == name) for name in pair]
    folders = [Run(fold, variant, seed).folder(runs) for variant in variants]
    if not all((folder / "model.keras").is_file() for folder in folders):
        return [name] if (out / name).is_file() else []  # drawn when they were there
    experiment = make_experiment(read_file(folders[0] / "experiment.toml"))
    predictors = [load_predictor(folder / "model.keras") for folder in folders]
    scenes = read_splits(experiment).test
    drawn = study.drawn.get(dataset, [scene.name for scene in scenes])
    scenes = [scene for scene in scenes if scene.name in drawn]
    masks = []
    for scene in scenes:
        data = load_scene(scene)
        preds = [
            predict_mask(experiment, one.predict, one.targets, data.pixels)
            for one in predictors
        ]
        masks.append((data.mask, *preds))
    chosen = choose_windows(masks)
    samples = []
    for place, window in chosen:
        data = load_scene(scenes[place])
        title = f"{scenes[place].name}\nrow {window.row}, column {window.col}"
        true, *preds = (mask[window.slices] for mask in masks[place])
        samples.append((title, data.pixels[window.slices], true, preds))
    labels = [variant.label for variant in variants]
    plots.draw_side_by_side(samples, labels, out / name)
    return [name]


def choose_windows(
    masks: Sequence[Sequence[np.ndarray]], side: int = SIDE, number: int = DRAWN
) -> list[tuple[int, Any]]:
    """Return the windows in which two predictions differ in most pixels.

    Args:
        masks: Truth and two predictions of each scene; 255 in the truth is ignored.
        side: Of the windows of a grid, in pixels.
        number: How many to return, none of which overlap.

    Returns:
        Place of the scene and window, those of most pixels first.
    """
    from bdloss.constants import IGNORED
    from bdloss.evaluation.error_maps import choose_apart
    from bdloss.geo.windows import sliding_windows

    places = []
    for place, (true, first, second) in enumerate(masks):
        differ = (first != second) & (true != IGNORED)
        height, width = true.shape
        for window in sliding_windows(height, width, side, side):
            count = int(np.count_nonzero(differ[window.slices]))
            if count:
                places.append((-count, place, window))
    chosen = choose_apart(sorted(places), number)
    return [(place, window) for _, place, window in chosen]
