"""Calibration of a model: which margin of its outlines holds true walls."""

import datetime
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely

import bdloss
from bdloss.constants import BUILDING, IGNORED, PROBABILITY_SCALE
from bdloss.data.ground_truth import GroundTruth
from bdloss.data.scenes import Scene
from bdloss.errors import InputError
from bdloss.evaluation.scoring import WALL_STEP
from bdloss.geo import raster
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import geobox_of
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.vector import read_outlines
from bdloss.geo.windows import Window
from bdloss.inference.margin import MOST_DOUBT, Margin, doubt_of
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss.inference.settings import settings_for
from bdloss.metrics.conformal import (
    conformal_radius,
    distances_to_walls,
    fewest_units,
    points_on_walls,
)
from bdloss.models import Predictor

logger = logging.getLogger(__name__)

DIGITS = 4  # of a margin, which is rounded up


class WallScores(NamedTuple):
    """How far the points of true walls are from what is predicted.

    Attributes:
        distance: To the nearest predicted wall, in metres.
        certainty: By how much the pixel there is surer than `MOST_DOUBT`, see
            `margin.doubt_of`.
    """

    distance: np.ndarray
    certainty: np.ndarray


def calibrate(
    predictor: Predictor,
    scenes: Sequence[Scene],
    alpha: float = 0.1,
    unit: str = "scene",
    *,
    outlines: Mapping[str, Any] | None = None,
    progress: Callable[[str], Any] = lambda name: None,
    **settings: Any,
) -> Margin:
    """Find the margin of a model's outlines that holds true walls, as promised.

    Args:
        predictor: The model.
        scenes: Orthophotos with ground truth, none of which it has learned from.
        alpha: Share of a unit's true walls that may lie beyond the margin, on average.
        unit: `scene`, or `site`: all scenes whose names begin alike, see `site_of`.
        outlines: How outlines are made: attributes of `Products`.
        progress: Called with the name of a scene before it is predicted.
        **settings: As in `settings_for`.

    Returns:
        The margin.

    Raises:
        ValueError: If alpha is not in (0, 1), there are too few units, no margin keeps
            the promise, the model has learned from a scene or tells several classes
            apart, or a scene has no CRS or is there twice.
    """
    known = _check_scenes(predictor, scenes)
    fewest = fewest_units(alpha)
    _check_units({_unit_of(scene, unit) for scene in scenes}, alpha, fewest, unit)
    if unit == "site":
        for site, some in itertools.groupby(scenes, lambda one: site_of(one.name)):
            names = ", ".join(scene.name for scene in some)
            logger.info("site %s: %s", site, names)
    units: dict[str, list[WallScores]] = {}
    left_out = []
    made: dict[str, Any] = {}
    resampled = set()
    for scene in scenes:
        progress(scene.name)
        found, made = predict_walls(predictor, scene, outlines or {}, settings)
        resampled.add(made.pop("resampled"))
        if not len(found.distance):
            left_out.append(scene.name)
            continue
        units.setdefault(_unit_of(scene, unit), []).append(found)
    if left_out:
        logger.warning("left out, without a wall: %s", ", ".join(left_out))
    _check_units(units, alpha, fewest, unit)
    distances, certainties = (
        [np.concatenate([one[place] for one in some]) for some in units.values()]
        for place in range(2)
    )
    radius = conformal_radius(distances, alpha)
    if not np.isfinite(radius):
        raise InputError(
            f"no margin keeps a risk of {alpha:g}: in too many scenes nothing is "
            "predicted"
        )
    return Margin(
        radius=_rounded(radius, np.ceil),
        doubt=_rounded(MOST_DOUBT - conformal_radius(certainties, alpha), np.floor)
        or None,
        alpha=alpha,
        unit=unit,
        units=len(units),
        scenes=known,
        left_out=tuple(left_out),
        model=predictor.digest,
        made=made,
        resampled=sorted(resampled, key=str),
        date=datetime.date.today().isoformat(),
        bdloss=bdloss.__version__,
    )


def site_of(name: str) -> str:
    """Return the site of a scene: its name without a number or last part.

    Example:
        >>> site_of("vienna12"), site_of("banepa_north"), site_of("town")
        ('vienna', 'banepa', 'town')
    """
    found = re.fullmatch(r"(.+?)(?:[_-]?\d+|[_-][^_-]+)", name)
    return found[1] if found else name


def _rounded(value: float, way: Callable[[float], float]) -> float:
    return max(0.0, float(way(value * 10**DIGITS) / 10**DIGITS))


def _unit_of(scene: Scene, unit: str) -> str:
    return site_of(scene.name) if unit == "site" else scene.name


def _check_units(units: Any, alpha: float, fewest: int, unit: str) -> None:
    """Refuse so few units that no margin could keep the promise."""
    if len(units) < fewest:
        raise InputError(
            f"a risk of {alpha:g} needs {fewest} {unit}s or more, got {len(units)}"
        )


def _check_scenes(predictor: Predictor, scenes: Sequence[Scene]) -> dict[str, str]:
    """Return the digests of scenes by their names; refuse what a model has seen."""
    if predictor.classes != (BUILDING,):
        names = ", ".join(predictor.classes)
        raise InputError(f"a margin is of buildings alone, the model has {names}")
    digests = {
        scene.name: str(raster.identify(scene.image)["image"]) for scene in scenes
    }
    first = {digest: name for name, digest in reversed(digests.items())}
    copies = [name for name, digest in digests.items() if first[digest] != name]
    if copies:
        raise InputError(f"copies of other scenes are no units: {', '.join(copies)}")
    seen = set(predictor.scenes.values())
    learned = [name for name, digest in digests.items() if digest in seen]
    if learned:
        raise InputError(
            f"the model has learned from {', '.join(learned)}: calibrate it on scenes "
            "that it has not seen"
        )
    known = {name.rpartition("/")[2] for name in predictor.scenes}  # of its start too
    alike = sorted(digests.keys() & known)
    if alike:
        logger.warning(
            "the model has learned from scenes of these names; if they are of the "
            "same place, nothing is promised: %s",
            ", ".join(alike),
        )
    return digests


def predict_walls(
    predictor: Predictor,
    scene: Scene,
    outlines: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[WallScores, dict[str, Any]]:
    """Predict a scene, and see how its true walls lie.

    Args:
        predictor: The model.
        scene: The scene; it has a CRS.
        outlines: As in `calibrate`.
        settings: As in `settings_for`.

    Returns:
        How they lie, and how outlines were made.

    Raises:
        ValueError: If the scene has no CRS.
    """
    orthophoto = Orthophoto.read(scene.image)
    resolution = orthophoto.ground.resolution
    if resolution is None:
        raise InputError(f"a margin is in metres, and needs a CRS: {scene.image}")
    inference = settings_for(predictor, resolution, **settings)
    with TemporaryDirectory() as folder:
        products = Products.in_folder(folder, scene.name, prob=True, **outlines)
        predict_raster(orthophoto, predictor, products, **settings)
        assert products.probabilities and products.polygons
        scores = score_walls(
            scene.truth, products.mask, products.probabilities, products.polygons
        )
    return scores, {**inference.way, "resampled": inference.resampled, **products.way}


def score_walls(
    truth: Path, mask: Path, probabilities: Path, outlines: Path
) -> WallScores:
    """Return how the true walls of an image lie to what was predicted of it.

    Args:
        truth: Mask or file of outlines.
        mask: That of the prediction.
        probabilities: Its probabilities.
        outlines: Its outlines.
    """
    with raster.open_raster(mask) as source:
        box = geobox_of(source)
        known = raster.read_mask(source, Window(0, 0, *source.shape))
    with rasterio.open(probabilities) as source:
        likely = source.read(1)
    true = GroundTruth(truth).outlines(box)
    pred = read_outlines(outlines, box.crs)
    walls, other = (
        to_pixels(np.array(side, object), box).tolist() for side in (true, pred)
    )
    extent = shapely.box(0, 0, box.width, box.height)
    points = points_on_walls(walls, WALL_STEP, extent)
    col, row = np.minimum(points.astype(int), (box.width - 1, box.height - 1)).T
    seen = known[row, col] != IGNORED
    points, row, col = points[seen], row[seen], col[seen]
    distance = distances_to_walls(points, other) * (box.resolution or 1.0)
    doubt = doubt_of(known, likely)[row, col] / PROBABILITY_SCALE
    return WallScores(distance, MOST_DOUBT - doubt)
