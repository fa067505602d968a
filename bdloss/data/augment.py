"""Augmentation: patches turned, tinted, noised and blurred, each by its seed (4.2)."""

import os
import random
import threading
from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks a server

import albumentations

from bdloss.errors import InputError

COLOUR_BANDS = 3  # the first ones, which colour operations take
Strength = Literal["none", "light", "strong"]
Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def augmentation(strength: Strength) -> Augment:
    """Return a function that augments a patch.

    Turns and mirrors move whole pixels, of all bands and the mask alike, so that
    neither the mask nor what is ignored in it is ever interpolated. All else changes
    the first three bands (RGB), or the first of fewer: what lies beyond, such as near
    infrared or height, is not a colour.

    Args:
        strength: "none" leaves a patch as it is. "light" turns and mirrors it (the
            eight symmetries of the square) and varies brightness and contrast. "strong"
            has all that Section 4.2 names, flips, hue and saturation, noises and blurs,
            one of several noises and one of several blurs, each to half of the patches;
            turns, brightness and contrast are ours.

    Returns:
        Function of pixels `(side, side, bands)` uint8, mask `(side, side)` or
        `(side, side, maps)` uint8 and a seed from 0 to 2**32 - 1. It returns new pixels
        and mask of the same shape. The same seed gives the same; it may be called from
        several threads at once.

    Raises:
        ValueError: If `strength` is none of the three.

    Example:
        >>> pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        >>> mask = np.eye(2, dtype=np.uint8)
        >>> _, turned = augmentation("light")(pixels, mask, 1)
        >>> int(turned.sum())
        2
    """
    if strength not in get_args(Strength):
        raise InputError(
            f"augment must be one of {', '.join(get_args(Strength))}, got {strength!r}"
        )
    if strength == "none":
        return lambda pixels, mask, seed: (pixels, mask)
    transforms = _light if strength == "light" else _strong
    # Patches are augmented in parallel; threads within one would only wait.
    cv2.setNumThreads(1)
    # Transforms hold their random state, so threads cannot share them.
    own = threading.local()

    def augment(pixels, mask, seed):
        colours = COLOUR_BANDS if pixels.shape[-1] >= COLOUR_BANDS else 1
        composes: dict = own.__dict__
        if colours not in composes:
            composes[colours] = albumentations.Compose(
                transforms(colours), additional_targets={"beyond": "mask"}
            )
        # One stream for all transforms: by set_random_seed each would draw the same
        # numbers, so that noise and blur came together or not at all.
        composes[colours].set_random_state(
            np.random.default_rng(seed), random.Random(seed)
        )
        patch = {"image": pixels[..., :colours], "mask": mask}
        if pixels.shape[-1] > colours:
            patch["beyond"] = pixels[..., colours:]
        patch = composes[colours](**patch)
        bands = [patch[name] for name in ("image", "beyond") if name in patch]
        return np.concatenate(bands, axis=-1), patch["mask"]

    return augment


def _light(colours: int) -> list:
    return [
        albumentations.D4(p=1),
        albumentations.RandomBrightnessContrast(0.2, 0.2, p=0.5),
    ]


def _strong(colours: int) -> list:
    hue = [albumentations.HueSaturationValue(20, 30, 20, p=0.5)]
    return [
        *_light(colours),
        *(hue if colours == COLOUR_BANDS else []),
        albumentations.OneOf(
            [
                albumentations.GaussNoise((0.01, 0.05)),
                # Coarser than a pixel, as resampling and JPEG leave it.
                albumentations.GaussNoise((0.01, 0.05), noise_scale_factor=0.5),
                albumentations.MultiplicativeNoise((0.85, 1.15), elementwise=True),
            ],
            p=0.5,
        ),
        albumentations.OneOf(
            [
                albumentations.GaussianBlur((3, 5), sigma_limit=(0.3, 1.5)),
                albumentations.MedianBlur((3, 5)),
                albumentations.MotionBlur((3, 7)),
            ],
            p=0.5,
        ),
    ]
