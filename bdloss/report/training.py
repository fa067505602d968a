"""The page of a training: curves, samples, settings, scores and environment."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdloss.evaluation.scores import Scores
from bdloss.report import page
from bdloss.report.prediction import tabulate

PICTURES = {  # of a run folder, and what they show
    "curves.png": "Curves over epochs",
    "search.png": "Branches of the weight search",
    "samples.png": "Whole scenes: image, truth, prediction",
}


def write_run_page(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `report.html` of a run folder, of the files that are in it.

    Args:
        folder: The run folder, finished.
        result: What stands in its `metrics.json`.
    """
    title = f"Training {folder.name}"
    parts = [f"<header><h1>{html.escape(title)}</h1></header>\n<main class='text'>"]
    for name, caption in PICTURES.items():
        path = folder / name
        if path.is_file():
            source = page.picture_of(path.read_bytes(), "png")
            parts.append(f'<h2>{caption}</h2><img src="{source}" alt="{caption}">')
    known = [part for part in ("validation", "test") if part in result]
    parts.append(tabulate({part: Scores.from_json(result[part]) for part in known}))
    told = {key: value for key, value in result.items() if key not in known}
    told |= told.pop("versions", {})
    facts = [[key, str(value)] for key, value in told.items()]
    parts.append(f"<h2>Environment</h2>{page.table_of([], facts)}")
    settings = (folder / "experiment.toml").read_text("utf-8")
    parts.append(f"<h2>Settings</h2><pre>{html.escape(settings)}</pre></main>")
    page.write_page(folder / "report.html", title, "\n".join(parts), {}, overwrite=True)
