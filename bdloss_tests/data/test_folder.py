from pathlib import Path

import numpy as np
import pytest

from bdloss.data.datasets import read_dataset
from bdloss.data.folder import read_folder
from bdloss.data.scenes import Scene, load_scene
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.windows import Window
from bdloss_tests.data.town import (
    HOUSE,
    PIXELS,
    WIDTH,
    names_of,
    write_town,
)
from bdloss_tests.scenes import UTM, write_raster

BANEPA = Path(__file__).parents[2] / "samples" / "banepa"


def test_a_fraction_validates_on_the_last_rows_of_what_trains(tmp_path):
    splits = read_folder(write_town(tmp_path, "a", "b", "c"), 0.25, test=["b"])
    assert [(scene.name, scene.area) for scene in splits.train] == [
        ("a", Window(0, 0, 30, WIDTH)),
        ("c", Window(0, 0, 30, WIDTH)),
    ]
    assert [(scene.name, scene.area) for scene in splits.validation] == [
        ("a", Window(30, 0, 10, WIDTH)),
        ("c", Window(30, 0, 10, WIDTH)),
    ]
    assert [(scene.name, scene.area) for scene in splits.test] == [("b", None)]


def test_names_validate_on_whole_scenes(tmp_path):
    splits = read_folder(write_town(tmp_path, "a", "b", "c"), ["c"], ["a"])
    assert [names_of(scenes) for scenes in splits] == [["b"], ["c"], ["a"]]
    assert {scene.area for scenes in splits for scene in scenes} == {None}


def test_bands_are_chosen(tmp_path):
    root = write_town(tmp_path, "a")
    (scene,) = read_folder(root, 0, bands=[3, 1]).train
    pixels = load_scene(scene).pixels
    np.testing.assert_array_equal(
        pixels, load_scene(Scene("a", *scene[1:3])).pixels[..., [2, 0]]
    )
    (scene,) = read_dataset("folder", root, bands=[1, 7], validation=0).train
    with pytest.raises(ValueError, match="bands must be from 1 to 3, got"):
        load_scene(scene)
    with pytest.raises(
        ValueError, match=r"bands\.0 must be greater than or equal to 1, got 0"
    ):
        read_dataset("folder", root, bands=[0])


def test_without_validation_everything_trains(tmp_path):
    splits = read_folder(write_town(tmp_path, "b", "a"), validation=0)
    assert [names_of(scenes) for scenes in splits] == [["a", "b"], [], []]


def test_a_mask_belongs_to_the_image_of_its_whole_stem(tmp_path):
    write_town(tmp_path, "town", "town_1", "town_10")
    for scene in read_folder(tmp_path, validation=0).train:
        assert scene.truth.stem == scene.image.stem == scene.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": ["z"]}, "no scene 'z' among a, b: "),
        ({"validation": ["z"]}, "no scene 'z' among a, b: "),
        ({"validation": ["a"], "test": ["a"]}, "validation or testing, 'a' is both"),
        ({"validation": 1.0}, r"validation must be in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, r"validation must be in \[0, 1\), got -0.1"),
        ({"validation": 0.999}, "0.999 leaves no row to train on, of "),
    ],
)
def test_a_split_names_scenes_that_exist_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_folder(write_town(tmp_path, "a", "b"), **arguments)


def test_a_folder_has_images_with_truth(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"^no such folder: {tmp_path}/images; put "
    ):
        read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.tif.aux.xml").write_text("no image")
    with pytest.raises(ValueError, match=f"^no images in {tmp_path}/images$"):
        read_folder(tmp_path)
    image = write_raster(tmp_path / "images" / "a.tif", PIXELS)
    with pytest.raises(ValueError, match=f"masks/ or one file.*neither: {tmp_path}$"):
        read_folder(tmp_path)
    write_outlines(tmp_path / "b.gpkg", [HOUSE], UTM)
    write_outlines(tmp_path / "c.geojson", [HOUSE], UTM)
    with pytest.raises(ValueError, match=f"got b.gpkg, c.geojson: {tmp_path}$"):
        read_folder(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=f"needs a mask {tmp_path}/masks/a.*: {image}"):
        read_folder(tmp_path)
    write_raster(tmp_path / "images" / "a.png", PIXELS)
    with pytest.raises(ValueError, match=r"^two files of one name: .*a\.png and .*tif"):
        read_folder(tmp_path)


def test_contact_needs_outlines(tmp_path):
    root = write_town(tmp_path, "a")
    message = f"^dataset.contact needs outlines, got masks: {root}/masks$"
    with pytest.raises(ValueError, match=message):
        read_folder(root, contact=2)


@pytest.mark.parametrize(
    ("contact", "message"),
    [
        (-1, "contact must be greater than or equal to 0, got -1"),
        (0.5, "contact must be a valid integer, got 0.5"),
        (65, "contact must be less than or equal to 64, got 65"),
    ],
)
def test_contact_is_a_number_of_pixels(tmp_path, contact, message):
    with pytest.raises(ValueError, match=message):
        read_dataset("folder", tmp_path, contact=contact)


def test_the_sample_has_a_scene_to_train_and_one_to_test():
    splits = read_folder(BANEPA, test=["banepa_south"])
    assert [names_of(scenes) for scenes in splits] == [
        ["banepa_north"],
        ["banepa_north"],
        ["banepa_south"],
    ]
    pixels, mask, _ = load_scene(splits.test[0])
    assert pixels.shape == (603, 1328, 3)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.mean() == pytest.approx(0.3746, abs=0.001)
    # A blue roof lies under its outline, so its pixels are bluer than the rest.
    bluer = pixels[..., 2].astype(int) - pixels[..., 0] > 60
    assert mask[bluer].mean() > 0.9
