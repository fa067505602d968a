"""History: a row an epoch, as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from bdloss.files import atomic_path


def write_history(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write rows as CSV, aside and renamed.

    Args:
        rows: At least one. A column that a row lacks is empty there, as in a run that
            an older version began.
        path: File to write; replaced if it exists.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as partial,
        partial.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
