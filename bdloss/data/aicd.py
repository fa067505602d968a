"""Aerial Image Change Detection: names, shadows, classes, split, source."""

import csv
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from pydantic import Field

from bdloss.data.ground_truth import IMAGE_SUFFIXES
from bdloss.data.scenes import DatasetSettings, Scene, Splits
from bdloss.data.unpacked import check_choice, not_empty, part_of
from bdloss.errors import DamagedFileError
from bdloss.files import visible_files

IMAGE_NAME = re.compile(
    r"(?P<stem>Scene(?P<scene>[0-9]{4})_View[0-9]{2})_target\.(png|tif)"
)
SHADOWS = {"with": (True,), "without": (False,), "both": (True, False)}
# Last digits of the numbers of scenes; the others train.
SPLIT_DIGITS = {"validation": 8, "test": 9}
IMAGE_FOLDERS = {True: "Images_Shadows", False: "Images_NoShadow"}  # by shadows
SOURCE = (
    "get the Aerial Image Change Detection dataset of Bourdis, Marraud and Sahbi "
    "(2011) from https://computervisiononline.com/dataset/1105138664 (on the "
    "terms that are stated there, with credit) and unpack it to "
    "Images_Shadows/Scene0000_View00_target.png and "
    "GroundTruth/Scene0000_View00_gtmask.png"
)


class AicdSettings(DatasetSettings):
    """Settings of AICD, as `read_aicd` takes them."""

    name: Literal["aicd"] = "aicd"
    shadows: str = "both"  # with | without | both
    classes: list[str] = Field(default=[])  # of changes; none for all

    def read(self) -> Splits:
        """Find the scenes."""
        return read_aicd(self.root, self.shadows, self.classes)


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
    check_choice("shadows", shadows, SHADOWS)
    root = part_of(Path(root), "GroundTruth", "AICDDataset", SOURCE)
    wanted = _scenes_of(root, classes) if classes else None
    splits = Splits([], [], [])
    by_digit = {digit: getattr(splits, part) for part, digit in SPLIT_DIGITS.items()}
    there = [
        root / IMAGE_FOLDERS[cast]
        for cast in SHADOWS[shadows]
        if shadows != "both" or (root / IMAGE_FOLDERS[cast]).is_dir()
    ]
    for folder in there:
        for image in visible_files(folder, IMAGE_SUFFIXES):
            match = IMAGE_NAME.fullmatch(image.name)
            if match and (wanted is None or int(match["scene"]) in wanted):
                truth = root / "GroundTruth" / f"{match['stem']}_gtmask{image.suffix}"
                scene = Scene(f"{match['stem']}_{folder.name[7:]}", image, truth)
                by_digit.get(int(match["scene"]) % 10, splits.train).append(scene)
    return not_empty(splits, root, SOURCE)


def _scenes_of(root: Path, classes: Sequence[str]) -> set[int]:
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
        class_ids = {row["description"]: row["class_id"] for row in rows}
        scenes = [(row["class_id"], int(row["scene"].split("=")[-1])) for row in labels]
    except (KeyError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"damaged lists of classes: {tables}") from error
    for name in classes:
        check_choice("classes", name, class_ids)
    chosen = {class_ids[name] for name in classes}
    return {scene for class_id, scene in scenes if class_id in chosen}
