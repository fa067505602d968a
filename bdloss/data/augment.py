"""Augmentation: patches turned, stretched and tinted, each by a seed of its own."""

import os
from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks a server

import albumentations

Strength = Literal["none", "light", "strong"]
Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def augmentation(strength: Strength) -> Augment:
    """Return a function that augments a patch.

    Args:
        strength: "none" leaves a patch as it is. "light" turns and mirrors it (the
            eight symmetries of the square) and varies brightness and contrast. "strong"
            also rotates it by any angle, scales it by 0.8 to 1.25, tints its bands,
            blurs and adds noise.

    Returns:
        Function of pixels `(side, side, bands)` uint8, mask `(side, side)` uint8 and a
        seed from 0 to 2**32 - 1. It returns new pixels and mask of the same shape, the
        mask with no other values than before. The same seed gives the same; it may be
        called from several threads at once.

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
        raise ValueError(
            f"augment must be one of {', '.join(get_args(Strength))}, got {strength!r}"
        )
    if strength == "none":
        return lambda pixels, mask, seed: (pixels, mask)
    transforms = _light if strength == "light" else _strong

    def augment(pixels, mask, seed):
        # Transforms hold their random state, so threads cannot share them.
        compose = albumentations.Compose(transforms(), seed=seed)
        augmented = compose(image=pixels, mask=mask)
        return augmented["image"], augmented["mask"]

    return augment


def _light() -> list:
    return [
        albumentations.D4(p=1),
        albumentations.RandomBrightnessContrast(0.2, 0.2, p=0.5),
    ]


def _strong() -> list:
    return [
        *_light(),
        albumentations.Affine(
            scale=(0.8, 1.25),
            rotate=(-45, 45),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.5,
        ),
        albumentations.RandomGamma((70, 140), p=0.5),
        albumentations.MultiplicativeNoise((0.9, 1.1), per_channel=True, p=0.5),
        albumentations.GaussianBlur((3, 5), p=0.2),
        albumentations.GaussNoise((0.01, 0.04), p=0.2),
    ]
