import numpy as np

from bdloss.data.inria import read_inria
from bdloss.data.scenes import load_scene
from bdloss_tests import archives
from bdloss_tests.data.town import MASK, PIXELS, names_of
from bdloss_tests.scenes import write_raster


def test_tiles_of_inria_1_to_5_of_each_city_validate(tmp_path):
    root = archives.write_inria(tmp_path)
    splits = read_inria(tmp_path)
    assert [names_of(scenes) for scenes in splits] == [
        ["austin6", "austin10", "tyrol-w6", "tyrol-w10"],
        ["austin1", "austin5", "tyrol-w1", "tyrol-w5"],
        [],
    ]
    picture = archives.make_picture(1, 10)
    pixels, mask, _ = load_scene(splits.train[3])
    np.testing.assert_array_equal(pixels, picture.target)
    np.testing.assert_array_equal(mask, picture.mask)
    assert read_inria(root) == splits


def test_digits_of_the_path_do_not_count_as_those_of_a_tile(tmp_path):
    root = tmp_path / "disk3" / "inria2019"
    write_raster(root / "train" / "images" / "vienna7.tif", PIXELS)
    write_raster(root / "train" / "gt" / "vienna7.tif", MASK * 255)
    splits = read_inria(root)
    assert [names_of(scenes) for scenes in splits] == [["vienna7"], [], []]
    np.testing.assert_array_equal(load_scene(splits.train[0]).mask, MASK)


def test_files_of_other_names_are_no_tiles(tmp_path):
    root = archives.write_inria(tmp_path)
    splits = read_inria(root)
    images = root / "train" / "images"
    for name in ("._austin7.tif", "austin7 (1).tif", "7austin7.tif", "Thumbs.db"):
        (images / name).write_bytes((images / "austin6.tif").read_bytes())
    assert read_inria(root) == splits
