"""The front door: an orthophoto predicted, whole or a part of it, and merged.

    predict_raster -> orthophoto -> strip_prediction -> strips -> products

Finished rows are kept on disk as they come (`inference/strips.py`) and put together at
the end, so that a run that was killed goes on and machines can share a raster.
"""

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from bdloss.constants import AUTO, BUILDING, KERAS
from bdloss.errors import InputError, OutputExistsError
from bdloss.files import refuse_overlap, remove_empty, visible_files
from bdloss.geo.area import NO_AREA, Area
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.raster import open_raster
from bdloss.inference.batch_size import choose_batch
from bdloss.inference.engines import choose_engine, engine_name, engine_tag
from bdloss.inference.products import (
    RASTER_PRODUCTS,
    Products,
    RegularizedCounts,
    write_products,
)
from bdloss.inference.settings import (
    InferenceSettings,
    is_familiar,
    settings_for,
)
from bdloss.inference.strip_prediction import predict_strips
from bdloss.inference.strips import UNSAID, StripStore
from bdloss.inference.tta import MODES
from bdloss.models import Predictor, class_names

logger = logging.getLogger(__name__)

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """Files and counts of one orthophoto.

    Attributes:
        files: The files, the mask first; of a part of its rows, their folder.
        kept: Whether they were there already, as they would have been made. What
            follows is then not counted, but for the polygons.
        polygons: Number of outlines; None if none were asked for.
        pixels: Number of pixels of the raster.
        masked: How many of them are masked in the mask: those that are in the raster,
            and those outside of an area of interest.
        building: How many of them are building, or of a class.
        classes: Names of the classes.
        regularized: What became of the outlines by right angles; None unless they were
            asked for.
        seconds: Time it took.
    """

    files: list[Path]
    kept: bool = False
    polygons: int | None = None
    pixels: int = 0
    masked: int = 0
    building: int = 0
    classes: tuple[str, ...] = (BUILDING,)
    regularized: RegularizedCounts | None = None
    seconds: float = 0.0


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
        ours = {f"{stem}_{product}" for stem in stems for product in RASTER_PRODUCTS}
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


def predict_raster(
    image: str | PathLike | Orthophoto,
    predict: Predictor | Callable,
    out: str | PathLike | Products,
    *,
    probability_path: str | PathLike | None = None,
    band_indexes: Sequence[int] | None = None,
    nodata: float | None = None,
    band_count: int | None = None,
    targets: Sequence[str] = (BUILDING,),
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    resume: bool = False,
    engine: str = AUTO,
    tags: Mapping[str, Any] | None = None,
    progress: Callable[[float], Any] | None = None,
    **settings: Any,
) -> PredictionResult:
    """Predict the buildings of a raster, in memory that does not grow with its height.

    The mask is 1 where the probability reaches the threshold, 0 where it does not and
    255 where the raster is masked (nodata, alpha); of several classes it is the number
    of the one, from 1, whose probability is highest. It lies on the grid of the raster.
    Windows that are masked altogether cost nothing, nor do those outside of the area of
    interest of an `Orthophoto`; the mask is 255 there. All that can be wrong with the
    input is found before the first pixel is predicted, and no file is there before it
    is whole. What a person should know of the raster is logged.

    Args:
        image: Raster to read, of a format in `trust.DRIVERS`, or an `Orthophoto`.
        predict: A model, from `models.load_predictor`; or a callable from a batch of
            shape `(batch, window, window, bands)`, uint8, to probabilities of shape
            `(batch, window, window, maps)`, in [0, 1].
        out: GeoTIFF of the mask, or `Products`: all that is to be made. Its folder is
            made if it does not exist.
        probability_path: GeoTIFF of the probabilities, beside that of the mask, as 0 to
            254, masked pixels 255; None for none.
        band_indexes: Numbers of the bands to read, from 1; None for the picture without
            alpha. Those of an `Orthophoto` are its own.
        nodata: What a raster that does not say so has where it has no data. That of an
            `Orthophoto` is its own.
        band_count: Bands that a callable takes; None for any.
        targets: Names of the maps that a callable gives: one or more classes, then
            `contact` if it gives that map.
        shard: `(i, n)` for the i-th of n parts of it, counted from 1; what is
            predicted of it is kept for `merge_shards`, and nothing else written.
        overwrite: Whether files that exist may be replaced.
        resume: Whether to keep what is finished, to go on from the last whole strip of
            an earlier run, and to leave what is whole if this one fails, in
            `MASK.partial`; without, a run that fails leaves nothing.
        engine: What computes a model: `keras`, `onnxruntime`, `openvino`, or
            `openvino-bf16`, which rounds to bfloat16; or `auto`, which goes on with
            that of what is there, and else is the fastest exact one on a CPU if there
            is much to do, see `engines.choose_engine`; a part of the rows is then of
            Keras.
        tags: Tags of the rasters, beside the settings used here.
        progress: Called after each block of rows is written, with its size in
            megapixels: `update` of a tqdm bar will do.
        **settings: As in `InferenceSettings`; what is not given is the model's own, so
            that an image of another resolution is resampled to that (`settings_for`).

    Returns:
        What was made.

    Raises:
        FileNotFoundError: If there is no such raster.
        FileExistsError: If an output exists, may not be replaced, and is not what would
            be made.
        ValueError: If raster, model, engine and settings do not go together, the engine
            is not installed, a file would be written over the raster, or its resolution
            is unknown to a model that needs it.
    """
    began = time.perf_counter()
    orthophoto = image
    if not isinstance(orthophoto, Orthophoto):
        orthophoto = Orthophoto.read(orthophoto, band_indexes, nodata)
    products = out
    if not isinstance(products, Products):
        map_ = None if probability_path is None else Path(probability_path)
        products = Products(mask=Path(products), probabilities=map_)
    model: Predictor | None = None
    colours: Sequence[str] = ()
    if isinstance(predict, Predictor):
        model, predict = predict, predict.predict
        ground = orthophoto.ground.resolution
        auto = settings.get("resolution") in (None, AUTO)
        if auto and ground is None and model.needs_resolution:
            raise InputError(
                "the size of its pixels is unknown without a CRS; --resolution native "
                f"takes it as {model.resolution:g} m a pixel: {orthophoto.path}"
            )
        inference = settings_for(model, ground, **settings)
        own = {"model": model.name, "model_sha256": model.digest}
        tags, band_count = {**own, **(tags or {})}, model.band_count
        targets, colours = model.targets, model.colours
    else:
        inference = InferenceSettings(**settings)
    products.check(orthophoto.ground, targets)
    if tuple(targets) != (BUILDING,):
        tags = {**(tags or {}), "targets": json.dumps(list(targets))}
    if colours:
        tags = {**(tags or {}), "colours": json.dumps(list(colours))}
    goes_on = shard[1] > 1 or (resume and not overwrite)
    used = _engine_of(products) if model and goes_on else ""
    if engine != AUTO:
        used = engine_tag(engine)
        if model is None and engine != KERAS:
            raise InputError(f"{engine} computes Keras models, got another callable")
    if products.margin is not None:
        digest = model.digest if model else ""
        way = {**inference.way, "resampled": inference.resampled, **products.way}
        products.margin.check(digest, way)
    for line in input_warnings(orthophoto, inference.resolution, model):
        logger.warning("%s: %s", orthophoto.path.name, line)
    if model and auto:
        for line in resolution_notes(ground, model.resolution):
            logger.info("%s: %s", orthophoto.path.name, line)
    refuse_overlap(products.paths, [orthophoto.path])
    store, folder = products.store, products.mask.parent
    known = {
        **orthophoto.identity,
        **(tags or {}),
        **inference.tags(orthophoto),
        **products.tags(),
        **({"engine": used} if used else {}),
    }
    if products.are_finished(known, overwrite=overwrite, resume=resume):
        _remove_rows(store, shard)  # killed before it could
        return PredictionResult(
            files=products.paths,
            kept=True,
            polygons=products.count_polygons(),
            classes=tuple(class_names(targets)),
        )
    with contextlib.ExitStack() as undo:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)  # by another part, meanwhile
            undo.callback(remove_empty, folder)
        undo.enter_context(store.held(*shard))
        if model:
            engine = engine_name(used) or (AUTO if shard[1] == 1 else KERAS)
            if settings.get("batch") is None:
                batch = choose_batch(model, inference.window, engine)
                inference = dataclasses.replace(inference, batch=batch)
            side, number = inference.window, inference.batch
            windows = _count_windows(orthophoto, inference)
            model, engine = choose_engine(model, engine, windows, side, number)
            predict = model.predict
            tags = {**(tags or {}), "engine": engine_tag(engine)}
        predict_strips(
            orthophoto,
            predict,
            inference,
            store,
            targets=targets,
            band_count=band_count,
            shard=shard,
            resume=goes_on,
            tags=tags,
            progress=progress,
        )
        if shard[1] > 1:
            return PredictionResult(files=[store.folder])
        try:
            made = write_products(orthophoto, products)
        except BaseException:
            if not resume:
                store.remove()
            raise
        store.remove()
    return PredictionResult(
        files=products.paths,
        pixels=orthophoto.geobox.height * orthophoto.geobox.width,
        seconds=time.perf_counter() - began,
        **made._asdict(),
    )


def merge_shards(
    image: str | PathLike, out: Products, *, overwrite: bool = False
) -> PredictionResult:
    """Put together what shards have predicted of an orthophoto.

    Args:
        image: The raster.
        out: What to make, as in `predict_raster`, where the shards wrote, or where
            their files were copied to; the result is the same.
        overwrite: Whether files that exist may be replaced.

    Returns:
        What was made; what an earlier call has finished is kept.

    Raises:
        FileNotFoundError: If there is no such raster.
        FileExistsError: If an output exists and may not be replaced.
        ValueError: If a shard is missing or not whole.
    """
    orthophoto = Orthophoto.read(image)
    refuse_overlap(out.paths, [orthophoto.path])
    store = out.store
    there = [path for path in out.paths if path.exists()]
    if not store.folder.exists():
        known = {**orthophoto.identity, **out.tags()}
        known.pop("image_time", None)  # shards may be of copies
        whole = len(there) == len(out.paths) and out.mask_has(known)
        if overwrite or not whole:
            name, folder = orthophoto.path.name, out.mask.parent
            raise InputError(f"no shards of {name} in this folder: {folder}")
        _remove_rows(store)  # killed before it could
        return PredictionResult(files=there, kept=True, polygons=out.count_polygons())
    known = {**store.settings, **out.tags()}
    if there and not (overwrite or out.mask_has(known)):
        raise OutputExistsError(f"{there[0]} exists; give --overwrite")
    if store.settings.get("image") != orthophoto.identity["image"]:
        raise InputError(f"these are shards of another image: {store.folder}")
    tag = store.settings.get("aoi", NO_AREA)
    if tag != NO_AREA:
        area = Area.restore(orthophoto.ground, store.area, tag)
        orthophoto = dataclasses.replace(orthophoto, area=area)
    if out.margin is not None:
        way = {**store.settings, **out.way}
        out.margin.check(store.settings.get("model_sha256", ""), way)
    with store.held():
        made = write_products(orthophoto, out)
        store.remove()
    return PredictionResult(files=out.paths, **made._asdict())


def _engine_of(products: Products) -> str:
    """Return the engine of what is there, half or whole; empty if nothing is."""
    if products.store.begun:
        return {**UNSAID, **products.store.settings}["engine"]
    if products.mask.exists():
        with open_raster(products.mask) as source:
            return {**UNSAID, **source.tags()}["engine"]
    return ""


def _count_windows(orthophoto: Orthophoto, inference: InferenceSettings) -> int:
    """Return how often the model will see a window, about."""
    stride = float(inference.window - inference.overlap)
    if inference.resolution and orthophoto.ground.resolution:
        stride *= inference.resolution / orthophoto.ground.resolution
    _, _, height, width = orthophoto.window
    number = math.ceil(height / stride) * math.ceil(width / stride)
    return number * len(MODES[inference.tta])


def input_warnings(
    orthophoto: Orthophoto, wanted: float | None, model: Predictor | None
) -> Iterator[str]:
    """Yield what a person should know of an image before trusting its map.

    Args:
        orthophoto: The image.
        wanted: Resolution that it is resampled to, in metres; None for its own.
        model: What predicts; None if nothing is known of it.
    """
    misfit, ground = orthophoto.misfit, orthophoto.ground
    if misfit is not None:
        yield (
            "has ground control points, which its mask keeps; its outlines are placed "
            f"by the affine map nearest to them, {misfit:.1f} pixels off at most"
        )
    elif ground.crs is None:
        yield "has no CRS, so its mask and outlines have none"
    given, trained = wanted or ground.resolution, model.resolution if model else None
    if not is_familiar(given, trained):
        yield (
            f"has {given:g} m a pixel, the model was trained at {trained:g}; "
            "--resolution auto resamples"
        )


def resolution_notes(ground: float | None, trained: float | None) -> Iterator[str]:
    """Yield what became of the resolution of an image that was left to us.

    Args:
        ground: That of the image, in metres; None if unknown.
        trained: That of the model; None if unknown.
    """
    if not is_familiar(ground, trained):
        yield (
            f"resampled from {ground:g} to the {trained:g} m a pixel that the model "
            "knows; --resolution native does not"
        )
    elif ground is None and trained is not None:
        yield f"not brought to the model's {trained:g} m a pixel: its own is unknown"
    elif trained is None:
        yield "not resampled: the model knows no resolution"


def _remove_rows(strips: StripStore, shard: tuple[int, int] = (1, 1)) -> None:
    """Remove the rows of outputs that are finished, or what is left of them."""
    with contextlib.suppress(FileNotFoundError, FileExistsError):  # others are at it
        if strips.folder.exists():
            with strips.held(*shard):
                strips.remove()
    strips.remove()
