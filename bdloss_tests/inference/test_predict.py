import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from bdloss.geo import raster
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_writer import write_outlines
from bdloss.inference.batch_size import find_batch
from bdloss.inference.predict import merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.sliding_window import predict_array
from bdloss.inference.strip_prediction import predict_strips
from bdloss.inference.strips import StripStore
from bdloss_tests.inference.stand_ins import blended, pointwise, several
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

SMALL = {"window": 16, "overlap": 4, "batch": 3}


def draw_image(height, width, bands=3, seed=5):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, bands), dtype=np.uint8)


def read_band(path):
    with rasterio.open(path) as source:
        return source.read(1)


def predict_whole(pixels, predict, window, overlap, tta):
    """The same in float64, one window at a time, with accumulators as large as all."""

    def place(length):
        last = max(length - window, 0)
        return sorted({min(at, last) for at in range(0, length, window - overlap)})

    def reflect(length):
        """Row of the image that each row of the window shows."""
        if length == 1:
            return np.zeros(window, int)
        period = 2 * length - 2
        at = np.arange(window) % period
        return np.minimum(at, period - at)

    height, width, _ = pixels.shape
    sine = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total, weight = np.zeros((2, height, width))
    for top in place(height):
        for left in place(width):
            part = pixels[top : top + window, left : left + window]
            rows, columns = part.shape[:2]
            down = np.arange(window) if rows == window else reflect(rows)
            across = np.arange(window) if columns == window else reflect(columns)
            patch = part[down][:, across][None]
            maps = [predict(patch)]
            if tta != "none":
                maps += [predict(patch[:, :, ::-1])[:, :, ::-1]]
                maps += [predict(patch[:, ::-1])[:, ::-1]]
                maps += [predict(patch[:, ::-1, ::-1])[:, ::-1, ::-1]]
            if tta == "d4":
                for turn in (1, 3):
                    turned = np.rot90(patch, turn, (1, 2))
                    maps += [np.rot90(predict(turned), -turn, (1, 2))]
                    mirrored = turned[:, ::-1]
                    maps += [np.rot90(predict(mirrored)[:, ::-1], -turn, (1, 2))]
            values = np.mean(maps, axis=0)[0, :rows, :columns, 0]
            weights = np.outer(sine[:rows], sine[:columns])
            total[top : top + rows, left : left + columns] += weights * values
            weight[top : top + rows, left : left + columns] += weights
    return total / weight


@st.composite
def tasks(draw):
    window = draw(st.integers(1, 48))
    return {
        "height": draw(st.integers(1, 100)),
        "width": draw(st.integers(1, 100)),
        "window": window,
        "overlap": draw(st.integers(0, min(window - 1, 3 * window // 4))),
        "batch": draw(st.integers(1, 7)),
        "tta": draw(st.sampled_from(["none", "flips", "d4"])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@pytest.mark.parametrize(
    ("predict", "tolerance"),
    [
        pytest.param(pointwise, 1e-6, id="pointwise"),
        pytest.param(blended, 1e-5, id="blended"),
    ],
)
@settings(max_examples=40, deadline=None)
@given(task=tasks())
def test_stream_equals_whole_array(predict, tolerance, task):
    if task["window"] < 6:  # thousands of windows: on a smaller image
        task |= {"height": task["height"] // 4 + 1, "width": task["width"] // 4 + 1}
    pixels = draw_image(task["height"], task["width"], seed=task["seed"])
    settings = {key: task[key] for key in ("window", "overlap", "tta")}
    streamed = predict_array(pixels, predict, batch=task["batch"], **settings)
    assert streamed.dtype == np.float32
    expected = predict_whole(pixels, predict, **settings)
    np.testing.assert_allclose(streamed, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 70), (53, 1), (9, 11), (16, 16), (47, 83)]
)
@pytest.mark.parametrize("predict", [pointwise, blended])
def test_odd_sizes(height, width, predict):
    pixels = draw_image(height, width)
    streamed = predict_array(pixels, predict, **SMALL, tta="d4")
    expected = predict_whole(pixels, predict, window=16, overlap=4, tta="d4")
    np.testing.assert_allclose(streamed, expected, rtol=0, atol=1e-5)


def test_constant_stays_constant_with_its_rim():
    pixels = np.full((61, 47, 3), 102, np.uint8)
    streamed = predict_array(pixels, pointwise, **SMALL, tta="flips")
    np.testing.assert_allclose(streamed, 0.4, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def network():
    """A U-Net that has seen nothing, but whose batch norm knows the image."""
    import keras

    from bdloss.models import build_model

    keras.utils.set_random_seed(4)
    model = build_model("plain", filters=6, blocks=2)
    for _ in range(20):
        model(draw_town(48, 64)[None], training=True)
    return model


def draw_town(height, width):
    return make_scene(6, height, width)[0]


def test_network_leaves_no_seam(network):
    """Across the edges of windows its map jumps as little as anywhere else."""
    pixels = draw_town(208, 256)
    whole = network.predict_on_batch(pixels[None])[0, ..., 0]
    assert whole.std() > 0.01

    def jumps(overlap):
        """Mean step at the edges of windows, and elsewhere, less that of the scene."""
        streamed = predict_array(
            pixels, network.predict_on_batch, window=64, overlap=overlap
        )
        steps = np.abs(np.diff(streamed - whole, axis=1)).mean(axis=0)
        edges = np.zeros(255, bool)
        for start in range(0, 256 - 64 + 1, 64 - overlap):
            edges[[max(start - 1, 0), min(start + 63, 254)]] = True
        edges[[0, 254]] = False
        return steps[edges].mean(), steps[~edges].mean()

    seam, elsewhere = jumps(overlap=0)
    assert seam > 3 * elsewhere  # what is to be avoided
    seam, elsewhere = jumps(overlap=32)
    assert seam < 1.5 * elsewhere


def test_model_sees_one_shape_of_uint8():
    seen = set()

    def predict(batch):
        seen.add((batch.shape, batch.dtype.name))
        return pointwise(batch)

    predict_array(draw_image(37, 50), predict, **SMALL, tta="d4")
    assert seen == {((3, 16, 16, 3), "uint8")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window must be 1 pixel or more, got 0"),
        ({"overlap": 16}, "smaller than the window, 16, got 16"),
        ({"overlap": -1}, "0 or more .*, got -1"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"tta": "d8"}, "none, flips, d4, got 'd8'"),
    ],
)
def test_settings_out_of_range(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        predict_array(draw_image(20, 20), pointwise, **SMALL | settings)
    image = write_raster(tmp_path / "image.tif", draw_image(20, 20))
    with pytest.raises(ValueError, match=message):
        predict_raster(image, pointwise, tmp_path / "mask.tif", **SMALL | settings)


@pytest.mark.parametrize(
    ("seconds", "limit", "expected"),
    [
        pytest.param(lambda n: 1 + n / 1000, 99, 64, id="more is faster"),
        pytest.param(lambda n: n / 100, 99, 4, id="more gains nothing"),
        pytest.param(lambda n: max(n, 16) / 100, 99, 16, id="until it is busy"),
        pytest.param(lambda n: 1 + n / 1000, 20, 16, id="until memory is used up"),
    ],
)
def test_fastest_batch(monkeypatch, seconds, limit, expected):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def predict(batch):
        assert (batch.shape[1:], batch.dtype) == ((8, 6, 3), np.uint8)
        if len(batch) > limit:
            raise RuntimeError("out of memory")
        clock[0] += seconds(len(batch))

    assert find_batch(predict, (8, 6, 3)) == expected


def test_a_model_that_cannot_take_the_smallest_batch_says_why():
    with pytest.raises(RuntimeError, match="out of memory"):
        find_batch(fail_late(0), (8, 8, 3))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"got uint8 of shape \(4, 5\)$"),
        (np.zeros((4, 5, 3), np.float32), r"got float32 of shape \(4, 5, 3\)$"),
    ],
)
def test_array_must_be_an_image(pixels, message):
    with pytest.raises(ValueError, match=message):
        predict_array(pixels, pointwise)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda batch: batch / 255, r"\(3, 16, 16, 1\), got \(3, 16, 16, 3\)"),
        (lambda batch: batch[:, 1:, :, :1] / 255, r"got \(3, 15, 16, 1\)"),
        (lambda batch: 0.0 * batch[..., :1] - 4, "from 0 to 1, got -4 to -4"),
        (lambda batch: 0.0 * batch[..., :1] + np.nan, "got nan to nan"),
    ],
)
def test_model_must_give_probabilities(predict, message):
    with pytest.raises(ValueError, match=message):
        predict_array(draw_image(20, 20), predict, **SMALL)


@pytest.mark.parametrize(
    ("height", "width"), [(61, 47), (100, 33), (9, 40), (50, 1), (1, 1)]
)
def test_raster_equals_array(tmp_path, height, width):
    pixels = draw_image(height, width)
    image = write_raster(tmp_path / "image.tif", pixels)
    mask, map_ = tmp_path / "mask.tif", tmp_path / "map.tif"
    done = []
    result = predict_raster(
        image,
        blended,
        mask,
        **SMALL,
        band_count=3,
        threshold=0.52,
        tta="flips",
        probability_path=map_,
        progress=done.append,
    )
    expected = predict_array(pixels, blended, **SMALL, tta="flips")
    np.testing.assert_array_equal(read_band(mask), expected >= 0.52)
    np.testing.assert_array_equal(read_band(map_), np.rint(254 * expected))
    assert (result.pixels, result.masked, result.building) == (
        height * width,
        0,
        (expected >= 0.52).sum(),
    )
    assert sum(done) == pytest.approx(height * width / 1e6)


def test_each_of_several_maps_is_predicted_as_if_it_were_alone():
    pixels = draw_image(37, 50)
    maps = predict_array(pixels, several, **SMALL, tta="flips", maps=3)
    assert maps.shape == (37, 50, 3)
    for number in range(3):

        def alone(batch, number=number):
            return several(batch)[..., number : number + 1]

        expected = predict_array(pixels, alone, **SMALL, tta="flips")
        np.testing.assert_array_equal(maps[..., number], expected)


@pytest.mark.parametrize("resolution", [None, 0.2, 0.5])
def test_strips_hold_the_class_and_the_probability_of_each_map(tmp_path, resolution):
    pixels = draw_image(61, 47)
    pixels[20:30, 5:40] = 0
    image = Orthophoto.read(write_raster(tmp_path / "image.tif", pixels, nodata=0))
    how = InferenceSettings(**SMALL, threshold=0.55, resolution=resolution)
    store, whole = StripStore(tmp_path / "rows"), {}
    targets = ("house", "road", "contact")
    predict_strips(image, several, how, store, targets=targets)
    layers = np.concatenate([part for _, part in store.read()], axis=1)
    assert layers.shape == (4, 61, 47)
    assert (layers[:, 20:30, 5:40] == 255).all()
    for number in range(3):
        one = StripStore(tmp_path / f"one{number}")
        predict_strips(image, lambda b, n=number: several(b)[..., n : n + 1], how, one)
        whole = np.concatenate([part for _, part in one.read()], axis=1)
        np.testing.assert_array_equal(layers[1 + number], whole[1])
    first, second = layers[1:3].astype(int)
    classes = layers[0]
    assert set(np.unique(classes)) == {0, 1, 2, 255}
    assert (first[classes == 1] >= second[classes == 1]).all()
    assert (second[classes == 2] >= first[classes == 2]).all()
    assert (np.maximum(first, second)[classes == 0] <= np.rint(254 * 0.55)).all()


def test_windows_that_are_all_masked_have_as_many_layers(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(20, 20) * 0, nodata=0)
    store = StripStore(tmp_path / "rows")
    how = InferenceSettings(**SMALL)
    targets = ("house", "road", "contact")
    predict_strips(Orthophoto.read(image), several, how, store, targets=targets)
    layers = np.concatenate([part for _, part in store.read()], axis=1)
    assert layers.shape == (4, 20, 20)
    assert (layers == 255).all()


@pytest.mark.parametrize(
    ("dtype", "profile"),
    [
        pytest.param("uint8", {}, id="plain"),
        pytest.param("float32", {"nodata": np.nan}, id="float with NaN"),
        pytest.param(
            "uint8",
            {"compress": "jpeg", "photometric": "ycbcr", "tiled": True},
            id="JPEG",
        ),
        pytest.param("uint16", {"nodata": 0}, id="16 bit"),
    ],
)
def test_mask_lies_on_the_grid_of_the_raster(tmp_path, dtype, profile):
    pixels = draw_image(61, 47).astype(dtype)
    image = write_raster(tmp_path / "image.tif", pixels, **profile)
    paths = tmp_path / "mask.tif", tmp_path / "map.tif"
    predict_raster(
        image,
        pointwise,
        paths[0],
        **SMALL,
        probability_path=paths[1],
        tags={"model": "unet"},
    )
    for path in paths:
        with rasterio.open(path) as written:
            assert written.crs == UTM
            assert written.transform == CORNER
            assert written.shape == (61, 47)
            assert written.dtypes == ("uint8",)
            assert written.nodata == 255
            tags = written.tags()
        assert tags["model"] == "unet"
        assert tags["threshold"] == "0.5"
        assert tags["overlap"] == "4"


@pytest.mark.parametrize("masked_by", ["nodata", "alpha"])
def test_masked_pixels_stay_masked(tmp_path, masked_by):
    pixels = np.maximum(draw_image(61, 47), 1)
    masked = np.zeros((61, 47), bool)
    masked[20:41, 5:] = True
    masked[0, 3] = True
    if masked_by == "nodata":
        pixels[masked] = 0
        image = write_raster(tmp_path / "image.tif", pixels, nodata=0)
    else:
        alpha = np.where(masked, 0, 255).astype(np.uint8)
        image = write_raster(
            tmp_path / "image.tif",
            np.dstack([pixels, alpha]),
            photometric="rgb",
            alpha="yes",
        )
    mask, map_ = tmp_path / "mask.tif", tmp_path / "map.tif"
    result = predict_raster(
        image, pointwise, mask, **SMALL, band_count=3, probability_path=map_
    )
    expected = pixels[..., 0] / np.float32(255)
    np.testing.assert_array_equal(
        read_band(mask), np.where(masked, 255, expected >= 0.5)
    )
    np.testing.assert_array_equal(
        read_band(map_), np.where(masked, 255, np.rint(254 * expected))
    )
    assert result.masked == masked.sum()
    assert result.building == (expected >= 0.5)[~masked].sum()


@pytest.mark.parametrize(
    ("resolution", "shape"), [(0.6, (60, 42)), (0.15, (240, 168)), (0.41, (88, 61))]
)
def test_model_sees_its_resolution_and_the_mask_has_the_rasters(
    tmp_path, resolution, shape
):
    rows, columns = np.mgrid[:120, :84]
    wave = 127 + 100 * np.sin(rows / 13) * np.cos(columns / 11)
    pixels = np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)
    image = write_raster(tmp_path / "image.tif", pixels)
    map_ = tmp_path / "map.tif"
    seen = []

    def predict(batch):
        seen.append(len(batch))
        return pointwise(batch)

    predict_raster(
        image,
        predict,
        tmp_path / "mask.tif",
        **{**SMALL, "batch": 1},
        resolution=resolution,
        probability_path=map_,
    )
    expected = [len(range(0, side - 16, 12)) + 1 for side in shape]
    assert len(seen) == expected[0] * expected[1]
    with rasterio.open(map_) as written:
        assert (written.transform, written.shape) == (CORNER, (120, 84))
        probability = written.read(1) / 254
    # Half a pixel of a shift would be 0.02 in the mean and 0.04 at most.
    error = np.abs(probability - pixels[..., 0] / 255)
    assert error.mean() < 0.005
    assert error.max() < 0.03


def test_resampled_rows_are_the_same_wherever_a_run_goes_on(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    settings = {**SMALL, "resolution": 0.47, "threshold": 0.52}
    predict_raster(image, blended, tmp_path / "whole.tif", **settings)
    calls = iter(range(3))

    def fail(batch):
        if next(calls, None) is None:
            raise RuntimeError("out of memory")
        return blended(batch)

    mask = tmp_path / "mask.tif"
    with pytest.raises(RuntimeError):
        predict_raster(image, fail, mask, **settings, resume=True)
    assert list((tmp_path / "mask.partial").glob("*.gz"))
    predict_raster(image, blended, mask, **settings, resume=True)
    np.testing.assert_array_equal(read_band(mask), read_band(tmp_path / "whole.tif"))


def test_resampling_needs_to_know_the_ground(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(30, 20), crs=None)
    with pytest.raises(ValueError, match=r"a raster with a CRS, got 0\.6 and None"):
        predict_raster(image, pointwise, tmp_path / "mask.tif", resolution=0.6)


def test_masked_windows_are_not_predicted(tmp_path):
    pixels = np.zeros((160, 40, 3), np.uint8)
    pixels[:20, :20] = 200
    pixels[-20:, -20:] = 200
    image = write_raster(tmp_path / "image.tif", pixels, nodata=0)
    seen = []

    def predict(batch):
        seen.append(batch.any(axis=(1, 2, 3)).all())
        return pointwise(batch)

    result = predict_raster(image, predict, tmp_path / "mask.tif", **SMALL)
    mask = read_band(tmp_path / "mask.tif")
    np.testing.assert_array_equal(mask, np.where(pixels[..., 0] == 0, 255, 1))
    assert all(seen)
    assert len(seen) == 3  # 8 windows with pixels, of 42, by threes
    assert (result.pixels, result.masked, result.building) == (6400, 5600, 800)


def test_raster_that_is_masked_altogether(tmp_path):
    image = write_raster(
        tmp_path / "image.tif", np.zeros((30, 20, 3), np.uint8), nodata=0
    )
    result = predict_raster(image, pytest.fail, tmp_path / "mask.tif", **SMALL)
    assert (read_band(tmp_path / "mask.tif") == 255).all()
    assert (result.pixels, result.masked, result.building) == (600, 600, 0)


def test_band_count_unlike_the_models(tmp_path):
    image = write_raster(tmp_path / "grey.tif", draw_image(20, 20, bands=1))
    with pytest.raises(ValueError, match=r"model takes 3 bands, grey\.tif has 1"):
        predict_raster(image, pointwise, tmp_path / "mask.tif", **SMALL, band_count=3)
    assert [path.name for path in tmp_path.iterdir()] == ["grey.tif"]


def test_threshold_out_of_range(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(20, 20))
    with pytest.raises(ValueError, match="threshold must be 0 to 1, got 127"):
        predict_raster(image, pointwise, tmp_path / "mask.tif", threshold=127)


def test_output_is_not_overwritten_unasked(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(20, 20))
    mask, map_ = tmp_path / "mask.tif", tmp_path / "map.tif"
    map_.write_text("precious")
    with pytest.raises(FileExistsError, match=r"map\.tif"):
        predict_raster(image, pointwise, mask, **SMALL, probability_path=map_)
    assert map_.read_text() == "precious"
    assert not mask.exists()
    predict_raster(
        image, pointwise, mask, **SMALL, probability_path=map_, overwrite=True
    )
    assert read_band(map_).shape == (20, 20)


def test_raster_is_not_its_own_mask(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(20, 20))
    before = image.read_bytes()
    with pytest.raises(ValueError, match="must not replace an input"):
        predict_raster(image, pointwise, image, **SMALL, overwrite=True)
    with pytest.raises(ValueError, match="different files"):
        predict_raster(
            image,
            pointwise,
            tmp_path / "mask.tif",
            **SMALL,
            probability_path=tmp_path / "mask.tif",
        )
    assert image.read_bytes() == before


def test_no_such_raster(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predict_raster(tmp_path / "nowhere.tif", pointwise, tmp_path / "mask.tif")
    assert not list(tmp_path.iterdir())


def fail_late(batches):
    """A model that fails after some batches."""
    calls = iter(range(batches))

    def predict(batch):
        if next(calls, None) is None:
            raise RuntimeError("out of memory")
        return pointwise(batch)

    return predict


@pytest.mark.parametrize("batches", [0, 4])
def test_failing_model_leaves_no_file(tmp_path, batches):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="out of memory") as error:
        predict_raster(
            image,
            fail_late(batches),
            tmp_path / "mask.tif",
            **SMALL,
            probability_path=tmp_path / "map.tif",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]
    # At rest although the traceback keeps everything alive.
    assert error.tb
    assert set(threading.enumerate()) <= before


def test_failing_run_leaves_the_older_mask(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    mask = tmp_path / "mask.tif"
    predict_raster(image, pointwise, mask, **SMALL)
    before = mask.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_raster(image, fail_late(4), mask, **SMALL, overwrite=True)
    assert mask.read_bytes() == before


def test_failing_progress_leaves_no_file(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    before = set(threading.enumerate())

    def interrupt(megapixels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        predict_raster(
            image, pointwise, tmp_path / "mask.tif", **SMALL, progress=interrupt
        )
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]
    assert error.tb
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("thread", ["read_pixels", "read_valid"])
def test_errors_of_the_threads_surface(tmp_path, monkeypatch, thread):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    caller = threading.get_ident()
    where = []

    def fail(source, window, *bands):
        where.append(threading.get_ident())
        if thread == "read_valid" and window.width < 40:
            return np.ones((window.height, window.width), bool)  # the reading thread
        raise OSError("disk lost")

    monkeypatch.setattr(f"bdloss.geo.raster.{thread}", fail)
    with pytest.raises(OSError, match="disk lost"):
        predict_raster(image, pointwise, tmp_path / "mask.tif", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]
    assert caller not in where


def test_truncated_raster_is_an_error(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(300, 40), blockysize=16)
    image.write_bytes(image.read_bytes()[:20_000])
    with pytest.raises((ValueError, OSError)):
        predict_raster(image, pointwise, tmp_path / "mask.tif", **SMALL)
    assert not (tmp_path / "mask.tif").exists()


SLOW = """
import sys, time
from bdloss.inference.predict import predict_raster
from bdloss_tests.inference.stand_ins import blended

def predict(batch):
    time.sleep(0.01)
    return blended(batch)

predict_raster(sys.argv[1], predict, sys.argv[2], probability_path=sys.argv[3],
               window=16, overlap=4, batch=3, threshold=0.52, resume=True)
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_result(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(250, 170))
    undisturbed = [tmp_path / "whole" / "mask.tif", tmp_path / "whole" / "map.tif"]
    undisturbed[0].parent.mkdir()
    settings = {**SMALL, "threshold": 0.52, "probability_path": undisturbed[1]}
    predict_raster(image, blended, undisturbed[0], **settings)
    paths = [tmp_path / "out" / "mask.tif", tmp_path / "out" / "map.tif"]
    paths[0].parent.mkdir()
    draw = random.Random(4)
    kills = 0
    # Finished are they only when the strips are gone, all of them.
    while not paths[1].exists() or list(paths[0].parent.glob("mask.partial*")):
        run = subprocess.Popen([sys.executable, "-c", SLOW, image, *paths])
        bands = paths[0].with_name("mask.partial")
        before = len(list(bands.glob("*.gz")))
        while run.poll() is None and len(list(bands.glob("*.gz"))) <= before:
            time.sleep(0.002)
        try:  # some milliseconds after it has finished a band of its own
            run.wait(draw.uniform(0, 0.4))
            assert run.returncode == 0
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
        for path, whole in zip(paths, undisturbed, strict=True):
            if path.exists():
                np.testing.assert_array_equal(read_band(path), read_band(whole))
    assert kills >= 2
    for path, whole in zip(paths, undisturbed, strict=True):
        np.testing.assert_array_equal(read_band(path), read_band(whole))
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)


def test_killed_between_two_outputs_it_goes_on(tmp_path, monkeypatch):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    mask, map_ = tmp_path / "mask.tif", tmp_path / "map.tif"
    settings = {**SMALL, "probability_path": map_, "resume": True}
    with monkeypatch.context() as patch:
        patch.setattr("bdloss.inference.strips.StripStore.remove", lambda bands: None)
        predict_raster(image, pointwise, mask, **settings)
    map_.unlink()
    predict_raster(image, pytest.fail, mask, **settings)
    expected = draw_image(90, 40)[..., 0] / np.float32(255)
    np.testing.assert_array_equal(read_band(map_), np.rint(254 * expected))
    assert sorted(tmp_path.iterdir()) == [image, map_, mask]


def test_a_failed_run_that_may_be_resumed_keeps_its_bands(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    mask = tmp_path / "mask.tif"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_raster(image, fail_late(6), mask, **SMALL, resume=True)
    assert not mask.exists()
    done = []
    calls = []

    def count(batch):
        calls.append(1)
        return pointwise(batch)

    predict_raster(image, count, mask, **SMALL, resume=True, progress=done.append)
    assert len(calls) < 8  # batches in all
    assert sum(done) == pytest.approx(90 * 40 / 1e6)
    expected = draw_image(90, 40)[..., 0] / np.float32(255) >= 0.5
    np.testing.assert_array_equal(read_band(mask), expected)


def test_reading_does_not_run_away(tmp_path, monkeypatch):
    """However slow the model, few windows are ahead of it."""
    pixels = draw_image(900, 16)
    read, predicted = [], []

    class Counted:
        ndim, dtype, shape = pixels.ndim, pixels.dtype, pixels.shape

        def __getitem__(self, slices):
            read.append(1)
            return pixels[slices]

    def predict(batch):
        predicted.append(len(batch))
        assert len(read) <= sum(predicted) + 3 * len(batch)
        return pointwise(batch)

    predict_array(Counted(), predict, **SMALL)
    assert len(read) == 75


def test_memory_does_not_grow_with_height(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(12_000, 64))
    settings = {"window": 64, "overlap": 16, "batch": 2}
    tracemalloc.start()
    predict_raster(image, pointwise, tmp_path / "mask.tif", **settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000 * 64 * 4 / 3  # bytes: a third of the whole map in float32


@st.composite
def areas(draw):
    """A polygon that reaches into a raster of 61 x 47, by columns and rows."""
    x, y = draw(st.floats(2, 45)), draw(st.floats(2, 59))
    angles = sorted(draw(st.lists(st.floats(0, 6), min_size=3, max_size=6)))
    far = [draw(st.floats(1, 40)) for _ in angles]
    points = [
        (x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(far, angles, strict=True)
    ]
    return shapely.convex_hull(
        shapely.MultiPoint([(x, y), (x + 2, y), (x, y + 2), *points])
    )


@settings(max_examples=20, deadline=None)
@given(
    shape=areas(),
    window=st.integers(3, 20),
    overlap=st.integers(0, 2),
    resolution=st.sampled_from([None, 0.47, 0.19]),
    edge=st.sampled_from(["cut", "whole"]),
    parts=st.integers(1, 3),
)
def test_within_an_area_the_maps_are_those_of_the_whole(
    tmp_path_factory, shape, window, overlap, resolution, edge, parts
):
    folder = tmp_path_factory.mktemp("area")
    image = write_raster(folder / "image.tif", draw_image(61, 47))
    path = folder / "area.gpkg"
    on_ground = shapely.transform(
        shape, lambda xy: xy * (0.3, -0.3) + (353900, 3057500)
    )
    write_outlines(path, [on_ground], UTM)
    how = {"window": window, "overlap": overlap, "batch": 3, "resolution": resolution}
    how |= {"threshold": 0.52}
    whole = Products.in_folder(folder / "whole", "a", prob=True, polygons=False)
    predict_raster(image, blended, whole, **how)
    here = Products.in_folder(folder / "here", "a", prob=True, polygons=False)
    orthophoto = Orthophoto.read(image).within(path, edge=edge)
    for part in range(parts):
        predict_raster(orthophoto, blended, here, **how, shard=(part + 1, parts))
    result = merge_shards(image, here) if parts > 1 else None
    columns, rows = np.meshgrid(np.arange(47) + 0.5, np.arange(61) + 0.5)
    inside = shapely.contains_xy(shape, columns, rows)
    sure = shapely.distance(shape.boundary, shapely.points(columns, rows)) > 0.002
    for one, other in zip(here.paths, whole.paths, strict=True):
        expected = np.where(inside, read_band(other), 255)
        np.testing.assert_array_equal(read_band(one)[sure], expected[sure])
    assert result is None or result.masked == (read_band(here.mask) == 255).sum()


def test_windows_outside_of_an_area_are_neither_read_nor_predicted(
    tmp_path, monkeypatch
):
    image = write_raster(tmp_path / "image.tif", draw_image(600, 500))
    west, north = CORNER @ (213, 131)
    east, south = CORNER @ (260, 172)
    orthophoto = Orthophoto.read(image).within((west, south, east, north))
    read, predicted = [], []

    def note(read_some):
        def noted(source, window, *more):
            read.append(window)
            return read_some(source, window, *more)

        return noted

    def predict(batch):
        predicted.append(len(batch))
        return pointwise(batch)

    for name in ("read_pixels", "read_valid"):
        monkeypatch.setattr(raster, name, note(getattr(raster, name)))
    progress = []
    settings = {**SMALL, "batch": 1, "progress": progress.append}
    result = predict_raster(orthophoto, predict, tmp_path / "mask.tif", **settings)
    # Windows of 16 begin at each 12th pixel.
    down = [row for row in range(0, 585, 12) if row < 172 and row + 16 > 131]
    across = [col for col in range(0, 485, 12) if col < 260 and col + 16 > 213]
    assert sum(predicted) == len(down) * len(across) == 25
    assert len(read) < 2 * sum(predicted) + len(down) + 2
    for window in read:
        assert down[0] <= window.row <= window.row + window.height <= down[-1] + 16
        assert across[0] <= window.col <= window.col + window.width <= across[-1] + 16
    assert result.pixels - result.masked == 41 * 47
    assert sum(progress) == pytest.approx(41 * 47 / 1e6)


def test_memory_does_not_grow_with_what_lies_around_an_area(tmp_path):
    image = write_raster(tmp_path / "image.tif", draw_image(300, 40_000, bands=1))
    west, north = CORNER @ (30_000, 100)
    orthophoto = Orthophoto.read(image).within((west, north - 30, west + 30, north))
    tracemalloc.start()
    predict_raster(orthophoto, pointwise, tmp_path / "mask.tif", window=64, overlap=16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 40_000 * 4 / 3  # bytes: a third of a row of windows in float32


@pytest.mark.parametrize(
    ("source", "edge"),
    [((0, 0, 1e6, 1e7), "whole"), ((0, 3057490, 1e6, 1e7), "cut"), (None, None)],
)
def test_another_area_is_another_result(tmp_path, source, edge):
    image = write_raster(tmp_path / "image.tif", draw_image(90, 40))
    mask = tmp_path / "out" / "mask.tif"
    first = Orthophoto.read(image).within((0, 0, 1e6, 1e7))
    other = Orthophoto.read(image)
    if source is not None:
        other = other.within(source, edge=edge)
    with pytest.raises(RuntimeError):
        predict_raster(first, fail_late(6), mask, **SMALL, resume=True)
    with pytest.raises(ValueError, match=r"begun with aoi cut \w+, not (cut|whole|no)"):
        predict_raster(other, pointwise, mask, **SMALL, resume=True)
    predict_raster(first, pointwise, mask, **SMALL, resume=True)
    assert predict_raster(first, pytest.fail, mask, **SMALL, resume=True).kept
    with pytest.raises(FileExistsError, match=r"made with aoi cut \w+, not"):
        predict_raster(other, pointwise, mask, **SMALL, resume=True)
