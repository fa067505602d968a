import numpy as np
import pytest

from bdloss.data import potsdam as potsdam_module
from bdloss.data.potsdam import read_potsdam
from bdloss.data.scenes import load_mask, load_scene, resolution_of
from bdloss.geo.windows import Window
from bdloss_tests import archives
from bdloss_tests.data.town import names_of
from bdloss_tests.scenes import write_raster


@pytest.fixture(scope="module")
def potsdam(tmp_path_factory):
    return archives.write_potsdam(tmp_path_factory.mktemp("potsdam2024") / "Potsdam")


def test_the_benchmark_of_potsdam_has_24_tiles_to_train_and_14_to_test():
    assert (len(set(potsdam_module.TRAIN)), len(set(potsdam_module.TEST))) == (24, 14)
    assert not set(potsdam_module.TRAIN) & set(potsdam_module.TEST)


def test_tiles_of_potsdam_are_split_as_in_the_benchmark(potsdam):
    splits = read_potsdam(potsdam.parent, validation=["2_11"])
    assert [names_of(scenes) for scenes in splits] == [
        ["2_10", "4_12"],
        ["2_11"],
        ["3_13"],
    ]
    splits = read_potsdam(potsdam, validation=0.25)
    assert [names_of(scenes) for scenes in splits] == [
        ["2_10", "2_11", "4_12"],
        ["2_10", "2_11", "4_12"],
        ["3_13"],
    ]
    whole = archives.make_picture(2, 11)
    lower = load_scene(splits.validation[1])
    np.testing.assert_array_equal(lower.pixels, whole.target[42:])
    np.testing.assert_array_equal(lower.mask, whole.mask[42:])
    with pytest.raises(ValueError, match=r"^no scene '7_7' among 2_10, 2_11, 4_12: "):
        read_potsdam(potsdam, validation=["7_7"])


def test_bands_of_potsdam(potsdam):
    picture = archives.make_picture(2, 10)
    infrared = archives.infrared_of(picture.target)[..., np.newaxis]
    assert (infrared == 0).any()  # which must not count as transparent
    expected = {
        "rgb": picture.target,
        "irrg": np.dstack([infrared, picture.target[..., :2]]),
        "rgbir": np.dstack([picture.target, infrared]),
    }
    for bands, pixels in expected.items():
        scene = read_potsdam(potsdam, 0, bands=bands).train[0]
        loaded = load_scene(scene)
        np.testing.assert_array_equal(loaded.pixels, pixels)
        np.testing.assert_array_equal(loaded.mask, picture.mask)
    for bands in ("rgbir+dsm", "rgbir+ndsm"):
        pixels = load_scene(read_potsdam(potsdam, 0, bands=bands).train[0]).pixels
        np.testing.assert_array_equal(pixels[..., :4], expected["rgbir"])
        roof, ground = (pixels[..., 4][picture.mask == value] for value in (1, 0))
        assert np.median(roof) > np.median(ground) + 100


def test_heights_may_lack_their_last_column(potsdam):
    for bands in ("rgbir+dsm", "rgbir+ndsm"):
        (scene,) = read_potsdam(potsdam, bands=bands).test
        pixels = load_scene(scene).pixels
        assert pixels.shape == (archives.HEIGHT, archives.WIDTH, 5)
        np.testing.assert_array_equal(pixels[:, -1, 4], pixels[:, -2, 4])
        corner = Window(archives.HEIGHT - 9, archives.WIDTH - 11, 9, 11)
        part = load_scene(scene._replace(area=corner)).pixels
        np.testing.assert_array_equal(part, pixels[-9:, -11:])


def test_heights_of_another_size_are_named(potsdam, tmp_path):
    heights = write_raster(tmp_path / "dsm.tif", np.zeros((56, 70), np.uint8))
    scene = read_potsdam(potsdam, 0).train[0]._replace(heights=heights)
    with pytest.raises(ValueError, match=rf"\(56, 72\), got \(56, 70\): {heights}$"):
        load_scene(scene)


def test_eroded_labels_are_ignored_where_they_are_black(potsdam):
    scene = read_potsdam(potsdam, 0, labels="eroded").train[1]
    picture = archives.make_picture(2, 11)
    expected = np.where(archives.boundary_of(picture.mask), 255, picture.mask)
    np.testing.assert_array_equal(load_mask(scene), expected)
    assert set(np.unique(expected)) == {0, 1, 255}


def test_the_label_of_4_12_that_is_a_picture_is_not_taken(potsdam, tmp_path):
    picture = archives.make_picture(4, 12)
    eroded = np.where(archives.boundary_of(picture.mask), 255, picture.mask)
    scene = read_potsdam(potsdam, 0).train[-1]
    assert scene.name == "4_12"
    np.testing.assert_array_equal(load_mask(scene), eroded)

    root = archives.write_potsdam(tmp_path, [(2, 10), (4, 12)], participants=True)
    scene = read_potsdam(root, 0).train[-1]
    np.testing.assert_array_equal(load_mask(scene), picture.mask)

    for label in root.rglob("top_potsdam_4_12_label_noBoundary.tif"):
        label.unlink()
    for label in root.rglob("5_Labels_for_participants/*_4_12_*"):
        label.unlink()
    assert names_of(read_potsdam(root, 0).train) == ["2_10"]


def test_an_unknown_colour_of_a_label_is_named_with_its_place(potsdam, tmp_path):
    scene = read_potsdam(potsdam, 0).train[0]
    label = archives.colour(archives.make_picture(2, 10).mask, 2, 10)
    for colour in ((255, 0, 255), (0, 1, 255), (0, 0, 254)):
        label[20, 33] = colour
        truth = archives.write(tmp_path / "label.tif", label)
        with pytest.raises(ValueError, match="the colours of its classes") as caught:
            load_mask(scene._replace(truth=truth))
        name = f"#{bytes(colour).hex()}"
        assert f"got {name} at row 20, column 33: {truth}" in str(caught.value)


def test_archives_that_were_unpacked_into_a_folder_of_their_name(potsdam, tmp_path):
    for folder in ("2_Ortho_RGB", "5_Labels_all"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / folder).symlink_to(potsdam / folder)
    assert names_of(read_potsdam(tmp_path, 0).train) == ["2_10", "2_11"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": "rgbi"}, "^bands must be one of rgb, irrg, rgbir, .*got 'rgbi'$"),
        ({"labels": "all"}, "^labels must be one of full, eroded, got 'all'$"),
        ({"resolution": -1}, "^resolution must be above 0, or 0, got -1$"),
        ({"validation": 1.5}, r"^validation must be in \[0, 1\), got 1.5$"),
    ],
)
def test_settings_of_potsdam(potsdam, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_potsdam(potsdam, **arguments)


def test_scenes_are_averaged_to_a_resolution_and_masks_are_not(potsdam):
    full = read_potsdam(potsdam, bands="rgbir+dsm").test[0]
    scene = read_potsdam(potsdam, bands="rgbir+dsm", resolution=0.2).test[0]
    native, (pixels, mask, _) = load_scene(full), load_scene(scene)
    blocks = native.pixels.reshape(14, 4, 18, 4, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(pixels, blocks, atol=0.51)
    # The centre of a pixel lies on a corner of four of the file's.
    np.testing.assert_array_equal(mask, native.mask[2::4, 2::4])
    assert (resolution_of(full), resolution_of(scene)) == (0.05, 0.2)
    area = Window(3, 5, 7, 9)
    part = load_scene(scene._replace(area=area))
    np.testing.assert_array_equal(part.pixels, pixels[3:10, 5:14])
    np.testing.assert_array_equal(part.mask, mask[3:10, 5:14])
    splits = read_potsdam(potsdam, 0.5, resolution=0.2)
    upper, lower = (load_scene(scenes[0]) for scenes in splits[:2])
    assert (upper.mask.shape, lower.pixels.shape) == ((7, 18), (7, 18, 3))
