import warnings

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasterio.transform import from_origin

from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox, geobox_of
from bdloss.geo.raster import (
    create_mask,
    image_bands,
    open_raster,
    read_mask,
    read_pixels,
    read_reduced,
    read_valid,
)
from bdloss.geo.windows import Window
from bdloss_tests.scenes import CORNER, UTM, full_disk, write_raster

HEIGHT, WIDTH = 40, 70
WHOLE = Window(0, 0, HEIGHT, WIDTH)
GRID = GeoBox(HEIGHT, WIDTH, CORNER, UTM)


def noise(bands, dtype=np.uint8, low=0, high=256):
    random = np.random.default_rng(7)
    return random.integers(low, high, (HEIGHT, WIDTH, bands)).astype(dtype)


def test_pixels_of_a_window_have_the_bands_last(tmp_path):
    values = noise(3)
    with open_raster(write_raster(tmp_path / "a.tif", values)) as source:
        pixels = read_pixels(source, Window(5, 9, 20, 30))
        chosen = read_pixels(source, Window(5, 9, 20, 30), band_indexes=[3, 1])
    expected = values[5:25, 9:39]
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(chosen, expected[..., [2, 0]])


@pytest.mark.parametrize("driver", ["VRT", "COG", "PNG"])
def test_the_format_does_not_matter(tmp_path, driver):
    values = noise(3)
    original = write_raster(tmp_path / "a.tif", values)
    copy(original, tmp_path / "copy", driver=driver)
    with open_raster(tmp_path / "copy") as source:
        assert source.driver == {"COG": "GTiff"}.get(driver, driver)
        pixels = read_pixels(source, WHOLE)
    np.testing.assert_array_equal(pixels, values)


def test_alpha_is_no_band_of_the_picture_but_says_what_is_valid(tmp_path):
    values = noise(4)
    values[..., 3] = 255
    values[10:, :25, 3] = 0
    path = write_raster(tmp_path / "a.tif", values, photometric="rgb", alpha="yes")
    with open_raster(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
        assert image_bands(source) == [1, 2, 3]
        pixels = read_pixels(source, WHOLE)
        valid = read_valid(source, Window(5, 0, 35, 70))
    np.testing.assert_array_equal(pixels, values[..., :3])
    np.testing.assert_array_equal(valid, values[5:, :, 3] == 255)


def test_a_pixel_is_invalid_where_every_band_is_nodata(tmp_path):
    values = noise(3, low=1)
    values[4, 6] = 0
    values[8, 6, 0] = 0
    with open_raster(write_raster(tmp_path / "a.tif", values, nodata=0)) as source:
        valid = read_valid(source, WHOLE)
    assert np.argwhere(~valid).tolist() == [[4, 6]]


@pytest.mark.parametrize("count", [2, 4])
def test_alpha_and_nodata_say_together_what_is_valid(tmp_path, count):
    values = noise(count, low=1)
    values[10:, :25, -1] = 0
    values[4, 6, :-1] = 0
    path = write_raster(tmp_path / "a.tif", values, alpha="yes", nodata=0)
    with open_raster(path) as source:
        valid = read_valid(source, WHOLE)
    expected = values[..., -1] > 0
    expected[4, 6] = False
    np.testing.assert_array_equal(valid, expected)


def test_without_nodata_every_pixel_is_valid(tmp_path):
    with open_raster(write_raster(tmp_path / "a.tif", noise(3))) as source:
        assert read_valid(source, WHOLE).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_other_than_8_bits_go_from_percentile_to_percentile(tmp_path, dtype):
    values = np.linspace(200, 1200, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    values = values.astype(dtype)
    with open_raster(write_raster(tmp_path / "a.tif", values)) as source:
        pixels = read_pixels(source, WHOLE)[..., 0]
        part = read_pixels(source, Window(10, 20, 5, 6))[..., 0]
    # 210 and 1190 are the percentiles 1 and 99, 700 is half way.
    expected = np.clip((values.astype(float) - 210) / 980 * 255, 0, 255)
    np.testing.assert_allclose(pixels, expected, atol=1)
    assert pixels.min() == 0
    assert pixels.max() == 255
    np.testing.assert_array_equal(part, pixels[10:15, 20:26])


def test_the_scale_of_16_bits_does_not_see_nodata(tmp_path):
    values = noise(2, np.uint16, 1000, 2001)
    values[:30] = 0
    with open_raster(write_raster(tmp_path / "a.tif", values, nodata=0)) as source:
        pixels = read_pixels(source, Window(30, 0, 10, WIDTH))
    assert pixels.mean() == pytest.approx(127.5, abs=4)


@pytest.mark.parametrize("value", [np.nan, 3.0, -1e38])
def test_a_constant_or_empty_float_raster_has_pixels(tmp_path, value):
    values = np.full((HEIGHT, WIDTH), value, np.float32)
    with open_raster(write_raster(tmp_path / "a.tif", values)) as source:
        assert (read_pixels(source, WHOLE) == 0).all()


def test_a_reduced_picture_is_averaged_and_never_enlarged(tmp_path):
    values = noise(3)
    with open_raster(write_raster(tmp_path / "a.tif", values)) as source:
        half = read_reduced(source, WIDTH // 2)
        whole = read_reduced(source, WIDTH + 1)
    blocks = values.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half, blocks, atol=0.51)
    np.testing.assert_array_equal(whole, values)


def test_resolution_is_measured_on_the_ground():
    degrees = from_origin(85.5, 27.6, 1e-6, 2e-6)
    feet = from_origin(2e6, 6e5, 2, 2)
    mercator = from_origin(9520461, 3202787, 0.15, 0.15)
    grids = {
        "UTM": GeoBox(HEIGHT, WIDTH, CORNER, UTM),
        # 111 320 m cos(27.6) and 110 805 m a degree there, so sqrt(0.0987 * 0.2216)
        "degrees": GeoBox(HEIGHT, WIDTH, degrees, CRS.from_epsg(4326)),
        "feet": GeoBox(HEIGHT, WIDTH, feet, CRS.from_epsg(2263)),  # New York
        # cos(27.63) of 0.15, and the ellipsoid
        "Mercator": GeoBox(HEIGHT, WIDTH, mercator, CRS.from_epsg(3857)),
        "none": GeoBox(HEIGHT, WIDTH, Affine.identity(), None),
    }
    assert {name: geobox.resolution for name, geobox in grids.items()} == {
        "UTM": 0.3,
        "degrees": pytest.approx(0.148, abs=0.0006),
        "feet": 0.61,
        "Mercator": pytest.approx(0.1325, abs=0.0006),
        "none": None,
    }


@pytest.mark.parametrize(
    ("values", "nodata", "expected"),
    [
        pytest.param([0, 1, 0, 1], None, [0, 1, 0, 1], id="0 and 1"),
        pytest.param([0, 255, 7, 0], None, [0, 1, 1, 0], id="any but 0 is building"),
        pytest.param([0, 1, 255, 1], 255, [0, 1, 255, 1], id="nodata is ignored"),
        pytest.param([0, 255, 0, 255], 0, [0, 1, 0, 1], id="nodata 0 is background"),
    ],
)
def test_values_of_a_mask(tmp_path, values, nodata, expected):
    row = np.array([values], np.uint8)
    with open_raster(write_raster(tmp_path / "a.tif", row, nodata=nodata)) as source:
        mask = read_mask(source, Window(0, 0, 1, 4))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [expected]


def test_a_mask_in_colour_is_building_where_any_band_is_not_zero(tmp_path):
    values = np.zeros((2, 3, 3), np.uint8)
    values[0, 2, 1] = 200
    with open_raster(write_raster(tmp_path / "a.tif", values)) as source:
        mask = read_mask(source, Window(0, 0, 2, 3))
    assert mask.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_a_written_mask_reads_the_same_and_lies_in_the_same_place(tmp_path):
    mask = np.random.default_rng(3).choice([0, 1, 255], (30, WIDTH)).astype(np.uint8)
    with create_mask(tmp_path / "a.tif", GRID, {"threshold": 0.5}) as writer:
        writer.write(mask[:20], Window(0, 0, 20, WIDTH))
        writer.write(mask[20:], Window(20, 0, 10, WIDTH))
    with open_raster(tmp_path / "a.tif") as source:
        assert geobox_of(source) == GRID
        assert source.tags()["threshold"] == "0.5"
        assert (source.nodata, source.dtypes) == (255, ("uint8",))
        assert source.block_shapes == [(512, 512)]
        written = read_mask(source, WHOLE)
    np.testing.assert_array_equal(written[:30], mask)
    assert (written[30:] == 255).all()  # never written
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_mask_that_failed_leaves_nothing_and_spares_the_old_one(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), create_mask(path, GRID) as writer:
        writer.write(np.ones((HEIGHT, WIDTH), np.uint8), WHOLE)
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("a.tif", "old")
    ]


@pytest.mark.parametrize("settings", [{}, {"cog": True}, {"overviews": True}])
@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_mask_that_does_not_fit_on_the_disk_is_an_error(tmp_path, size, settings):
    values = np.random.default_rng(3).integers(0, 255, (700, 600), dtype=np.uint8)
    path = tmp_path / "a.tif"
    geobox = GRID._replace(height=700, width=600)

    def write_values():
        with create_mask(path, geobox, **settings) as writer:
            writer.write(values[:300], Window(0, 0, 300, 600))
            writer.write(values[300:], Window(300, 0, 400, 600))

    with (
        full_disk(size),
        pytest.raises(OSError, match=r"cannot write .*a\..*tif: is the disk full\?$"),
    ):
        write_values()
    assert not list(tmp_path.iterdir())
    write_values()
    with open_raster(path) as source:
        np.testing.assert_array_equal(source.read(1), values)


def test_a_large_mask_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setitem(raster.MASK_PROFILE, "sparse_ok", True)
    large = GRID._replace(height=70_000, width=70_000)
    for geobox, magic in ((GRID, 42), (large, 43)):
        with create_mask(tmp_path / "a.tif", geobox) as writer:
            writer.write(np.ones((1, 9), np.uint8), Window(0, 0, 1, 9))
        with (tmp_path / "a.tif").open("rb") as file:
            assert int.from_bytes(file.read(4)[2:], "little") == magic


def test_a_raster_without_georeference_is_read_and_written_without_a_warning(tmp_path):
    geobox = GeoBox(HEIGHT, WIDTH, Affine.identity(), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasterio.errors.NotGeoreferencedWarning)
        with create_mask(tmp_path / "a.tif", geobox):
            pass
        with open_raster(tmp_path / "a.tif") as source:
            assert geobox_of(source) == geobox


def test_a_file_must_be_there_and_be_a_raster(tmp_path):
    text = tmp_path / "notes.tif"
    text.write_text("no raster")
    with pytest.raises(FileNotFoundError, match=f"^no such file: {tmp_path}/b.tif$"):
        open_raster(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=f"^not a raster: {text}$"):
        open_raster(text)
    with pytest.raises(FileNotFoundError, match=f"^no such folder: {tmp_path}/no$"):
        create_mask(tmp_path / "no" / "a.tif", GRID).__enter__()


def test_a_truncated_raster_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(3), compress="deflate")
    content = path.read_bytes()
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(content[: len(content) // 2])
    with (
        open_raster(damaged) as source,
        pytest.raises(
            ValueError, match=f"^damaged raster: {damaged}, between row 0 and 40, "
        ),
    ):
        read_pixels(source, WHOLE)


def test_bands_must_exist(tmp_path):
    with (
        open_raster(write_raster(tmp_path / "a.tif", noise(3))) as source,
        pytest.raises(ValueError, match=r"bands must be from 1 to 3, got \[1, 4\]"),
    ):
        read_pixels(source, WHOLE, band_indexes=[1, 4])


def test_a_palette_is_no_picture(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(1, high=3), photometric="palette")
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)})
    with (
        open_raster(path) as source,
        pytest.raises(ValueError, match="not a palette"),
    ):
        read_pixels(source, WHOLE)


def test_a_site_has_the_length_of_its_own_unit():
    for unit, metres in (("metre", 1), ("foot", 0.3048)):
        site = CRS.from_wkt(f'LOCAL_CS["site",UNIT["{unit}",{metres}]]')
        geobox = GeoBox(90, 60, Affine.scale(0.5, -0.25), site)
        expected = float(f"{metres * np.sqrt(0.125):.3g}")
        assert geobox.resolution == expected


@pytest.mark.parametrize(
    "transform",
    [
        Affine(np.inf, 0, 0, 0, -1, 0),
        Affine(1, 0, np.nan, 0, -1, 0),
        Affine(0, 0, 5, 0, 0, 5),
        Affine(1, 1, 0, 1, 1, 0),
    ],
)
def test_pixels_must_be_placed(tmp_path, transform):
    path = tmp_path / "a.tif"
    write_raster(path, np.ones((5, 6), "uint8"), transform=transform)
    with pytest.raises(ValueError, match="transform that can be inverted"):
        raster.open_raster(path)


def test_coordinates_must_lie_within_their_crs(tmp_path):
    place = from_origin(1e12, 1e12, 1, 1)
    path = tmp_path / "a.tif"
    write_raster(path, np.ones((5, 6), "uint8"), transform=place)
    with raster.open_raster(path) as source, pytest.raises(ValueError, match="CRS"):
        _ = geobox_of(source).resolution


def test_complex_values_are_no_picture(tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, np.ones((5, 6), "complex64"))
    with pytest.raises(ValueError, match="real values, not complex ones"):
        raster.open_raster(path)


def test_what_is_no_number_in_a_mask_is_unknown(tmp_path):
    path = tmp_path / "a.tif"
    values = np.array([[0, 1, np.nan], [2, 0, 1]], "float32")
    write_raster(path, values)
    with raster.open_raster(path) as source:
        mask = raster.read_mask(source, Window(0, 0, 2, 3))
    assert mask.tolist() == [[0, 1, 255], [1, 0, 1]]


@pytest.mark.parametrize("old", [False, True])
def test_our_probabilities_are_no_mask_though_they_are_whole_numbers(tmp_path, old):
    geobox = GeoBox(2, 2, CORNER, UTM)
    path = tmp_path / "a_prob.tif"
    values = np.array([[0, 127], [254, 255]], np.uint8)
    tags = {"threshold": 0.5} if old else {}
    with create_mask(path, geobox, tags, probabilities=not old) as target:
        target.write(values, Window(0, 0, 2, 2))
    with open_raster(path) as source:
        with pytest.raises(ValueError, match=r"got probabilities: .*a_prob"):
            raster.read_mask(source, Window(0, 0, 2, 2))
        read = raster.read_probabilities(source, Window(0, 0, 2, 2))
    assert read.tolist() == [[0.0, 0.5], [1.0, 255.0]]


def test_probabilities_are_no_mask(tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, np.array([[0, 0.3], [1, np.nan]], "float32"))
    with (
        raster.open_raster(path) as source,
        pytest.raises(ValueError, match="must have whole numbers"),
    ):
        raster.read_mask(source, Window(0, 0, 2, 2))
