"""A folder of one's own: images, and masks or outlines."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bdloss.data.classes import ATTRIBUTE, Classes, ClassTable
from bdloss.data.ground_truth import IMAGE_SUFFIXES, OUTLINE_SUFFIXES, by_stem
from bdloss.data.scenes import (
    Contact,
    DatasetSettings,
    Resolution,
    Scene,
    Splits,
    at_resolution,
)
from bdloss.data.unpacked import check_names, not_empty, part_of
from bdloss.errors import InputError
from bdloss.files import visible_files
from bdloss.geo import raster
from bdloss.geo.windows import Window

BandIndex = Annotated[int, Field(ge=1)]
SOURCE = (
    "put orthophotos into images/ and beside it masks of the same names into "
    "masks/ or one file of outlines"
)


class FolderSettings(DatasetSettings):
    """Settings of a folder of one's own, as `read_folder` takes them."""

    name: Literal["folder"] = "folder"
    validation: float | list[str] = 0.2  # fraction of each scene, or names of scenes
    test: list[str] = Field(default=[])  # names of scenes
    resolution: Resolution = 0.0
    bands: list[BandIndex] = Field(default=[])  # from 1; none: all but alpha
    classes: Classes = Field(default={})  # name = value | "#rrggbb" | attribute's value
    attribute: str = ATTRIBUTE  # of outlines, that has these values
    contact: Contact = 0

    def read(self) -> Splits:
        """Find the scenes."""
        return read_folder(
            self.root,
            self.validation,
            self.test,
            self.resolution,
            bands=self.bands,
            contact=self.contact,
            classes=self.class_table,
        )

    @property
    def class_table(self) -> ClassTable | None:
        """What tells several classes apart; None for buildings alone."""
        return ClassTable.of(self.classes, self.attribute) if self.classes else None


def read_folder(
    root: str | PathLike,
    validation: float | Sequence[str] = 0.2,
    test: Sequence[str] = (),
    resolution: float = 0.0,
    *,
    bands: Sequence[int] = (),
    contact: int = 0,
    classes: ClassTable | None = None,
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
        bands: Bands of the images to use, counted from 1; empty for the picture without
            alpha.
        contact: Pixels, of the scenes once they are loaded, within which two buildings
            are in contact; 0 for no map of it.
        classes: What tells several classes apart in the truth; None for buildings.

    Returns:
        The scenes, each split sorted by name.

    Raises:
        FileNotFoundError: If there is no such folder, or no `images` in it.
        ValueError: If there are no images, an image has no truth, a name is unknown or
            meant for two splits, the fraction is not in [0, 1), nothing is left to
            train on, a resolution is wanted of images without a CRS, or contact of
            masks.
    """
    root = part_of(Path(root), "images", "", SOURCE)
    images = by_stem(visible_files(root / "images", IMAGE_SUFFIXES))
    if not images:
        raise InputError(f"no images in {root / 'images'}")
    masks = root / "masks"
    if masks.is_dir():
        if contact:
            raise InputError(f"dataset.contact needs outlines, got masks: {masks}")
        truths = by_stem(visible_files(masks, IMAGE_SUFFIXES))
        for name, image in images.items():
            if name not in truths:
                raise InputError(f"an image needs a mask {masks / name}.*: {image}")
    else:
        truths = dict.fromkeys(images, _only_outlines(root))
    scenes = {
        name: Scene(
            name,
            images[name],
            truths[name],
            bands=tuple(bands) or None,
            contact=contact,
            classes=classes,
        )
        for name in sorted(images)
    }

    fraction, validated = fraction_or_names(validation)
    check_names([*validated, *test], scenes, root)
    for name in validated:
        if name in test:
            raise InputError(f"a scene is for validation or testing, {name!r} is both")
    splits = Splits(
        [scene for name, scene in scenes.items() if name not in {*validated, *test}],
        [scene for name, scene in scenes.items() if name in validated],
        [scene for name, scene in scenes.items() if name in test],
    )
    splits = at_resolution(not_empty(splits, root, SOURCE), resolution)
    return split_rows(splits, fraction)


def _only_outlines(root: Path) -> Path:
    found = visible_files(root, OUTLINE_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "neither"
        raise InputError(
            f"a folder needs masks/ or one file of outlines, got {names}: {root}"
        )
    return found[0]


def fraction_or_names(
    validation: float | Sequence[str],
) -> tuple[float, Sequence[str]]:
    """Return what share of rows validates, or which scenes do."""
    return (validation, []) if isinstance(validation, int | float) else (0, validation)


def split_rows(splits: Splits, fraction: float) -> Splits:
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
