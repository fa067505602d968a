import multiprocessing
import os
import shutil
from dataclasses import replace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.control import GroundControlPoint

from bdloss.geo.vector import read_outlines
from bdloss.inference import pipeline
from bdloss.inference.pipeline import Settings
from bdloss.inference.strips import StripStore
from bdloss.models import Predictor
from bdloss_tests.scenes import CORNER, UTM, full_disk, make_scene, write_raster

PIXELS, MASK = make_scene(7, 70, 110)


def bright(batch):
    """A network that calls bright pixels buildings."""
    return (batch.mean(-1, keepdims=True) / 255).astype(np.float32)


PREDICTOR = Predictor(
    name="bright",
    predict=bright,
    band_count=3,
    patch_size=32,
    multiple=16,
    threshold=0.5,
    resolution=0.3,
)


@pytest.fixture
def image(tmp_path):
    return write_raster(tmp_path / "town.tif", PIXELS)


def test_products_lie_on_the_image(image, tmp_path):
    truth = write_raster(tmp_path / "truth" / "town.tif", MASK * 255)
    settings = Settings(prob=True, overlay=True)
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", settings, truth.parent
    )
    names = [
        "town_mask.tif",
        "town_prob.tif",
        "town_buildings.gpkg",
        "town_overlay.png",
    ]
    assert [path.name for path in mapped.files] == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    with rasterio.open(mapped.files[0]) as source:
        assert (source.crs, source.transform) == (UTM, CORNER)
        assert source.shape == MASK.shape
        np.testing.assert_array_equal(source.read(1), MASK)
        assert source.tags()["model"] == "bright"
    pixels = mapped.counts.pixels
    assert (pixels.intersection, pixels.union) == (MASK.sum(), MASK.sum())
    assert pixels.total == MASK.size


def test_polygons_cover_the_mask_and_know_their_area(image, tmp_path):
    settings = Settings(simplify=0, min_area=0)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    info, _, shapes, (areas, means) = pyogrio.raw.read(mapped.files[1])
    polygons = shapely.from_wkb(shapes)
    assert info["crs"] == "EPSG:32645"
    assert len(polygons) == mapped.buildings > 1
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(MASK.sum() * 0.09)
    assert areas.sum() == pytest.approx(MASK.sum() * 0.09, rel=0.01)
    assert info["fields"].tolist() == ["area_m2", "probability"]
    roofs = bright(PIXELS)[..., 0][MASK == 1]
    assert np.average(means, weights=areas) == pytest.approx(roofs.mean(), abs=0.002)


def test_outlines_come_from_the_top_whenever_they_were_finished(tmp_path):
    pixels = np.full((90, 60, 3), 40, np.uint8)
    pixels[5:80, 5:15] = 200  # through three bands
    pixels[10:20, 30:50] = 200
    image = write_raster(tmp_path / "town.tif", pixels)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", Settings())
    tall, low = read_outlines(mapped.files[1], UTM)
    assert tall.bounds[3] > low.bounds[3]
    assert tall.area > low.area


@pytest.mark.parametrize("vector", ["gpkg", "geojson", "fgb"])
def test_outlines_in_each_format(image, tmp_path, vector):
    settings = Settings(vector=vector)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    assert mapped.files[1].name == f"town_buildings.{vector}"
    info = pyogrio.read_info(mapped.files[1], force_feature_count=True)
    assert info["features"] == mapped.buildings > 1
    assert info["crs"] == ("EPSG:4326" if vector == "geojson" else "EPSG:32645")


def test_masks_as_the_benchmark_takes_them(tmp_path):
    masked = PIXELS.copy()
    masked[:20, :30] = 0
    image = write_raster(tmp_path / "austin1.tif", masked, nodata=0)
    settings = Settings(format="inria", polygons=False)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    assert [path.name for path in mapped.files] == ["austin1.tif"]
    expected = np.where(MASK == 1, 255, 0)
    expected[:20, :30] = 0
    with rasterio.open(mapped.files[0]) as source:
        assert (source.nodata, source.dtypes) == (None, ("uint8",))
        np.testing.assert_array_equal(source.read(1), expected)
    with pytest.raises(ValueError, match="must not replace an input"):
        pipeline.map_buildings(image, PREDICTOR, tmp_path, settings)


def test_nodata_that_the_image_does_not_tell_of(tmp_path):
    rimmed = PIXELS.copy()
    rimmed[:20, :30] = 0
    rimmed[40, 50] = (0, 0, 200)  # no rim
    image = write_raster(tmp_path / "town.tif", rimmed)
    truth = write_raster(tmp_path / "truth.tif", MASK)
    settings = Settings(nodata=0, polygons=False)
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", settings, truths=truth
    )
    rim = np.zeros(MASK.shape, bool)
    rim[:20, :30] = True
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1) == 255, rim)
    assert mapped.counts.pixels.total == MASK.size - 600
    with pytest.raises(FileExistsError, match=r"declared_nodata 0, not no; give"):
        pipeline.map_buildings(
            image, PREDICTOR, tmp_path / "out", settings._replace(nodata=None)
        )


@pytest.mark.parametrize("format", ["geotiff", "inria"])
def test_truth_counts_only_where_the_image_has_data(tmp_path, format):
    masked = PIXELS.copy()
    masked[:20, :30] = 0
    image = write_raster(tmp_path / "town.tif", masked, nodata=0)
    truth = write_raster(tmp_path / "truth.tif", MASK)
    settings = Settings(format=format, polygons=False)
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", settings, truths=truth
    )
    pixels = mapped.counts.pixels
    assert pixels.total == MASK.size - 600
    assert pixels.intersection == pixels.union == MASK.sum() - MASK[:20, :30].sum() > 0


@pytest.mark.parametrize("cog", [True, False])
def test_rasters_with_overviews(tmp_path, cog):
    pixels, mask = make_scene(2, 700, 1100)
    image = write_raster(tmp_path / "town.tif", pixels)
    settings = Settings(cog=cog, overviews=True, prob=True, window=256)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    for path in mapped.files[:2]:
        with rasterio.open(path) as source:
            layout = source.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
            assert layout == ("COG" if cog else None)
            assert source.overviews(1)
            assert source.tags()["model"] == "bright"
            assert (source.crs, source.transform) == (UTM, CORNER)
            assert source.nodata == 255
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1), mask)
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("batch", "gpu", "expected"), [(None, False, 4), (None, True, 16), (3, True, 3)]
)
def test_windows_at_a_time(image, tmp_path, monkeypatch, batch, gpu, expected):
    seen = []

    def predict(patches):
        seen.append(len(patches))
        return bright(patches)

    monkeypatch.setattr(pipeline, "_has_gpu", lambda: gpu)
    monkeypatch.setattr(pipeline, "find_batch", lambda predict, shape: 16)
    predictor = replace(PREDICTOR, predict=predict)
    settings = Settings(batch=batch, polygons=False)
    pipeline.map_buildings(image, predictor, tmp_path / "out", settings)
    assert set(seen) == {expected}


@pytest.mark.parametrize(
    ("models", "asked", "used"),
    [("flips", None, "flips"), ("flips", "none", "none"), ("none", "d4", "d4")],
)
def test_augmentation_is_the_models_unless_another_is_asked_for(
    image, tmp_path, models, asked, used
):
    predictor = replace(PREDICTOR, tta=models)
    settings = Settings(tta=asked, polygons=False)
    mapped = pipeline.map_buildings(image, predictor, tmp_path / "out", settings)
    with rasterio.open(mapped.files[0]) as source:
        assert source.tags()["tta"] == used


def test_bands_by_choice(tmp_path):
    five = np.dstack([PIXELS[..., :1] // 4, PIXELS, PIXELS[..., :1] // 4])
    image = write_raster(tmp_path / "town.tif", five)
    with pytest.raises(ValueError, match=r"takes 3 bands, town\.tif has 5"):
        pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", Settings())
    with pytest.raises(ValueError, match=r"from 1 to 5, got \[2, 3, 6\]"):
        pipeline.map_buildings(
            image, PREDICTOR, tmp_path / "out", Settings(bands=(2, 3, 6))
        )
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", Settings(bands=(4, 3, 2))
    )
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_array_equal(source.read(1), MASK)


def test_a_rotated_raster_keeps_its_transform(tmp_path):
    turned = CORNER @ Affine.rotation(30)
    image = write_raster(tmp_path / "town.tif", PIXELS, transform=turned)
    settings = Settings(simplify=0, min_area=0)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    with rasterio.open(mapped.files[0]) as source:
        np.testing.assert_allclose(source.transform[:6], turned[:6])
    polygons = shapely.from_wkb(pyogrio.raw.read(mapped.files[1])[2])
    rows, cols = np.nonzero(MASK)
    x, y = turned @ (cols + 0.5, rows + 0.5)
    assert shapely.area(polygons).sum() == pytest.approx(MASK.sum() * 0.09)
    assert shapely.contains_xy(shapely.union_all(polygons), x, y).all()


def write_with_points(path, points):
    """Write the town with ground control points in the place of a transform."""
    write_raster(path, PIXELS, crs=None, transform=None)
    with rasterio.open(path, "r+") as target:
        target.gcps = (points, UTM)
    return path


def test_control_points_are_kept_and_said(tmp_path):
    points = [
        GroundControlPoint(row, col, 353900 + 0.3 * col, 3057500 - 0.3 * row)
        for row, col in ((0, 0), (0, 109), (69, 0), (69, 109))
    ]
    image = write_with_points(tmp_path / "town.tif", points)
    said = []
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", Settings(), say=said.append
    )
    with rasterio.open(mapped.files[0]) as source:
        kept, crs = source.gcps
    assert crs == UTM
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [
        (p.row, p.col, p.x, p.y) for p in points
    ]
    (line,) = said
    assert "town.tif has ground control points" in line
    assert "its outlines are placed by the affine map" in line
    plain = write_raster(tmp_path / "plain.tif", PIXELS)
    expected = pipeline.map_buildings(plain, PREDICTOR, tmp_path / "out", Settings())
    assert pyogrio.read_info(mapped.files[1])["crs"] == "EPSG:32645"
    for placed, straight in zip(
        read_outlines(mapped.files[1], UTM),
        read_outlines(expected.files[1], UTM),
        strict=True,
    ):
        assert placed.equals_exact(straight, 1e-3)


@pytest.mark.parametrize(
    ("profile", "trained", "expected"),
    [
        ({}, 0.3, []),
        ({}, 0.26, []),
        ({}, None, []),
        ({}, 0.2, ["town.tif has 0.3 m a pixel, the model was trained at 0.2; "]),
        ({}, 0.5, ["town.tif has 0.3 m a pixel, the model was trained at 0.5; "]),
        ({"crs": None, "transform": None}, 0.3, ["town.tif has no CRS, so its mask"]),
    ],
)
def test_what_is_odd_with_an_image_is_said(tmp_path, profile, trained, expected):
    image = write_raster(tmp_path / "town.tif", PIXELS, **profile)
    predictor = replace(PREDICTOR, resolution=trained)
    said = []
    pipeline.map_buildings(
        image, predictor, tmp_path / "out", Settings(), say=said.append
    )
    assert len(said) == len(expected)
    for line, start in zip(said, expected, strict=True):
        assert line.startswith(start)


def test_points_on_one_line_place_nothing(tmp_path):
    points = [GroundControlPoint(i, i, 353900 + i, 3057500 - i) for i in (0, 20, 60)]
    image = write_with_points(tmp_path / "town.tif", points)
    said = []
    mapped = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "out", Settings(), say=said.append
    )
    assert said == ["town.tif has no CRS, so its mask and outlines have none"]
    assert pyogrio.read_info(mapped.files[1])["crs"] is None


@pytest.mark.parametrize("crs", [UTM, None])
def test_jpeg_2000_with_and_without_georeference(tmp_path, crs):
    placed = {"crs": crs, "transform": CORNER if crs else None}
    lossless = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
    image = write_raster(tmp_path / "town.jp2", PIXELS, **placed, **lossless)
    assert pipeline.find_images([tmp_path]) == [image]
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", Settings())
    with rasterio.open(mapped.files[0]) as source:
        assert (source.driver, source.crs) == ("GTiff", crs)
        assert source.transform == (CORNER if crs else Affine.identity())
        np.testing.assert_array_equal(source.read(1), MASK)
    assert (pyogrio.read_info(mapped.files[1])["crs"] is None) == (crs is None)
    assert mapped.buildings > 1


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (300, 200, 3), np.uint8)
    image = write_raster(tmp_path / "town.tif", noise)
    settings = Settings(prob=True, polygons=False)
    out = tmp_path / "out"
    whole = pipeline.map_buildings(image, PREDICTOR, tmp_path / "whole", settings)
    sizes = [path.stat().st_size for path in whole.files]
    with full_disk(100), pytest.raises(OSError, match="too large"):
        pipeline.map_buildings(image, PREDICTOR, out, settings)
    assert not out.exists()  # there was no room to begin
    for size in (1000, sizes[0] - 100, sizes[1] - 100):
        with full_disk(size), pytest.raises(OSError, match=r"too large|the disk full"):
            pipeline.map_buildings(image, PREDICTOR, out, settings)
        assert [path.name for path in out.iterdir()] == ["town_mask.partial"]
    again = pipeline.map_buildings(image, PREDICTOR, out, settings)
    assert sorted(out.iterdir()) == sorted(again.files)
    for path, other in zip(again.files, whole.files, strict=True):
        assert path.read_bytes() == other.read_bytes()


def test_small_polygons_are_left_out(image, tmp_path):
    every = pipeline.map_buildings(
        image, PREDICTOR, tmp_path / "every", Settings(min_area=0)
    )
    areas = pyogrio.raw.read(every.files[1])[3][0]
    settings = Settings(min_area=float(np.median(areas)))
    large = pipeline.map_buildings(image, PREDICTOR, tmp_path / "large", settings)
    assert 0 < large.buildings < every.buildings


def test_raster_without_crs_keeps_none(tmp_path):
    image = write_raster(tmp_path / "plain.tif", PIXELS, crs=None, transform=None)
    mapped = pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", Settings())
    assert mapped.buildings > 1
    assert pyogrio.read_info(mapped.files[1])["crs"] is None


def test_finished_outputs_are_kept_unless_overwritten(image, tmp_path):
    out = tmp_path / "out"
    first = pipeline.map_buildings(image, PREDICTOR, out, Settings())
    before = [path.stat().st_mtime_ns for path in first.files]
    never = replace(PREDICTOR, predict=pytest.fail)
    again = pipeline.map_buildings(image, never, out, Settings())
    assert again == first._replace(kept=True)
    assert [path.stat().st_mtime_ns for path in first.files] == before
    settings = Settings(overwrite=True, threshold=1.0)
    mapped = pipeline.map_buildings(image, PREDICTOR, out, settings)
    assert (mapped.buildings, mapped.kept) == (0, False)


@pytest.mark.parametrize(
    ("settings", "predictor", "says"),
    [
        (Settings(resume=False), PREDICTOR, "exists; give --overwrite"),
        (Settings(threshold=0.4), PREDICTOR, "threshold 0.5, not 0.4; give"),
        (Settings(bands=(3, 2, 1)), PREDICTOR, "bands 1,2,3, not 3,2,1; give"),
        (Settings(resolution=0.6), PREDICTOR, "resampled no, not 0.6; give"),
        (Settings(min_area=9.0), PREDICTOR, "min_area 5.0, not 9.0; give"),
        (Settings(simplify=0.0), PREDICTOR, "simplify 1.0, not 0.0; give"),
        (Settings(cog=True), PREDICTOR, "cog False, not True; give"),
        (Settings(vector="fgb"), PREDICTOR, "town_buildings.fgb does not; give"),
        (Settings(overlay=True), PREDICTOR, "town_overlay.png does not; give"),
        (Settings(), replace(PREDICTOR, digest="b1"), "model_sha256 None, not b1"),
    ],
)
def test_other_outputs_are_not_taken_for_finished(
    image, tmp_path, settings, predictor, says
):
    pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", Settings())
    with pytest.raises(FileExistsError, match=says):
        pipeline.map_buildings(image, predictor, tmp_path / "out", settings)


def test_a_run_that_failed_half_way_goes_on(image, tmp_path):
    out = tmp_path / "out"
    settings = Settings(overlap=16, batch=1)
    whole = pipeline.map_buildings(image, PREDICTOR, tmp_path / "whole", settings)
    places = []

    def count(batch):
        places.append(1)
        if len(places) == 15:  # in the third of four rows of windows
            raise OSError("No space left on device")
        return bright(batch)

    counted = replace(PREDICTOR, predict=count)
    with pytest.raises(OSError, match="No space"):
        pipeline.map_buildings(image, counted, out, settings)
    assert [path.name for path in out.iterdir()] == ["town_mask.partial"]
    with pytest.raises(ValueError, match=r"threshold 0.5, not 0.7; give --no-resume"):
        pipeline.map_buildings(image, counted, out, settings._replace(threshold=0.7))
    resumed = pipeline.map_buildings(image, counted, out, settings)
    assert len(places) < 15 + 24
    assert sorted(out.iterdir()) == sorted(resumed.files)
    for one, other in zip(whole.files, resumed.files, strict=True):
        if one.suffix == ".tif":
            assert one.read_bytes() == other.read_bytes()
    assert resumed.buildings == whole.buildings


def test_images_of_a_folder_are_not_what_we_wrote_there(image, tmp_path):
    write_raster(tmp_path / "b_mask.tif", PIXELS)  # of nothing that is here
    for name in ("town_mask.tif", "town_prob.tif", "._town.tif"):
        write_raster(tmp_path / name, MASK)
    (tmp_path / "notes.txt").write_text("no raster")
    found = pipeline.find_images([tmp_path, tmp_path / "x" / "c.tif"])
    assert [path.name for path in found] == ["b_mask.tif", "town.tif", "c.tif"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no raster .* in this folder: .*empty"):
        pipeline.find_images([tmp_path / "empty"])


def test_bad_input_leaves_no_output(image, tmp_path):
    out = tmp_path / "out"
    one_band = write_raster(tmp_path / "grey.tif", PIXELS[..., :1])
    small = write_raster(tmp_path / "truth" / "town.tif", MASK[:50])
    text = tmp_path / "text.tif"
    text.write_text("hello")
    for call, rule in [
        (lambda: (one_band, Settings(), None), "takes 3 bands, grey.tif has 1"),
        (lambda: (image, Settings(), small.parent), "a mask is of the size"),
        (lambda: (image, Settings(window=40), None), "multiple of 16"),
        (lambda: (image, Settings(window=0), None), "multiple of 16 .* got 0"),
        (lambda: (image, Settings(overlap=32), None), "overlap must be"),
        (lambda: (text, Settings(), None), "not a raster"),
    ]:
        raster, settings, truths = call()
        with pytest.raises(ValueError, match=rule):
            pipeline.map_buildings(raster, PREDICTOR, out, settings, truths)
        assert not out.exists()


def test_failure_at_the_last_product_leaves_none(image, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(pipeline.plots, "write_picture", fail)
    with pytest.raises(OSError, match="No space"):
        pipeline.map_buildings(
            image, PREDICTOR, tmp_path / "out", Settings(overlay=True)
        )
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names == ["town_mask.partial"]  # what was predicted


def test_names_must_differ(tmp_path):
    pipeline.find_images([tmp_path / "a.tif", tmp_path / "b.tif"])
    with pytest.raises(ValueError, match="names of their own"):
        pipeline.find_images([tmp_path / "a.tif", tmp_path / "x" / "a.tif"])


def test_a_result_of_another_image_is_not_kept(image, tmp_path):
    out = tmp_path / "out"
    pipeline.map_buildings(image, PREDICTOR, out, Settings())
    assert pipeline.map_buildings(image, PREDICTOR, out, Settings()).kept
    elsewhere = CORNER @ Affine.translation(500, 0)
    for pixels, profile in (
        (PIXELS[::-1], {}),  # other pixels
        (PIXELS, {"transform": elsewhere}),
        (PIXELS[:60], {}),
    ):
        write_raster(image, pixels, **profile)
        with pytest.raises(FileExistsError, match="of another image of this name"):
            pipeline.map_buildings(image, PREDICTOR, out, Settings())


def test_half_a_result_of_another_image_is_not_gone_on_with(image, tmp_path):
    out = tmp_path / "out"
    pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(1, 2))
    before = image.stat().st_mtime
    write_raster(image, PIXELS[::-1])
    os.utime(image, (before, before))
    with pytest.raises(ValueError, match="another image of this name; give --no-res"):
        pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(2, 2))
    write_raster(image, PIXELS)
    pipeline.map_buildings(image, PREDICTOR, tmp_path / "o", Settings(), shard=(1, 2))
    pipeline.map_buildings(image, PREDICTOR, tmp_path / "o", Settings(), shard=(2, 2))
    write_raster(image, PIXELS[::-1])
    with pytest.raises(ValueError, match="shards of another image"):
        pipeline.merge_buildings(image, tmp_path / "o", Settings())


def test_shards_of_a_copy_are_those_of_the_image(image, tmp_path):
    for part in (1, 2):
        copy = tmp_path / f"machine{part}" / image.name
        copy.parent.mkdir()
        copy.write_bytes(image.read_bytes())  # changed at another time
        out = tmp_path / f"out{part}"
        pipeline.map_buildings(copy, PREDICTOR, out, Settings(), shard=(part, 2))
    first, second = (tmp_path / f"out{i}" / "town_mask.partial" for i in (1, 2))
    shutil.copytree(second, first, dirs_exist_ok=True)
    pipeline.merge_buildings(image, tmp_path / "out1", Settings())
    with rasterio.open(tmp_path / "out1" / "town_mask.tif") as source:
        np.testing.assert_array_equal(source.read(1), MASK)


def test_a_folder_of_ones_own_is_not_taken_for_finished_rows(image, tmp_path):
    folder = tmp_path / "out" / "town_mask.partial"
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("dear")
    for settings in (Settings(), Settings(overwrite=True)):
        with pytest.raises(ValueError, match="a folder of their own, got one of other"):
            pipeline.map_buildings(image, PREDICTOR, tmp_path / "out", settings)
    assert (folder / "letter.txt").read_text() == "dear"


def test_a_merge_that_was_killed_between_its_outputs_goes_on(
    image, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for part in (1, 2):
        pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(part, 2))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_write_polygons", die)
        patch.setattr(pipeline.Path, "unlink", lambda *_, **__: None)  # as if killed
        with pytest.raises(KeyboardInterrupt):
            pipeline.merge_buildings(image, out, Settings())
    assert (out / "town_mask.tif").exists()
    merged = pipeline.merge_buildings(image, out, Settings())
    assert sorted(path.name for path in out.iterdir()) == [
        "town_buildings.gpkg",
        "town_mask.tif",
    ]
    assert merged.buildings
    again = pipeline.merge_buildings(
        image, out, Settings()
    )  # killed after its last file
    assert again.kept
    assert again.buildings == merged.buildings


def test_a_merge_does_not_replace_a_mask_of_something_else(image, tmp_path):
    for part in (1, 2):
        pipeline.map_buildings(image, PREDICTOR, tmp_path, Settings(), shard=(part, 2))
    mask = write_raster(tmp_path / "town_mask.tif", PIXELS[..., :1])
    before = mask.read_bytes()
    with pytest.raises(FileExistsError, match="exists; give --overwrite"):
        pipeline.merge_buildings(image, tmp_path, Settings())
    assert mask.read_bytes() == before


def hold(folder, shard, begun, let_go):
    with StripStore(folder).held(*shard):
        begun.set()
        let_go.wait(60)


def test_two_processes_at_one_part_one_of_them_says_so(image, tmp_path):
    out = tmp_path / "out"
    spawned = multiprocessing.get_context("spawn")
    begun, let_go = spawned.Event(), spawned.Event()
    folder = out / "town_mask.partial"
    words = (folder, (1, 2), begun, let_go)
    process = spawned.Process(target=hold, args=words, daemon=True)
    process.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match="in use by another process"):
        pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(1, 2))
    pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(2, 2))
    process.kill()
    process.join()
    pipeline.map_buildings(image, PREDICTOR, out, Settings(), shard=(1, 2))
    pipeline.merge_buildings(image, out, Settings())
    assert {path.name for path in out.iterdir()} == {
        "town_mask.tif",
        "town_buildings.gpkg",
    }
