import keras
import numpy as np
import pytest

from bdloss.data.augment import augmentation
from bdloss.data.cache import load_cached
from bdloss.data.folder import read_folder
from bdloss.data.patches import Patches, resize_patch
from bdloss.data.scenes import SceneData, load_scene
from bdloss_tests.scenes import write_folder


def make_scene(height, width, bands=2, seed=0):
    """Make a scene whose first two bands are the row and column of a pixel."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, bands), np.uint8)
    pixels[..., 0] = np.arange(height)[:, np.newaxis]
    pixels[..., 1] = np.arange(width)
    return SceneData(pixels, random.integers(0, 2, (height, width), np.uint8))


SCENE = make_scene(40, 90)


def corners(pixels):
    return pixels[:, 0, 0, :2].tolist()


def test_a_grid_covers_every_scene_in_order():
    patches = Patches([SCENE, make_scene(16, 20)], 16, 4)
    batches = [patches[index] for index in range(len(patches))]
    assert [len(pixels) for pixels, _ in batches] == [4, 4, 4, 4, 4]
    got = [corner for pixels, _ in batches for corner in corners(pixels)]
    columns = [0, 16, 32, 48, 64, 74]
    first = [[row, column] for row in (0, 16, 24) for column in columns]
    assert got == [*first, [0, 0], [0, 4]]


def test_the_last_batch_of_a_grid_may_be_smaller():
    patches = Patches([SCENE], 16, 4)
    assert [len(patches[index][0]) for index in range(len(patches))] == [4] * 4 + [2]


def test_a_shuffled_grid_shows_every_patch_in_an_order_of_its_epoch():
    plain = Patches([SCENE], 16, 4)
    in_order = [tuple(corner) for i in range(5) for corner in corners(plain[i][0])]
    patches = Patches([SCENE], 16, 4, shuffled_grid=True, seed=3)
    orders = []
    for epoch in range(2):
        patches.epoch = epoch
        batches = [corners(patches[index][0]) for index in range(len(patches))]
        assert [len(batch) for batch in batches] == [4] * 5  # the last is filled up
        orders.append([tuple(corner) for batch in batches for corner in batch])
    for order in orders:
        assert sorted(order[:18]) == sorted(in_order)
        assert order[18:] == order[:2]
    assert orders[0] != orders[1]
    short = Patches([SCENE], 16, 4, shuffled_grid=True, steps=2, seed=3)
    assert len(short) == 2
    got = [tuple(corner) for index in (0, 1) for corner in corners(short[index][0])]
    assert got == orders[0][:8]


def test_processes_share_a_shuffled_grid():
    whole = Patches([SCENE], 16, 4, shuffled_grid=True)
    parts = [
        Patches([SCENE], 16, 4, shuffled_grid=True, process=process, processes=2)
        for process in (0, 1)
    ]
    for index in range(len(whole)):
        joined = np.concatenate([part[index][0] for part in parts])
        np.testing.assert_array_equal(joined, whole[index][0])


@pytest.mark.parametrize("steps", [None, 6])
def test_pixels_and_mask_are_those_of_the_scene(steps):
    patches = Patches([SCENE], 16, 3, steps=steps)
    for index in range(6):
        pixels, masks = patches[index]
        assert (pixels.shape, pixels.dtype) == ((3, 16, 16, 2), np.uint8)
        assert (masks.shape, masks.dtype) == ((3, 16, 16, 1), np.uint8)
        for patch, mask, (row, column) in zip(
            pixels, masks, corners(pixels), strict=True
        ):
            part = (slice(row, row + 16), slice(column, column + 16))
            np.testing.assert_array_equal(patch, SCENE.pixels[part])
            np.testing.assert_array_equal(mask[..., 0], SCENE.mask[part])


def test_random_patches_lie_anywhere_and_as_often_in_each_pixel_of_all_scenes():
    small = make_scene(24, 24)
    small.pixels[..., 0] += 100
    patches = Patches([make_scene(18, 18), small], 16, 500, steps=2)
    got = corners(np.concatenate([patches[0][0], patches[1][0]]))
    # 3 x 3 positions in one, 9 x 9 in the other
    assert {tuple(corner) for corner in got} == {
        *((row, column) for row in range(3) for column in range(3)),
        *((row, column) for row in range(100, 109) for column in range(9)),
    }
    share = np.mean([row < 100 for row, _ in got])
    assert share == pytest.approx(0.1, abs=0.03)


def test_a_batch_depends_on_seed_epoch_and_index_alone():
    def batch(seed, epoch, index):
        patches = Patches([SCENE], 16, 4, steps=9, seed=seed, augment=augment)
        patches.epoch = epoch
        return patches[index]

    augment = augmentation("strong")
    patches = Patches([SCENE], 16, 4, steps=9, seed=1, augment=augment)
    patches.on_epoch_begin()
    patches[5], patches[0]
    patches.on_epoch_end()
    for one, other in zip(patches[3], batch(1, 1, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    places = [(1, 1, 3), (2, 1, 3), (1, 2, 3), (1, 1, 2), (1, 3, 1)]
    assert len({batch(*place)[0].tobytes() for place in places}) == len(places)


@pytest.mark.parametrize("steps", [None, 5], ids=["grid", "random"])
def test_the_slices_of_processes_make_the_batch_of_one(steps):
    settings = {"patch": 16, "batch": 6, "steps": steps, "seed": 3}
    settings["augment"] = augmentation("strong") if steps else None
    one = Patches([SCENE, make_scene(30, 20)], **settings)
    many = [
        Patches([SCENE, make_scene(30, 20)], process=i, processes=3, **settings)
        for i in range(3)
    ]
    for index, batch in enumerate(one[i] for i in range(len(one))):
        slices = [patches[index] for patches in many]
        assert [len(pixels) for pixels, _ in slices] == [
            len(batch[0]) // 3 + extra
            for extra in ([0] * 3, [1, 0, 0], [1, 1, 0])[len(batch[0]) % 3]
        ]
        for whole, parts in zip(batch, zip(*slices, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_patches_of_a_cache_are_those_of_memory(tmp_path):
    root = write_folder(tmp_path / "town", sizes=((90, 130), (70, 84), (20, 150)))
    scenes = read_folder(root, validation=0).train
    options = {"steps": 3, "seed": 5, "building_bias": 0.5}
    expected = Patches([load_scene(scene) for scene in scenes], 32, 8, **options)
    for limit in (10**6, 0):
        cached = [load_cached(scene, tmp_path / "cache", limit) for scene in scenes]
        patches = Patches(cached, 32, 8, **options)
        for index in range(3):
            for one, other in zip(patches[index], expected[index], strict=True):
                np.testing.assert_array_equal(one, other)


class Recorder(Patches):
    """Keeps what Keras asks for."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked = []

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        self.asked.append((self.epoch, index, batch[0].tobytes()))
        return batch


@pytest.mark.parametrize("workers", [1, 3])
def test_keras_moves_the_epoch_on_through_several_fits(workers):
    patches = Recorder([SCENE], 16, 2, steps=4, workers=workers)
    model = keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(1, 1)]
    )
    model.compile(loss="mse")
    model.train_on_batch(*patches[0])  # so that it is built
    patches.asked.clear()
    model.fit(patches, epochs=1, verbose=0)
    model.fit(patches, initial_epoch=1, epochs=3, verbose=0)
    assert patches.epoch == 3
    expected = Patches([SCENE], 16, 2, steps=4)
    batches = set()
    for expected.epoch in range(3):
        for index in range(4):
            content = expected[index][0].tobytes()
            batches.add((expected.epoch, index, content))
    assert set(patches.asked) == batches


def test_a_network_sees_the_patches_as_they_are_and_in_order():
    augment = augmentation("strong")
    patches = Patches([make_scene(40, 90, 3)], 16, 2, steps=5, augment=augment)
    same = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(1.0)])
    expected = np.concatenate([patches[index][0] for index in range(5)])
    patches.workers = 3
    np.testing.assert_array_equal(same.predict(patches, verbose=0), expected)


def test_augmented_patches_differ_from_each_other():
    flat = SceneData(np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), np.uint8))
    patches = Patches([flat], 16, 40, steps=1, augment=augmentation("light"))
    means = patches[0][0].mean(axis=(1, 2, 3))
    assert len(set(means)) > 10


def test_a_building_bias_draws_patches_with_buildings():
    mask = np.zeros((100, 100), np.uint8)
    mask[:10, :10] = 1  # in 19 % of the patches' positions, if one looks ten times 88 %
    scene = SceneData(make_scene(100, 100).pixels, mask)

    def share(bias):
        masks = Patches([scene], 40, 300, steps=1, building_bias=bias)[0][1]
        return (masks == 1).any(axis=(1, 2, 3)).mean()

    assert share(0) == pytest.approx((10 / 61) ** 2, abs=0.03)
    assert share(1) == pytest.approx(1 - (1 - (10 / 61) ** 2) ** 10, abs=0.08)
    assert share(0.5) == pytest.approx((share(0) + share(1)) / 2, abs=0.08)


def test_a_patch_is_not_wholly_ignored_where_others_are():
    mask = np.full((50, 100), 255, np.uint8)
    mask[:, 60:] = 0
    scene = SceneData(make_scene(50, 100).pixels, mask)
    masks = Patches([scene], 20, 200, steps=1)[0][1]
    assert (masks != 255).any(axis=(1, 2, 3)).all()
    ignored = SceneData(scene.pixels, np.full_like(mask, 255))
    assert (Patches([ignored], 20, 2, steps=1)[0][1] == 255).all()


@pytest.mark.parametrize("steps", [None, 1])
def test_a_scene_smaller_than_a_patch_is_reflected_and_ignored_there(steps):
    scene = make_scene(5, 12)
    pixels, masks = Patches([scene], 8, 2, steps=steps)[0]
    rows = [0, 1, 2, 3, 4, 3, 2, 1]
    for patch, mask in zip(pixels, masks[..., 0], strict=True):
        assert patch[:, 0, 0].tolist() == rows
        column = patch[0, 0, 1]
        np.testing.assert_array_equal(mask[:5], scene.mask[:, column : column + 8])
        assert (mask[5:] == 255).all()


def make_classes(height, width, contact=True):
    """Make a scene of three classes; beyond its colours are its mask and contact."""
    scene = make_scene(height, width, bands=5)
    random = np.random.default_rng(4)
    mask = random.choice([0, 1, 2, 3, 255], (height, width)).astype(np.uint8)
    touching = random.integers(0, 2, (height, width), np.uint8)
    scene.pixels[..., 3], scene.pixels[..., 4] = mask, touching
    return SceneData(scene.pixels, mask, touching if contact else None)


@pytest.mark.parametrize("strength", ["none", "light", "strong"])
@pytest.mark.parametrize("contact", [False, True])
def test_classes_and_contact_are_maps_that_move_with_the_pixels(strength, contact):
    scene = make_classes(40, 60, contact)
    augment = augmentation(strength)
    patches = Patches([scene], 16, 40, steps=1, classes=3, augment=augment)
    pixels, maps = patches[0]
    assert (maps.shape, maps.dtype) == ((40, 16, 16, 3 + contact), np.uint8)
    mask, touching = pixels[..., 3], pixels[..., 4]
    for number in (1, 2, 3):
        expected = np.where(mask == 255, 255, mask == number)
        np.testing.assert_array_equal(maps[..., number - 1], expected)
    if contact:
        expected = np.where(mask == 255, 255, touching)
        np.testing.assert_array_equal(maps[..., 3], expected)


def test_a_class_has_the_same_map_beside_that_of_contact():
    touching = np.roll(SCENE.mask, 3)
    alone = Patches([SCENE], 16, 4, steps=2, seed=2)
    both = Patches([SCENE._replace(contact=touching)], 16, 4, steps=2, seed=2)
    for index in range(2):
        np.testing.assert_array_equal(alone[index][1], both[index][1][..., :1])


def test_what_is_beyond_a_small_scene_is_ignored_in_all_maps():
    maps = Patches([make_classes(5, 12)], 8, 2, classes=3)[0][1]
    assert (maps[:, 5:] == 255).all()
    assert set(np.unique(maps[:, :5])) == {0, 1, 255}


def test_a_building_bias_looks_for_any_class():
    mask = np.zeros((100, 100), np.uint8)
    mask[:10, :10], mask[-40:, -40:] = 1, 255
    scene = SceneData(make_scene(100, 100).pixels, mask)
    options = {"steps": 1, "building_bias": 1, "classes": 2, "seed": 3}
    ones = Patches([scene], 40, 100, **options)[0][1]
    mask[:10, :10] = 2
    np.testing.assert_array_equal(
        Patches([scene], 40, 100, **options)[0][1], ones[..., ::-1]
    )


def test_a_scale_of_two_shows_the_mean_of_four_pixels():
    scene = make_scene(40, 60)
    line = np.zeros_like(scene.mask)
    line[:, 21] = 1
    scene = scene._replace(contact=line)
    patches = Patches([scene], 8, 6, steps=1, scale=(2, 2))
    pixels, maps = patches[0]
    for number, (place, window) in enumerate(patches.windows(0)):
        assert (place, window.height, window.width) == (0, 16, 16)
        fours = scene.pixels[window.slices].reshape(8, 2, 8, 2, -1).astype(float)
        np.testing.assert_allclose(pixels[number], fours.mean((1, 3)), atol=0.51)
        share = scene.mask[window.slices].reshape(8, 2, 8, 2).mean((1, 3))
        clear = share != 0.5
        np.testing.assert_array_equal(maps[number, ..., 0][clear], (share > 0.5)[clear])
        touching = line[window.slices].reshape(8, 2, 8, 2).max((1, 3))
        np.testing.assert_array_equal(maps[number, ..., 1], touching)
    assert maps[..., 1].any()


def test_scales_are_drawn_in_between_and_with_the_batch():
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 1, 255], np.uint8), (90, 90))
    scene = SceneData(random.integers(0, 256, (90, 90, 4), np.uint8), mask)
    options = {"steps": 2, "scale": (0.5, 2.0), "augment": augmentation("light")}
    patches = Patches([scene], 16, 200, **options)
    sides = np.array([window.height for _, window in patches.windows(0)])
    assert 8 <= sides.min() < 9
    assert 31 <= sides.max() <= 32
    assert np.median(sides) == pytest.approx(16, abs=2)  # as many below as above
    pixels, maps = patches[0]
    assert (pixels.shape, maps.shape) == ((200, 16, 16, 4), (200, 16, 16, 1))
    assert set(np.unique(maps)) == {0, 1, 255}
    again = Patches([scene], 16, 200, **options)[0]
    np.testing.assert_array_equal(again[0], pixels)
    np.testing.assert_array_equal(again[1], maps)


def test_what_grows_keeps_its_edges():
    pixels = np.zeros((4, 4, 1), np.uint8)
    maps = np.zeros((4, 4, 2), np.uint8)
    maps[1:3, 1:3, 0], maps[0, :, 0] = 1, 255
    maps[:, 1, 1], maps[0, :, 1] = 1, 255
    _, grown = resize_patch(pixels, maps, 8)
    np.testing.assert_array_equal(grown[..., 0], np.kron(maps[..., 0], np.ones((2, 2))))
    np.testing.assert_array_equal(grown[..., 1], np.kron(maps[..., 1], np.ones((2, 2))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenes": []}, "there must be scenes to cut patches out of, got none"),
        (
            {"scenes": [SCENE, make_scene(20, 30, bands=4)]},
            r"the same number of bands, got \[2, 4\]",
        ),
        ({"patch": 0}, "must be at least 1, got 0, 4 and None"),
        ({"batch": 0}, "must be at least 1, got 16, 0 and None"),
        ({"steps": 0}, "must be at least 1, got 16, 4 and 0"),
        ({"building_bias": 1.1}, r"building_bias must be in \[0, 1\], got 1.1"),
        ({"classes": 255}, "classes must be from 1 to 254, got 255"),
        (
            {"scenes": [SCENE, SCENE._replace(contact=SCENE.mask)]},
            "all scenes must have a map of contact, or none",
        ),
        ({"scale": (2, 1)}, r"scale must be least and most, above 0, got \(2, 1\)"),
        ({"processes": 3}, "share a batch of 4 equally .* got process 0 of 3"),
        ({"process": 2, "processes": 2}, "got process 2 of 2"),
    ],
)
def test_what_patches_need(arguments, message):
    with pytest.raises(ValueError, match=message):
        Patches(**{"scenes": [SCENE], "patch": 16, "batch": 4, **arguments})
