"""Contact sheet: patches as a training would see them, side by side in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bdloss.constants import BUILDING, IGNORED
from bdloss.data import cache
from bdloss.data.augment import Strength, augmentation
from bdloss.data.patches import Patches, PatchSettings
from bdloss.data.scenes import Scene, SceneData
from bdloss.errors import InputError, OutputExistsError
from bdloss.files import refuse_overlap
from bdloss.plots import TRUE, draw_classes, write_picture

OUTLINE = f"#{bytes(TRUE).hex()}"  # of buildings
GAP = 4  # pixels between patches
CONTACT_COLOUR = (255, 0, 255)  # magenta


def draw_training_patches(
    scenes: Sequence[Scene],
    path: Path,
    settings: PatchSettings,
    seed: int = 0,
    overwrite: bool = False,
    classes: Mapping[str, str] | None = None,
) -> None:
    """Draw patches of scenes as a training with these settings would see them.

    Args:
        scenes: Those that a network would learn from. What is cached of them is used;
            nothing is decoded whole for a few patches.
        path: As in `draw_contact_sheet`.
        settings: Size, augmentation and bias of the patches.
        seed: As in `draw_contact_sheet`.
        overwrite: Whether a file that exists may be replaced.
        classes: As in `draw_contact_sheet`.

    Raises:
        ValueError: If the picture would replace a scene, or as `draw_contact_sheet`
            and `cache.load_cached` say.
    """
    refuse_overlap([path], [file for scene in scenes for file in scene[1:3]])
    folder = cache.default_folder()
    draw_contact_sheet(
        [cache.load_cached(scene, folder, limit=0) for scene in scenes],
        path,
        patch=settings.size,
        augment=settings.augment,
        building_bias=settings.building_bias,
        seed=seed,
        overwrite=overwrite,
        classes=classes,
    )


def draw_contact_sheet(
    scenes: Sequence[SceneData],
    path: Path,
    *,
    patch: int,
    augment: Strength = "strong",
    building_bias: float = 0.0,
    seed: int = 0,
    rows: int = 4,
    columns: int = 6,
    overwrite: bool = False,
    classes: Mapping[str, str] | None = None,
) -> None:
    """Draw random patches with the outlines of their buildings.

    Args:
        scenes: The scenes that patches are cut out of.
        path: PNG file to write. Outlines are yellow or have the colours of their
            classes, contact of buildings is magenta, ignored pixels are dark.
        patch: Side of a patch, in pixels.
        augment: How strongly patches are augmented.
        building_bias: As in `Patches`.
        seed: Seed of positions and augmentation: those of a training with this seed.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        overwrite: Whether a file that exists may be replaced.
        classes: Colours of classes by their names, in the order of their numbers in the
            masks; none for buildings alone.

    Raises:
        FileExistsError: If the file exists and may not be replaced.
        FileNotFoundError: If there is no such folder.
        ValueError: As in `Patches`, or if the file is not a PNG.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"a contact sheet is a .png, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another --out or --overwrite")
    patches = Patches(
        scenes,
        patch,
        rows * columns,
        steps=1,
        augment=augmentation(augment),
        building_bias=building_bias,
        classes=len(classes or [BUILDING]),
        seed=seed,
    )
    pitch = patch + GAP
    sheet = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), 255, np.uint8)
    colours = list((classes or {BUILDING: OUTLINE}).values())
    for index, (pixels, mask) in enumerate(zip(*patches[0], strict=True)):
        row, column = (pitch * at for at in divmod(index, columns))
        shaded = np.where(mask[..., :1] == IGNORED, pixels // 3, pixels)
        picture = draw_classes(shaded, mask[..., : len(colours)] == 1, colours)
        if scenes[0].contact is not None:
            picture[mask[..., -1] == 1] = CONTACT_COLOUR
        sheet[row : row + patch, column : column + patch] = picture
    write_picture(sheet, path)
