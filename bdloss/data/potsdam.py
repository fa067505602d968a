"""ISPRS Potsdam: names, bands, labels, split, source."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bdloss.constants import BUILDING, IGNORED
from bdloss.data.classes import Classes, ClassTable, Code
from bdloss.data.folder import fraction_or_names, split_rows
from bdloss.data.scenes import (
    DatasetSettings,
    Resolution,
    Scene,
    Splits,
    at_resolution,
)
from bdloss.data.unpacked import (
    check_choice,
    check_names,
    nested,
    not_empty,
    part_of,
    unpacked,
)
from bdloss.errors import InputError

RESOLUTION = 0.05  # metres a pixel; some files carry no CRS to measure it by
TRAIN = (
    *((row, col) for row in (2, 3, 4, 5) for col in (10, 11, 12)),
    *((row, col) for row in (6, 7) for col in range(7, 13)),
)
TEST = (
    *((row, col) for row in (2, 3) for col in (13, 14)),
    *((row, col) for row in (4, 5, 6) for col in (13, 14, 15)),
    (7, 13),
)
TILE_WITHOUT_LABEL = (4, 12)  # its label in 5_Labels_all is a picture, not a label
# What of the archive is read: the images, their bands, and heights as one band more.
BANDS = {
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
LABELS = {
    "full": ("label", ("5_Labels_all", "5_Labels_for_participants")),
    "eroded": (
        "label_noBoundary",
        ("5_Labels_all_noBoundary", "5_Labels_for_participants_no_Boundary"),
    ),
}
# Its classes by name; black, of eroded labels, is ignored.
COLOURS = {
    "impervious surfaces": "#ffffff",
    "building": "#0000ff",
    "low vegetation": "#00ffff",
    "tree": "#00ff00",
    "car": "#ffff00",
    "clutter": "#ff0000",
}
OTHERS: dict[Code, int] = {
    **dict.fromkeys(COLOURS.values(), 0),
    "#000000": IGNORED,
}
SOURCE = (
    "get the 2D Semantic Labeling Contest - Potsdam from ISPRS, "
    "https://www.isprs.org/education/benchmarks/UrbanSemLab (on the terms that "
    "are stated there, with credit to ISPRS and BSF Swissphoto) and unpack its "
    "archives to 2_Ortho_RGB/top_potsdam_2_10_RGB.tif and "
    "5_Labels_all/top_potsdam_2_10_label.tif"
)


class PotsdamSettings(DatasetSettings):
    """Settings of ISPRS Potsdam, as `read_potsdam` takes them."""

    name: Literal["potsdam"] = "potsdam"
    validation: float | list[str] = 0.2  # fraction of each tile, or names of tiles
    bands: str = "rgb"  # rgb | irrg | rgbir | rgbir+dsm | rgbir+ndsm
    labels: str = "full"  # full | eroded
    resolution: Resolution = 0.0
    classes: Classes = Field(default={})  # name = colour; none: buildings alone

    @model_validator(mode="after")
    def _check(self) -> "PotsdamSettings":
        known = ", ".join(map(str, OTHERS))
        for name, colour in self.classes.items():
            if str(colour).lower() not in OTHERS:
                raise InputError(
                    f"dataset.classes of Potsdam must be among {known}, "
                    f"got {colour!r} for {name}"
                )
        return self

    def read(self) -> Splits:
        """Find the scenes."""
        return read_potsdam(
            self.root,
            self.validation,
            self.bands,
            self.labels,
            self.resolution,
            classes=self.classes,
        )

    @property
    def class_table(self) -> ClassTable:
        """What tells its classes apart."""
        return table_of(self.classes)


def table_of(classes: Mapping[str, Code]) -> ClassTable:
    """Return what tells classes of Potsdam apart; buildings alone if there are none."""
    return ClassTable.of(classes or {BUILDING: COLOURS[BUILDING]}, others=OTHERS)


def read_potsdam(
    root: str | PathLike,
    validation: float | Sequence[str] = 0.2,
    bands: str = "rgb",
    labels: str = "full",
    resolution: float = 0.0,
    *,
    classes: Mapping[str, Code] | None = None,
) -> Splits:
    """Find the scenes of the ISPRS benchmark of Potsdam.

    Args:
        root: The folder that holds `2_Ortho_RGB` and its like, or the one above it,
            `Potsdam`.
        validation: As a fraction, that part of the rows of each training tile, at its
            bottom. As names like "2_10", those tiles.
        bands: One of `BANDS`. Heights are scaled to 0..255 tile by tile, like
            any raster that is not of 8 bits; "rgbir+ndsm" are heights above ground.
        labels: "full", or "eroded", where boundaries between classes are ignored.
        resolution: Metres a pixel to bring the scenes to; 0 leaves them at 0.05.
        classes: The colour of each class by its name, among `COLOURS`; the others are
            background. None for buildings alone.

    Returns:
        The 24 tiles of the benchmark's training for training and validation, and those
        of its 14 test tiles whose labels are there for testing. Tile 4_12, whose full
        label in `5_Labels_all` is a picture, takes that of
        `5_Labels_for_participants`, else its eroded one; else it is left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a setting is none of those, or there is nothing to train on.
    """
    check_choice("bands", bands, BANDS)
    check_choice("labels", labels, LABELS)
    folder, kind, band_indexes, heights = BANDS[bands]
    root = part_of(Path(root), folder, "Potsdam", SOURCE)
    found = {}
    for at in (*TRAIN, *TEST):
        tile = "{}_{}".format(*at)
        image = unpacked(root / folder) / f"top_potsdam_{tile}_{kind}.tif"
        truth = _find_truth(root, at, labels)
        if image.is_file() and truth:
            found[at] = Scene(
                tile,
                image,
                truth,
                bands=band_indexes,
                heights=nested(root, heights.format(*at)) if heights else None,
                resolution=RESOLUTION,
                classes=table_of(classes or {}),
            )
    train = [found[at] for at in TRAIN if at in found]
    fraction, names = fraction_or_names(validation)
    check_names(names, [scene.name for scene in train], root)
    splits = Splits(
        [scene for scene in train if scene.name not in names],
        [scene for scene in train if scene.name in names],
        [found[at] for at in TEST if at in found],
    )
    splits = at_resolution(not_empty(splits, root, SOURCE), resolution)
    return split_rows(splits, fraction)


def _find_truth(root: Path, at: tuple[int, int], labels: str) -> Path | None:
    """Return the label of a tile, or where it should be; None if it needs none."""
    kind, folders = LABELS[labels]
    candidates = [(folder, kind) for folder in folders]
    if at == TILE_WITHOUT_LABEL and labels == "full":
        eroded, others = LABELS["eroded"]
        candidates = [*candidates[1:], *((folder, eroded) for folder in others)]
    paths = [
        unpacked(root / folder) / f"top_potsdam_{at[0]}_{at[1]}_{kind}.tif"
        for folder, kind in candidates
    ]
    for path in paths:
        if path.is_file():
            return path
    needed = at in TRAIN and at != TILE_WITHOUT_LABEL
    present = [path for path in paths if path.parent.is_dir()]
    return (present or paths)[0] if needed else None
