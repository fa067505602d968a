"""Tables of scores: as text, Markdown and JSON."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from bdloss.evaluation.scores import RasterScores, Scores
from bdloss.metrics.buildings import MIN_BUILDING_AREA

COLUMNS: dict[str, Callable[[Scores], float]] = {  # of the table of scores
    "IoU": lambda scores: scores.iou,
    "accuracy": lambda scores: scores.accuracy,
    "BF1 3 px": lambda scores: scores.boundary[3].f1,
    "BF1 5 px": lambda scores: scores.boundary[5].f1,
    "boundary, of the true": lambda scores: scores.boundary_ratio,
    "buildings": lambda scores: scores.instances.buildings,
    "detected": lambda scores: scores.instances.detected,
    "false negatives": lambda scores: scores.instances.false_negatives,
    "split": lambda scores: scores.instances.split,
    "merged": lambda scores: scores.instances.merged,
    "false positives": lambda scores: scores.instances.false_positives,
}


def tabulate_scores(result: RasterScores) -> list[list[str]]:
    """Return the table of scores, a row for each image, city and all.

    Args:
        result: What `scoring.score_rasters` returns.

    Returns:
        Rows of texts, the first one that of the headings.
    """
    rows = [*result.images.items(), *result.cities.items(), ("all", result.all)]
    table = [["", *COLUMNS]]
    for name, scores in rows:
        table.append([name, *(_as_text(of(scores)) for of in COLUMNS.values())])
    return table


def one_line(scores: Scores) -> str:
    """Return the main scores as one line for a person."""
    values = {"IoU": scores.iou}
    for tolerance, boundary in scores.boundary.items():
        values[f"BF1 ({tolerance} px)"] = boundary.f1
    return "   ".join(
        f"{label} " + ("none" if math.isnan(value) else f"{value:.3f}")
        for label, value in values.items()
    )


def note_scores(result: RasterScores) -> list[str]:
    """Return what must be said of a table of scores, in lines."""
    whole = result.all
    notes = [
        f"IoU and accuracy are pooled over {whole.pixels:,} pixels; BF1 is the mean "
        f"over {whole.images_with_boundary} of {whole.images} images, those with "
        "a boundary. What is smaller than "
        f"{MIN_BUILDING_AREA} pixels is no building, true or predicted."
    ]
    left = result.without_prediction
    if left:
        names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        notes.append(f"{len(left)} truths have no prediction and no score: {names}")
    return notes


def write_scores(result: RasterScores, folder: Path) -> None:
    """Write scores as `scores.json` and as a Markdown table, `scores.md`.

    Args:
        result: What `scoring.score_rasters` returns.
        folder: Where to write; it exists.
    """
    (folder / "scores.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    text = "\n".join([as_markdown(tabulate_scores(result)), "", *note_scores(result)])
    (folder / "scores.md").write_text(text + "\n")


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, all columns but the first to the right.

    Args:
        table: Rows of texts, the first one that of the headings.

    Example:
        >>> print(as_markdown([["", "IoU"], ["a", "0.5"]]))
        |  | IoU |
        | --- | ---: |
        | a | 0.5 |
    """
    head, *rows = table
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _as_text(value: float) -> str:
    if math.isnan(value):
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
