"""Tables of scores: as text, Markdown and JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from bdloss.evaluation.scores import RasterScores, Scores, describe_scores
from bdloss.metrics.buildings import MIN_BUILDING_AREA


def tabulate_scores(result: RasterScores) -> dict[str, list[list[str]]]:
    """Return the tables of scores, a row for each image, city and all.

    Args:
        result: What `scoring.score_rasters` returns.

    Returns:
        By group, rows of texts, the first one that of the headings. Columns and groups
        of which nothing is known are left out.
    """
    rows = [*result.images.items(), *result.cities.items(), ("all", result.all)]
    tables = {}
    for group, columns in describe_scores(result.all.depth).items():
        known = [
            column
            for column in columns
            if not all(math.isnan(column.value(scores)) for _, scores in rows)
        ]
        if known:
            tables[group] = [[group, *(column.head for column in known)]]
            tables[group] += [
                [name, *(_as_text(column.value(scores)) for column in known)]
                for name, scores in rows
            ]
    return tables


def one_line(scores: Scores) -> str:
    """Return the main scores as one line for a person."""
    values = {"IoU": scores.iou}
    for tolerance, boundary in scores.boundary.items():
        values[f"BF1 ({tolerance} px)"] = boundary.f1
    values[f"Boundary IoU ({scores.depth})"] = scores.boundary_iou
    values["one-to-one F (3 px)"] = scores.matched.f1
    return "   ".join(
        f"{label} " + ("none" if math.isnan(value) else f"{value:.3f}")
        for label, value in values.items()
    )


def line_of_change(before: Scores, after: Scores) -> str:
    """Return what right angles did to the scores of outlines, as a line."""
    described = describe_scores(after.depth)
    buildings, *_ = described["buildings"]
    columns = {"F1 of buildings": buildings}
    columns |= {column.head: column for column in described["polygons"]}
    return "by right angles: " + "   ".join(
        f"{head} {column.value(before):.3f} -> {column.value(after):.3f}"
        for head, column in columns.items()
        if not math.isnan(column.value(after))
    )


def note_scores(result: RasterScores) -> list[str]:
    """Return what must be said of a table of scores, in lines."""
    whole = result.all
    notes = [
        f"IoU, accuracy and Boundary IoU are pooled over {whole.pixels:,} pixels; BF1 "
        f"and one-to-one F are means over {whole.images_with_boundary} of "
        f"{whole.images} images, those with a boundary. What is smaller than "
        f"{MIN_BUILDING_AREA} pixels is no building, true or predicted."
    ]
    notes += result.notes
    left = result.without_prediction
    if left:
        names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        notes.append(f"{len(left)} truths have no prediction and no score: {names}")
    return notes


def write_scores(result: RasterScores, folder: Path) -> None:
    """Write scores as `scores.json` and as Markdown tables, `scores.md`.

    Args:
        result: What `scoring.score_rasters` returns.
        folder: Where to write; it exists.
    """
    (folder / "scores.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    tables = [as_markdown(table) + "\n" for table in tabulate_scores(result).values()]
    text = "\n".join([*tables, *note_scores(result)])
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


def as_plain_text(table: Sequence[Sequence[str]]) -> str:
    """Return a table as text, all columns but the first to the right.

    Args:
        table: Rows of texts, the first one that of the headings.

    Example:
        >>> print(as_plain_text([["area", "IoU"], ["a", "0.5"]]))
        area  IoU
        a     0.5
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        columns = zip(cells, widths[1:], strict=True)
        texts = [f"{cell:>{wide}}" for cell, wide in columns]
        lines.append([f"{name:<{widths[0]}}", *texts])
    return "\n".join("  ".join(line) for line in lines)


def _as_text(value: float) -> str:
    if math.isnan(value):
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
