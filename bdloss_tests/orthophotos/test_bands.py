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


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another", "fewer rows"])
def test_damaged_rows_are_noticed_and_made_anew(bands, damage):
    whole = draw(30)
    bands.write(0, whole[:, :12])
    bands.write(12, whole[:, 12:])
    path = next(bands.folder.glob("*12-*30*"))
    data = bytearray(path.read_bytes())
    if damage == "fewer rows":
        path.unlink()
        bands.write(12, whole[:, 12:20])
        path = next(bands.folder.glob("*12-*20*")).rename(path)
        data = bytearray(path.read_bytes())
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
    elif damage == "another":
        data = bytearray(b"hello")
    else:
        del data[0 if damage == "empty" else len(data) - 3 :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged rows; give .* again: .*12-0"):
        list(bands.read())
    bands.start(SETTINGS, resume=True)
    assert bands.finished(0, 30) == 12
    bands.write(12, whole[:, 12:])
    read = np.concatenate([layers for _, layers in bands.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


def test_every_flipped_byte_of_rows_is_noticed_or_harmless(bands):
    whole = draw(9)
    bands.write(0, whole)
    (path,) = bands.folder.glob("*.npy.gz")
    data = path.read_bytes()
    random = np.random.default_rng(2)
    for place in random.integers(0, len(data), 200).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            ((_, layers),) = bands.read()
        except ValueError as error:
            assert "damaged rows" in str(error)
        else:
            np.testing.assert_array_equal(layers, whole)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_damaged_settings_of_rows_are_named(bands, text):
    (bands.folder / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="damaged, give --no-resume"):
        bands.start(SETTINGS, resume=True)
    bands.start(SETTINGS, resume=False)
    assert bands.settings == SETTINGS
