"""Check of a dataset: what is missing, unreadable, mismatched or suspicious in it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bdloss.constants import BUILDING, IGNORED
from bdloss.data import inria, potsdam
from bdloss.data.ground_truth import IMAGE_SUFFIXES, GroundTruth
from bdloss.data.scenes import (
    MAX_MISSING_HEIGHTS,
    Scene,
    Splits,
    load_mask,
    load_scene,
    resolution_of,
)
from bdloss.errors import DamagedFileError, InputError
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of

GRAVE_KINDS = ("missing", "unreadable", "mismatched")  # what training cannot do with
MAX_NAMES_SHOWN = 3
MAX_CORNER_OFFSET = 0.5  # pixels, of a mask from its image
MAX_RESOLUTION_RATIO = 1.2  # of one scene and another
SUFFIXES_WITHOUT_CRS = {".png", ".jpg", ".jpeg"}

AICD_SCENES, AICD_VIEWS = 100, 5
EXPECTED_SCENES = {  # names of the scenes of a whole archive
    "inria": [
        f"{city}{number}"
        for city in inria.CITIES
        for number in range(1, inria.TILES_PER_CITY + 1)
    ],
    "potsdam": [f"{row}_{col}" for row, col in (*potsdam.TRAIN, *potsdam.TEST)],
    "aicd": [
        f"Scene{scene:04}_View{view:02}_{shadows}"
        for scene in range(AICD_SCENES)
        for view in range(AICD_VIEWS)
        for shadows in ("Shadows", "NoShadow")
    ],
}
ARCHIVE_FILES = {  # names that belong to an archive, used or not
    "inria": inria.TILE_NAME,
    "potsdam": re.compile(
        r"top_potsdam_[0-9]+_[0-9]+_"
        r"(RGB|IRRG|RGBIR|label|label_noBoundary)\.tif"
    ),
    "aicd": re.compile(r"Scene[0-9]{4}_View[0-9]{2}_(moving|target|gtmask)\.png"),
}


class Fault(NamedTuple):
    """Something wrong with a dataset.

    Attributes:
        kind: "missing", "unreadable" or "mismatched", which training cannot do with;
            "incomplete" or "suspicious", which it can.
        text: What is wrong, in a line, with the file.
    """

    kind: str
    text: str

    @property
    def is_grave(self) -> bool:
        """Whether training cannot do with it."""
        return self.kind in GRAVE_KINDS


def check_splits(
    splits: Splits, dataset: str = "folder", quick: bool = False
) -> Iterator[Fault]:
    """Find what is wrong with the scenes of a dataset.

    Args:
        splits: The scenes.
        dataset: Its name in `DATASETS`; of an archive with a known list of scenes it is
            said which are not there.
        quick: Whether to open files only, and not to read their pixels.

    Yields:
        Faults, in the order of the scenes.
    """
    # A scene that is split by rows is checked once, and as it lies on disk.
    whole = {
        scene.image: scene._replace(area=None, scale=1.0)
        for part in splits
        for scene in part
    }
    scenes = list(whole.values())
    yield from _find_absent(scenes, EXPECTED_SCENES.get(dataset, []))
    yield from _find_strangers(scenes, ARCHIVE_FILES.get(dataset))
    first = None
    for scene in scenes:
        faults, facts = _check_headers(scene)
        yield from faults
        if facts is None:
            continue
        first = first or (scene.name, *facts)
        yield from _compare(scene, facts, first)
        if not quick and not any(fault.is_grave for fault in faults):
            yield from _check_pixels(scene)


def refuse_faults(splits: Splits, dataset: str = "folder") -> list[Fault]:
    """Do the fast part of the check before training.

    Args:
        splits: The scenes.
        dataset: As in `check_splits`.

    Returns:
        What is incomplete or suspicious.

    Raises:
        ValueError: If something is missing, unreadable or mismatched.
    """
    faults = list(check_splits(splits, dataset, quick=True))
    grave = [fault for fault in faults if fault.is_grave]
    if grave:
        more = f" (and {len(grave) - 1} more: bdloss data check)" * (len(grave) > 1)
        raise InputError(f"{grave[0].kind}: {grave[0].text}{more}")
    return faults


def count_scenes(
    scenes: Iterable[Scene],
    load_mask: Callable[[Scene], np.ndarray] = load_mask,
    classes: Sequence[str] = (BUILDING,),
) -> str:
    """Return the totals of scenes in a line: number, size, resolution and classes.

    Args:
        scenes: The scenes; those that cannot be read are left out.
        load_mask: Returns the mask of a scene.
        classes: Names of the classes of the masks.
    """
    counts = np.zeros(IGNORED + 1, int)
    sizes: Counter[str] = Counter()
    number = 0
    for scene in scenes:
        try:
            mask = np.asarray(load_mask(scene))
            resolution = resolution_of(scene)
        except (OSError, InputError):
            continue
        number += 1
        sizes[f"{resolution} m" if resolution else "unknown resolution"] += 1
        counts += np.bincount(mask.ravel(), minlength=len(counts))
    total = max(1, counts.sum())
    if not number:
        return "none"
    parts = [(name, counts[index]) for index, name in enumerate(classes, 1)]
    shares = [
        f"{count / total:.1%} {name}"
        for name, count in (*parts, ("ignored", counts[-1]))
    ]
    return (
        f"{number} scene{'s' * (number != 1)}, {total / 1e6:.2f} megapixels "
        f"({', '.join(sizes)}), {', '.join(shares)}"
    )


def _find_absent(scenes: list[Scene], expected: list[str]) -> Iterator[Fault]:
    found = {scene.name for scene in scenes}
    absent = [name for name in expected if name not in found]
    if absent:
        yield Fault(
            "incomplete",
            f"{len(absent)} of the {len(expected)} scenes of the archive are not "
            f"there, or have no truth: {_enumerate(absent)}",
        )


def _find_strangers(
    scenes: list[Scene], names: re.Pattern[str] | None
) -> Iterator[Fault]:
    """Find rasters that lie among those of the scenes and do not belong there."""
    used = {path for scene in scenes for path in (scene.image, scene.truth)}
    for folder in sorted({path.parent for path in used}):
        if not folder.is_dir():
            continue
        strangers = sorted(
            path.name
            for path in folder.iterdir()
            if path not in used
            and path.suffix.lower() in IMAGE_SUFFIXES
            and not (names and names.fullmatch(path.name))
        )
        if strangers:
            text = f"of no scene, in {folder}: {_enumerate(strangers)}"
            yield Fault("suspicious", text)


def _enumerate(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMES_SHOWN]) + ", ..." * (len(names) > MAX_NAMES_SHOWN)


def _check_headers(
    scene: Scene,
) -> tuple[list[Fault], tuple[int, float | None, bool] | None]:
    """Return what is wrong, and bands, resolution and whether there is a CRS."""
    geoboxes: dict[Path, GeoBox] = {}
    faults = []
    facts = None
    for path in (scene.image, scene.heights, scene.truth):
        if path is None:
            continue
        if GroundTruth(path).is_vector and path.is_file():
            continue
        try:
            with raster.open_raster(path) as source:
                geoboxes[path] = geobox_of(source)
                if path == scene.image:
                    count = len(scene.bands or raster.image_bands(source))
                    has_crs = source.crs is not None
        except FileNotFoundError:
            faults.append(Fault("missing", f"{path}, of scene {scene.name}"))
        except InputError as error:
            faults.append(Fault("unreadable", str(error)))
    image = geoboxes.get(scene.image)
    if image:
        facts = (count, resolution_of(scene), has_crs)
        faults += list(_compare_grids(scene, image, geoboxes))
    return faults, facts


def _compare_grids(
    scene: Scene, image: GeoBox, geoboxes: dict[Path, GeoBox]
) -> Iterator[Fault]:
    truth = geoboxes.get(scene.truth)
    for path, geobox in geoboxes.items():
        lacking = (image.height - geobox.height, image.width - geobox.width)
        allowed = MAX_MISSING_HEIGHTS if path == scene.heights else 0
        if not all(0 <= number <= allowed for number in lacking):
            yield Fault(
                "mismatched",
                f"{path} is {geobox.height} x {geobox.width} pixels, its image "
                f"{image.height} x {image.width}",
            )
        elif any(lacking):
            yield Fault(
                "suspicious",
                f"{path} lacks {lacking[0]} rows and {lacking[1]} columns at its end",
            )
    if truth and truth.crs and image.crs:
        corner = ~image.transform @ (truth.transform.c, truth.transform.f)
        if truth.crs != image.crs or max(map(abs, corner)) > MAX_CORNER_OFFSET:
            yield Fault(
                "suspicious",
                f"{scene.truth} does not lie where its image {scene.image}",
            )


def _compare(
    scene: Scene,
    facts: tuple[int, float | None, bool],
    first: tuple[str, int, float | None, bool],
) -> Iterator[Fault]:
    """Find how a scene differs from the first one."""
    bands, resolution, has_crs = facts
    if not has_crs and scene.image.suffix.lower() not in SUFFIXES_WITHOUT_CRS:
        yield Fault("suspicious", f"no CRS: {scene.image}")
    if bands != first[1]:
        yield Fault(
            "mismatched",
            f"{scene.image} has {bands} bands, that of {first[0]} has {first[1]}",
        )
    if resolution and first[2]:
        ratio = resolution / first[2]
        if not 1 / MAX_RESOLUTION_RATIO < ratio < MAX_RESOLUTION_RATIO:
            yield Fault(
                "suspicious",
                f"{scene.image} has {resolution} m a pixel, that of {first[0]} "
                f"{first[2]} m",
            )


def _check_pixels(scene: Scene) -> Iterator[Fault]:
    try:
        pixels, mask, _ = load_scene(scene)
    except FileNotFoundError as error:
        yield Fault("missing", str(error))
        return
    except InputError as error:
        damaged = isinstance(error, DamagedFileError)
        yield Fault("unreadable" if damaged else "mismatched", str(error))
        return
    found = set(np.unique(mask).tolist()) - {IGNORED}
    if not found:
        yield Fault("suspicious", f"nothing is known anywhere: {scene.truth}")
    elif len(found) == 1:
        names = scene.classes.names if scene.classes else (BUILDING,)
        (only,) = found
        what = f"only {names[only - 1]}" if only else f"no {' and no '.join(names)}"
        yield Fault("suspicious", f"{what} in {scene.name}: {scene.truth}")
    if pixels.min() == pixels.max():
        yield Fault("suspicious", f"all pixels are the same: {scene.image}")
    yield from _check_values(scene)


def _check_values(scene: Scene) -> Iterator[Fault]:
    """Find masks of more than two values, all but 0 of which count as building."""
    if GroundTruth(scene.truth).is_vector or scene.classes:
        return
    with raster.open_raster(scene.truth) as source:
        values = np.unique(source.read(1, masked=True).compressed())
    if len(set(values) - {0}) > 1:
        said = _enumerate([str(value) for value in values])
        yield Fault(
            "suspicious",
            f"a mask with values {said}, all but 0 count as building: {scene.truth}",
        )
