"""Datasets: which scenes there are, which of them train, and how one is loaded."""

import csv
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bdloss.constants import IGNORED
from bdloss.data import synthetic
from bdloss.data.ground_truth import (
    IMAGE_SUFFIXES,
    OUTLINE_SUFFIXES,
    GroundTruth,
    by_stem,
)
from bdloss.errors import DamagedFileError, InputError
from bdloss.files import visible_files
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.windows import Window

INRIA_TILE = re.compile(r"(?P<city>[a-z-]+)(?P<number>[0-9]+)\.tif")
INRIA_CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")
INRIA_TILES = 36  # of each city
INRIA_VALIDATION = 5  # tiles 1 to 5 of each city, says the benchmark

POTSDAM_RESOLUTION = 0.05  # metres a pixel; some files carry no CRS to measure it by
POTSDAM_TRAIN = (
    *((row, col) for row in (2, 3, 4, 5) for col in (10, 11, 12)),
    *((row, col) for row in (6, 7) for col in range(7, 13)),
)
POTSDAM_TEST = (
    *((row, col) for row in (2, 3) for col in (13, 14)),
    *((row, col) for row in (4, 5, 6) for col in (13, 14, 15)),
    (7, 13),
)
POTSDAM_PICTURE = (4, 12)  # its label in 5_Labels_all is a picture, not a label
# What of the archive is read: the images, their bands, and heights as one band more.
POTSDAM_BANDS = {
    "rgb": ("2_Ortho_RGB", "RGB", (1, 2, 3), None),
    "irrg": ("3_Ortho_IRRG", "IRRG", (1, 2, 3), None),
    "rgbir": ("4_Ortho_RGBIR", "RGBIR", (1, 2, 3, 4), None),
    "rgbir+dsm": (
        "4_Ortho_RGBIR",
        "RGBIR",
        (1, 2, 3, 4),
        "1_DSM/dsm_potsdam_{:02}_{:02}.tif",
    ),
    "rgbir+ndsm": (
        "4_Ortho_RGBIR",
        "RGBIR",
        (1, 2, 3, 4),
        "1_DSM_normalisation/dsm_potsdam_{:02}_{:02}_normalized_lastools.jpg",
    ),
}
POTSDAM_LABELS = {
    "full": ("label", ("5_Labels_all", "5_Labels_for_participants")),
    "eroded": (
        "label_noBoundary",
        ("5_Labels_all_noBoundary", "5_Labels_for_participants_no_Boundary"),
    ),
}
# Red, green and blue are each 0 or 255, so a colour is a number of three bits.
UNKNOWN = 254
POTSDAM_COLOURS = np.array([IGNORED, 1, 0, 0, 0, UNKNOWN, 0, 0], np.uint8)
SPARE = 1  # columns or rows that a raster of heights may lack: 03_13 has 5999 columns

AICD_IMAGE = re.compile(
    r"(?P<stem>Scene(?P<scene>[0-9]{4})_View[0-9]{2})_target\.(png|tif)"
)
AICD_SHADOWS = {"with": (True,), "without": (False,), "both": (True, False)}
AICD_TENTHS = {"validation": 8, "test": 9}  # last digits of the scenes; others train

SOURCES = {
    "inria": "get the Inria Aerial Image Labeling dataset from "
    "https://project.inria.fr/aerialimagelabeling (free, on its own terms, not to be "
    "passed on) and unpack it to AerialImageDataset/train/images/austin1.tif and "
    "AerialImageDataset/train/gt/austin1.tif",
    "potsdam": "get the 2D Semantic Labeling Contest - Potsdam from ISPRS, "
    "https://www.isprs.org/education/benchmarks/UrbanSemLab (on the terms that are "
    "stated there, with credit to ISPRS and BSF Swissphoto) and unpack its archives "
    "to 2_Ortho_RGB/top_potsdam_2_10_RGB.tif and "
    "5_Labels_all/top_potsdam_2_10_label.tif",
    "aicd": "get the Aerial Image Change Detection dataset of Bourdis, Marraud and "
    "Sahbi (2011) from https://computervisiononline.com/dataset/1105138664 (on the "
    "terms that are stated there, with credit) and unpack it to "
    "Images_Shadows/Scene0000_View00_target.png and "
    "GroundTruth/Scene0000_View00_gtmask.png",
    "folder": "put orthophotos into images/ and beside it masks of the same names into "
    "masks/ or one file of outlines",
}


class Scene(NamedTuple):
    """An orthophoto with its mask or outlines.

    Attributes:
        name: What it is called in tables.
        image: The orthophoto.
        truth: A mask of the same size, or a vector file of outlines.
        area: The part to use, in pixels of the scene once it is loaded; None for all.
        bands: Numbers of the bands to use, from 1; None for the picture without alpha.
            A fourth band that the file calls alpha is data if it is among them.
        heights: A raster of heights, used as one band more.
        colours: Whether the truth is a picture in the colours of Potsdam's classes.
        scale: Pixels of the files along a pixel of the scene once it is loaded.
        resolution: Metres a pixel of the scene once it is loaded, where the reader
            knows; else it is that of the image.
    """

    name: str
    image: Path
    truth: Path
    area: Window | None = None
    bands: tuple[int, ...] | None = None
    heights: Path | None = None
    colours: bool = False
    scale: float = 1.0
    resolution: float | None = None


class Splits(NamedTuple):
    """The scenes of a dataset by what they are for."""

    train: list[Scene]
    validation: list[Scene]
    test: list[Scene]


class SceneData(NamedTuple):
    """A scene in memory.

    Attributes:
        pixels: Array of shape `(height, width, bands)`, uint8, values in [0, 255].
        mask: Array of shape `(height, width)`, uint8: 1 is building, 0 is not, 255 is
            ignored (neither is known there, or the orthophoto has no data).
    """

    pixels: np.ndarray
    mask: np.ndarray


def read_folder(
    root: str | PathLike,
    validation: float | Sequence[str] = 0.2,
    test: Sequence[str] = (),
    resolution: float = 0.0,
) -> Splits:
    """Find the scenes of a folder of one's own.

    The orthophotos are `images/*`. The truth is a mask of the same stem in `masks/`,
    or, where there is no such folder, one vector file of outlines beside `images/`.

    Args:
        root: The folder.
        validation: As a fraction, that part of the rows of each training scene, at its
            bottom: a block, for patches drawn at random would share roofs with those
            that train. As names, those scenes.
        test: Names of the scenes kept for testing; a name is that of the file without
            suffix.
        resolution: Metres a pixel to bring the scenes to; 0 leaves them as they are.

    Returns:
        The scenes, each split sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder, or no `images` in it.
        ValueError: If there are no images, an image has no truth, a name is unknown or
            meant for two splits, the fraction is not in [0, 1), nothing is left to
            train on, or a resolution is wanted of images without a CRS.
    """
    root = _part_of(Path(root), "images", "folder")
    images = by_stem(visible_files(root / "images", IMAGE_SUFFIXES))
    if not images:
        raise InputError(f"no images in {root / 'images'}")
    masks = root / "masks"
    if masks.is_dir():
        truths = by_stem(visible_files(masks, IMAGE_SUFFIXES))
        for name, image in images.items():
            if name not in truths:
                raise InputError(f"an image needs a mask {masks / name}.*: {image}")
    else:
        truths = dict.fromkeys(images, _only_outlines(root))
    scenes = {name: Scene(name, images[name], truths[name]) for name in sorted(images)}

    fraction, validated = _fraction_or_names(validation)
    _check_names([*validated, *test], scenes, root)
    for name in validated:
        if name in test:
            raise InputError(f"a scene is for validation or testing, {name!r} is both")
    splits = Splits(
        [scene for name, scene in scenes.items() if name not in {*validated, *test}],
        [scene for name, scene in scenes.items() if name in validated],
        [scene for name, scene in scenes.items() if name in test],
    )
    splits = _at_resolution(_not_empty(splits, root), resolution)
    return _split_rows(splits, fraction)


def read_inria(root: str | PathLike, resolution: float = 0.0) -> Splits:
    """Find the scenes of INRIA's Aerial Image Labeling dataset.

    Args:
        root: The folder `AerialImageDataset`, or the one that holds it.
        resolution: Metres a pixel to bring the scenes to; 0 leaves them at 0.3.

    Returns:
        Tiles 1 to 5 of each city for validation, as the benchmark has it, the others
        for training; sorted by city and number. The truth of its test cities is
        not public, so there is nothing to test on. Files of other names are left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no tiles to train on.
    """
    root = _part_of(Path(root), "train/images", "inria")
    tiles = {}
    for image in (root / "train" / "images").iterdir():
        if match := INRIA_TILE.fullmatch(image.name):
            scene = Scene(image.stem, image, root / "train" / "gt" / image.name)
            tiles[match["city"], int(match["number"])] = scene
    ordered = sorted(tiles)
    splits = Splits(
        train=[tiles[at] for at in ordered if at[1] > INRIA_VALIDATION],
        validation=[tiles[at] for at in ordered if at[1] <= INRIA_VALIDATION],
        test=[],
    )
    return _at_resolution(_not_empty(splits, root, "inria"), resolution)


def read_potsdam(
    root: str | PathLike,
    validation: float | Sequence[str] = 0.2,
    bands: str = "rgb",
    labels: str = "full",
    resolution: float = 0.0,
) -> Splits:
    """Find the scenes of the ISPRS benchmark of Potsdam.

    Args:
        root: The folder that holds `2_Ortho_RGB` and its like, or the one above it,
            `Potsdam`.
        validation: As a fraction, that part of the rows of each training tile, at its
            bottom. As names like "2_10", those tiles.
        bands: One of `POTSDAM_BANDS`. Heights are scaled to 0..255 tile by tile, like
            any raster that is not of 8 bits; "rgbir+ndsm" are heights above ground.
        labels: "full", or "eroded", where boundaries between classes are ignored.
        resolution: Metres a pixel to bring the scenes to; 0 leaves them at 0.05.

    Returns:
        The 24 tiles of the benchmark's training for training and validation, and those
        of its 14 test tiles whose labels are there for testing. Tile 4_12, whose full
        label in `5_Labels_all` is a picture, takes that of
        `5_Labels_for_participants`, else its eroded one; else it is left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a setting is none of those, or there is nothing to train on.
    """
    _check_choice("bands", bands, POTSDAM_BANDS)
    _check_choice("labels", labels, POTSDAM_LABELS)
    folder, kind, numbers, heights = POTSDAM_BANDS[bands]
    root = _part_of(Path(root), folder, "potsdam")
    found = {}
    for at in (*POTSDAM_TRAIN, *POTSDAM_TEST):
        tile = "{}_{}".format(*at)
        image = _unpacked(root / folder) / f"top_potsdam_{tile}_{kind}.tif"
        truth = _potsdam_truth(root, at, labels)
        if image.is_file() and truth:
            found[at] = Scene(
                tile,
                image,
                truth,
                bands=numbers,
                heights=_nested(root, heights.format(*at)) if heights else None,
                colours=True,
                resolution=POTSDAM_RESOLUTION,
            )
    train = [found[at] for at in POTSDAM_TRAIN if at in found]
    fraction, names = _fraction_or_names(validation)
    _check_names(names, [scene.name for scene in train], root)
    splits = Splits(
        [scene for scene in train if scene.name not in names],
        [scene for scene in train if scene.name in names],
        [found[at] for at in POTSDAM_TEST if at in found],
    )
    splits = _at_resolution(_not_empty(splits, root, "potsdam"), resolution)
    return _split_rows(splits, fraction)


def _potsdam_truth(root: Path, at: tuple[int, int], labels: str) -> Path | None:
    """Return the label of a tile, or where it should be; None if it needs none."""
    kind, folders = POTSDAM_LABELS[labels]
    places = [(folder, kind) for folder in folders]
    if at == POTSDAM_PICTURE and labels == "full":
        eroded, others = POTSDAM_LABELS["eroded"]
        places = [*places[1:], *((folder, eroded) for folder in others)]
    paths = [
        _unpacked(root / folder) / f"top_potsdam_{at[0]}_{at[1]}_{kind}.tif"
        for folder, kind in places
    ]
    for path in paths:
        if path.is_file():
            return path
    needed = at in POTSDAM_TRAIN and at != POTSDAM_PICTURE
    present = [path for path in paths if path.parent.is_dir()]
    return (present or paths)[0] if needed else None


def read_aicd(
    root: str | PathLike, shadows: str = "both", classes: Sequence[str] = ()
) -> Splits:
    """Find the scenes of AICD, Aerial Image Change Detection.

    Args:
        root: The folder that holds `GroundTruth`, or the one above it, `AICDDataset`.
        shadows: Which images: "with" shadows, "without", or "both", as far as they are
            there.
        classes: Names of the classes of changes to use, as in the `classes.csv` that
            goes with `image_level_labels.csv` ("barn", "bunker", "Silo"); none for all.

    Returns:
        The `target` images: scenes whose number ends in 8 for validation, in 9 for
        testing, the others for training, so that all views of a scene stay together.

    Raises:
        FileNotFoundError: If there is no such folder, or no list of classes.
        ValueError: If a setting is none of those, or there is nothing to train on.
    """
    _check_choice("shadows", shadows, AICD_SHADOWS)
    root = _part_of(Path(root), "GroundTruth", "aicd")
    wanted = _aicd_scenes(root, classes) if classes else None
    splits = Splits([], [], [])
    by_tenth = {tenth: getattr(splits, part) for part, tenth in AICD_TENTHS.items()}
    there = [
        root / synthetic.IMAGES[cast]
        for cast in AICD_SHADOWS[shadows]
        if shadows != "both" or (root / synthetic.IMAGES[cast]).is_dir()
    ]
    for folder in there:
        for image in visible_files(folder, IMAGE_SUFFIXES):
            match = AICD_IMAGE.fullmatch(image.name)
            if match and (wanted is None or int(match["scene"]) in wanted):
                truth = root / "GroundTruth" / f"{match['stem']}_gtmask{image.suffix}"
                scene = Scene(f"{match['stem']}_{folder.name[7:]}", image, truth)
                by_tenth.get(int(match["scene"]) % 10, splits.train).append(scene)
    return _not_empty(splits, root, "aicd")


def _aicd_scenes(root: Path, classes: Sequence[str]) -> set[int]:
    """Return the numbers of the scenes in which something of these classes changes."""
    tables = root / "AICD_image_level_labels"
    tables = tables if tables.is_dir() else root
    for name in ("classes.csv", "image_level_labels.csv"):
        if not (tables / name).is_file():
            raise FileNotFoundError(
                f"no such file: {tables / name}; the classes of AICD were listed by "
                "https://github.com/PhiAbs/W-CDNet, in AICD_image_level_labels/"
            )
    with (tables / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tables / "image_level_labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    try:
        numbers = {row["description"]: row["class_id"] for row in rows}
        scenes = [(row["class_id"], int(row["scene"].split("=")[-1])) for row in labels]
    except (KeyError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"damaged lists of classes: {tables}") from error
    for name in classes:
        _check_choice("classes", name, numbers)
    chosen = {numbers[name] for name in classes}
    return {scene for number, scene in scenes if number in chosen}


def read_synthetic(
    root: str | PathLike, scenes: int = 800, height: int = synthetic.HEIGHT
) -> Splits:
    """Find the synthetic scenes in a folder, and make them first if there is none.

    Args:
        root: The folder.
        scenes: How many there are, or are to be made.
        height: Their rows, in pixels; columns are four thirds of them.

    Returns:
        The scenes, split as those of AICD.

    Raises:
        ValueError: If the folder holds other scenes, or something else.
    """
    root = Path(root)
    size = height, height * synthetic.WIDTH // synthetic.HEIGHT
    if not root.exists():
        synthetic.write_archive(root, scenes, size=size)
    splits = read_aicd(root)
    found = sum(map(len, splits))
    with raster.open_raster(splits.train[0].image) as source:
        shape = source.shape
    if (found, shape) != (scenes, size):
        raise InputError(
            f"{root} must hold the {scenes} scenes of {size} pixels that are wanted, "
            f"it holds {found} of {shape}; remove it or name another folder"
        )
    return splits


READERS: dict[str, Callable[..., Splits]] = {
    "folder": read_folder,
    "inria": read_inria,
    "potsdam": read_potsdam,
    "aicd": read_aicd,
    "synthetic": read_synthetic,
}


def read_dataset(name: str, root: str | PathLike, **settings: Any) -> Splits:
    """Find the scenes of a dataset.

    Args:
        name: One of `READERS`.
        root: Its folder.
        settings: What its reader takes.

    Returns:
        The scenes by what they are for.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no such dataset, its reader takes no such setting, or as
            the reader says.
    """
    taken = settings_of(name)
    for setting in settings:
        if setting not in taken:
            raise InputError(
                f"{name} takes the settings {', '.join(taken)}, got {setting!r}"
            )
    return READERS[name](root, **settings)


def settings_of(name: str) -> list[str]:
    """Return the names of the settings that the reader of a dataset takes.

    Args:
        name: One of `READERS`.

    Raises:
        ValueError: If there is no such dataset.

    Example:
        >>> settings_of("aicd")
        ['shadows', 'classes']
    """
    _check_choice("dataset", name, READERS)
    _, *settings = inspect.signature(READERS[name]).parameters
    return settings


def resolution_of(scene: Scene) -> float | None:
    """Return the metres a pixel of a scene once it is loaded; None if nobody knows."""
    if scene.resolution is not None:
        return scene.resolution
    with raster.open_raster(scene.image) as source:
        return geobox_of(source).resolution


def load_scene(scene: Scene, bands: Sequence[int] | None = None) -> SceneData:
    """Read a scene into memory.

    Args:
        scene: The scene.
        bands: Numbers of the bands, from 1; None for those of the scene.

    Returns:
        Its pixels, averaged to its resolution, and its mask.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If image or truth cannot be read, the mask or the heights are of
            another size, a label has an unknown colour, or the outlines lie outside
            the image or cannot be brought to its CRS.
    """
    with raster.open_raster(scene.image) as source:
        area, shape = _area_of(scene, source.shape)
        pixels = raster.read_pixels(source, area, bands or scene.bands)
        if scene.heights:
            heights = _read_heights(scene.heights, source.shape, area)
            pixels = np.concatenate([pixels, heights], axis=-1)
    averaged = cv2.INTER_AREA if scene.scale > 1 else cv2.INTER_LINEAR
    return SceneData(_resample(pixels, shape, averaged), load_mask(scene))


def load_mask(scene: Scene) -> np.ndarray:
    """Read the truth of a scene into memory.

    Args:
        scene: The scene.

    Returns:
        Mask of shape `(height, width)`, uint8, as in `SceneData`. At another resolution
        than the file's each pixel is that of the file at its centre.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As in `load_scene`.
    """
    with raster.open_raster(scene.image) as source:
        geobox = geobox_of(source)
        area, shape = _area_of(scene, source.shape)
        alpha_is_data = set(scene.bands or ()) - set(raster.image_bands(source))
        valid = True if alpha_is_data else raster.read_valid(source, area)
    mask = _read_truth(scene, geobox, area)
    mask = np.where(valid, mask, IGNORED).astype(np.uint8)
    return _resample(mask, shape, cv2.INTER_NEAREST_EXACT)


def _part_of(root: Path, needed: str, dataset: str) -> Path:
    """Return the folder that holds what is needed: this one or one in it."""
    if (root / needed).is_dir():
        return root
    inner = {"inria": "AerialImageDataset", "potsdam": "Potsdam", "aicd": "AICDDataset"}
    if dataset in inner and (root / inner[dataset] / needed).is_dir():
        return root / inner[dataset]
    raise FileNotFoundError(f"no such folder: {root / needed}; {SOURCES[dataset]}")


def _unpacked(folder: Path) -> Path:
    """Return a folder, or the one of its name in it, as unpacking often leaves it."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def _nested(root: Path, name: str) -> Path:
    path = root / name
    return _unpacked(path.parent) / path.name


def _only_outlines(root: Path) -> Path:
    found = visible_files(root, OUTLINE_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "neither"
        raise InputError(
            f"a folder needs masks/ or one file of outlines, got {names}: {root}"
        )
    return found[0]


def _fraction_or_names(
    validation: float | Sequence[str],
) -> tuple[float, Sequence[str]]:
    return (validation, []) if isinstance(validation, int | float) else (0, validation)


def _check_names(names: Iterable[str], known: Iterable[str], root: Path) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"no scene {name!r} among {', '.join(known)}: {root}")


def _check_choice(setting: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(
            f"{setting} must be one of {', '.join(choices)}, got {value!r}"
        )


def _not_empty(splits: Splits, root: Path, dataset: str = "folder") -> Splits:
    if not splits.train:
        raise InputError(f"no scenes to train on in {root}; {SOURCES[dataset]}")
    return splits


def _at_resolution(splits: Splits, resolution: float) -> Splits:
    """Return the scenes as they are to be loaded, at so many metres a pixel."""
    if not resolution:
        return splits
    if resolution < 0:
        raise InputError(f"resolution must be above 0, or 0, got {resolution}")
    return Splits(
        *([_resampled(scene, resolution) for scene in scenes] for scenes in splits)
    )


def _resampled(scene: Scene, resolution: float) -> Scene:
    native = resolution_of(scene)
    if native is None:
        raise InputError(f"a resolution needs an image with a CRS: {scene.image}")
    scale = resolution / native
    with raster.open_raster(scene.image) as source:
        height, width = (max(1, round(side / scale)) for side in source.shape)
    whole = Window(0, 0, height, width)
    return scene._replace(area=whole, scale=scale, resolution=resolution)


def _area_of(scene: Scene, shape: tuple[int, int]) -> tuple[Window, tuple[int, int]]:
    """Return what to read of a file of some shape, and the shape to bring it to."""
    area = scene.area or Window(0, 0, *shape)
    if scene.scale == 1:
        return area, (area.height, area.width)
    edges = (area.row, area.row + area.height), (area.col, area.col + area.width)
    (top, bottom), (left, right) = (
        [min(round(edge * scene.scale), side) for edge in pair]
        for pair, side in zip(edges, shape, strict=True)
    )
    return Window(top, left, bottom - top, right - left), (area.height, area.width)


def _resample(values: np.ndarray, shape: tuple[int, int], how: int) -> np.ndarray:
    """Return values of shape `(height, width, ...)` on another number of pixels."""
    if values.shape[:2] == shape:
        return values
    resized = cv2.resize(values, shape[::-1], interpolation=how)
    return resized.reshape(*shape, *values.shape[2:])


def _split_rows(splits: Splits, fraction: float) -> Splits:
    """Take the last rows of the training scenes for validation."""
    if not 0 <= fraction < 1:
        raise InputError(f"validation must be in [0, 1), got {fraction}")
    if fraction == 0:
        return splits
    upper, lower = [], []
    for scene in splits.train:
        try:
            with raster.open_raster(scene.image) as source:
                area = scene.area or Window(0, 0, *source.shape)
        except (OSError, InputError):  # which the check of the scenes will name
            upper.append(scene)
            continue
        cut = area.height - max(1, round(area.height * fraction))
        if cut < 1:
            raise InputError(
                f"validation = {fraction} leaves no row to train on, "
                f"of {area.height}: {scene.image}"
            )
        upper.append(scene._replace(area=area._replace(height=cut)))
        rest = area._replace(row=area.row + cut, height=area.height - cut)
        lower.append(scene._replace(area=rest))
    return splits._replace(train=upper, validation=lower)


def _read_truth(scene: Scene, geobox: GeoBox, area: Window) -> np.ndarray:
    size = (geobox.height, geobox.width)
    truth = GroundTruth(scene.truth)
    try:
        with truth.open(geobox) as reader:
            if reader.geobox[:2] != size:
                raise InputError(
                    f"a mask is of the size of its image {size}, "
                    f"got {reader.geobox[:2]}: {scene.truth}"
                )
            if not scene.colours:
                return reader.read(area)
    except InputError as error:
        if truth.is_vector:  # one for all images: say of which
            raise InputError(f"{scene.image}: {error}") from error
        raise
    with raster.open_raster(scene.truth) as source:
        return _decode_colours(raster.read_pixels(source, area), scene.truth)


def _decode_colours(label: np.ndarray, path: Path) -> np.ndarray:
    """Return the mask of a label in the colours of Potsdam's classes."""
    bits = label >> 7
    mask = POTSDAM_COLOURS[bits[..., 0] << 2 | bits[..., 1] << 1 | bits[..., 2]]
    unknown = (mask == UNKNOWN) | (label != bits * np.uint8(255)).any(axis=-1)
    if unknown.any():
        row, col = np.unravel_index(unknown.argmax(), unknown.shape)
        raise InputError(
            "a label has the colours of Potsdam's classes, "
            f"got {tuple(label[row, col].tolist())} at row {row}, column {col}: {path}"
        )
    return mask


def _read_heights(path: Path, shape: tuple[int, int], area: Window) -> np.ndarray:
    """Read heights as a band; a column or row that lacks at the end is repeated."""
    with raster.open_raster(path) as source:
        lacking = np.subtract(shape, source.shape)
        if lacking.min() < 0 or lacking.max() > SPARE:
            raise InputError(
                f"heights are of the size of their image {shape}, got {source.shape}: "
                f"{path}"
            )
        height = min(area.height, source.height - area.row)
        width = min(area.width, source.width - area.col)
        there = Window(area.row, area.col, height, width)
        heights = raster.read_pixels(source, there, [1])
    rim = ((0, area.height - height), (0, area.width - width), (0, 0))
    return np.pad(heights, rim, mode="edge")
