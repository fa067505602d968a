"""Tables of scores: as text, Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bdloss.metrics.buildings import MIN_BUILDING_AREA

COLUMNS = {  # of the table of scores
    "iou": "IoU",
    "accuracy": "accuracy",
    "bf1_3": "BF1 3 px",
    "bf1_5": "BF1 5 px",
    "boundary_ratio": "boundary, of the true",
    "buildings": "buildings",
    "detected": "detected",
    "false_negatives": "false negatives",
    "split": "split",
    "merged": "merged",
    "false_positives": "false positives",
}


def tabulate_scores(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of scores, a row for each image, city and all.

    Args:
        result: What `scoring.score_rasters` returns.

    Returns:
        Rows of texts, the first one that of the headings.
    """
    rows = [*result["images"].items(), *result["cities"].items()]
    table = [["", *COLUMNS.values()]]
    for name, scores in [*rows, ("all", result["all"])]:
        values = [scores[key] for key in COLUMNS]
        table.append([name, *(_as_text(value) for value in values)])
    return table


def one_line(scores: Mapping[str, Any]) -> str:
    """Return the main scores as one line for a person."""
    names = {"iou": "IoU", "bf1_3": "BF1 (3 px)", "bf1_5": "BF1 (5 px)"}
    return "   ".join(
        f"{label} " + ("none" if scores[key] is None else f"{scores[key]:.3f}")
        for key, label in names.items()
    )


def note_scores(result: Mapping[str, Any]) -> list[str]:
    """Return what must be said of a table of scores, in lines."""
    whole = result["all"]
    notes = [
        f"IoU and accuracy are pooled over {whole['pixels']:,} pixels; BF1 is the mean "
        f"over {whole['images_with_boundary']} of {whole['images']} images, those with "
        "a boundary. What is smaller than "
        f"{MIN_BUILDING_AREA} pixels is no building, true or predicted."
    ]
    left = result["without_prediction"]
    if left:
        names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        notes.append(f"{len(left)} truths have no prediction and no score: {names}")
    return notes


def write_scores(result: Mapping[str, Any], folder: Path) -> None:
    """Write scores as `scores.json` and as a Markdown table, `scores.md`.

    Args:
        result: What `scoring.score_rasters` returns.
        folder: Where to write; it exists.
    """
    (folder / "scores.json").write_text(json.dumps(result, indent=2) + "\n")
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


def _as_text(value: float | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
