import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from bdloss.cli import main as cli
from bdloss.data.aicd import read_aicd
from bdloss.data.check import EXPECTED_SCENES, check_splits, count_scenes, refuse_faults
from bdloss.data.datasets import read_dataset
from bdloss.data.folder import read_folder
from bdloss.data.inria import read_inria
from bdloss_tests import archives
from bdloss_tests.scenes import make_scene, write_folder, write_raster


@pytest.fixture
def inria(tmp_path):
    return archives.write_inria(tmp_path, ["austin"])


def found(splits, *arguments, **settings):
    return [(fault.kind, fault.text) for fault in check_splits(splits, *arguments)]


def in_train(root, *parts):
    return root.joinpath("train", *parts)


def test_nothing_is_wrong_with_whole_scenes(inria, tmp_path):
    assert found(read_inria(inria)) == []
    assert found(read_folder(write_folder(tmp_path / "own"))) == []


def test_scenes_of_an_archive_that_are_not_there_are_said_in_a_line(inria):
    assert found(read_inria(inria), "inria") == [
        (
            "incomplete",
            "176 of the 180 scenes of the archive are not there, or have no truth: "
            "austin2, austin3, austin4, ...",
        )
    ]
    sizes = {name: len(set(expected)) for name, expected in EXPECTED_SCENES.items()}
    assert sizes == {"inria": 180, "potsdam": 38, "aicd": 1000}


def test_archives_as_they_are_published_are_not_refused(tmp_path):
    aicd = archives.write_aicd(tmp_path)
    assert {kind for kind, _ in found(read_aicd(aicd), "aicd")} == {"incomplete"}
    potsdam = archives.write_potsdam(tmp_path / "Potsdam")
    splits = read_dataset("potsdam", potsdam, bands="rgbir+dsm")
    faults = found(splits, "potsdam")
    heights = potsdam / "1_DSM" / "dsm_potsdam_03_13.tif"
    images = potsdam / "4_Ortho_RGBIR"
    assert faults[1:] == [
        ("suspicious", f"no CRS: {images}/top_potsdam_2_10_RGBIR.tif"),
        ("suspicious", f"no CRS: {images}/top_potsdam_4_12_RGBIR.tif"),
        ("suspicious", f"{heights} lacks 0 rows and 1 columns at its end"),
    ]


def test_files_that_are_not_there_are_missing(inria):
    truth = in_train(inria, "gt", "austin6.tif")
    truth.unlink()
    expected = [("missing", f"{truth}, of scene austin6")]
    assert found(read_inria(inria)) == expected
    with pytest.raises(ValueError, match=f"^missing: {truth}, of scene austin6$"):
        refuse_faults(read_inria(inria))


def test_files_that_are_no_rasters_are_unreadable(inria):
    image = in_train(inria, "images", "austin5.tif")
    image.write_text("<html>404</html>")
    assert found(read_inria(inria)) == [("unreadable", f"not a raster: {image}")]


def test_a_truncated_file_is_found_by_the_whole_check_only(inria):
    image = in_train(inria, "images", "austin5.tif")
    image.write_bytes(image.read_bytes()[:7000])
    ((kind, text),) = found(read_inria(inria))
    assert kind == "unreadable"
    assert str(image) in text
    assert found(read_inria(inria), "folder", True) == []


def test_sizes_and_bands_that_do_not_match(inria):
    truth, image = (
        in_train(inria, folder, f"austin{number}.tif")
        for folder, number in (("gt", 6), ("images", 10))
    )
    archives.write(truth, np.ones((56, 71), np.uint8))
    archives.write(image, archives.make_picture(0, 10).target[..., :2])
    assert found(read_inria(inria), "folder", True) == [
        ("mismatched", f"{truth} is 56 x 71 pixels, its image 56 x 72"),
        ("suspicious", f"no CRS: {image}"),
        ("mismatched", f"{image} has 2 bands, that of austin6 has 3"),
    ]
    with pytest.raises(ValueError, match=r"^mismatched: .* \(and 1 more: bdloss data"):
        refuse_faults(read_inria(inria))


def test_a_label_of_an_unknown_colour_is_mismatched(tmp_path):
    root = archives.write_potsdam(tmp_path, [(2, 11), (3, 13)])
    label = root / "5_Labels_all" / "top_potsdam_3_13_label.tif"
    archives.write(label, archives.make_picture(3, 13).target)
    kinds = {kind: text for kind, text in found(read_dataset("potsdam", root))}
    assert kinds["mismatched"].startswith("a mask must have the colours of its")
    assert kinds["mismatched"].endswith(str(label))


def test_strangers_among_the_files(inria, tmp_path):
    images = in_train(inria, "images")
    for name in ("._austin7.tif", "austin7 (1).tif"):
        shutil.copy(images / "austin6.tif", images / name)
    shutil.copy(images / "austin6.tif", in_train(inria, "gt", "vienna3.tif"))
    text = f"of no scene, in {images}: ._austin7.tif, austin7 (1).tif"
    assert found(read_inria(inria), "inria")[1:] == [("suspicious", text)]
    root = write_folder(tmp_path / "own")
    shutil.copy(root / "masks" / "a.tif", root / "masks" / "z.tif")
    text = f"of no scene, in {root / 'masks'}: z.tif"
    assert found(read_folder(root)) == [("suspicious", text)]


def test_masks_that_lie_elsewhere_or_have_other_values(tmp_path):
    root = write_folder(tmp_path)
    _, mask = make_scene(1, 70, 84)
    elsewhere = archives.from_origin(0, 0, 0.3, 0.3)
    a, b = (root / "masks" / f"{name}.tif" for name in "ab")
    a_mask = make_scene(0, 90, 130)[1]
    write_raster(a, a_mask * np.random.default_rng(0).integers(1, 4, a_mask.shape))
    write_raster(b, mask * 255, transform=elsewhere)
    assert found(read_folder(root, 0.5)) == [
        (
            "suspicious",
            f"a mask with values 0, 1, 2, ..., all but 0 count as building: {a}",
        ),
        ("suspicious", f"{b} does not lie where its image {root}/images/b.tif"),
    ]


def test_scenes_that_teach_nothing(tmp_path):
    root = write_folder(tmp_path, [(50, 60)] * 3)
    for name, value in (("a", 0), ("b", 255)):
        mask = np.full((50, 60), value, np.uint8)
        write_raster(root / "masks" / f"{name}.tif", mask)
    image = write_raster(root / "images" / "c.tif", np.full((50, 60, 3), 7, np.uint8))
    masks = root / "masks"
    assert found(read_folder(root, 0)) == [
        ("suspicious", f"no building in a: {masks}/a.tif"),
        ("suspicious", f"only building in b: {masks}/b.tif"),
        ("suspicious", f"all pixels are the same: {image}"),
    ]


def test_a_scene_of_another_resolution_is_suspicious(tmp_path):
    root = write_folder(tmp_path)
    pixels, mask = make_scene(1, 70, 84)
    coarse = archives.from_origin(353900, 3057500, 0.5, 0.5)
    image = write_raster(root / "images" / "b.tif", pixels, transform=coarse)
    write_raster(root / "masks" / "b.tif", mask * 255, transform=coarse)
    assert found(read_folder(root)) == [
        ("suspicious", f"{image} has 0.5 m a pixel, that of a 0.3 m")
    ]


def test_totals(tmp_path):
    root = write_folder(tmp_path, [(50, 60), (40, 70)])
    mask = np.zeros((50, 60), np.uint8)
    mask[:10] = 1
    write_raster(root / "masks" / "a.tif", mask)
    mask = np.zeros((40, 70), np.uint8)
    mask[:20, :35] = 9
    write_raster(root / "masks" / "b.tif", mask, nodata=9)
    splits = read_folder(root, validation=0)
    # 600 of 5800 pixels are building and 700 are ignored.
    assert count_scenes(splits.train) == (
        "2 scenes, 0.01 megapixels (0.3 m), 10.3% building, 12.1% ignored"
    )
    assert count_scenes([]) == "none"


def test_settings_go_to_the_reader_that_takes_them(tmp_path):
    root = archives.write_potsdam(tmp_path / "Potsdam")
    splits = read_dataset("potsdam", root, bands="irrg", validation=0)
    assert {scene.image.parent.name for scene in splits.train} == {"3_Ortho_IRRG"}
    with pytest.raises(
        ValueError, match=r"^inria takes the settings resolution, got 'b"
    ):
        read_dataset("inria", root, bands="rgb")
    with pytest.raises(ValueError, match=r"^dataset must be one of folder, .* 'city'$"):
        read_dataset("city", root)


def run(*arguments):
    return CliRunner().invoke(cli.main, ["data", "check", *map(str, arguments)])


def test_the_command_lists_faults_and_totals(inria):
    result = run("--dataset", "inria", "--data", inria)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("incomplete  176 of the 180 scenes")
    assert lines[1].startswith("train       2 scenes, 0.01 megapixels (0.3 m), ")
    assert lines[-1] == "faults      0, and 1 to look at"

    image = in_train(inria, "images", "austin5.tif")
    image.write_bytes(image.read_bytes()[:7000])
    result = run("--dataset", "inria", "--data", inria)
    assert result.exit_code == 1
    assert result.output.splitlines()[1].startswith("unreadable  damaged raster: ")
    assert result.output.splitlines()[-1] == "faults      1, and 1 to look at"
    assert run("--dataset", "inria", "--data", inria, "--quick").exit_code == 0


def test_the_command_takes_settings_of_the_reader(tmp_path):
    archives.write_potsdam(tmp_path / "Potsdam")
    arguments = ("--dataset", "potsdam", "--data", tmp_path)
    changes = ("--set", "dataset.bands=rgbir+dsm", "--set", "dataset.validation=0.5")
    result = run(*arguments, *changes)
    assert result.exit_code == 0
    assert "dsm_potsdam_03_13.tif lacks 0 rows and 1 columns" in result.output
    result = run(*arguments, "--set", "dataset.band=rgb")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: unknown setting 'dataset.band'; did you mean 'dataset.bands'?\n"
    )


def test_the_command_checks_what_an_experiment_trains_on(tmp_path):
    write_folder(tmp_path / "town")
    town = ("--data", tmp_path / "town")
    named = run("--dataset", "folder_from_nothing", *town)
    assert named.exit_code == 0
    assert named.output.splitlines()[-1] == "faults      0, and 0 to look at"
    own = tmp_path / "own.toml"
    own.write_text('[dataset]\nname = "folder"\nvalidation = 0.0\n')
    alone = run("--config", own, *town)
    assert "validation  none" in alone.output
    assert "validation  none" not in named.output
