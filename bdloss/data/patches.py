"""Patches: batches of windows of scenes, as Keras trains on them."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import keras
import numpy as np
from pydantic import Field, model_validator

from bdloss.constants import IGNORED
from bdloss.data.augment import Augment, Strength
from bdloss.data.scenes import SceneData
from bdloss.errors import InputError
from bdloss.geo.windows import Window, sliding_windows
from bdloss.memory import refuse_beyond_memory
from bdloss.settings import Count, Fraction, Positive, Settings

MAX_DRAWS = 10  # of a patch, before it is taken as it is
SEED_RANGE = 2**32
Scale = Annotated[float, Field(ge=0.125, le=8)]


class PatchSettings(Settings):
    """Settings of the patches that a network learns from."""

    size: Positive = 256  # pixels
    batch_size: Positive = 8
    sampling: Literal["random", "grid"] = "random"  # grid: shuffled anew every epoch
    steps: Count = 0  # batches an epoch; 0: as many pixels as there are, or the grid
    augment: Strength = "light"
    building_bias: Fraction = 0.0  # share drawn again until they show a building
    # Least and most pixels of a scene, along a side, to one of a random patch.
    scale: Annotated[list[Scale], Field(min_length=2, max_length=2)] = Field(
        default=[1.0, 1.0]
    )
    workers: Annotated[int, Field(gt=0, le=256)] = 2  # threads that load them

    @model_validator(mode="after")
    def _check(self) -> "PatchSettings":
        # An image band, the mask and probabilities, in float32, are the least of it.
        needed = 4 * self.batch_size * self.size**2 * 3
        what = f"a batch of {self.batch_size} patches of {self.size} pixels"
        refuse_beyond_memory(needed, what)
        if self.sampling == "grid" and self.building_bias:
            raise InputError(
                "patches.building_bias is of sampling = random: a grid takes all "
                f"patches, got {self.building_bias}"
            )
        low, high = self.scale
        if low > high or (self.sampling == "grid" and self.scale != [1.0, 1.0]):
            raise InputError(
                "patches.scale is the least and the most, of sampling = random, got "
                f"{self.scale} of {self.sampling}"
            )
        return self


def resize_patch(
    pixels: np.ndarray, maps: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a patch to another size.

    Args:
        pixels: Array `(before, before, bands)`, uint8: averaged where it shrinks,
            bilinear where it grows.
        maps: Array `(before, before, maps)`, uint8. The first is the mask, of which a
            pixel takes the value that most of it has; another, that of contact, is 1
            wherever it was, so that thin lines do not go.
        side: Side in pixels to bring it to.

    Returns:
        Pixels and maps of that size.
    """
    shrinks = side < len(pixels)
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def resize(layer: np.ndarray) -> np.ndarray:
        return cv2.resize(layer, (side, side), interpolation=way)

    # One by one: of more than four OpenCV makes something else.
    bands = [resize(pixels[..., i]) for i in range(pixels.shape[-1])]
    values = np.unique(maps[..., 0])
    shares = [resize((maps[..., 0] == value).astype(np.float32)) for value in values]
    resized = [values[np.argmax(shares, axis=0)]]
    for i in range(1, maps.shape[-1]):
        line = resize((maps[..., i] == 1).astype(np.float32)) > (0 if shrinks else 0.5)
        unknown = resize((maps[..., i] == IGNORED).astype(np.float32)) > 0.5
        resized.append(np.where(unknown, IGNORED, line).astype(np.uint8))
    return np.dstack(bands), np.dstack(resized)


class Patches(keras.utils.PyDataset):
    """Batches of patches cut out of scenes.

    With `steps`, patches lie at random, all positions in all scenes equally likely, and
    an epoch has that many batches; without, they lie in a grid that covers the scenes,
    in order, and the last batch may be smaller; a shuffled grid comes in another order
    every epoch, in full batches. What a patch is depends on `seed`, `epoch`, the index
    of its batch and its index in it alone, not on workers, processes or the backend of
    Keras, nor on batches taken before.

    A scene smaller than a patch is reflected, and what is added is ignored in its mask.

    Batches are prepared by threads, not by processes: decoding, copying and OpenCV run
    outside the lock of Python, and a process forked beside TensorFlow may hang.

    Attributes:
        epoch: The epoch that batches are drawn for, from 0. Keras moves it on, through
            several calls of `fit` too; to resume a run, set it. On JAX and PyTorch,
            Keras looks at a batch before it first trains a network, and counts that as
            an epoch; set it as an epoch begins, in a callback, where that matters.
    """

    def __init__(
        self,
        scenes: Sequence[SceneData],
        patch: int,
        batch: int,
        *,
        steps: int | None = None,
        shuffled_grid: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        building_bias: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        classes: int = 1,
        workers: int = 1,
        process: int = 0,
        processes: int = 1,
    ):
        """Cut patches out of scenes.

        Args:
            scenes: The scenes, all with as many bands, and all with a map of contact or
                none.
            patch: Side of a patch, in pixels.
            batch: Patches in a batch.
            steps: Batches in an epoch, at random positions; None for a grid.
            shuffled_grid: Whether the grid comes in an order drawn for each epoch. The
                last batch is filled up from its start; `steps` may end an epoch before.
            augment: What `augmentation` returns; None for patches as they are.
            seed: Seed of positions and augmentation, at least 0.
            building_bias: Share of the random patches that are drawn again, up to ten
                times, until there is a building in them, or anything of the classes;
                in [0, 1].
            scale: Least and most pixels of a scene, along a side, to one of a random
                patch: it is drawn in between, in the logarithm, and what is cut out is
                as much larger than the patch and brought to its size.
            classes: How many classes the masks of the scenes tell apart.
            workers: Threads that prepare batches.
            process: Which of the `processes` this is, from 0.
            processes: How many train together. Each loads its slice of every batch;
                put one after the other, the slices are the batch of a single process.

        Raises:
            ValueError: If there are no scenes, their bands differ in number, some only
                have a map of contact, a number is out of range, or the processes cannot
                share a batch equally.
        """
        super().__init__(workers=workers)
        band_counts = {scene.pixels.shape[2] for scene in scenes}
        if len(band_counts) != 1:
            raise InputError(
                f"scenes must have the same number of bands, got {sorted(band_counts)}"
                if band_counts
                else "there must be scenes to cut patches out of, got none"
            )
        with_contact = {scene.contact is not None for scene in scenes}
        if len(with_contact) != 1:
            raise InputError("all scenes must have a map of contact, or none")
        if patch < 1 or batch < 1 or (steps is not None and steps < 1):
            raise InputError(
                "patch, batch and steps must be at least 1, "
                f"got {patch}, {batch} and {steps}"
            )
        if not 0 <= process < processes or batch % processes:
            raise InputError(
                f"processes must share a batch of {batch} equally and be counted from "
                f"0, got process {process} of {processes}"
            )
        if not 0 <= building_bias <= 1:
            raise InputError(f"building_bias must be in [0, 1], got {building_bias}")
        if not 0 < scale[0] <= scale[1]:
            raise InputError(f"scale must be least and most, above 0, got {scale}")
        if not 1 <= classes < IGNORED:
            raise InputError(f"classes must be from 1 to {IGNORED - 1}, got {classes}")
        self.epoch = 0
        self._begun = False
        self._scenes = list(scenes)
        self._patch = patch
        self._batch = batch
        self._steps = steps
        self._shuffled = shuffled_grid
        self._augment = augment
        self._seed = seed
        self._building_bias = building_bias
        self._scale = scale
        self._classes = np.arange(1, classes + 1, dtype=np.uint8)
        self._contact = with_contact.pop()
        self._process = process
        self._processes = processes
        self._sizes = np.array([scene.mask.shape for scene in scenes])
        self._grid = [
            (scene, Window(window.row, window.col, patch, patch))
            for scene, (height, width) in enumerate(self._sizes.tolist())
            for window in sliding_windows(height, width, patch, patch)
        ]

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._steps or -(-len(self._grid) // self._batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch, or the slice of it that this process loads.

        Args:
            index: Which of the epoch, from 0.

        Returns:
            Pixels `(batch, patch, patch, bands)` and masks `(batch, patch, patch,
            maps)`, uint8; masks are 0, 1 or 255 for ignored. There is a map for each
            class, and then that of contact if the scenes have it.
        """
        numbers = self._numbers_of(index)
        side, bands = self._patch, self._scenes[0].pixels.shape[2]
        maps = len(self._classes) + self._contact
        pixels = np.empty((len(numbers), side, side, bands), np.uint8)
        masks = np.empty((len(numbers), side, side, maps), np.uint8)
        for i, number in enumerate(numbers):
            random = np.random.default_rng((self._seed, self.epoch, number))
            cut = self._cut(*self._find(number, random))
            if self._augment:
                cut = self._augment(*cut, int(random.integers(SEED_RANGE)))
            pixels[i], masks[i] = cut[0], self._as_maps(cut[1])
        return pixels, masks

    def windows(self, index: int) -> list[tuple[int, Window]]:
        """Return where the patches of a batch of this epoch come from.

        Args:
            index: Which batch, from 0.

        Returns:
            Index of its scene in `scenes`, and window in it, of each patch.
        """
        found = []
        for number in self._numbers_of(index):
            random = np.random.default_rng((self._seed, self.epoch, number))
            scene, window, *_ = self._find(number, random)
            found.append((scene, window))
        return found

    def on_epoch_begin(self) -> None:
        """Start an epoch; Keras calls it."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Move on to the next epoch; Keras calls it, and once before the first."""
        self.epoch += self._begun
        self._begun = False

    def _numbers_of(self, index: int) -> list[int]:
        """Return the numbers of the patches of a batch that this process loads."""
        first = index * self._batch
        last = first + self._batch
        if not self._steps and not self._shuffled:
            last = min(last, len(self._grid))
        numbers = np.arange(first, last)
        if self._shuffled:
            order = np.random.default_rng((self._seed, self.epoch))
            numbers = order.permutation(len(self._grid))[numbers % len(self._grid)]
        return np.array_split(numbers, self._processes)[self._process].tolist()

    def _find(self, number: int, random: np.random.Generator) -> Any:
        """Return scene and window of a patch, and its mask where that is known."""
        drawn = self._steps and not self._shuffled
        return self._draw(random) if drawn else self._grid[number]

    def _draw(self, random: np.random.Generator) -> tuple[int, Window, np.ndarray]:
        """Draw a patch that is not wholly ignored, if ten draws find one."""
        needs_building = random.random() < self._building_bias
        side = self._patch
        if self._scale != (1.0, 1.0):
            low, high = map(math.log, self._scale)
            side = round(side * math.exp(random.uniform(low, high)))
        # Along each axis of each scene, and up to the end of each scene.
        positions = np.maximum(self._sizes - side, 0) + 1
        ends = positions.prod(axis=1).cumsum()
        for _ in range(MAX_DRAWS):
            position = int(random.integers(ends[-1]))
            scene = int(np.searchsorted(ends, position, side="right"))
            row, col = divmod(int(ends[scene]) - 1 - position, int(positions[scene, 1]))
            window = Window(row, col, side, side)
            mask = self._scenes[scene].mask[window.slices]
            known = mask != IGNORED
            if (known & (mask > 0)).any() if needs_building else known.any():
                break
        return scene, window, mask

    def _cut(
        self, scene: int, window: Window, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels and mask, with contact if there is, as large as a patch."""
        data = self._scenes[scene]
        pixels = data.pixels[window.slices]
        mask = data.mask[window.slices] if mask is None else mask
        stacked = mask[..., np.newaxis]
        if data.contact is not None:
            stacked = np.dstack([mask, data.contact[window.slices]])
        below, right = window.height - mask.shape[0], window.width - mask.shape[1]
        if below or right:
            rim = ((0, below), (0, right), (0, 0))
            pixels = np.pad(pixels, rim, mode="reflect")
            stacked = np.pad(stacked, rim, constant_values=IGNORED)
        if window.height == self._patch:
            return pixels, stacked
        return resize_patch(pixels, stacked, self._patch)

    def _as_maps(self, stacked: np.ndarray) -> np.ndarray:
        """Return a map for each class, and that of contact, of what `_cut` returns."""
        mask, contact = stacked[..., :1], stacked[..., 1:]
        if len(self._classes) == 1 and not self._contact:
            return mask
        maps = np.concatenate([mask == self._classes, contact], axis=-1)
        return np.where(mask == IGNORED, np.uint8(IGNORED), maps)
