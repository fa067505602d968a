import cv2
import numpy as np
import pytest
import shapely

from bdloss.data.contact import contact_map
from bdloss.data.folder import read_folder
from bdloss.data.inria import read_inria
from bdloss.data.scenes import (
    Scene,
    at_resolution,
    load_mask,
    load_scene,
    resolution_of,
)
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.windows import Window
from bdloss_tests import archives
from bdloss_tests.data.town import HEIGHT, HOUSE, MASK, PIXELS, WIDTH, write_town
from bdloss_tests.scenes import CORNER, UTM, write_raster


def test_a_scene_with_a_mask(tmp_path):
    (scene,) = read_folder(write_town(tmp_path, "a"), validation=0).train
    pixels, mask, _ = load_scene(scene)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_a_scene_with_outlines(tmp_path, suffix):
    write_raster(tmp_path / "images" / "a.tif", PIXELS)
    write_outlines(tmp_path / f"roofs{suffix}", [HOUSE], UTM)
    (scene,) = read_folder(tmp_path, validation=0).train
    np.testing.assert_array_equal(load_scene(scene).mask, MASK)


def test_an_area_is_that_part_of_the_scene(tmp_path):
    (scene,) = read_folder(write_town(tmp_path, "a"), validation=0).train
    outlines = tmp_path / "roofs.gpkg"
    write_outlines(outlines, [HOUSE], UTM)
    area = Window(10, 15, 22, 33)
    for truth in (scene.truth, outlines):
        pixels, mask, _ = load_scene(scene._replace(area=area, truth=truth))
        np.testing.assert_array_equal(pixels, PIXELS[10:32, 15:48])
        np.testing.assert_array_equal(mask, MASK[10:32, 15:48])


def write_row(tmp_path, **image):
    """Write two houses that share a wall, and one beside them, as outlines."""
    corners = [(20, 7, 30, 19), (30, 7, 44, 19), (46, 7, 60, 19)]
    houses = [
        shapely.box(*(CORNER @ (left, bottom)), *(CORNER @ (right, top)))
        for left, top, right, bottom in corners
    ]
    image = write_raster(tmp_path / "images" / "a.tif", PIXELS, **image)
    write_outlines(tmp_path / "roofs.gpkg", houses, UTM)
    labels = np.zeros((HEIGHT, WIDTH), int)
    for number, (left, top, right, bottom) in enumerate(corners, 1):
        labels[top:bottom, left:right] = number
    return image, labels


def test_contact_of_outlines_is_drawn_where_it_is_wanted(tmp_path):
    _, labels = write_row(tmp_path)
    (scene,) = read_folder(tmp_path, 0, contact=2).train
    loaded = load_scene(scene)
    np.testing.assert_array_equal(loaded.contact, contact_map(labels, 2))
    np.testing.assert_array_equal(loaded.mask, labels > 0)
    assert loaded.contact.dtype == np.uint8
    assert load_scene(scene._replace(contact=0)).contact is None


def test_contact_in_an_area_knows_the_houses_beside_it(tmp_path):
    write_row(tmp_path)
    (scene,) = read_folder(tmp_path, 0, contact=3).train
    whole = load_scene(scene).contact
    for area in (Window(9, 30, 20, 15), Window(0, 0, HEIGHT, 30), Window(18, 44, 9, 2)):
        part = load_scene(scene._replace(area=area)).contact
        np.testing.assert_array_equal(part, whole[area.slices])
        assert part.any()


@pytest.mark.parametrize(("resolution", "contact"), [(0.6, 1), (0.9, 2), (0.15, 4)])
def test_contact_is_in_pixels_of_the_scene_once_it_is_loaded(
    tmp_path, resolution, contact
):
    _, labels = write_row(tmp_path)
    (scene,) = read_folder(tmp_path, 0, resolution=resolution, contact=contact).train
    loaded = load_scene(scene)
    height, width = (int(side * scene.scale) for side in loaded.mask.shape)
    resampled = cv2.resize(
        labels[:height, :width].astype(np.float32),
        loaded.mask.shape[::-1],
        interpolation=cv2.INTER_NEAREST_EXACT,
    )
    np.testing.assert_array_equal(loaded.contact, contact_map(resampled, contact))
    assert loaded.contact.any()


def test_contact_is_not_known_of_a_mask(tmp_path):
    (scene,) = read_folder(write_town(tmp_path, "a"), validation=0).train
    with pytest.raises(ValueError, match=f"needs outlines, got a mask: {scene.truth}$"):
        load_scene(scene._replace(contact=2))


def test_where_the_orthophoto_has_no_data_the_mask_is_ignored(tmp_path):
    pixels = PIXELS.copy()
    pixels[10:15, 30:] = 0
    image = write_raster(tmp_path / "images" / "a.tif", pixels, nodata=0)
    mask = write_raster(tmp_path / "masks" / "a.tif", MASK)
    expected = MASK.copy()
    expected[10:15, 30:] = 255
    np.testing.assert_array_equal(load_scene(Scene("a", image, mask)).mask, expected)


def test_bands_can_be_chosen(tmp_path):
    (scene,) = read_folder(write_town(tmp_path, "a"), validation=0).train
    pixels = load_scene(scene, band_indexes=[2]).pixels
    np.testing.assert_array_equal(pixels[..., 0], PIXELS[..., 1])
    assert pixels.shape == (HEIGHT, WIDTH, 1)


def test_a_mask_has_the_size_of_its_image(tmp_path):
    image = write_raster(tmp_path / "a.tif", PIXELS)
    mask = write_raster(tmp_path / "b.tif", MASK[1:])
    with pytest.raises(ValueError, match=rf"\(40, 70\), got \(39, 70\): {mask}$"):
        load_scene(Scene("a", image, mask))


def test_outlines_that_lie_elsewhere_are_named_with_the_image(tmp_path):
    image = write_raster(tmp_path / "a.tif", PIXELS)
    outlines = tmp_path / "b.gpkg"
    write_outlines(outlines, [shapely.box(0, 0, 9, 9)], UTM)
    with pytest.raises(
        ValueError, match=f"^{image}: outlines must overlap.*{outlines}"
    ):
        load_scene(Scene("a", image, outlines))


def test_any_resolution_keeps_mask_and_image_together(tmp_path):
    """Which a shift by a pixel would show: the roof is brighter than the rest."""
    bright = 40 + 150 * MASK
    image = write_raster(tmp_path / "images" / "a.tif", np.dstack([bright] * 3))
    write_raster(tmp_path / "masks" / "a.png", MASK)
    for resolution, shape in ((0.7, (17, 30)), (0.15, (80, 140))):
        (scene,) = read_folder(tmp_path, 0, resolution=resolution).train
        pixels, mask, _ = load_scene(scene)
        assert mask.shape == pixels.shape[:2] == shape
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(mask, pixels[..., 0] > 114)
        assert resolution_of(scene) == resolution
    image = write_raster(image, PIXELS, crs=None)
    with pytest.raises(ValueError, match=f"needs an image with a CRS: {image}$"):
        read_folder(tmp_path, 0, resolution=0.7)


@pytest.mark.parametrize("before", [0.0, 0.15])
def test_parts_of_scenes_are_brought_to_another_resolution(tmp_path, before):
    """Where they lie stays: the lower rows of a town whose rows are all different."""
    rows = np.repeat(np.arange(40, dtype=np.uint8)[:, None], 70, axis=1)
    write_raster(tmp_path / "images" / "a.tif", np.dstack([rows] * 3))
    write_raster(tmp_path / "masks" / "a.png", (rows % 4 == 0).astype(np.uint8))
    splits = read_folder(tmp_path, 0.25, resolution=before)
    (lower,) = at_resolution(splits, 0.6).validation
    pixels, mask, _ = load_scene(lower)
    assert mask.shape == (5, 35)
    np.testing.assert_allclose(pixels[:, 0, 0], np.arange(30, 40, 2) + 0.5, atol=0.6)
    assert (lower.resolution, lower.scale) == (0.6, 2.0)
    assert at_resolution(splits, 0) is splits


@pytest.mark.parametrize("bright", [1, 255])
def test_a_mask_of_0_and_1_is_that_of_0_and_255(tmp_path, bright):
    image = write_raster(tmp_path / "a.tif", PIXELS)
    mask = write_raster(tmp_path / "b.png", MASK * bright)
    np.testing.assert_array_equal(load_mask(Scene("a", image, mask)), MASK)


def test_alpha_of_an_image_is_no_band_and_where_it_is_0_nothing_is_known(tmp_path):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, :9] = 0
    image = write_raster(tmp_path / "a.tif", np.dstack([PIXELS, alpha]))
    mask = write_raster(tmp_path / "b.png", MASK * 255)
    loaded = load_scene(Scene("a", image, mask))
    np.testing.assert_array_equal(loaded.pixels, PIXELS)
    np.testing.assert_array_equal(loaded.mask[:, :9], 255)
    np.testing.assert_array_equal(loaded.mask[:, 9:], MASK[:, 9:])


def test_16_bits_and_floats_are_stretched_and_their_nodata_is_ignored(tmp_path):
    mask = write_raster(tmp_path / "b.png", MASK * 255)
    for dtype, nodata in (("uint16", 0), ("float32", -9999.0), ("float32", np.nan)):
        values = PIXELS.astype(dtype) * 37
        values[:5] = nodata
        image = write_raster(tmp_path / "a.tif", values, nodata=nodata)
        loaded = load_scene(Scene("a", image, mask))
        low, high = np.percentile(values[5:], (1, 99))
        expected = np.clip((values[5:] - low) / (high - low) * 255, 0, 255)
        np.testing.assert_allclose(loaded.pixels[5:], expected, atol=0.51)
        np.testing.assert_array_equal(loaded.mask[:5], 255)
        np.testing.assert_array_equal(loaded.mask[5:], MASK[5:])


def test_a_truncated_file_is_named(tmp_path):
    root = archives.write_inria(tmp_path)
    scene = read_inria(root).train[0]
    scene.image.write_bytes(scene.image.read_bytes()[:6000])
    with pytest.raises(ValueError, match=f"{scene.image}"):
        load_scene(scene)
