"""Contact sheet: patches as a training would see them, side by side in one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bdloss.constants import IGNORED
from bdloss.data.augment import Strength, augmentation
from bdloss.data.patches import Patches
from bdloss.data.scenes import SceneData
from bdloss.errors import InputError, OutputExistsError
from bdloss.plots import draw_outlines, write_picture

GAP = 4  # pixels between patches


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
) -> None:
    """Draw random patches with the outlines of their buildings.

    Args:
        scenes: The scenes that patches are cut out of.
        path: PNG file to write. Outlines are yellow, ignored pixels are dark.
        patch: Side of a patch, in pixels.
        augment: How strongly patches are augmented.
        building_bias: As in `Patches`.
        seed: Seed of positions and augmentation: those of a training with this seed.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        overwrite: Whether a file that exists may be replaced.

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
        seed=seed,
    )
    pitch = patch + GAP
    sheet = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), 255, np.uint8)
    for place, (pixels, mask) in enumerate(zip(*patches[0], strict=True)):
        row, column = (pitch * at for at in divmod(place, columns))
        shaded = np.where(mask == IGNORED, pixels // 3, pixels)
        picture = draw_outlines(shaded, np.zeros_like(mask[..., 0]), mask[..., 0])
        sheet[row : row + patch, column : column + patch] = picture
    write_picture(sheet, path)
