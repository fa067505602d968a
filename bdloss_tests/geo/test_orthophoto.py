import numpy as np
import pytest
import rasterio

from bdloss.geo import raster
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.windows import Window
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

WINDOW = Window(5, 7, 20, 30)


@pytest.fixture
def town(tmp_path):
    return write_raster(tmp_path / "town.tif", make_scene(2, 40, 50, bands=5)[0])


def test_the_header_is_what_the_file_says(town):
    orthophoto = Orthophoto.read(town, [3, 1])
    assert orthophoto.path == town
    assert orthophoto.geobox == orthophoto.ground == (40, 50, CORNER, UTM)
    assert orthophoto.misfit is None
    assert orthophoto.band_indexes == (3, 1)
    assert orthophoto.identity == raster.identify(town)
    assert Orthophoto.read(town).band_indexes == (1, 2, 3, 4, 5)


def test_the_header_is_read_once(town, monkeypatch):
    opened = []
    read = rasterio.DatasetReader

    def count(name, **options):
        opened.append(name)
        return read(name, **options)

    monkeypatch.setattr(rasterio, "DatasetReader", count)
    orthophoto = Orthophoto.read(town)
    assert (orthophoto.geobox.height, orthophoto.band_indexes[0]) == (40, 1)
    assert len(opened) == 1
    assert orthophoto.identity is orthophoto.identity
    assert len(opened) == 2  # pixels of some blocks


def test_windows_are_read_of_its_bands_and_its_nodata(town):
    pixels = np.moveaxis(raster.open_raster(town).read(), 0, -1)
    known = int(pixels[8, 9, 2])
    orthophoto = Orthophoto.read(town, [3], nodata=known)
    with orthophoto.open() as reader:
        assert (reader.height, reader.width) == (40, 50)
        np.testing.assert_array_equal(
            reader.pixels(WINDOW), pixels[WINDOW.slices][..., [2]]
        )
        valid = reader.valid(WINDOW)
    expected = (pixels[WINDOW.slices] != known).any(axis=-1)
    np.testing.assert_array_equal(valid, expected)


def test_it_is_opened_at_another_resolution(town):
    with Orthophoto.read(town).open(resolution=0.6) as reader:
        assert (reader.height, reader.width) == (20, 25)


def test_bands_must_be_there(town):
    with pytest.raises(ValueError, match=r"bands must be from 1 to 5, got \[1, 6\]"):
        Orthophoto.read(town, [1, 6])
