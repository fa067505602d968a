import numpy as np
import pytest

from bdloss.data.aicd import read_aicd
from bdloss.data.scenes import load_scene
from bdloss_tests import archives


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
