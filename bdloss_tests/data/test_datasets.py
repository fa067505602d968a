from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

from bdloss.data.datasets import Scene, load_scene, read_folder, read_inria
from bdloss.orthophotos.polygons import write_outlines
from bdloss.orthophotos.windows import Window

BANEPA = Path(__file__).parents[2] / "samples" / "banepa"
UTM = CRS.from_epsg(32645)
CORNER = from_origin(353875, 3057565, 0.3, 0.3)
HEIGHT, WIDTH = 40, 70
PIXELS = np.random.default_rng(5).integers(1, 256, (3, HEIGHT, WIDTH), np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[7:19, 20:44] = 1
HOUSE = shapely.box(353881, 3057559.3, 353888.2, 3057562.9)


def write(path, values, **profile):
    """Write bands of shape `(bands, height, width)` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    size = {"count": bands, "height": height, "width": width}
    georeference = {"crs": UTM, "transform": CORNER}
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    profile = {"driver": driver, "dtype": "uint8", **georeference, **size, **profile}
    with rasterio.open(path, "w", **profile) as target:
        target.write(values)
    return path


def write_scenes(root, *names):
    for name in names:
        write(root / "images" / f"{name}.tif", PIXELS)
        write(root / "masks" / f"{name}.png", MASK[np.newaxis] * 255)
    return root


def names(scenes):
    return [scene.name for scene in scenes]


def test_a_scene_with_a_mask(tmp_path):
    (scene,) = read_folder(write_scenes(tmp_path, "a"), validation=0).train
    pixels, mask = load_scene(scene)
    np.testing.assert_array_equal(pixels, np.moveaxis(PIXELS, 0, -1))
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_a_scene_with_outlines(tmp_path, suffix):
    write(tmp_path / "images" / "a.tif", PIXELS)
    write_outlines(tmp_path / f"roofs{suffix}", [HOUSE], UTM)
    (scene,) = read_folder(tmp_path, validation=0).train
    np.testing.assert_array_equal(load_scene(scene).mask, MASK)


def test_an_area_is_that_part_of_the_scene(tmp_path):
    (scene,) = read_folder(write_scenes(tmp_path, "a"), validation=0).train
    outlines = tmp_path / "roofs.gpkg"
    write_outlines(outlines, [HOUSE], UTM)
    area = Window(10, 15, 22, 33)
    for truth in (scene.truth, outlines):
        pixels, mask = load_scene(scene._replace(area=area, truth=truth))
        np.testing.assert_array_equal(pixels, np.moveaxis(PIXELS, 0, -1)[10:32, 15:48])
        np.testing.assert_array_equal(mask, MASK[10:32, 15:48])


def test_where_the_orthophoto_has_no_data_the_mask_is_ignored(tmp_path):
    pixels = PIXELS.copy()
    pixels[:, 10:15, 30:] = 0
    image = write(tmp_path / "images" / "a.tif", pixels, nodata=0)
    mask = write(tmp_path / "masks" / "a.tif", MASK[np.newaxis])
    expected = MASK.copy()
    expected[10:15, 30:] = 255
    np.testing.assert_array_equal(load_scene(Scene("a", image, mask)).mask, expected)


def test_bands_can_be_chosen(tmp_path):
    (scene,) = read_folder(write_scenes(tmp_path, "a"), validation=0).train
    pixels = load_scene(scene, bands=[2]).pixels
    np.testing.assert_array_equal(pixels[..., 0], PIXELS[1])
    assert pixels.shape == (HEIGHT, WIDTH, 1)


def test_a_fraction_validates_on_the_last_rows_of_what_trains(tmp_path):
    splits = read_folder(write_scenes(tmp_path, "a", "b", "c"), 0.25, test=["b"])
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
    splits = read_folder(write_scenes(tmp_path, "a", "b", "c"), ["c"], ["a"])
    assert [names(scenes) for scenes in splits] == [["b"], ["c"], ["a"]]
    assert {scene.area for scenes in splits for scene in scenes} == {None}


def test_without_validation_everything_trains(tmp_path):
    splits = read_folder(write_scenes(tmp_path, "b", "a"), validation=0)
    assert [names(scenes) for scenes in splits] == [["a", "b"], [], []]


def test_a_mask_belongs_to_the_image_of_its_whole_stem(tmp_path):
    write_scenes(tmp_path, "town", "town_1", "town_10")
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
    ],
)
def test_a_split_names_scenes_that_exist_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_folder(write_scenes(tmp_path, "a", "b"), **arguments)


def test_a_folder_has_images_with_truth(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^no such folder: {tmp_path}/images$"):
        read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.tif.aux.xml").write_text("no image")
    with pytest.raises(ValueError, match=f"^no images in {tmp_path}/images$"):
        read_folder(tmp_path)
    image = write(tmp_path / "images" / "a.tif", PIXELS)
    with pytest.raises(ValueError, match=f"masks/ or one file.*neither: {tmp_path}$"):
        read_folder(tmp_path)
    write_outlines(tmp_path / "b.gpkg", [HOUSE], UTM)
    write_outlines(tmp_path / "c.geojson", [HOUSE], UTM)
    with pytest.raises(ValueError, match=f"got b.gpkg, c.geojson: {tmp_path}$"):
        read_folder(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=f"needs a mask {tmp_path}/masks/a.*: {image}"):
        read_folder(tmp_path)
    write(tmp_path / "images" / "a.png", PIXELS)
    with pytest.raises(ValueError, match=r"^two files of one name: .*a\.png and .*tif"):
        read_folder(tmp_path)


def test_a_mask_has_the_size_of_its_image(tmp_path):
    image = write(tmp_path / "a.tif", PIXELS)
    mask = write(tmp_path / "b.tif", MASK[np.newaxis, 1:])
    with pytest.raises(ValueError, match=rf"\(40, 70\), got \(39, 70\): {mask}$"):
        load_scene(Scene("a", image, mask))


def test_outlines_that_lie_elsewhere_are_named_with_the_image(tmp_path):
    image = write(tmp_path / "a.tif", PIXELS)
    outlines = tmp_path / "b.gpkg"
    write_outlines(outlines, [shapely.box(0, 0, 9, 9)], UTM)
    with pytest.raises(
        ValueError, match=f"^{image}: outlines must overlap.*{outlines}"
    ):
        load_scene(Scene("a", image, outlines))


def test_tiles_of_inria_1_to_5_of_each_city_validate(tmp_path):
    for city in ("austin", "tyrol-w"):
        for number in (10, 1, 6, 5):
            for folder in ("images", "gt"):
                path = tmp_path / "AerialImageDataset" / "train" / folder
                path.mkdir(parents=True, exist_ok=True)
                (path / f"{city}{number}.tif").touch()
    splits = read_inria(tmp_path)
    assert [names(scenes) for scenes in splits] == [
        ["austin6", "austin10", "tyrol-w6", "tyrol-w10"],
        ["austin1", "austin5", "tyrol-w1", "tyrol-w5"],
        [],
    ]
    for scene in (*splits.train, *splits.validation):
        assert scene.image.parent.name == "images"
        assert scene.truth.parent.name == "gt"
        assert scene.truth.name == scene.image.name
    assert read_inria(tmp_path / "AerialImageDataset") == splits


def test_digits_of_the_path_do_not_count_as_those_of_a_tile(tmp_path):
    root = tmp_path / "disk3" / "inria2019"
    write(root / "train" / "images" / "vienna7.tif", PIXELS)
    write(root / "train" / "gt" / "vienna7.tif", MASK[np.newaxis] * 255)
    splits = read_inria(root)
    assert [names(scenes) for scenes in splits] == [["vienna7"], [], []]
    np.testing.assert_array_equal(load_scene(splits.train[0]).mask, MASK)


def test_a_tile_of_inria_has_a_city_a_number_and_truth(tmp_path):
    images = tmp_path / "train" / "images"
    with pytest.raises(FileNotFoundError, match=f"^no such folder: {images}$"):
        read_inria(tmp_path)
    images.mkdir(parents=True)
    with pytest.raises(ValueError, match=f"^no images in {images}$"):
        read_inria(tmp_path)
    (images / "austin7.tif").touch()
    with pytest.raises(ValueError, match=rf"mask .*gt/austin7.tif: {images}/austin7"):
        read_inria(tmp_path)
    (images / "7austin7.tif").touch()
    with pytest.raises(ValueError, match=f"named like austin1.tif: {images}/7austin"):
        read_inria(tmp_path)


def test_the_sample_has_a_scene_to_train_and_one_to_test():
    splits = read_folder(BANEPA, test=["banepa_south"])
    assert [names(scenes) for scenes in splits] == [
        ["banepa_north"],
        ["banepa_north"],
        ["banepa_south"],
    ]
    pixels, mask = load_scene(splits.test[0])
    assert pixels.shape == (603, 1328, 3)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.mean() == pytest.approx(0.3746, abs=0.001)
    # A blue roof lies under its outline, so its pixels are bluer than the rest.
    bluer = pixels[..., 2].astype(int) - pixels[..., 0] > 60
    assert mask[bluer].mean() > 0.9
