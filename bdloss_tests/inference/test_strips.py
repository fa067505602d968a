import errno

import numpy as np
import pytest

from bdloss.geo.windows import Window
from bdloss.inference.strips import StripStore
from bdloss_tests.scenes import full_disk

SETTINGS = {"threshold": 0.5, "window": 32}


def draw(rows, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (2, rows, 13), np.uint8)


@pytest.fixture
def strips(tmp_path):
    strips = StripStore(tmp_path / "town.partial")
    strips.start(SETTINGS, resume=True)
    return strips


def test_strips_come_back_from_the_top(strips):
    whole = draw(30)
    for row, end in ((12, 30), (0, 5), (5, 12)):
        strips.write(row, whole[:, row:end])
    assert strips.settings == SETTINGS
    assert [row for row, _ in strips.read()] == [0, 5, 12]
    read = np.concatenate([layers for _, layers in strips.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


def test_rows_that_are_there_twice_come_once(strips):
    whole = draw(30)
    for row, end in ((0, 12), (3, 9), (7, 30)):
        strips.write(row, whole[:, row:end])
    read = np.concatenate([layers for _, layers in strips.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


@pytest.mark.parametrize(
    ("first", "last", "missing"), [(0, 30, 12), (3, 9, 9), (12, 30, 12), (20, 30, 30)]
)
def test_the_first_row_that_is_missing(strips, first, last, missing):
    for row, end in ((0, 5), (5, 12), (15, 30)):
        strips.write(row, draw(end - row))
    assert strips.finished(Window(first, 0, last - first, 13)) == missing


def test_a_strip_that_is_being_written_is_not_there(strips):
    strips.write(0, draw(5))
    (file,) = strips.folder.glob("*.gz")
    file.rename(f"{file}.1f3b")
    assert strips.finished(Window(0, 0, 30, 13)) == 0
    assert not list(strips.read())


def test_a_strip_that_does_not_fit_on_the_disk_leaves_nothing(strips):
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        strips.write(0, draw(8))
    assert [path.name for path in strips.folder.iterdir()] == ["settings.json"]


def test_strips_of_other_settings_are_not_gone_on_with(strips):
    strips.write(0, draw(5))
    strips.start(SETTINGS, resume=True)
    assert strips.finished(Window(0, 0, 30, 13)) == 5
    with pytest.raises(ValueError, match=r"begun with window 32, not 64; give"):
        strips.start({**SETTINGS, "window": 64}, resume=True)
    with pytest.raises(ValueError, match="begun with tta None, not d4"):
        strips.start({**SETTINGS, "tta": "d4"}, resume=True)
    strips.start({**SETTINGS, "window": 64}, resume=False)
    assert strips.finished(Window(0, 0, 30, 13)) == 0


def test_nothing_stays_of_removed_bands(strips):
    strips.write(0, draw(5))
    strips.remove()
    assert not list(strips.folder.parent.iterdir())
    strips.remove()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another", "fewer rows"])
def test_damaged_rows_are_noticed_and_made_anew(strips, damage):
    whole = draw(30)
    strips.write(0, whole[:, :12])
    strips.write(12, whole[:, 12:])
    path = next(strips.folder.glob("*12-*30*"))
    data = bytearray(path.read_bytes())
    if damage == "fewer rows":
        path.unlink()
        strips.write(12, whole[:, 12:20])
        path = next(strips.folder.glob("*12-*20*")).rename(path)
        data = bytearray(path.read_bytes())
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
    elif damage == "another":
        data = bytearray(b"hello")
    else:
        del data[0 if damage == "empty" else len(data) - 3 :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged rows; give .* again: .*12-0"):
        list(strips.read())
    strips.drop_damaged(Window(0, 0, 12, 13))  # of others it sees nothing
    assert strips.finished(Window(0, 0, 30, 13)) == 30
    strips.drop_damaged(Window(0, 0, 30, 13))
    assert strips.finished(Window(0, 0, 30, 13)) == 12
    strips.write(12, whole[:, 12:])
    read = np.concatenate([layers for _, layers in strips.read()], axis=1)
    np.testing.assert_array_equal(read, whole)


def test_rows_that_cannot_be_read_now_are_not_removed(strips, monkeypatch):
    whole = draw(30)
    strips.write(0, whole)

    def fail(*_):
        raise OSError(errno.ESTALE, "stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("gzip.GzipFile.read", fail)
        with pytest.raises(OSError, match="stale file handle"):
            strips.drop_damaged(Window(0, 0, 30, 13))
    assert strips.count([Window(0, 0, 30, 13)]) == 1
    np.testing.assert_array_equal(next(strips.read())[1], whole)
    (strips.folder / "000000005-000000005_000000000-000000013.npy.gz").touch()
    assert strips.count([Window(0, 0, 30, 13)]) == 1  # of no rows


def test_every_flipped_byte_of_rows_is_noticed_or_harmless(strips):
    whole = draw(9)
    strips.write(0, whole)
    (path,) = strips.folder.glob("*.npy.gz")
    data = path.read_bytes()
    random = np.random.default_rng(2)
    for place in random.integers(0, len(data), 200).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            ((_, layers),) = strips.read()
        except ValueError as error:
            assert "damaged rows" in str(error)
        else:
            np.testing.assert_array_equal(layers, whole)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_damaged_settings_of_rows_are_named(strips, text):
    (strips.folder / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="damaged, give --no-resume"):
        strips.start(SETTINGS, resume=True)
    strips.start(SETTINGS, resume=False)
    assert strips.settings == SETTINGS
