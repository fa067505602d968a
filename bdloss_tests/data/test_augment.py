from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bdloss.data.augment import augmentation

RANDOM = np.random.default_rng(11)
SIDE = 32
# Blocks, so that blur and scaling change some pixels and not all.
PIXELS = np.kron(RANDOM.integers(40, 216, (8, 8, 3)), np.ones((4, 4, 1))).astype(
    "uint8"
)
MASK = np.kron(RANDOM.choice([0, 1, 255], (8, 8)), np.ones((4, 4))).astype(np.uint8)
SEEDS = range(60)


def symmetries(array):
    for turns in range(4):
        turned = np.rot90(array, turns)
        yield turned
        yield turned[:, ::-1]


def test_none_leaves_a_patch_as_it_is():
    pixels, mask = augmentation("none")(PIXELS, MASK, 5)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("strength", ["light", "strong"])
def test_a_patch_keeps_its_shape_and_a_mask_its_pixels(strength, bands):
    augment = augmentation(strength)
    many = np.concatenate([PIXELS, 255 - PIXELS], axis=-1)[..., :bands]
    turned = {mask.tobytes() for mask in symmetries(MASK)}
    for seed in SEEDS[:20]:
        pixels, mask = augment(many, MASK, seed)
        assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, bands), np.uint8)
        assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.uint8)
        assert mask.tobytes() in turned


@pytest.mark.parametrize(("bands", "colours"), [(2, 1), (4, 3), (6, 3)])
@pytest.mark.parametrize("strength", ["light", "strong"])
def test_bands_that_are_no_colours_are_only_turned(strength, bands, colours):
    augment = augmentation(strength)
    many = np.concatenate([PIXELS, 255 - PIXELS], axis=-1)[..., :bands]
    untouched = {patch.tobytes() for patch in symmetries(many[..., colours:])}
    changed = 0
    for seed in SEEDS:
        pixels, _ = augment(many, MASK, seed)
        assert pixels[..., colours:].tobytes() in untouched
        changed += pixels.tobytes() not in {
            patch.tobytes() for patch in symmetries(many)
        }
    assert changed > len(SEEDS) / 3


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_the_same_seed_gives_the_same_in_any_thread(strength):
    augment = augmentation(strength)

    def both(seed):
        return augment(PIXELS, MASK, seed)

    alone = [both(seed) for seed in SEEDS]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(both, SEEDS), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    assert len({pixels.tobytes() for pixels, _ in alone}) > len(SEEDS) / 2


def test_light_gives_all_eight_symmetries_of_the_mask():
    expected = {mask.tobytes() for mask in symmetries(MASK)}
    augment = augmentation("light")
    got = {augment(PIXELS, MASK, seed)[1].tobytes() for seed in SEEDS}
    assert len(expected) == 8
    assert got == expected


@pytest.mark.parametrize(("strength", "agreement"), [("light", 1), ("strong", 0.9)])
def test_the_mask_moves_with_the_pixels(strength, agreement):
    mask = np.kron(MASK == 1, np.ones((4, 4), bool)).astype(np.uint8)
    pixels = np.repeat(mask[..., np.newaxis] * 180 + 30, 3, axis=-1)
    augment = augmentation(strength)
    for seed in SEEDS:
        moved, moved_mask = augment(pixels, mask, seed)
        grey = moved.mean(axis=-1)
        bright = grey > (grey.min() + grey.max()) / 2
        assert (bright == moved_mask).mean() >= agreement


def test_strong_also_tints_and_adds_noise_and_blur():
    augment = augmentation("strong")
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    red = grey + np.array([60, 0, 0], np.uint8)
    blocks = np.where(PIXELS[..., :1] > 128, grey, grey // 2)
    tinted, noisy, blurred = [], [], []
    for seed in SEEDS:
        excess = np.ptp(augment(red, MASK, seed)[0].mean((0, 1)))
        tinted.append(abs(excess - 60) > 12)
        noise = augment(grey, MASK, seed)[0].std(axis=(0, 1)).max()
        noisy.append(noise > 0)
        values = np.unique(augment(blocks, MASK, seed)[0][..., 0])
        blurred.append(not noise and len(values) > 2)
    assert 0.2 < np.mean(tinted) < 0.8
    assert 0.3 < np.mean(noisy) < 0.7
    assert 0.1 < np.mean(blurred) < 0.5


def test_an_unknown_strength_is_an_error():
    with pytest.raises(ValueError, match="one of none, light, strong, got 'medium'"):
        augmentation("medium")
