from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

from bdloss.data import potsdam as potsdam_module
from bdloss.data.aicd import read_aicd
from bdloss.data.datasets import READERS
from bdloss.data.folder import read_folder
from bdloss.data.inria import read_inria
from bdloss.data.potsdam import read_potsdam
from bdloss.data.scenes import Scene, load_mask, load_scene, resolution_of
from bdloss.geo.vector import write_outlines
from bdloss.geo.windows import Window
from bdloss_tests import archives

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
        ({"validation": 0.999}, "0.999 leaves no row to train on, of "),
    ],
)
def test_a_split_names_scenes_that_exist_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_folder(write_scenes(tmp_path, "a", "b"), **arguments)


def test_a_folder_has_images_with_truth(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"^no such folder: {tmp_path}/images; put "
    ):
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
    root = archives.write_inria(tmp_path)
    splits = read_inria(tmp_path)
    assert [names(scenes) for scenes in splits] == [
        ["austin6", "austin10", "tyrol-w6", "tyrol-w10"],
        ["austin1", "austin5", "tyrol-w1", "tyrol-w5"],
        [],
    ]
    picture = archives.make_picture(1, 10)
    pixels, mask = load_scene(splits.train[3])
    np.testing.assert_array_equal(pixels, picture.target)
    np.testing.assert_array_equal(mask, picture.mask)
    assert read_inria(root) == splits


def test_digits_of_the_path_do_not_count_as_those_of_a_tile(tmp_path):
    root = tmp_path / "disk3" / "inria2019"
    write(root / "train" / "images" / "vienna7.tif", PIXELS)
    write(root / "train" / "gt" / "vienna7.tif", MASK[np.newaxis] * 255)
    splits = read_inria(root)
    assert [names(scenes) for scenes in splits] == [["vienna7"], [], []]
    np.testing.assert_array_equal(load_scene(splits.train[0]).mask, MASK)


def test_files_of_other_names_are_no_tiles(tmp_path):
    root = archives.write_inria(tmp_path)
    splits = read_inria(root)
    images = root / "train" / "images"
    for name in ("._austin7.tif", "austin7 (1).tif", "7austin7.tif", "Thumbs.db"):
        (images / name).write_bytes((images / "austin6.tif").read_bytes())
    assert read_inria(root) == splits


@pytest.mark.parametrize("name", ["inria", "potsdam", "aicd", "folder"])
def test_without_the_data_the_error_says_how_to_get_them(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"^no such folder: ") as caught:
        READERS[name](tmp_path / "nothing")
    message = str(caught.value)
    assert "\n" not in message
    if name == "folder":
        assert "masks/ or one file of outlines" in message
    else:
        assert "https://" in message  # from whom
        assert "not to be passed on" in message or "with credit" in message  # terms
        assert "unpack it" in message  # layout


def test_without_scenes_to_train_on_there_is_no_split(tmp_path):
    root = archives.write_inria(tmp_path, ["austin"], [1, 2])
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; get the"):
        read_inria(root)
    root = archives.write_potsdam(tmp_path / "potsdam", [(3, 13)])
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; get the"):
        read_potsdam(root)
    root = write_scenes(tmp_path / "own", "a", "b")
    with pytest.raises(ValueError, match=f"^no scenes to train on in {root}; put"):
        read_folder(root, ["a"], ["b"])


@pytest.fixture(scope="module")
def potsdam(tmp_path_factory):
    return archives.write_potsdam(tmp_path_factory.mktemp("potsdam2024") / "Potsdam")


def test_the_benchmark_of_potsdam_has_24_tiles_to_train_and_14_to_test():
    assert (len(set(potsdam_module.TRAIN)), len(set(potsdam_module.TEST))) == (24, 14)
    assert not set(potsdam_module.TRAIN) & set(potsdam_module.TEST)


def test_tiles_of_potsdam_are_split_as_in_the_benchmark(potsdam):
    splits = read_potsdam(potsdam.parent, validation=["2_11"])
    assert [names(scenes) for scenes in splits] == [
        ["2_10", "4_12"],
        ["2_11"],
        ["3_13"],
    ]
    splits = read_potsdam(potsdam, validation=0.25)
    assert [names(scenes) for scenes in splits] == [
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
    heights = write(tmp_path / "dsm.tif", np.zeros((1, 56, 70), np.uint8))
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
    assert names(read_potsdam(root, 0).train) == ["2_10"]


def test_an_unknown_colour_of_a_label_is_named_with_its_place(potsdam, tmp_path):
    scene = read_potsdam(potsdam, 0).train[0]
    label = archives.colour(archives.make_picture(2, 10).mask, 2, 10)
    for colour in ((255, 0, 255), (0, 1, 255), (0, 0, 254)):
        label[20, 33] = colour
        truth = archives.write(tmp_path / "label.tif", label)
        with pytest.raises(ValueError, match="Potsdam's classes, got") as caught:
            load_mask(scene._replace(truth=truth))
        assert f"got {colour} at row 20, column 33: {truth}" in str(caught.value)


def test_archives_that_were_unpacked_into_a_folder_of_their_name(potsdam, tmp_path):
    for folder in ("2_Ortho_RGB", "5_Labels_all"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / folder).symlink_to(potsdam / folder)
    assert names(read_potsdam(tmp_path, 0).train) == ["2_10", "2_11"]


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
    native, (pixels, mask) = load_scene(full), load_scene(scene)
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


def test_any_resolution_keeps_mask_and_image_together(tmp_path):
    """Which a shift by a pixel would show: the roof is brighter than the rest."""
    bright = 40 + 150 * MASK
    image = write(tmp_path / "images" / "a.tif", np.stack([bright] * 3))
    write(tmp_path / "masks" / "a.png", MASK[np.newaxis])
    for resolution, shape in ((0.7, (17, 30)), (0.15, (80, 140))):
        (scene,) = read_folder(tmp_path, 0, resolution=resolution).train
        pixels, mask = load_scene(scene)
        assert mask.shape == pixels.shape[:2] == shape
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(mask, pixels[..., 0] > 114)
        assert resolution_of(scene) == resolution
    image = write(image, PIXELS, crs=None)
    with pytest.raises(ValueError, match=f"needs an image with a CRS: {image}$"):
        read_folder(tmp_path, 0, resolution=0.7)


@pytest.fixture(scope="module")
def aicd(tmp_path_factory):
    return archives.write_aicd(tmp_path_factory.mktemp("aicd"))


def test_views_of_a_scene_of_aicd_stay_together(aicd):
    splits = read_aicd(aicd.parent)
    numbers = [{scene.name[5:9] for scene in scenes} for scenes in splits]
    assert numbers == [{f"000{number}" for number in range(8)}, {"0008"}, {"0009"}]
    assert [len(scenes) for scenes in splits] == [32, 4, 4]
    scene = splits.train[17]
    assert scene.name == "Scene0000_View01_NoShadow"
    picture = archives.make_picture(0, 0, 1)
    lit = archives.synthetic.make_picture(
        np.random.default_rng((0, 0, 1)), *picture.mask.shape, shadows=False
    )
    np.testing.assert_array_equal(load_scene(scene).pixels, lit.target)
    np.testing.assert_array_equal(load_scene(scene).mask, picture.mask)


def test_shadows_and_classes_of_aicd_can_be_chosen(aicd):
    for shadows, folder in (("with", "Images_Shadows"), ("without", "Images_NoShadow")):
        train = read_aicd(aicd, shadows).train
        assert {scene.image.parent.name for scene in train} == {folder}
    barns = read_aicd(aicd, "with", classes=["barn"])
    assert {scene.name[:9] for scene in barns.train} == {
        f"Scene000{number}" for number in (1, 3, 5, 7)
    }
    with pytest.raises(
        ValueError, match=r"^shadows must be one of with, without, both"
    ):
        read_aicd(aicd, "none")
    with pytest.raises(
        ValueError, match=r"^classes must be one of stone, barn, got 'x'"
    ):
        read_aicd(aicd, classes=["barn", "x"])


@pytest.mark.parametrize(
    "text", ["a,b\n", "class_id,scene\n4,scene=x\n", "class_id\n4\n"]
)
def test_lists_of_classes_that_are_damaged_are_named(aicd, text):
    (labels,) = aicd.rglob("image_level_labels.csv")
    before = labels.read_text()
    labels.write_text(text + "1\n")
    try:
        with pytest.raises(ValueError, match="damaged lists of classes: "):
            read_aicd(aicd, classes=["barn"])
    finally:
        labels.write_text(before)


def test_classes_of_aicd_need_their_list(tmp_path):
    (tmp_path / "GroundTruth").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^no such file: .*classes.csv; the"):
        read_aicd(tmp_path, classes=["barn"])
    with pytest.raises(FileNotFoundError, match=r"^no such folder: .*Images_NoShadow$"):
        read_aicd(tmp_path, "without")


@pytest.mark.parametrize("bright", [1, 255])
def test_a_mask_of_0_and_1_is_that_of_0_and_255(tmp_path, bright):
    image = write(tmp_path / "a.tif", PIXELS)
    mask = write(tmp_path / "b.png", MASK[np.newaxis] * bright)
    np.testing.assert_array_equal(load_mask(Scene("a", image, mask)), MASK)


def test_alpha_of_an_image_is_no_band_and_where_it_is_0_nothing_is_known(tmp_path):
    alpha = np.full((1, HEIGHT, WIDTH), 255, np.uint8)
    alpha[0, :, :9] = 0
    image = write(tmp_path / "a.tif", np.concatenate([PIXELS, alpha]))
    mask = write(tmp_path / "b.png", MASK[np.newaxis] * 255)
    loaded = load_scene(Scene("a", image, mask))
    np.testing.assert_array_equal(loaded.pixels, np.moveaxis(PIXELS, 0, -1))
    np.testing.assert_array_equal(loaded.mask[:, :9], 255)
    np.testing.assert_array_equal(loaded.mask[:, 9:], MASK[:, 9:])


def test_16_bits_and_floats_are_stretched_and_their_nodata_is_ignored(tmp_path):
    mask = write(tmp_path / "b.png", MASK[np.newaxis] * 255)
    for dtype, nodata in (("uint16", 0), ("float32", -9999.0), ("float32", np.nan)):
        values = PIXELS.astype(dtype) * 37
        values[:, :5] = nodata
        image = write(tmp_path / "a.tif", values, dtype=dtype, nodata=nodata)
        loaded = load_scene(Scene("a", image, mask))
        low, high = np.percentile(values[:, 5:], (1, 99))
        expected = np.clip((values[:, 5:] - low) / (high - low) * 255, 0, 255)
        pixels = np.moveaxis(loaded.pixels, -1, 0)[:, 5:]
        np.testing.assert_allclose(pixels, expected, atol=0.51)
        np.testing.assert_array_equal(loaded.mask[:5], 255)
        np.testing.assert_array_equal(loaded.mask[5:], MASK[5:])


def test_a_truncated_file_is_named(tmp_path):
    root = archives.write_inria(tmp_path)
    scene = read_inria(root).train[0]
    scene.image.write_bytes(scene.image.read_bytes()[:6000])
    with pytest.raises(ValueError, match=f"{scene.image}"):
        load_scene(scene)


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
