"""Predictions scored against their ground truth: pooled, averaged over images."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from bdloss import plots
from bdloss.constants import IGNORED
from bdloss.data.inria import city_of
from bdloss.errors import InputError
from bdloss.evaluation.error_maps import (
    MIN_BUILDING_FRACTION,
    PICTURE_SIDE,
    ErrorMap,
    ScoredWindow,
    keep_extremes,
    read_sample,
    worst_and_best,
)
from bdloss.evaluation.pairs import (
    RESOLUTION,
    Labels,
    Pair,
    PairReader,
    Rows,
    Strip,
    find_pairs,
    images_by_name,
    open_pair,
)
from bdloss.evaluation.scores import (
    DEPTH,
    NO_DISTANCES,
    TOLERANCES,
    UNKNOWN,
    ClassScores,
    RasterScores,
    Scores,
)
from bdloss.evaluation.tables import write_scores
from bdloss.files import atomic_folder, folder_aside, refuse_existing
from bdloss.geo import raster
from bdloss.geo.area import to_pixels
from bdloss.geo.geobox import GeoBox
from bdloss.geo.windows import TILE, Window
from bdloss.metrics.boundary_iou import (
    BOUNDARY_DISTANCE,
    BoundaryIoUCounts,
    count_boundary_iou,
)
from bdloss.metrics.buildings import InstanceCounter, InstanceCounts
from bdloss.metrics.conformal import MarginCounts, count_margin, points_on_walls
from bdloss.metrics.distances import (
    DistanceCounts,
    MatchedDistances,
    SurfaceDistances,
)
from bdloss.metrics.matched_boundaries import BoundaryMatcher, MatchedBoundaryCounts
from bdloss.metrics.polygons import PolygonCounts, count_polygons, mend
from bdloss.metrics.scores import (
    BoundaryCounts,
    BoundaryScore,
    Counts,
    add_counts,
    count_boundary,
    count_pixels,
)

Keep = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

WALL_STEP = 0.5  # pixels that points on a wall are apart at most
NO_BUILDING = -1  # marks ignored pixels beside the numbers of buildings
STRIP_PIXELS = 5_000_000  # in memory at a time, about
MIN_STRIP_HEIGHT = 64  # rows, of which each strip sees some of its neighbours again


class ImageCounts(NamedTuple):
    """What is counted on one image.

    Attributes:
        pixels: Pixels of building and ground.
        boundaries: Boundary pixels at each of `TOLERANCES`.
        regions: Pixels near boundaries.
        matched: Boundary pixels matched one to one, at the first of `TOLERANCES`.
        instances: Buildings.
        distances: Distances of matched buildings, in pixels.
        polygons: Outlines; None if truth or prediction is a mask.
        resolution: Metres a pixel; NaN if nobody knows.
        margin: True walls near predicted ones, in metres; None if not asked for.
    """

    pixels: Counts
    boundaries: tuple[BoundaryCounts, ...]
    regions: BoundaryIoUCounts
    matched: MatchedBoundaryCounts
    instances: InstanceCounts
    distances: DistanceCounts
    polygons: PolygonCounts | None = None
    resolution: float = math.nan
    margin: MarginCounts | None = None


class Judged(NamedTuple):
    """How a prediction fits its truth, and where it does not.

    Attributes:
        scores: Its scores.
        errors: Where it is wrong.
    """

    scores: Scores
    errors: ErrorMap


def score_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Scores:
    """Score predicted masks against true ones.

    Args:
        pairs: True and predicted mask of each image, of shape `(height, width)`; 255
            marks an ignored pixel in the truth and a masked one in the prediction,
            and neither counts.

    Returns:
        Scores of all of them together.
    """
    return summarise(_count_arrays(true, pred) for true, pred in pairs)


def score_classes(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> ClassScores:
    """Score predicted classes against true ones.

    Args:
        pairs: As in `score_masks`, but masks have the number of the class, from 1.
        names: Names of the classes.

    Returns:
        Scores of all images together. A class that is in neither mask of an image
        counts for nothing there.
    """
    counts: dict[str, list[ImageCounts]] = {name: [] for name in names}
    right = total = images = 0
    for true, pred in pairs:
        images += 1
        known = (true != IGNORED) & (pred != IGNORED)
        total += int(np.count_nonzero(known))
        right += int(np.count_nonzero(known & (true == pred)))
        for number, name in enumerate(names, 1):
            alone = (_one_class(mask, number) for mask in (true, pred))
            counts[name].append(_count_arrays(*alone))
    classes = {name: summarise(some) for name, some in counts.items()}
    together = summarise(one for some in counts.values() for one in some)
    return ClassScores(
        classes=classes,
        all=dataclasses.replace(
            together,
            iou=_mean_known(one.iou for one in classes.values()),
            boundary_iou=_mean_known(one.boundary_iou for one in classes.values()),
            accuracy=right / total if total else math.nan,
            images=images,
            pixels=total,
        ),
    )


def _one_class(mask: np.ndarray, number: int) -> np.ndarray:
    """Return the mask of one class against all else."""
    return np.where(mask == IGNORED, IGNORED, mask == number).astype(np.uint8)


def _mean_known(values: Iterable[float]) -> float:
    """Return the mean of what is known; NaN of nothing."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def summarise(images: Iterable[ImageCounts], depth: str = DEPTH) -> Scores:
    """Turn the counts of images into scores.

    Args:
        images: Counts of each.
        depth: Of their `regions`, with its unit.
    """
    images = list(images)
    pixels = add_counts(Counts(), *(image.pixels for image in images))
    edges = add_counts(BoundaryCounts(), *(image.boundaries[0] for image in images))
    near = add_counts(BoundaryIoUCounts(), *(image.regions for image in images))
    distances = add_counts(DistanceCounts(), *(image.distances for image in images))
    seen = [image for image in images if not math.isnan(image.boundaries[0].score.f1)]
    outlined = [image.polygons for image in images if image.polygons is not None]
    polygons = add_counts(PolygonCounts(), *outlined) if outlined else None
    margins = [image.margin for image in images if image.margin is not None]
    return Scores(
        iou=pixels.iou,
        accuracy=pixels.accuracy,
        boundary_iou=near.iou,
        depth=depth,
        boundary={
            tolerance: _mean_score([image.boundaries[index].score for image in seen])
            for index, tolerance in enumerate(TOLERANCES)
        },
        matched=_mean_score([image.matched.score for image in seen]),
        boundary_ratio=edges.pred / edges.true if edges.true else math.nan,
        distances=distances.mean,
        distances_m=_in_metres(images),
        images=len(images),
        images_with_boundary=len(seen),
        pixels=pixels.total,
        instances=add_counts(InstanceCounts(), *(image.instances for image in images)),
        polygons=polygons,
        margin=add_counts(MarginCounts(), *margins) if margins else None,
    )


def _in_metres(images: Sequence[ImageCounts]) -> SurfaceDistances:
    """Return the mean distances in metres; NaN if one of them cannot be."""
    found = [image for image in images if image.distances.matched]
    number = sum(image.distances.matched for image in found)
    if not number:
        return NO_DISTANCES
    assd = sum(image.resolution * image.distances.assd_sum for image in found)
    hd95 = sum(image.resolution * image.distances.hd95_sum for image in found)
    return SurfaceDistances(assd / number, hd95 / number)


def _mean_score(scores: Sequence[BoundaryScore]) -> BoundaryScore:
    """Return the means of scores; NaN without any."""
    if not scores:
        return UNKNOWN
    return BoundaryScore(*(float(np.mean(part)) for part in zip(*scores, strict=True)))


def score_rasters(
    predictions: Path,
    truths: Path,
    out: Path | None = None,
    images: Path | None = None,
    overwrite: bool = False,
    on_scored: Callable[[Pair, Judged, Path], Any] | None = None,
    *,
    distance: int = BOUNDARY_DISTANCE,
    distance_m: float | None = None,
    resolution: float = RESOLUTION,
    margin: float | None = None,
    value: int | None = None,
    strip_height: int | None = None,
    picture_side: int = PICTURE_SIDE,
    min_building_fraction: float = MIN_BUILDING_FRACTION,
) -> RasterScores:
    """Score masks or outlines that were predicted, and show where they are wrong.

    They are read by strips of rows, so that memory grows with neither side.

    Args:
        predictions: As in `find_pairs`.
        truths: As in `find_pairs`.
        out: Folder to write `scores.json`, `scores.md`, `NAME_errors.png` and, if any
            window has enough buildings, `worst.png` and `best.png`; None for nothing.
        images: An orthophoto or a folder of those of the same names, for the pictures.
        overwrite: Whether files that exist may be replaced.
        on_scored: With `out`, called with each pair, how it fits, and a folder of which
            the files go into `out` when all pairs are scored.
        distance: Depth of the regions of Boundary IoU, in pixels.
        distance_m: The same in metres, in its place, rounded to pixels of each image.
        resolution: Metres a pixel, where truth and prediction are outlines.
        margin: Metres around predicted outlines in which true walls are counted; None
            for none.
        value: In masks, that of the class to score; None for all but 0.
        strip_height: As in `count_image`.
        picture_side: Pixels of the longer side of an error map at most.
        min_building_fraction: Of a window in `worst.png` and `best.png`, at least.

    Returns:
        Scores of each image, of INRIA's cities and of all.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        FileExistsError: If there are files in `out` that may not be replaced.
        ValueError: If predictions and truths do not go together.
    """
    pairs, left = find_pairs(predictions, truths, value)
    pictures = {} if images is None else images_by_name(images)
    if out is not None:
        shutil.rmtree(folder_aside(out), ignore_errors=True)  # killed at its end
        refuse_existing(out / "scores.json", overwrite)
    counted: dict[str, ImageCounts] = {}
    kinds: set[tuple[bool, ...]] = set()
    without_crs = False
    windows: list[ScoredWindow] = []
    depth = f"{distance} px" if distance_m is None else f"{distance_m:g} m"
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(atomic_folder(out, last="scores.json"))
        for pair in pairs:
            with open_pair(pair, resolution=resolution) as reader:
                errors = None
                if folder:
                    errors = ErrorMap(
                        pair,
                        reader.geobox.height,
                        reader.geobox.width,
                        picture_side,
                        min_building_fraction,
                    )
                counted[pair.name] = count_pair(
                    reader,
                    see=errors.add if errors else None,
                    strip_height=strip_height,
                    distance=_depth_in_pixels(distance, distance_m, reader.geobox),
                    margin=margin,
                )
                kinds.add(reader.are_outlines)
                without_crs |= reader.geobox.crs is None
            if folder and errors:
                picture = plots.colour_errors(errors.marks)
                plots.write_picture(picture, folder / f"{pair.name}_errors.png")
                windows = keep_extremes([*windows, *errors.windows])
                if on_scored:
                    judged = Judged(summarise([counted[pair.name]], depth), errors)
                    on_scored(pair, judged, folder)
        result = RasterScores(
            images={name: summarise([one], depth) for name, one in counted.items()},
            cities=_score_cities(counted, depth),
            all=summarise(counted.values(), depth),
            without_prediction=[path.name for path in left],
            notes=[
                *note_kinds(kinds, without_crs, counted.values()),
                *note_margin(margin, counted.values()),
            ],
        )
        if folder and out is not None:
            for name, chosen in worst_and_best(windows).items():
                samples = [read_sample(window, pictures) for window in chosen]
                plots.draw_windows(samples, folder / f"{name}.png")
            write_scores(result, folder)
    return result


def _count_arrays(true: np.ndarray, pred: np.ndarray) -> ImageCounts:
    if true.shape != pred.shape:
        raise InputError(
            f"a mask is of the shape of its truth {true.shape}, got {pred.shape}"
        )

    def read(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return true[top:end], pred[top:end]

    return count_image(read, *true.shape)


def count_pair(
    reader: PairReader,
    valid: Callable[[Window], np.ndarray] | None = None,
    keep: Keep | None = None,
    *,
    see: Callable[[Strip, int], None] | None = None,
    strip_height: int | None = None,
    distance: int = BOUNDARY_DISTANCE,
    margin: float | Path | None = None,
) -> ImageCounts:
    """Count a prediction against its ground truth.

    Args:
        reader: Of both, as `open_pair` gives it.
        valid: Function of a window to the pixels, bool, at which the truth counts;
            None for all that it knows.
        keep: Function of true outlines, in pixels, to those that count, or their parts,
            and which each is of: `Area.keep`. None for all.
        see: As in `count_image`.
        strip_height: As in `count_image`.
        distance: As in `count_image`.
        margin: As in `score_rasters`, or the raster of a margin.

    Returns:
        The counts, for `summarise`.
    """
    geobox = reader.geobox

    def rows(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        true, pred = reader.rows(top, end)
        if valid is not None:
            true = np.where(valid(Window(top, 0, *true.shape)), true, IGNORED)
        return true, pred

    counts = count_image(
        rows,
        geobox.height,
        geobox.width,
        see,
        strip_height,
        distance,
        reader.labels,
        reader.are_outlines,
    )
    return counts._replace(
        polygons=_count_outlines(*reader.outlines(), geobox, keep),
        resolution=geobox.resolution or math.nan,
        margin=None if margin is None else _count_margin(reader, margin),
    )


def count_image(
    read: Rows,
    height: int,
    width: int,
    see: Callable[[Strip, int], None] | None = None,
    strip_height: int | None = None,
    distance: int = BOUNDARY_DISTANCE,
    labels: Labels = lambda top, end: (None, None),
    are_outlines: tuple[bool, bool] = (False, False),
) -> ImageCounts:
    """Count an image in strips of rows, so that memory grows with neither side.

    Args:
        read: Function of first row and end to truth and prediction of these rows, as
            `PairReader.rows`.
        height: Height of the image, in pixels.
        width: Its width.
        see: Shown each strip and its first row.
        strip_height: Rows in memory at a time, about; None for what makes
            `STRIP_PIXELS`.
        distance: Depth of the regions of Boundary IoU, in pixels.
        labels: Function of first row and end to numbers of the outlines of truth and
            prediction in these rows, None of a mask, as `PairReader.labels`.
        are_outlines: Whether there are such numbers, of truth and prediction.

    Returns:
        The counts, for `summarise`.
    """
    around = max(*TOLERANCES, distance)
    pixels, near = Counts(), BoundaryIoUCounts()
    matcher = BoundaryMatcher(TOLERANCES[0], IGNORED)
    boundaries = [BoundaryCounts() for _ in TOLERANCES]
    sides = {"labelled_true": are_outlines[0], "labelled_pred": are_outlines[1]}
    instances = InstanceCounter(NO_BUILDING, **sides)
    distances = MatchedDistances(NO_BUILDING, **sides)
    if strip_height is None:
        strip_height = max(MIN_STRIP_HEIGHT, STRIP_PIXELS // width)
    strips = math.ceil(height / strip_height)
    strip = math.ceil(height / strips)  # none is a thin remainder
    for top in range(0, height, strip):
        first, end = max(0, top - around), min(height, top + strip)
        true, pred = read(first, min(height, end + around))
        true = np.where(pred == IGNORED, IGNORED, true)
        rows = slice(top - first, end - first)
        pixels = add_counts(pixels, count_pixels(true[rows], pred[rows], IGNORED))
        near = add_counts(
            near, count_boundary_iou(true, pred, distance, ignore=IGNORED, rows=rows)
        )
        matcher.add(true[rows], pred[rows])
        for index, tolerance in enumerate(TOLERANCES):
            boundaries[index] = add_counts(
                boundaries[index],
                count_boundary(true, pred, tolerance, ignore=IGNORED, rows=rows),
            )
        buildings = _as_buildings(true[rows], pred[rows], *labels(top, end))
        instances.add(*buildings)
        distances.add(*buildings)
        if see:
            see(Strip(true, pred, rows), top)
    return ImageCounts(
        pixels,
        tuple(boundaries),
        near,
        matcher.counts(),
        instances.counts(),
        distances.counts(),
    )


def _as_buildings(
    true: np.ndarray,
    pred: np.ndarray,
    true_labels: np.ndarray | None,
    pred_labels: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks or labels, with what is ignored as `NO_BUILDING`."""
    numbers = true if true_labels is None else true_labels
    known = np.where(true == IGNORED, NO_BUILDING, numbers.astype(np.int32))
    return known, pred if pred_labels is None else pred_labels


def _count_outlines(
    true: list[shapely.Polygon] | None,
    pred: list[shapely.Polygon] | None,
    geobox: GeoBox,
    keep: Keep | None,
) -> PolygonCounts | None:
    """Count outlines, in metres if a pixel of their grid is known in metres."""
    if true is None or pred is None:
        return None
    sides = [to_pixels(np.array(side, object), geobox) for side in (true, pred)]
    if keep is not None:
        mended, _ = mend(sides[0].tolist())
        sides[0], _ = keep(np.array(mended, object))
    counts = count_polygons(*(side.tolist() for side in sides))
    side = geobox.resolution or math.sqrt(abs(geobox.transform.determinant))
    return counts._replace(polis_sum=side * counts.polis_sum)


def _count_margin(reader: PairReader, margin: float | Path) -> MarginCounts | None:
    """Count true walls in a margin; None if a side has no outlines."""
    true, pred = reader.outlines()
    metres = reader.geobox.resolution
    if true is None or pred is None or metres is None:
        return None
    true, pred = (
        to_pixels(np.array(side, object), reader.geobox).tolist()
        for side in (true, pred)
    )
    extent = shapely.box(0, 0, reader.geobox.width, reader.geobox.height)
    if isinstance(margin, Path):
        points = points_on_walls(true, WALL_STEP, extent)
        length = float(shapely.length(np.array(pred, object)).sum())
        counts = _count_in_raster(points, margin)._replace(length=length)
    else:
        counts = count_margin(true, pred, margin / metres, WALL_STEP, extent)
    return counts._replace(area=metres**2 * counts.area, length=metres * counts.length)


def _count_in_raster(points: np.ndarray, margin: Path) -> MarginCounts:
    """Count the points that lie in the raster of a margin, and its pixels."""
    counts = MarginCounts()
    col, row = points.astype(int).T
    with raster.open_raster(margin) as source:
        for top in range(0, source.height, TILE):
            rows = min(TILE, source.height - top)
            inside = raster.read_mask(source, Window(top, 0, rows, source.width))
            here = (row >= top) & (row < top + rows)
            values = inside[row[here] - top, np.minimum(col[here], source.width - 1)]
            found = MarginCounts(
                covered=int((values == 1).sum()),
                points=int((values != IGNORED).sum()),
                area=float((inside == 1).sum()),
            )
            counts = add_counts(counts, found)
    return counts


def _depth_in_pixels(pixels: int, metres: float | None, geobox: GeoBox) -> int:
    """Return the depth of the regions of Boundary IoU on a grid."""
    if metres is None:
        return pixels
    if geobox.resolution is None:
        raise InputError(f"a distance in metres needs a CRS, got none: {metres:g} m")
    return max(1, round(metres / geobox.resolution))


def note_kinds(
    kinds: set[tuple[bool, ...]], without_crs: bool, counts: Iterable[ImageCounts]
) -> list[str]:
    """Return what buildings were taken from, and what could not be scored and why.

    Args:
        kinds: Whether truth and prediction were outlines, of all pairs.
        without_crs: Whether an image has no CRS.
        counts: Those of all images.
    """
    notes = []
    for place, side in enumerate(("true", "predicted")):
        outlined = {kind[place] for kind in kinds}
        if outlined:
            source = {
                frozenset([True]): "its outlines, touching or not",
                frozenset([False]): "the connected parts of its mask",
            }.get(frozenset(outlined), "outlines of some images, masks of others")
            name = "buildings" if place == 0 else "regions"
            notes.append(f"The {side} {name} are {source}.")
    if kinds and (True, True) not in kinds:
        missing = [
            name
            for place, name in enumerate(("truth", "prediction"))
            if not any(kind[place] for kind in kinds)
        ]
        notes.append(
            "No scores of polygons: no outlines of " + " and ".join(missing) + "."
        )
    if without_crs:
        notes.append("No distances in metres: without a CRS.")
    found = [count.polygons for count in counts if count.polygons is not None]
    invalid = sum(each.true_invalid + each.pred_invalid for each in found)
    if invalid:
        notes.append(f"{invalid} outlines were not valid, and were mended.")
    return notes


def note_margin(
    margin: float | Path | None, counts: Iterable[ImageCounts]
) -> list[str]:
    """Return how many true walls lie in a margin, and how wide it is, in a line.

    Args:
        margin: As in `count_pair`; None for no margin.
        counts: Those of all images.
    """
    counts = list(counts)
    if margin is None or not counts:
        return []
    found = summarise(counts).margin
    if found is None:
        return ["No margin: it needs outlines on both sides, and a CRS."]
    where = "where the model doubts"
    if not isinstance(margin, Path):
        where = f"within {margin:g} m of predicted ones"
    return [
        f"{100 * found.coverage:.1f} % of the true walls lie {where}; the margin is "
        f"{found.width:.2f} m wide on average."
    ]


def _score_cities(counted: Mapping[str, ImageCounts], depth: str) -> dict[str, Scores]:
    """Return the scores of INRIA's cities; none if a name is not of its tiles."""
    cities: dict[str, list[ImageCounts]] = {}
    for name, counts in counted.items():
        city = city_of(name)
        if city is None:
            return {}
        cities.setdefault(city, []).append(counts)
    return {city: summarise(some, depth) for city, some in sorted(cities.items())}
