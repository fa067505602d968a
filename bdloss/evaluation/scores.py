"""Scores of images: as values, as JSON, and what each of them means."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bdloss.metrics.boundary_iou import BOUNDARY_DISTANCE
from bdloss.metrics.buildings import MIN_BUILDING_AREA, InstanceCounts
from bdloss.metrics.conformal import MarginCounts
from bdloss.metrics.distances import SurfaceDistances
from bdloss.metrics.polygons import PolygonCounts
from bdloss.metrics.scores import BoundaryScore

TOLERANCES = (3, 5)  # pixels
DEPTH = f"{BOUNDARY_DISTANCE} px"  # of the regions of Boundary IoU
UNKNOWN = BoundaryScore(math.nan, math.nan, math.nan)
NO_DISTANCES = SurfaceDistances(math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one image, or of several together.

    A score that nothing speaks for is NaN here and null in JSON; what each of them
    means is said in `describe_scores`.

    Attributes:
        iou: Of all pixels, in [0, 1].
        accuracy: Share of all pixels that are right.
        boundary_iou: Of all boundary regions, in [0, 1].
        depth: Of these regions, with its unit: "3 px", "0.9 m".
        boundary: F1, precision and recall of boundaries at each tolerance in pixels,
            means over the images that have a boundary in truth or prediction.
        matched: The same at the first tolerance of boundaries matched one to one.
        boundary_ratio: Predicted boundary pixels of all images over the true ones,
            which teeth along an edge raise where BF1 does not see them.
        distances: Mean ASSD and HD95 of the matched buildings, in pixels.
        distances_m: The same in metres, if the size of a pixel is known.
        images: How many the scores are taken over.
        images_with_boundary: How many of them have a boundary.
        pixels: How many are not ignored.
        instances: Buildings, summed.
        polygons: Outlines, summed; None if truth or prediction has none.
        margin: True walls near predicted ones, summed; None if not asked for.
    """

    iou: float
    boundary: Mapping[int, BoundaryScore]
    images: int
    images_with_boundary: int
    pixels: int
    instances: InstanceCounts
    accuracy: float = math.nan
    boundary_iou: float = math.nan
    depth: str = DEPTH
    matched: BoundaryScore = UNKNOWN
    boundary_ratio: float = math.nan
    distances: SurfaceDistances = NO_DISTANCES
    distances_m: SurfaceDistances = NO_DISTANCES
    polygons: PolygonCounts | None = None
    margin: MarginCounts | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `scores.json` and `metrics.json`."""
        values: dict[str, Any] = {
            column.key: column.value(self)
            for columns in describe_scores(self.depth).values()
            for column in columns
        }
        for tolerance, score in self.boundary.items():
            values[f"precision_{tolerance}"] = score.precision
            values[f"recall_{tolerance}"] = score.recall
        values |= {
            "matched_precision_3": self.matched.precision,
            "matched_recall_3": self.matched.recall,
            "boundary_depth": self.depth,
            "regions": self.instances.regions,
            "matched": self.instances.matched,
            "images": self.images,
            "images_with_boundary": self.images_with_boundary,
            "pixels": self.pixels,
        }
        if self.margin is not None:
            values["margin_coverage"] = self.margin.coverage
            values["margin_width_m"] = self.margin.width
        return {key: None if v != v else v for key, v in values.items()}  # NaN

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scores":
        """Return the scores of a file; what an older one lacks is NaN or 0.

        Outlines are not among them.

        Args:
            values: What `as_json` returned.
        """

        def read(key: str) -> float:
            value = values.get(key)
            return math.nan if value is None else value

        tolerances = [
            int(key.removeprefix("bf1_")) for key in values if key.startswith("bf1_")
        ]
        counts = {name: values.get(name, 0) for name in InstanceCounts._fields}
        mean = values.get("matched_iou") or 0.0
        counts["matched_iou_sum"] = mean * counts["matched"]
        return cls(
            iou=read("iou"),
            accuracy=read("accuracy"),
            boundary_iou=read("boundary_iou"),
            depth=values.get("boundary_depth", DEPTH),
            boundary={
                tolerance: BoundaryScore(
                    f1=read(f"bf1_{tolerance}"),
                    precision=read(f"precision_{tolerance}"),
                    recall=read(f"recall_{tolerance}"),
                )
                for tolerance in tolerances
            },
            matched=BoundaryScore(
                f1=read("matched_f1_3"),
                precision=read("matched_precision_3"),
                recall=read("matched_recall_3"),
            ),
            boundary_ratio=read("boundary_ratio"),
            distances=SurfaceDistances(read("assd"), read("hd95")),
            distances_m=SurfaceDistances(read("assd_m"), read("hd95_m")),
            images=values.get("images", 0),
            images_with_boundary=values.get("images_with_boundary", 0),
            pixels=values.get("pixels", 0),
            instances=InstanceCounts(**counts),
        )


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of several classes, one by one and together.

    Attributes:
        classes: Those of each class against all else, by name.
        all: IoU and Boundary IoU are means over the classes that occur, accuracy is the
            share of pixels that are of the right class; boundaries are means over the
            classes of all images that have one, and what is counted is summed.
    """

    classes: Mapping[str, Scores]
    all: Scores

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `metrics.json`."""
        classes = {name: one.as_json() for name, one in self.classes.items()}
        return {**self.all.as_json(), "classes": classes}


class Column(NamedTuple):
    """A score in tables and files.

    Attributes:
        key: Its name in JSON.
        head: Its name in tables.
        unit: What it is measured in; nothing for a number without a unit.
        definition: What it means, and over what it is taken.
        value: Takes it out of `Scores`.
    """

    key: str
    head: str
    unit: str
    definition: str
    value: Callable[[Scores], float]


def describe_scores(depth: str = DEPTH) -> dict[str, list[Column]]:
    """Return all scores in their four groups, and what each of them means.

    Args:
        depth: Of the regions of Boundary IoU, with its unit.
    """
    near = "strictly closer than 3 pixels to one of the other"
    alike = "IoU is 0.5 or more, one to one"

    def of_polygons(
        read: Callable[[PolygonCounts], float],
    ) -> Callable[[Scores], float]:
        return lambda scores: (
            math.nan if scores.polygons is None else read(scores.polygons)
        )

    return {
        "area": [
            Column(
                *("iou", "IoU", ""),
                "intersection over union of building, pooled over all pixels",
                lambda scores: scores.iou,
            ),
            Column(
                *("accuracy", "accuracy", ""),
                "share of all pixels that are right",
                lambda scores: scores.accuracy,
            ),
        ],
        "boundary": [
            Column(
                *("boundary_iou", f"Boundary IoU {depth}", ""),
                f"IoU of what lies within {depth} of an edge, inside (Cheng "
                "et al. 2021); the edge of the image is none; pooled over all pixels",
                lambda scores: scores.boundary_iou,
            ),
            Column(
                *("matched_f1_3", "one-to-one F 3 px", ""),
                f"F1 of boundary pixels {near}, each with one partner (Martin et al. "
                "2004); 8 neighbours; mean over images with a boundary",
                lambda scores: scores.matched.f1,
            ),
            Column(
                *("bf1_3", "BF1 3 px", ""),
                f"F1 of boundary pixels {near} (Csurka et al. 2013, the paper); blind "
                "to teeth; mean over images with a boundary",
                lambda scores: scores.boundary[3].f1,
            ),
            Column(
                *("bf1_5", "BF1 5 px", ""),
                "the same at 5 pixels",
                lambda scores: scores.boundary[5].f1,
            ),
            Column(
                *("boundary_ratio", "boundary, of the true", ""),
                "predicted boundary pixels over true ones, 4 neighbours",
                lambda scores: scores.boundary_ratio,
            ),
            Column(
                *("assd", "ASSD px", "pixels"),
                "average symmetric surface distance of buildings that are matched, "
                "mean over them",
                lambda scores: scores.distances.assd,
            ),
            Column(
                *("hd95", "HD95 px", "pixels"),
                "95th percentile of the surface distances, the larger of both ways, "
                "mean over matched buildings",
                lambda scores: scores.distances.hd95,
            ),
            Column(
                *("assd_m", "ASSD m", "metres"),
                "as assd",
                lambda scores: scores.distances_m.assd,
            ),
            Column(
                *("hd95_m", "HD95 m", "metres"),
                "as hd95",
                lambda scores: scores.distances_m.hd95,
            ),
        ],
        "buildings": [
            Column(
                *("building_f1", "F1", ""),
                f"F1 of buildings and regions of which the {alike} (SpaceNet)",
                lambda scores: scores.instances.f1,
            ),
            Column(
                *("building_precision", "precision", ""),
                "share of the regions that are matched",
                lambda scores: scores.instances.precision,
            ),
            Column(
                *("building_recall", "recall", ""),
                "share of the buildings that are matched",
                lambda scores: scores.instances.recall,
            ),
            Column(
                *("matched_iou", "IoU of matched", ""),
                "mean IoU of the matched",
                lambda scores: scores.instances.matched_iou,
            ),
            Column(
                *("buildings", "buildings", "buildings"),
                "outlines, or 8-connected parts of a mask, of "
                f"{MIN_BUILDING_AREA} pixels or more",
                lambda scores: scores.instances.buildings,
            ),
            Column(
                *("detected", "detected", "buildings"),
                "buildings of which more than half is predicted",
                lambda scores: scores.instances.detected,
            ),
            Column(
                *("false_negatives", "false negatives", "buildings"),
                "buildings that are not detected",
                lambda scores: scores.instances.false_negatives,
            ),
            Column(
                *("false_positives", "false positives", "regions"),
                "regions that cover no building and lie mostly outside of all",
                lambda scores: scores.instances.false_positives,
            ),
            Column(
                *("split", "split", "buildings"),
                "detected buildings of which two regions or more hold a tenth each",
                lambda scores: scores.instances.split,
            ),
            Column(
                *("merged", "merged", "buildings"),
                "buildings covered by a region that covers another too",
                lambda scores: scores.instances.merged,
            ),
        ],
        "polygons": [
            Column(
                *(
                    "polis",
                    "PoLiS",
                    "metres; without a CRS the unit of the coordinates",
                ),
                "mean distance between vertices of one and boundary of the other, both "
                "ways, of matched polygons (Avbelj et al. 2015)",
                of_polygons(lambda polygons: polygons.polis),
            ),
            Column(
                *("c_iou", "C-IoU", ""),
                "IoU times one less the relative difference of the vertices (Zorzi et "
                "al. 2022), mean over images",
                of_polygons(lambda polygons: polygons.complexity_iou),
            ),
            Column(
                *("n_ratio", "N-ratio", ""),
                "predicted vertices over true ones (Zorzi et al. 2022)",
                of_polygons(lambda polygons: polygons.n_ratio),
            ),
        ],
    }


@dataclass(frozen=True, kw_only=True)
class RasterScores:
    """Scores of rasters or outlines, one by one and together.

    Attributes:
        images: Those of each image, by name.
        cities: Those of INRIA's cities, if all names are of its tiles.
        all: Those of all images.
        without_prediction: Files of truths that nothing was scored against.
        notes: What must be said of them, in lines.
    """

    images: Mapping[str, Scores]
    cities: Mapping[str, Scores]
    all: Scores
    without_prediction: Sequence[str]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `scores.json`."""
        return {
            "images": {name: one.as_json() for name, one in self.images.items()},
            "cities": {name: one.as_json() for name, one in self.cities.items()},
            "all": self.all.as_json(),
            "without_prediction": list(self.without_prediction),
            "notes": list(self.notes),
            "definitions": {
                column.key: {
                    "group": group,
                    "unit": column.unit,
                    "definition": column.definition,
                }
                for group, columns in describe_scores(self.all.depth).items()
                for column in columns
            },
        }
