"""The batches of a training: patches to learn from, and a grid of them to validate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bdloss.constants import IGNORED
from bdloss.data.augment import augmentation
from bdloss.data.patches import Patches, PatchSettings
from bdloss.data.scenes import SceneData
from bdloss.training.devices import ALONE, Devices


class Batches(NamedTuple):
    """What a network learns from, and is validated on.

    Attributes:
        train: Patches to learn from.
        names: What their scenes are called.
        validation: Patches to validate on, the same grid every epoch; None for none.
        padding: What a validation loss is too small by: of blank patches, which are
            there so that devices share the grid equally, the loss is 0.
    """

    train: Patches
    names: Sequence[str]
    validation: Patches | None = None
    padding: float = 1.0


def make_batches(
    settings: PatchSettings,
    training: list[SceneData],
    validation: list[SceneData],
    names: Sequence[str],
    seed: int = 0,
    devices: Devices = ALONE,
    classes: int = 1,
) -> Batches:
    """Cut the patches of a training out of scenes.

    Args:
        settings: How.
        training: Scenes to learn from.
        validation: Scenes to validate on; may be none.
        names: What the scenes to learn from are called.
        seed: Seed of positions and augmentation.
        devices: Those that share the batches.
        classes: How many classes the masks of the scenes tell apart.
    """
    size = settings.size
    common: dict[str, Any] = {
        "patch": size,
        "batch": settings.batch_size,
        "classes": classes,
        "workers": settings.workers,
        "process": devices.process,
        "processes": devices.processes,
    }
    in_grid = settings.sampling == "grid"
    all_pixels = None if in_grid else _steps_to_cover(training, settings)
    train = Patches(
        training,
        steps=settings.steps or all_pixels,
        shuffled_grid=in_grid,
        augment=augmentation(settings.augment),
        seed=seed,
        building_bias=settings.building_bias,
        scale=(settings.scale[0], settings.scale[1]),
        **common,
    )
    if not validation:
        return Batches(train, names)
    number = len(Patches(validation, size, batch=1))
    blanks = [_blank(validation[0], size)] * (-number % devices.number)
    padding = (number + len(blanks)) / number
    return Batches(train, names, Patches([*validation, *blanks], **common), padding)


def _steps_to_cover(scenes: list[SceneData], settings: PatchSettings) -> int:
    """Return how many batches see about as many pixels as there are."""
    pixels = sum(scene.mask.size for scene in scenes)
    return max(1, round(pixels / settings.size**2 / settings.batch_size))


def _blank(scene: SceneData, size: int) -> SceneData:
    """Return a scene of one patch that counts for nothing, but in a mean loss."""
    pixels = np.zeros((size, size, scene.pixels.shape[2]), np.uint8)
    nothing = np.full((size, size), IGNORED, np.uint8)
    return SceneData(pixels, nothing, None if scene.contact is None else nothing)
