"""From an orthophoto to what a person opens: mask, outlines, picture, scores."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from bdloss.data.datasets import Scene, find_truth, load_mask
from bdloss.models import Predictor
from bdloss.orthophotos.polygons import mask_to_polygons, write_outlines
from bdloss.orthophotos.raster import (
    Grid,
    grid_of,
    open_raster,
    read_mask,
    read_reduced,
    replaced_when_whole,
)
from bdloss.orthophotos.windows import Window
from bdloss.run import report
from bdloss.run.prediction import predict_raster

OVERLAP = 4  # a quarter of a window is shared with the next, if nothing is said
PICTURE = 3000  # pixels: the most of the longer side of an overlay


class Settings(NamedTuple):
    """How buildings are mapped, and what is written.

    Attributes:
        window: Side of a window in pixels; None for the model's.
        overlap: Pixels that neighbouring windows share; None for a quarter of it.
        batch: Windows that the model is given at a time.
        threshold: Probability from which a pixel is building; None for the model's.
        tta: Test-time augmentation, a name in `tta.MODES`.
        prob: Whether probabilities are written.
        polygons: Whether outlines are written.
        min_area: Smallest polygon, in square metres.
        simplify: Tolerance of outlines, in pixels.
        overlay: Whether outlines are drawn on the image.
        overwrite: Whether outputs that exist are replaced.
    """

    window: int | None = None
    overlap: int | None = None
    batch: int = 4
    threshold: float | None = None
    tta: str = "none"
    prob: bool = False
    polygons: bool = True
    min_area: float = 5.0
    simplify: float = 1.0
    overlay: bool = False
    overwrite: bool = False


class Mapped(NamedTuple):
    """What came of one orthophoto.

    Attributes:
        files: The files that were written, the mask first.
        buildings: Number of polygons; None if none were asked for.
        truth: True mask `(height, width)`, if it was given; 255 is ignored.
        pred: Predicted mask of the same shape; 255 where the image has no data.
    """

    files: list[Path]
    buildings: int | None
    truth: np.ndarray | None
    pred: np.ndarray


def check_names(images: Sequence[Path]) -> None:
    """Refuse images whose outputs would have the same name.

    Args:
        images: Orthophotos to map into one folder.

    Raises:
        ValueError: If two have the same stem.
    """
    seen: dict[str, Path] = {}
    for image in images:
        if image.stem in seen:
            raise ValueError(
                "orthophotos mapped together need names of their own, "
                f"got {seen[image.stem]} and {image}"
            )
        seen[image.stem] = image


def map_buildings(
    image: Path,
    predictor: Predictor,
    out: Path,
    settings: Settings,
    truths: Path | None = None,
    progress: Callable[[float], Any] | None = None,
) -> Mapped:
    """Map the buildings of one orthophoto.

    Writes `NAME_mask.tif` (1 building, 0 not, 255 no data) on the grid of the
    orthophoto and, as the settings ask, `NAME_prob.tif`, `NAME_buildings.gpkg` and
    `NAME_overlay.png`. All that can be wrong with the input is found before the
    first pixel is predicted, and a failed run leaves none of them.

    Args:
        image: Raster of any format of GDAL.
        predictor: A model, from `models.load_predictor`.
        out: Folder to write into; made if it does not exist.
        settings: How.
        truths: A mask, a folder of masks of the same names, or a file of outlines.
        progress: Called with the megapixels done since it was last called.

    Returns:
        What came of it.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If an output exists and may not be replaced.
        ValueError: If image, model, truth and settings do not go together.
    """
    window = settings.window or predictor.window
    overlap = window // OVERLAP if settings.overlap is None else settings.overlap
    threshold = (
        predictor.threshold if settings.threshold is None else settings.threshold
    )
    names = {
        "mask": f"{image.stem}_mask.tif",
        "prob": f"{image.stem}_prob.tif" if settings.prob else None,
        "polygons": f"{image.stem}_buildings.gpkg" if settings.polygons else None,
        "overlay": f"{image.stem}_overlay.png" if settings.overlay else None,
    }
    paths = {key: out / name for key, name in names.items() if name}
    for path in paths.values():
        if path.exists() and not settings.overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite or another --out")
    truth = None
    if truths is not None:
        truth = load_mask(Scene(image.stem, image, find_truth(image, truths)))
    predictor.check_window(window)
    with contextlib.ExitStack() as undo:
        if not out.exists():
            out.mkdir(parents=True)
            undo.callback(out.rmdir)
        predict_raster(
            image,
            predictor.predict,
            paths["mask"],
            window=window,
            overlap=overlap,
            batch=settings.batch,
            bands=predictor.bands,
            threshold=threshold,
            tta=settings.tta,
            probability_path=paths.get("prob"),
            tags={"model": predictor.name},
            overwrite=settings.overwrite,
            progress=progress,
        )
        for path in paths.values():
            undo.callback(path.unlink, missing_ok=True)
        with open_raster(paths["mask"]) as source:
            grid = grid_of(source)
            pred = read_mask(source, Window(0, 0, grid.height, grid.width))
        buildings = None
        if settings.polygons:
            buildings = _write_polygons(paths["polygons"], pred, grid, settings)
        if settings.overlay:
            _draw_overlay(paths["overlay"], image, pred, truth)
        undo.pop_all()
    return Mapped(list(paths.values()), buildings, truth, pred)


def _write_polygons(
    path: Path, pred: np.ndarray, grid: Grid, settings: Settings
) -> int:
    """Write the outlines of a mask with their areas; return how many there are."""
    metres = grid.resolution  # None without a CRS: then areas are unknown
    min_area = settings.min_area if metres else 0.0
    polygons = mask_to_polygons(pred, grid, min_area, settings.simplify)
    attributes = {}
    if metres:
        pixels = shapely.area(polygons) / abs(grid.transform.determinant)
        attributes["area_m2"] = np.round(pixels * metres**2, 1)
    write_outlines(path, polygons, grid.crs, **attributes)
    return len(polygons)


def _draw_overlay(
    path: Path, image: Path, pred: np.ndarray, truth: np.ndarray | None
) -> None:
    """Draw outlines on the image, at a size that a person looks at."""
    with open_raster(image) as source:
        pixels = read_reduced(source, PICTURE)
    shape = pixels.shape[:2]
    true = None if truth is None else _reduce(truth, shape)
    zoom = max(1, PICTURE // max(shape))
    picture = report.draw_outlines(pixels, _reduce(pred, shape), true, zoom)
    with replaced_when_whole(path) as partial:
        report.write_picture(picture, partial)


def _reduce(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask at a smaller shape, of every so many pixels."""
    rows, cols = (
        (np.arange(new) * old / new).astype(int)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[rows][:, cols]
