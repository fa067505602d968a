"""Scores of what was just predicted, where the orthophoto has data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bdloss.data.ground_truth import GroundTruth, find_truth
from bdloss.evaluation.error_maps import ErrorMap
from bdloss.evaluation.pairs import Pair, check_geoboxes, open_pair
from bdloss.evaluation.scores import Scores
from bdloss.evaluation.scoring import (
    ImageCounts,
    Judged,
    count_pair,
    note_margin,
    summarise,
)
from bdloss.evaluation.tables import line_of_change, one_line
from bdloss.files import atomic_path
from bdloss.geo.orthophoto import Orthophoto


class PredictionScores:
    """Scores the masks of orthophotos, one after another, against ground truth.

    Args:
        truths: A mask, a folder of masks of the same names as the orthophotos, or a
            file of outlines; None for nothing, which scores nothing.
    """

    def __init__(self, truths: Path | None):
        self._truths = truths
        self._margin: float | Path | None = None  # the last
        self._found: dict[Path, Path] = {}
        self._counts: dict[str, ImageCounts] = {}

    def find(self, orthophoto: Orthophoto) -> Path | None:
        """Return the ground truth of an orthophoto, which it goes together with.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If they are not of one size or lie at different places.
        """
        if self._truths is None:
            return None
        path = orthophoto.path
        if path not in self._found:  # its outlines may be many to read again
            truth = find_truth(path, self._truths)
            with GroundTruth(truth).open(orthophoto.geobox) as opened:
                pair = Pair(path.stem, path, truth)
                check_geoboxes(pair, orthophoto.geobox, opened.geobox)
            self._found[path] = truth
        return self._found[path]

    def reduced_truth(
        self, orthophoto: Orthophoto
    ) -> Callable[[tuple[int, int]], np.ndarray] | None:
        """Return what reads the ground truth of an orthophoto at a shape, if any.

        Raises:
            FileNotFoundError: As `find` does.
            ValueError: As `find` does.
        """
        truth = self.find(orthophoto)
        if truth is None:
            return None

        def read(shape: tuple[int, int]) -> np.ndarray:
            with GroundTruth(truth).open(orthophoto.geobox) as ground_truth:
                return ground_truth.read_reduced(shape, orthophoto.window)

        return read

    def add(
        self,
        orthophoto: Orthophoto,
        mask: Path,
        outlines: Path | None = None,
        *,
        margin: float | Path | None = None,
        judge: bool = False,
    ) -> Judged | None:
        """Count a prediction, where the orthophoto has data: see `count_prediction`.

        Args:
            orthophoto: What was predicted.
            mask: Its mask.
            outlines: Its outlines.
            margin: As in `count_pair`.
            judge: Whether to look where it is wrong.

        Returns:
            How it fits, if that is asked for and the ground truth is known.

        Raises:
            FileNotFoundError: As `find` does.
            ValueError: As `find` does, or if they do not go together.
        """
        truth = self.find(orthophoto)
        if truth is None:
            return None
        name, box = orthophoto.path.stem, orthophoto.geobox
        errors = None
        if judge:
            errors = ErrorMap(Pair(name, mask, truth), box.height, box.width)
        self._margin = margin
        self._counts[name] = count_prediction(
            orthophoto, mask, truth, outlines, margin, errors
        )
        if errors is None:
            return None
        return Judged(summarise([self._counts[name]]), errors)

    def write(self, path: Path) -> None:
        """Write the scores as JSON, if there are any."""
        if self._counts:
            with atomic_path(path) as partial:
                values = {name: one.as_json() for name, one in self._scores().items()}
                partial.write_text(json.dumps(values, indent=2) + "\n")

    def lines(self) -> list[str]:
        """Return the scores as lines for a person."""
        scores = self._scores()
        width = max((len(name) for name in scores), default=0)
        lines = [f"{name:<{width}}  {one_line(one)}" for name, one in scores.items()]
        return [*lines, *note_margin(self._margin, self._counts.values())]

    def lines_of_change(self, before: "PredictionScores") -> list[str]:
        """Return what scores of outlines were before, and are now, as lines.

        Args:
            before: Scores of other outlines, of the same orthophotos or some of them.
        """
        first = summarise(before._counts.values())
        same = summarise(self._counts[name] for name in before._counts)
        return [line_of_change(first, same)] if before._counts else []

    def _scores(self) -> dict[str, Scores]:
        scores = {name: summarise([one]) for name, one in self._counts.items()}
        if scores:
            scores["all"] = summarise(self._counts.values())
        return scores


def count_prediction(
    orthophoto: Orthophoto,
    mask: Path,
    truth: Path,
    outlines: Path | None = None,
    margin: float | Path | None = None,
    errors: ErrorMap | None = None,
) -> ImageCounts:
    """Count a mask against its ground truth where the orthophoto has data.

    Args:
        orthophoto: What was predicted.
        mask: Its mask.
        truth: A mask or a file of outlines.
        outlines: The buildings of the mask, a vector file; None for its connected
            parts, which are also taken of an image that only control points place.
        margin: As in `count_pair`.
        errors: What is told the strips, to draw where it is wrong; None for nothing.

    Raises:
        ValueError: If mask and truth do not go together.
    """
    if orthophoto.misfit is not None:  # the outlines lie on another grid
        outlines = None
    pair = Pair(orthophoto.path.stem, mask, truth)
    with (
        open_pair(pair, outlines=outlines) as reader,
        orthophoto.open() as image,
    ):
        area = orthophoto.area
        keep = area.keep if area else None
        see = errors.add if errors else None
        return count_pair(reader, image.wanted, keep, see=see, margin=margin)
