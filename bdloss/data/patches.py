"""Patches: batches of windows of scenes, as Keras trains on them."""

from collections.abc import Sequence

import keras
import numpy as np

from bdloss.data.augment import Augment
from bdloss.data.datasets import SceneData
from bdloss.orthophotos.raster import IGNORED
from bdloss.orthophotos.windows import Window, grid

DRAWS = 10  # how often a patch is drawn before it is taken as it is
SEEDS = 2**32


class Patches(keras.utils.PyDataset):
    """Batches of patches cut out of scenes.

    With `steps`, patches lie at random, all positions in all scenes equally likely, and
    an epoch has that many batches; without, they lie in a grid that covers the scenes,
    in order, and the last batch may be smaller. What a batch holds depends on `seed`,
    `epoch` and its index alone, not on workers or on batches taken before.

    A scene smaller than a patch is reflected, and what is added is ignored in its mask.

    Attributes:
        epoch: The epoch that batches are drawn for, from 0. Keras moves it on, through
            several calls of `fit` too; to resume a run, set it.
    """

    def __init__(
        self,
        scenes: Sequence[SceneData],
        patch: int,
        batch: int,
        *,
        steps: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        building_bias: float = 0.0,
        workers: int = 1,
    ):
        """Cut patches out of scenes.

        Args:
            scenes: The scenes, all with as many bands.
            patch: Side of a patch, in pixels.
            batch: Patches in a batch.
            steps: Batches in an epoch, at random positions; None for a grid.
            augment: What `augmentation` returns; None for patches as they are.
            seed: Seed of positions and augmentation, at least 0.
            building_bias: Share of the random patches that are drawn again, up to ten
                times, until there is a building in them; in [0, 1].
            workers: Threads that prepare batches.

        Raises:
            ValueError: If there are no scenes, their bands differ in number, or
                a number is out of range.
        """
        super().__init__(workers=workers)
        numbers = {scene.pixels.shape[2] for scene in scenes}
        if len(numbers) != 1:
            raise ValueError(
                f"scenes must have the same number of bands, got {sorted(numbers)}"
                if numbers
                else "there must be scenes to cut patches out of, got none"
            )
        if patch < 1 or batch < 1 or (steps is not None and steps < 1):
            raise ValueError(
                "patch, batch and steps must be at least 1, "
                f"got {patch}, {batch} and {steps}"
            )
        if not 0 <= building_bias <= 1:
            raise ValueError(f"building_bias must be in [0, 1], got {building_bias}")
        self.epoch = 0
        self._begun = False
        self._scenes = [_padded(scene, patch) for scene in scenes]
        self._patch = patch
        self._batch = batch
        self._steps = steps
        self._augment = augment
        self._seed = seed
        self._building_bias = building_bias
        sizes = [scene.pixels.shape[:2] for scene in self._scenes]
        self._grid = [
            (scene, window)
            for scene, (height, width) in zip(self._scenes, sizes, strict=True)
            for window in grid(height, width, patch, patch)
        ]
        positions = np.prod(np.array(sizes) - patch + 1, axis=1)
        self._shares = positions / positions.sum()

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._steps or -(-len(self._grid) // self._batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch.

        Args:
            index: Which of the epoch, from 0.

        Returns:
            Pixels `(batch, patch, patch, bands)` and masks `(batch, patch, patch, 1)`,
            uint8; masks are 0, 1 or 255 for ignored.
        """
        random = np.random.default_rng((self._seed, self.epoch, index))
        if self._steps:
            cuts = [self._draw(random) for _ in range(self._batch)]
        else:
            first = index * self._batch
            cuts = [_cut(*at) for at in self._grid[first : first + self._batch]]
        if self._augment:
            cuts = [
                self._augment(pixels, mask, int(random.integers(SEEDS)))
                for pixels, mask in cuts
            ]
        pixels, masks = zip(*cuts, strict=True)
        return np.stack(pixels), np.stack(masks)[..., np.newaxis]

    def on_epoch_begin(self) -> None:
        """Start an epoch; Keras calls it."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Move on to the next epoch; Keras calls it, and once before the first."""
        self.epoch += self._begun
        self._begun = False

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cut a random patch that is not wholly ignored, if ten draws find one."""
        needs_building = random.random() < self._building_bias
        for _ in range(DRAWS):
            scene = self._scenes[random.choice(len(self._scenes), p=self._shares)]
            height, width = scene.mask.shape
            row = int(random.integers(height - self._patch + 1))
            col = int(random.integers(width - self._patch + 1))
            cut = _cut(scene, Window(row, col, self._patch, self._patch))
            mask = cut[1]
            if (mask == 1).any() if needs_building else (mask != IGNORED).any():
                break
        return cut


def _cut(scene: SceneData, window: Window) -> tuple[np.ndarray, np.ndarray]:
    return scene.pixels[window.slices], scene.mask[window.slices]


def _padded(scene: SceneData, side: int) -> SceneData:
    """Return a scene that is at least a patch high and wide."""
    height, width = scene.mask.shape
    below, right = max(side - height, 0), max(side - width, 0)
    if not below and not right:
        return scene
    rim = ((0, below), (0, right))
    return SceneData(
        np.pad(scene.pixels, (*rim, (0, 0)), mode="reflect"),
        np.pad(scene.mask, rim, constant_values=IGNORED),
    )
