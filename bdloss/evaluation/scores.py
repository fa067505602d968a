"""Scores of images, as values and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdloss.metrics.buildings import InstanceCounts
from bdloss.metrics.scores import BoundaryScore

TOLERANCES = (3, 5)  # pixels


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one image, or of several together.

    A score that nothing speaks for is NaN here and null in JSON.

    Attributes:
        iou: Pooled over all pixels, in [0, 1].
        boundary: F1, precision and recall of boundaries at each tolerance in pixels,
            means over the images that have a boundary in truth or prediction.
        boundary_ratio: Predicted boundary pixels of all images over the true ones,
            which teeth along an edge raise where BF1 does not see them.
        accuracy: Share of all pixels that are right.
        images: How many the scores are taken over.
        images_with_boundary: How many of them have a boundary.
        pixels: How many are not ignored.
        instances: Buildings, summed.
    """

    iou: float
    boundary: Mapping[int, BoundaryScore]
    boundary_ratio: float
    accuracy: float
    images: int
    images_with_boundary: int
    pixels: int
    instances: InstanceCounts

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `scores.json` and `metrics.json`."""
        boundary = {
            f"{name}_{tolerance}": value
            for tolerance, score in self.boundary.items()
            for name, value in (
                ("bf1", score.f1),
                ("precision", score.precision),
                ("recall", score.recall),
            )
        }
        values = {
            "iou": self.iou,
            **boundary,
            "boundary_ratio": self.boundary_ratio,
            "accuracy": self.accuracy,
            "images": self.images,
            "images_with_boundary": self.images_with_boundary,
            "pixels": self.pixels,
            **self.instances._asdict(),
            "false_negatives": self.instances.false_negatives,
        }
        return {key: None if math.isnan(v) else v for key, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scores":
        """Return the scores of a file; what an older one lacks is NaN or 0.

        Args:
            values: What `as_json` returned.
        """
        tolerances = [
            int(key.removeprefix("bf1_")) for key in values if key.startswith("bf1_")
        ]
        counts = {name: values.get(name, 0) for name in InstanceCounts._fields}

        def read(key: str) -> float:
            value = values.get(key)
            return math.nan if value is None else value

        return cls(
            iou=read("iou"),
            boundary={
                tolerance: BoundaryScore(
                    f1=read(f"bf1_{tolerance}"),
                    precision=read(f"precision_{tolerance}"),
                    recall=read(f"recall_{tolerance}"),
                )
                for tolerance in tolerances
            },
            boundary_ratio=read("boundary_ratio"),
            accuracy=read("accuracy"),
            images=values.get("images", 0),
            images_with_boundary=values.get("images_with_boundary", 0),
            pixels=values.get("pixels", 0),
            instances=InstanceCounts(**counts),
        )


@dataclass(frozen=True, kw_only=True)
class RasterScores:
    """Scores of rasters, one by one and together.

    Attributes:
        images: Those of each image, by name.
        cities: Those of INRIA's cities, if all names are of its tiles.
        all: Those of all images.
        without_prediction: Files of truths that nothing was scored against.
    """

    images: Mapping[str, Scores]
    cities: Mapping[str, Scores]
    all: Scores
    without_prediction: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `scores.json`."""
        return {
            "images": {name: one.as_json() for name, one in self.images.items()},
            "cities": {name: one.as_json() for name, one in self.cities.items()},
            "all": self.all.as_json(),
            "without_prediction": list(self.without_prediction),
        }
