"""From an orthophoto to what a person opens: mask, outlines, picture, scores."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np
import shapely

from bdloss import plots
from bdloss.constants import IGNORED, PROBABILITY_SCALE
from bdloss.data.ground_truth import GroundTruth, find_truth
from bdloss.errors import InputError, OutputExistsError
from bdloss.evaluation.scoring import ImageCounts, Pair, count_image, open_pair
from bdloss.files import refuse_overlap, visible_files
from bdloss.geo.geobox import ground_of
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.polygonize import outline_strips
from bdloss.geo.raster import open_raster, read_reduced_mask
from bdloss.geo.vector import count_outlines, write_outlines
from bdloss.geo.windows import Window
from bdloss.inference.raster_prediction import predict_strips, strips_folder, write_maps
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.sliding_window import find_batch
from bdloss.inference.strips import IDENTITY, StripStore
from bdloss.models import Predictor

OVERLAP = 4  # a quarter of a window is shared with the next, if nothing is said
BATCH = 4  # windows a step on a CPU, where more gains nothing
SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg")
PRODUCTS = ("mask", "prob", "overlay")  # rasters that we write beside an image
MISMATCH = 1.2  # of resolutions, from which a model may not know what it sees
PICTURE = 3000  # pixels: the most of the longer side of an overlay

# By window, so that it is tried once for all rasters; a model no longer used goes.
_fastest_batches: WeakKeyDictionary[Predictor, dict[int, int]] = WeakKeyDictionary()


class Settings(NamedTuple):
    """How buildings are mapped, and what is written.

    Attributes:
        window: Side of a window in pixels; None for the model's.
        overlap: Pixels that neighbouring windows share; None for a quarter of it.
        batch: Windows that the model is given at a time; None for `BATCH`, or on a GPU
            what is found to be fastest.
        threshold: Probability from which a pixel is building; None for the model's.
        tta: Test-time augmentation, a name in `tta.MODES`; None for the model's.
        mean: Mean of its answers, a name in `tta.MEANS`.
        bands: Numbers of the bands to read, from 1; None for the picture.
        resolution: What the image is resampled to for the model, in metres a pixel;
            None for as it is. Outputs are on the grid of the image anyhow.
        nodata: What images that do not say so have in all bands where they have no
            data.
        prob: Whether probabilities are written.
        polygons: Whether outlines are written.
        min_area: Smallest polygon, in square metres.
        simplify: Tolerance of outlines, in pixels.
        vector: Format of the outlines: `gpkg`, `geojson` or `fgb`.
        format: Of the mask: `geotiff` (1 building, 0 not, 255 no data), or `inria`, as
            INRIA's benchmark takes it: 255 and 0, of the same name as the image.
        cog: Whether rasters are cloud-optimised GeoTIFFs.
        overviews: Whether rasters get overviews.
        overlay: Whether outlines are drawn on the image.
        overwrite: Whether outputs that exist are replaced.
        resume: Whether outputs that exist are kept, and half-finished ones gone on
            with.
    """

    window: int | None = None
    overlap: int | None = None
    batch: int | None = None
    threshold: float | None = None
    tta: str | None = None
    mean: str = "arithmetic"
    bands: tuple[int, ...] | None = None
    resolution: float | None = None
    nodata: float | None = None
    prob: bool = False
    polygons: bool = True
    min_area: float = 5.0
    simplify: float = 1.0
    vector: str = "gpkg"
    format: str = "geotiff"
    cog: bool = False
    overviews: bool = False
    overlay: bool = False
    overwrite: bool = False
    resume: bool = True


class PredictionResult(NamedTuple):
    """What came of one orthophoto.

    Attributes:
        files: The files that were written, the mask first.
        buildings: Number of polygons; None if none were asked for.
        kept: Whether they were there already.
        counts: What `scoring.summarise` makes scores of, if truth was given.
    """

    files: list[Path]
    buildings: int | None
    kept: bool = False
    counts: ImageCounts | None = None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the orthophotos among files and folders.

    Args:
        paths: Rasters, which are taken as they come, and folders, of which the rasters
            are taken; what we wrote into them is not.

    Raises:
        ValueError: If a folder holds no raster, or two rasters have the same stem, so
            that their outputs would have the same name.
    """
    images: list[Path] = []
    for path in paths:
        if not path.is_dir():
            images.append(path)
            continue
        rasters = visible_files(path, SUFFIXES)
        stems = {file.stem for file in rasters}
        ours = {f"{stem}_{product}" for stem in stems for product in PRODUCTS}
        rasters = [file for file in rasters if file.stem not in ours]
        if not rasters:
            raise InputError(
                f"no raster ({', '.join(SUFFIXES)}) in this folder: {path}"
            )
        images += rasters
    seen: dict[str, Path] = {}
    for image in images:
        if image.stem in seen:
            raise InputError(
                "orthophotos mapped together need names of their own, "
                f"got {seen[image.stem]} and {image}"
            )
        seen[image.stem] = image
    return images


def check_outputs(
    images: Sequence[Path], out: Path, settings: Settings, read: Sequence[Path] = ()
) -> None:
    """Refuse to write over what is read, before anything is.

    Args:
        images: All that will be mapped.
        out: Folder to write into.
        settings: What will be written.
        read: What else is read: the model, files of truth.

    Raises:
        ValueError: If an output is an input, or truth lies in the folder written into.
    """
    outputs = [
        path
        for image in images
        for path in _name_outputs(image.stem, out, settings).values()
    ]
    refuse_overlap(outputs, [*images, *read])
    if any(path.is_dir() and path.resolve() == out.resolve() for path in read):
        raise InputError(f"truth must lie in a folder that is not --out, got {out}")


def map_buildings(
    image: Path | Orthophoto,
    predictor: Predictor,
    out: Path,
    settings: Settings,
    truths: Path | None = None,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[float], Any] | None = None,
    say: Callable[[str], Any] | None = None,
) -> PredictionResult:
    """Map the buildings of one orthophoto.

    Writes `NAME_mask.tif` (1 building, 0 not, 255 no data) on the grid of the
    orthophoto and, as the settings ask, `NAME_prob.tif`, `NAME_buildings.gpkg` and
    `NAME_overlay.png`. Outlines have their area (`area_m2`) and the mean of their
    pixels' `probability`. All that can be wrong with the input is found before the
    first pixel is predicted. None of them is there before it is whole; what a run that
    was stopped has predicted lies in `NAME_mask.partial` and is gone on with.

    Args:
        image: Raster of a format in `trust.DRIVERS`, or its header, read with the bands
            and nodata of the settings.
        predictor: A model, from `models.load_predictor`.
        out: Folder to write into; made if it does not exist.
        settings: How.
        truths: A mask, a folder of masks of the same names, or a file of outlines.
        shard: `(i, n)` for the i-th of n parts of the rows, counted from 1; what is
            predicted of them is kept for `merge_buildings`, and nothing else written.
        progress: Called with the megapixels done since it was last called.
        say: Called with a line of what is odd with the image.

    Returns:
        What came of it.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If an output exists, may not be replaced, and is not what the
            settings would give.
        ValueError: If image, model, truth and settings do not go together.
    """
    orthophoto = image
    if not isinstance(orthophoto, Orthophoto):
        orthophoto = Orthophoto.read(orthophoto, settings.bands, settings.nodata)
    inference = _inference_settings(settings, predictor)
    geojson = settings.vector == "geojson" and settings.polygons
    if geojson and orthophoto.ground.crs is None:
        raise InputError(
            f"GeoJSON is in degrees, the image has no CRS: {orthophoto.path}"
        )
    if say is not None:
        for line in _input_warnings(
            orthophoto, inference.resolution, predictor.resolution
        ):
            say(f"{orthophoto.path.name} {line}")
    tags = {"model": predictor.name, "model_sha256": predictor.digest}
    name = orthophoto.path.stem
    paths = _name_outputs(name, out, settings)
    read = [] if truths is None else [truths]
    check_outputs([orthophoto.path], out, settings, read)
    truth = None
    if truths is not None:
        truth = find_truth(orthophoto.path, truths)
        with open_pair(Pair(name, orthophoto.path, truth)):
            pass  # they go together
    store = StripStore(strips_folder(paths["mask"]))
    known = {
        **orthophoto.identity,
        **tags,
        **inference.tags(orthophoto),
        **_describe_products(settings),
    }
    kept = _is_finished(paths, store.folder, known, settings)
    if kept:
        _remove_rows(store, shard)  # killed before it could
        buildings = count_outlines(paths["polygons"]) if settings.polygons else None
    else:
        with contextlib.ExitStack() as undo:
            if not out.exists():
                out.mkdir(parents=True)
                undo.callback(_remove_empty, out)
            undo.enter_context(store.held(*shard))
            batch = _batch(predictor, inference.window, settings)
            predict_strips(
                orthophoto,
                predictor.predict,
                dataclasses.replace(inference, batch=batch),
                store,
                bands=predictor.band_count,
                shard=shard,
                resume=shard[1] > 1 or (settings.resume and not settings.overwrite),
                tags=tags,
                progress=progress,
            )
            if shard[1] > 1:
                return PredictionResult([store.folder], None)
            buildings = _write_products(orthophoto, store, paths, settings, truth)
            store.remove()
    counts = None
    if truth is not None:
        counts = _count(orthophoto, paths["mask"], truth)
    return PredictionResult(list(paths.values()), buildings, kept, counts)


def _inference_settings(settings: Settings, predictor: Predictor) -> InferenceSettings:
    """Put the model's own in the place of what was not said."""
    window = predictor.patch_size if settings.window is None else settings.window
    predictor.check_window(window)
    threshold = settings.threshold
    return InferenceSettings(
        window=window,
        overlap=window // OVERLAP if settings.overlap is None else settings.overlap,
        batch=BATCH if settings.batch is None else settings.batch,
        threshold=predictor.threshold if threshold is None else threshold,
        tta=settings.tta or predictor.tta,
        mean=settings.mean,
        resolution=settings.resolution,
    )


def _batch(predictor: Predictor, window: int, settings: Settings) -> int:
    if settings.batch is not None:
        return settings.batch
    return _fastest_batch(predictor, window) if _has_gpu() else BATCH


def _has_gpu() -> bool:
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except (AttributeError, RuntimeError):  # so says JAX; PyTorch does not know
        return False


def _fastest_batch(predictor: Predictor, window: int) -> int:
    found = _fastest_batches.setdefault(predictor, {})
    if window not in found:
        shape = window, window, predictor.band_count
        found[window] = find_batch(predictor.predict, shape)
    return found[window]


def merge_buildings(image: Path, out: Path, settings: Settings) -> PredictionResult:
    """Put together what shards have predicted of an orthophoto.

    Args:
        image: The raster.
        out: Folder that the shards wrote into, or that their files were copied to.
        settings: What to write, as in `map_buildings`; the result is the same.

    Returns:
        What came of it; what an earlier call has finished is kept.

    Raises:
        FileNotFoundError: If there is no such raster.
        FileExistsError: If an output exists and may not be replaced.
        ValueError: If a shard is missing or not whole.
    """
    orthophoto = Orthophoto.read(image)
    paths = _name_outputs(image.stem, out, settings)
    refuse_overlap(paths.values(), [image])
    strips = StripStore(strips_folder(paths["mask"]))
    there = [path for path in paths.values() if path.exists()]
    if not strips.folder.exists():
        known = {**orthophoto.identity, **_describe_products(settings)}
        known.pop("image_time", None)  # shards may be of copies
        whole = len(there) == len(paths) and _is_made_of(paths["mask"], known)
        if settings.overwrite or not whole:
            raise InputError(f"no shards of {image.name} in this folder: {out}")
        _remove_rows(strips)  # killed before it could
        buildings = count_outlines(paths["polygons"]) if settings.polygons else None
        return PredictionResult(there, buildings, kept=True)
    known = {**strips.settings, **_describe_products(settings)}
    if there and not (settings.overwrite or _is_made_of(paths["mask"], known)):
        raise OutputExistsError(f"{there[0]} exists; give --overwrite")
    if strips.settings.get("image") != orthophoto.identity["image"]:
        raise InputError(f"these are shards of another image: {strips.folder}")
    with strips.held():
        buildings = _write_products(orthophoto, strips, paths, settings, None)
        strips.remove()
    return PredictionResult(list(paths.values()), buildings)


def _count(orthophoto: Orthophoto, mask: Path, truth: Path) -> ImageCounts:
    """Count a mask against its truth where the image has data."""
    pair = Pair(orthophoto.path.stem, mask, truth)
    with open_pair(pair) as (read, height, width), orthophoto.open() as reader:

        def read_known(top: int, end: int) -> tuple[np.ndarray, np.ndarray]:
            true, pred = read(top, end)
            valid = reader.valid(Window(top, 0, *true.shape))
            return np.where(valid, true, IGNORED), pred

        return count_image(read_known, height, width)


def _input_warnings(
    orthophoto: Orthophoto, wanted: float | None, trained: float | None
) -> Iterator[str]:
    """Yield what a person should know of an image before trusting its map."""
    misfit, ground = orthophoto.misfit, orthophoto.ground
    if misfit is not None:
        yield (
            "has ground control points, which its mask keeps; its outlines are placed "
            f"by the affine map nearest to them, {misfit:.1f} pixels off at most"
        )
    elif ground.crs is None:
        yield "has no CRS, so its mask and outlines have none"
    given = wanted or ground.resolution
    if given and trained and not 1 / MISMATCH <= given / trained <= MISMATCH:
        yield (
            f"has {given:g} m a pixel, the model was trained at {trained:g}; "
            f"--resolution {trained:g} resamples"
        )


def _name_outputs(name: str, out: Path, settings: Settings) -> dict[str, Path]:
    names = {
        "mask": f"{name}{'' if settings.format == 'inria' else '_mask'}.tif",
        "prob": f"{name}_prob.tif" if settings.prob else None,
        "polygons": (
            f"{name}_buildings.{settings.vector}" if settings.polygons else None
        ),
        "overlay": f"{name}_overlay.png" if settings.overlay else None,
    }
    return {key: out / name for key, name in names.items() if name}


def _describe_products(settings: Settings) -> dict[str, Any]:
    """Return the tags that a mask has of what was made of its rows."""
    tags: dict[str, Any] = {"cog": settings.cog, "overviews": settings.overviews}
    if settings.polygons:
        tags |= {"min_area": settings.min_area, "simplify": settings.simplify}
    return tags


def _is_finished(
    paths: dict[str, Path], folder: Path, known: dict[str, Any], settings: Settings
) -> bool:
    """Return whether all outputs are there; refuse to replace what is not ours."""
    there = [path for path in paths.values() if path.exists()]
    if settings.overwrite or not there:
        return False
    hint = "give --overwrite or another --out"
    if not settings.resume:
        raise OutputExistsError(f"{there[0]} exists; {hint}")
    if len(there) < len(paths):
        if folder.exists():
            return False  # killed between two outputs
        missing = next(path for path in paths.values() if path not in there)
        raise OutputExistsError(f"{there[0]} exists, {missing.name} does not; {hint}")
    for key, found in _other_tags(paths["mask"], known):
        if key == "image_time" and found is None:
            continue  # merged of shards, which may be of copies
        if key in IDENTITY and found is not None:
            raise OutputExistsError(
                f"{paths['mask']} exists, of another image of this name; {hint}"
            )
        raise OutputExistsError(
            f"{paths['mask']} exists, made with {key} {found}, not {known[key]}; {hint}"
        )
    return True


def _is_made_of(mask: Path, known: dict[str, Any]) -> bool:
    """Return whether a mask is there and has all these tags."""
    return mask.exists() and not _other_tags(mask, known)


def _other_tags(mask: Path, known: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return the tags of a mask that are not as known: name, and value if any."""
    with open_raster(mask) as source:
        found = source.tags()
    return [
        (key, found.get(key))
        for key, value in known.items()
        if found.get(key, "") != str(value)
    ]


def _remove_rows(strips: StripStore, shard: tuple[int, int] = (1, 1)) -> None:
    """Remove the rows of outputs that are finished, or what is left of them."""
    if strips.folder.exists():
        with strips.held(*shard):
            strips.remove()
    strips.remove()


def _remove_empty(folder: Path) -> None:
    """Remove a folder unless something lies in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write_products(
    orthophoto: Orthophoto,
    strips: StripStore,
    paths: dict[str, Path],
    settings: Settings,
    truth: Path | None,
) -> int | None:
    """Write all that the settings ask for from finished rows, or nothing."""
    write_maps(
        orthophoto,
        strips,
        paths["mask"],
        paths.get("prob"),
        # Rows of shards, which may be of copies, do not know the time of the image.
        tags={**orthophoto.identity, **_describe_products(settings)},
        benchmark=settings.format == "inria",
        cog=settings.cog,
        overviews=settings.overviews,
    )
    with contextlib.ExitStack() as undo:
        for path in paths.values():
            undo.callback(path.unlink, missing_ok=True)
        buildings = None
        if settings.polygons:
            buildings = _write_polygons(
                paths["polygons"], paths["mask"], strips, settings
            )
        if settings.overlay:
            _draw_overlay(paths["overlay"], orthophoto, paths["mask"], truth)
        undo.pop_all()
    return buildings


def _write_polygons(
    path: Path, mask: Path, strips: StripStore, settings: Settings
) -> int:
    """Write the outlines of a mask with what is known of them; return their number.

    In memory are a few rows of the mask, and the outlines.
    """
    with open_raster(mask) as source:
        geobox, _ = ground_of(source)
    metres = geobox.resolution  # None without a CRS: then areas are unknown
    found = list(
        outline_strips(
            strips.read(),
            geobox,
            settings.min_area if metres else 0.0,
            settings.simplify,
        )
    )
    polygons = np.concatenate([np.empty(0, object), *(each.polygons for each in found)])
    # From the top, whichever strip they were finished in.
    order = np.lexsort((shapely.bounds(polygons) * (1, 1, 1, -1)).T)
    attributes = {}
    if metres:
        areas = np.concatenate([np.empty(0), *(each.area for each in found)])
        attributes["area_m2"] = np.round(areas, 1)[order]
    means = np.concatenate([np.empty(0), *(each.probability for each in found)])
    attributes["probability"] = np.round(means / PROBABILITY_SCALE, 3)[order]
    write_outlines(path, polygons[order].tolist(), geobox.crs, **attributes)
    return len(polygons)


def _draw_overlay(
    path: Path, orthophoto: Orthophoto, mask: Path, truth: Path | None
) -> None:
    """Draw outlines on the image, at a size that a person looks at."""
    with orthophoto.open() as reader:
        pixels = reader.reduced(PICTURE)
    shape = pixels.shape[0], pixels.shape[1]
    with open_raster(mask) as source:
        pred = read_reduced_mask(source, shape)
    true = None
    if truth is not None:
        with GroundTruth(truth).open(orthophoto.geobox) as ground_truth:
            true = ground_truth.read_reduced(shape)
    zoom = max(1, PICTURE // max(shape))
    picture = plots.draw_outlines(pixels, pred, true, zoom)
    plots.write_picture(picture, path)
