import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio.shutil import copy
from shapely.affinity import affine_transform

from bdloss.data import cache, scenes
from bdloss.data.cache import cache_size, clear_cache, load_cached
from bdloss.data.scenes import Scene, load_scene
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.windows import Window
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

HEIGHT, WIDTH = 60, 84
BYTES = HEIGHT * WIDTH * 4 + 2 * 128  # three bands, a mask and the heads of two files
PART = (slice(7, 30), slice(50, 84))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path, seed=4)


@pytest.fixture
def decoded(monkeypatch):
    """The scenes that are decoded, larger than the corner that shows the bands."""
    loaded = []

    def count(scene, bands=None):
        if scene.area is None or scene.area.height > 1:
            loaded.append(scene)
        return load_scene(scene, bands)

    monkeypatch.setattr(scenes, "load_scene", count)
    return loaded


def write_scene(root, seed):
    pixels, mask = make_scene(seed, HEIGHT, WIDTH)
    image = write_raster(root / "images" / "town.tif", pixels)
    return Scene("town", image, write_raster(root / "masks" / "town.tif", mask * 255))


def both(data, expected):
    """Return the arrays of two scenes that have the same ones, in pairs."""
    assert [part is None for part in data] == [part is None for part in expected]
    pairs = zip(data, expected, strict=True)
    return [pair for pair in pairs if pair[0] is not None]


def assert_same(data, expected):
    for got, array in both(data, expected):
        assert got.shape == array.shape
        np.testing.assert_array_equal(got[PART], array[PART])
        np.testing.assert_array_equal(np.asarray(got), array)


@pytest.mark.parametrize("area", [None, Window(10, 3, 40, 81)])
@pytest.mark.parametrize("limit", [BYTES, 0], ids=["cached", "by windows"])
def test_a_scene_is_what_load_scene_gives(scene, folder, limit, area):
    scene = scene._replace(area=area)
    data = load_cached(scene, folder, limit=limit)
    assert data.pixels.is_cached == data.mask.is_cached == bool(limit)
    assert_same(data, load_scene(scene))
    assert np.count_nonzero(data.mask == 1) == (load_scene(scene).mask == 1).sum()
    assert data.mask.size == np.prod(data.mask.shape)


@pytest.mark.parametrize("limit", [BYTES, 0], ids=["cached", "by windows"])
@pytest.mark.parametrize("scale", [2, 1.4])
def test_a_scene_at_another_resolution(scene, folder, limit, scale):
    scene = scene._replace(area=Window(2, 5, 25, 35), scale=scale)
    expected = load_scene(scene)
    cached = load_cached(scene, folder, limit, strip_pixels=900)
    for got, array in both(cached, expected):
        np.testing.assert_array_equal(np.asarray(got), array)
        np.testing.assert_array_equal(got[3:20, 7:30], array[3:20, 7:30])


@pytest.mark.parametrize("limit", [2 * BYTES, 0], ids=["cached", "by windows"])
@pytest.mark.parametrize("scale", [1, 1.4, 2])
def test_contact_is_cached_beside_the_mask(scene, folder, limit, scale, tmp_path):
    outlines = tmp_path / "houses.gpkg"
    lefts = range(4, WIDTH - 10, 7)
    houses = [shapely.box(left, 3, left + 7, 12 + left % 30) for left in lefts]
    on_ground = [affine_transform(house, CORNER.to_shapely()) for house in houses]
    write_outlines(outlines, on_ground, UTM)
    area = Window(2, 5, 25, 35)
    scene = scene._replace(truth=outlines, area=area, scale=scale)
    assert load_cached(scene, folder, limit).contact is None
    wanted = scene._replace(contact=2)
    expected = load_scene(wanted)
    assert expected.contact.any()
    for _ in range(2):
        data = load_cached(wanted, folder, limit, strip_pixels=200)
        for got, array in both(data, expected):
            np.testing.assert_array_equal(np.asarray(got), array)
            np.testing.assert_array_equal(got[3:20, 7:30], array[3:20, 7:30])
            assert got.is_cached == bool(limit)
        for file in folder.glob("*/contact.npy"):
            file.unlink()  # then it is made anew


def test_bands_are_chosen(scene, folder):
    assert_same(load_cached(scene, folder), load_scene(scene))
    swapped = scene._replace(bands=(3, 1))
    assert_same(load_cached(swapped, folder), load_scene(swapped))


def test_a_scene_is_decoded_once(scene, folder, decoded):
    first = load_cached(scene, folder)
    again = load_cached(scene, folder)
    assert_same(again, first)
    assert len(decoded) == 1


def test_a_large_scene_is_decoded_by_strips(scene, folder, decoded):
    data = load_cached(scene, folder, strip_pixels=13 * WIDTH)
    assert [part.area.height for part in decoded] == [13, 13, 13, 13, 8]
    assert_same(data, load_scene(scene))


def test_a_part_is_a_copy(scene, folder):
    data = load_cached(scene, folder)
    data.mask[PART][:] = 7
    assert_same(data, load_scene(scene))


@pytest.mark.parametrize("changed", ["image", "truth"])
def test_a_scene_is_decoded_anew_when_a_file_changes(scene, folder, changed):
    load_cached(scene, folder)
    path = getattr(scene, changed)
    times = path.stat()
    other = write_scene(path.parents[2] / "other", seed=9)
    shutil.copy(getattr(other, changed), path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p does
    assert_same(load_cached(scene, folder), load_scene(scene))
    assert cache_size(folder) == BYTES  # what was there before is gone


def test_a_scene_is_decoded_anew_when_its_outlines_change(scene, folder):
    outlines = scene.truth.with_name("roofs.geojson")
    scene = scene._replace(truth=outlines)
    for side in (5, 9):
        left, top = CORNER @ (10, 10)
        roof = shapely.box(left, top - 0.3 * side, left + 0.3 * side, top)
        write_outlines(outlines, [roof], UTM)
        data = load_cached(scene, folder)
        assert np.count_nonzero(data.mask == 1) == side**2


def test_outlines_may_have_brackets_in_their_name(scene, folder):
    outlines = scene.truth.with_name("roofs [2024].geojson")
    scene = scene._replace(truth=outlines)
    for side in (5, 9):
        left, top = CORNER @ (10, 10)
        roof = shapely.box(left, top - 0.3 * side, left + 0.3 * side, top)
        write_outlines(outlines, [roof], UTM)
        data = load_cached(scene, folder)
        assert np.count_nonzero(data.mask == 1) == side**2


def test_a_scene_is_decoded_anew_when_what_a_virtual_raster_is_made_of_changes(
    scene, folder
):
    inner, outer = (scene.image.with_name(f"{name}.vrt") for name in ("inner", "outer"))
    copy(scene.image, inner, driver="VRT")
    copy(inner, outer, driver="VRT")
    scene = scene._replace(image=outer)
    before = np.asarray(load_cached(scene, folder).pixels)
    write_raster(outer.with_name("town.tif"), make_scene(5, HEIGHT, WIDTH)[0])
    after = np.asarray(load_cached(scene, folder).pixels)
    assert (before != after).any()
    assert_same(load_cached(scene, folder), load_scene(scene))


@pytest.mark.parametrize("name", ["pixels", "mask"])
@pytest.mark.parametrize("kept", [0, 60, 1000])
def test_a_damaged_entry_is_made_anew(scene, folder, name, kept):
    load_cached(scene, folder)
    (path,) = folder.rglob(f"{name}.npy")
    path.write_bytes(path.read_bytes()[:kept])
    assert_same(load_cached(scene, folder), load_scene(scene))
    assert cache_size(folder) == BYTES


def test_a_cache_keeps_to_its_limit(scene, folder):
    for seed, fits in ((1, True), (2, True), (3, False)):
        scene = write_scene(folder.parent / str(seed), seed)
        data = load_cached(scene, folder, limit=BYTES * 5 // 2)
        assert data.pixels.is_cached == fits
        assert_same(data, load_scene(scene))
    assert cache_size(folder) == 2 * BYTES


def test_a_scene_is_read_by_windows_where_the_disk_is_short(scene, folder, monkeypatch):
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=cache.DISK_RESERVE)
    )
    assert not load_cached(scene, folder).pixels.is_cached
    assert cache_size(folder) == 0


def test_a_disk_that_fills_up_leaves_nothing_half_done(scene, folder, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        data = load_cached(scene, folder)
    assert_same(data, load_scene(scene))
    assert list(folder.iterdir()) == []


def test_a_damaged_scene_leaves_nothing_half_done(scene, folder, monkeypatch):
    whole = scene.image.read_bytes()
    scene.image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"town\.tif"):
        load_cached(scene, folder)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_two_processes_make_an_entry_at_once(scene, folder):
    image, truth = str(scene.image), str(scene.truth)
    code = (
        "from pathlib import Path; from bdloss.data.cache import *;"
        f"scene = Scene('town', Path({image!r}), Path({truth!r}));"
        "input();"
        f"data = load_cached(scene, Path({str(folder)!r}));"
        "print(data.pixels.is_cached, int(np.asarray(data.pixels).sum()))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0] for process in processes]
    assert answers == [f"True {load_scene(scene).pixels.sum()}\n"] * 2
    assert cache_size(folder) == BYTES


def test_the_slower_of_two_processes_uses_the_entry_of_the_faster(
    scene, folder, monkeypatch
):
    shapes_of, made = cache._shapes_of, []

    def be_late(scene):
        monkeypatch.setattr(cache, "_shapes_of", shapes_of)
        load_cached(scene, folder)  # the other process
        made.extend((path, path.stat().st_mtime_ns) for path in folder.iterdir())
        return shapes_of(scene)

    monkeypatch.setattr(cache, "_shapes_of", be_late)
    assert_same(load_cached(scene, folder), load_scene(scene))
    assert [(path, path.stat().st_mtime_ns) for path in folder.iterdir()] == made
    assert len(made) == 1


def test_a_cleared_cache_is_read_by_windows(scene, folder):
    data = load_cached(scene, folder)
    foreign = folder / "thesis"
    foreign.mkdir()
    (foreign / "pixels.npy").write_text("not ours")
    (folder / f"{'a' * 16}-{'b' * 16}.partialxyz").mkdir()  # of a run that was killed
    assert clear_cache(folder) == BYTES
    assert list(folder.iterdir()) == [foreign]
    assert not data.pixels.is_cached
    assert_same(data, load_scene(scene))
    assert load_cached(scene, folder).pixels.is_cached
    assert clear_cache(folder.parent / "none") == 0


def test_the_default_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert cache.default_folder() == Path("/scratch/bdloss")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache.default_folder() == Path("/home/ann/.cache/bdloss")
