import numpy as np
import pytest

from bdloss.orthophotos.bands import Bands
from bdloss_tests.scenes import full_disk

SETTINGS = {"threshold": 0.5, "window": 32}


def draw(rows, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (2, rows, 13), np.uint8)


@pytest.fixture
def bands(tmp_path):
    bands = Bands(tmp_path / "town.partial")
    bands.start(SETTINGS, resume=True)
    return bands


def test_bands_come_back_from_the_top(bands):
    whole = draw(30)
    for row, end in ((12, 30), (0, 5), (5, 12)):
        bands.write(row, whole[:, row:end])
    assert bands.settings == SETTINGS
    assert [row for row, _ in bands.read()] == [0, 5, 12]
    read = np.concatenate([layers for _, layers in bands.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


def test_rows_that_are_there_twice_come_once(bands):
    whole = draw(30)
    for row, end in ((0, 12), (3, 9), (7, 30)):
        bands.write(row, whole[:, row:end])
    read = np.concatenate([layers for _, layers in bands.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


@pytest.mark.parametrize(
    ("first", "last", "missing"), [(0, 30, 12), (3, 9, 9), (12, 30, 12), (20, 30, 30)]
)
def test_the_first_row_that_is_missing(bands, first, last, missing):
    for row, end in ((0, 5), (5, 12), (15, 30)):
        bands.write(row, draw(end - row))
    assert bands.finished(first, last) == missing


def test_a_band_that_is_being_written_is_not_there(bands):
    bands.write(0, draw(5))
    (file,) = bands.folder.glob("*.gz")
    file.rename(f"{file}.1f3b")
    assert bands.finished(0, 30) == 0
    assert not list(bands.read())


def test_a_band_that_does_not_fit_on_the_disk_leaves_nothing(bands):
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        bands.write(0, draw(8))
    assert [path.name for path in bands.folder.iterdir()] == ["settings.json"]


def test_bands_of_other_settings_are_not_gone_on_with(bands):
    bands.write(0, draw(5))
    bands.start(SETTINGS, resume=True)
    assert bands.finished(0, 30) == 5
    with pytest.raises(ValueError, match=r"begun with window 32, not 64; give"):
        bands.start({**SETTINGS, "window": 64}, resume=True)
    with pytest.raises(ValueError, match="begun with tta None, not d4"):
        bands.start({**SETTINGS, "tta": "d4"}, resume=True)
    bands.start({**SETTINGS, "window": 64}, resume=False)
    assert bands.finished(0, 30) == 0


def test_nothing_stays_of_removed_bands(bands):
    bands.write(0, draw(5))
    bands.remove()
    assert not list(bands.folder.parent.iterdir())
    bands.remove()
