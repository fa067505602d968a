"""Sites cut into scenes that do not share a roof."""

import itertools
import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from bdloss_tests.scenes import write_raster
from paper import cut_towns

LEFT, TOP = 353875.0, 3057565.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The sites, small ones: every pixel has a value of its row."""
    root = tmp_path_factory.mktemp("imagery")
    for site in cut_towns.SITES:
        for name, side in (("0p30m", 0.3), ("0p15m", 0.15)):
            rows = round(544 / side)
            pixels = np.zeros((rows, 20, 3), np.uint8)
            pixels[...] = (np.arange(rows) % 251)[:, None, None]
            place = {"transform": from_origin(LEFT, TOP, side, side)}
            write_raster(root / f"{site}_{name}.tif", pixels, **place)
            write_raster(root / f"{site}_{name}_mask.tif", pixels[..., 0], **place)
    for town in ("banepa", "zanzibar"):
        empty = {"type": "FeatureCollection", "features": []}
        (root / town / "buildings.geojson").write_text(json.dumps(empty))
    return root


def cut(folder, out, monkeypatch, *words):
    monkeypatch.setattr(
        "sys.argv", ["cut_towns", str(folder), "--out", str(out), *words]
    )
    cut_towns.main()
    scenes = {}
    for path in sorted((out / "images").glob("*.tif")):
        with rasterio.open(path) as source:
            assert source.nodata == 0
            scenes[path.stem] = source.bounds.top, source.bounds.bottom, source.res[0]
    return scenes


def test_blocks_of_a_site_lie_ten_metres_apart(folder, tmp_path, monkeypatch):
    scenes = cut(folder, tmp_path, monkeypatch)
    assert len(scenes) == 9
    ends = [scenes[f"banepa_{block}"] for block in ("train", "validation", "test")]
    for (_, bottom, side), (top, *_) in itertools.pairwise(ends):
        assert bottom - top == pytest.approx(33 * 0.3)
        assert side == pytest.approx(0.3)
    assert len(list((tmp_path / "masks").iterdir())) == 9
    with rasterio.open(tmp_path / "images" / "banepa_test.tif") as source:
        first = round((TOP - source.bounds.top) / 0.3)
        assert source.read(1)[0, 0] == first % 251


def test_parts_are_alike_and_have_outlines(folder, tmp_path, monkeypatch):
    scenes = cut(folder, tmp_path, monkeypatch, "--parts", "4")
    assert len(scenes) == 3 * 4
    assert not (tmp_path / "masks").exists()
    assert (tmp_path / "buildings.geojson").is_file()


def test_sites_are_whole_but_for_what_the_sample_tests_on(
    folder, tmp_path, monkeypatch
):
    scenes = cut(folder, tmp_path, monkeypatch, "--sites")
    names = ["banepa_north", "banepa_south", "zanzibar_A_all", "zanzibar_B_all"]
    assert list(scenes) == names
    assert {side for *_, side in scenes.values()} == {0.15}
    _, bottom, _ = scenes["banepa_north"]
    top, *_ = scenes["banepa_south"]
    assert bottom - top == pytest.approx(10, abs=0.2)
    begin = TOP - 1181 * 0.3  # of the sample's test scene, where the site is as large
    assert top == pytest.approx(begin, abs=0.6)


def test_fine_parts_are_parts_at_half_the_pixel(folder, tmp_path, monkeypatch):
    parts = ("--parts", "2")
    coarse = cut(folder, tmp_path / "coarse", monkeypatch, *parts)
    fine = cut(folder, tmp_path / "fine", monkeypatch, *parts, "--fine")
    assert coarse.keys() == fine.keys() and len(fine) == 6
    for name, (top, bottom, side) in fine.items():
        assert (top, bottom) == pytest.approx(coarse[name][:2], abs=0.6)
        assert side == pytest.approx(0.15)
    with pytest.raises(SystemExit):
        cut(folder, tmp_path / "whole", monkeypatch, "--fine")
