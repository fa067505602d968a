"""A wide raster is predicted panel by panel, and nobody can tell from what is made."""

import numpy as np
import pytest
import rasterio

from bdloss.geo import orthophoto, windows
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.vector import read_table
from bdloss.geo.windows import panels
from bdloss.inference import strips
from bdloss.inference.margin import Margin
from bdloss.inference.predict import merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss_tests.inference.stand_ins import PREDICTOR, blended
from bdloss_tests.scenes import UTM, make_rows, write_raster

SMALL = {"window": 32, "overlap": 8, "batch": 2}
WIDTH = 300
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}
AREA = (353910.0, 3057470.0, 353980.0, 3057495.0)


@pytest.fixture
def wide(tmp_path):
    pixels, _ = make_rows(4, 130, WIDTH)
    pixels[50:90, 100:180] = 0
    return write_raster(tmp_path / "wide.tif", pixels, nodata=0, **TILED)


@pytest.fixture
def in_panels(monkeypatch):
    """Called, makes panels of a few dozen columns and pieces of a few rows."""

    def patch():
        monkeypatch.setattr(orthophoto, "PANEL_WIDTH", 50)
        monkeypatch.setattr(windows, "TILE", 16)
        monkeypatch.setattr(strips, "PIXELS_AT_A_TIME", 5 * WIDTH)

    return patch


def products(folder):
    return Products(
        mask=folder / "mask.tif",
        probabilities=folder / "prob.tif",
        polygons=folder / "houses.gpkg",
        overlay=folder / "picture.png",
        min_area=0.5,
    )


def contents(out):
    """All that products hold, but for the tags of their rasters."""
    arrays = []
    for path in (out.mask, out.probabilities):
        with rasterio.open(path) as source:
            arrays.append(source.read().tolist())
    houses, facts = read_table(out.polygons, UTM, ["id", "area_m2", "probability"])
    assert len(houses) > 3
    columns = {name: column.tolist() for name, column in facts.items()}
    return arrays, houses, columns, out.overlay.read_bytes()


@pytest.mark.parametrize("resolution", [None, 0.2, 0.5])
@pytest.mark.parametrize("area", [None, AREA], ids=["whole", "area"])
def test_panels_make_what_one_makes(wide, tmp_path, in_panels, resolution, area):
    image = Orthophoto.read(wide)
    image = image.within(area) if area else image
    how = {**SMALL, "tta": "flips", "resolution": resolution}
    assert image.panels == 1
    one, several = (products(tmp_path / name) for name in ("one", "several"))
    made = [predict_raster(image, blended, one, **how)]
    in_panels()
    assert image.panels > 3
    progress = []
    made.append(
        predict_raster(image, blended, several, progress=progress.append, **how)
    )
    assert contents(several) == contents(one)
    assert sum(progress) == pytest.approx(
        image.window.height * image.window.width / 1e6
    )
    assert (made[1].masked, made[1].building) == (made[0].masked, made[0].building)


@pytest.mark.parametrize("by", ["distance", "probability"])
def test_the_margin_is_the_same_in_panels(wide, tmp_path, in_panels, by):
    found = Margin(
        radius=0.8, doubt=0.3, alpha=0.2, unit="scene", units=9, model="bright"
    )
    how = {"margin": found, "margin_by": by, "min_area": 0.5}
    one, several = (
        Products.in_folder(tmp_path / name, "a", **how) for name in ("one", "several")
    )
    predict_raster(wide, PREDICTOR, one)
    in_panels()
    predict_raster(wide, PREDICTOR, several)
    bands = []
    for made in (one, several):
        with rasterio.open(made.band) as source:
            bands.append(source.read(1))
    assert {0, 1, 255} == set(np.unique(bands[0]))
    np.testing.assert_array_equal(*bands)


@pytest.mark.parametrize("shards", [1, 3])
def test_panels_that_were_stopped_go_on_to_the_same(wide, tmp_path, in_panels, shards):
    one, several = (products(tmp_path / name) for name in ("one", "several"))
    predict_raster(wide, blended, one, **SMALL)
    in_panels()
    calls = 0

    def until_stopped(batch):
        nonlocal calls
        calls += 1
        if calls % 20 == 0:
            raise KeyboardInterrupt
        return blended(batch)

    stops = 0
    for part in range(1, shards + 1):
        while True:
            try:
                predict_raster(
                    wide,
                    until_stopped,
                    several,
                    shard=(part, shards),
                    resume=True,
                    **SMALL,
                )
                break
            except KeyboardInterrupt:
                stops += 1
    assert stops > 2
    if shards > 1:
        merge_shards(wide, several)
    assert contents(several) == contents(one)


def test_a_panel_that_is_not_whole_is_not_merged(wide, tmp_path, in_panels):
    in_panels()
    out = products(tmp_path / "out")
    for part in (1, 2):
        predict_raster(wide, blended, out, shard=(part, 2), **SMALL)
    sorted(out.store.folder.glob("*.npy.gz"))[-1].unlink()
    with pytest.raises(ValueError, match=r"rows from \d+ on are missing"):
        merge_shards(wide, out)
    assert [path.name for path in out.mask.parent.iterdir()] == ["mask.partial"]


def test_other_panels_are_not_gone_on_with(wide, tmp_path, in_panels):
    out = products(tmp_path / "out")
    predict_raster(wide, blended, out, shard=(1, 2), **SMALL)
    in_panels()
    with pytest.raises(ValueError, match="begun with panels 1, not 6"):
        predict_raster(wide, blended, out, shard=(2, 2), **SMALL)


def test_a_raster_in_rows_is_not_cut(tmp_path, in_panels):
    in_panels()
    pixels, _ = make_rows(4, 60, WIDTH)
    path = write_raster(tmp_path / "rows.tif", pixels)
    assert Orthophoto.read(path).block_width == WIDTH
    assert Orthophoto.read(path).panels == 1


def test_panels_cover_a_window_in_whole_tiles():
    window = windows.Window(row=3, col=700, height=9, width=30_000)
    parts = panels(window, 4)
    assert sum(part.width for part in parts) == 30_000
    assert [part.col % 512 for part in parts[1:]] == [0, 0, 0]
    assert {(part.row, part.height) for part in parts} == {(3, 9)}
    assert panels(window, 1) == [window]
    assert panels(window._replace(width=100), 7) == [window._replace(width=100)]
