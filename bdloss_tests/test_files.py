"""Files are whole or not there, and what was there before is nobody's to lose."""

import os

import pytest

from bdloss.files import atomic_folder, atomic_path, visible_files


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "map.tif"
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert partial.suffix == ".tif"  # by which libraries choose a format
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_path(path) as partial:
        partial.write_text("ne")
        raise OSError("the disk is full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_not_built_upon(tmp_path):
    path = tmp_path / "houses.gpkg"
    left = tmp_path / ".houses.bdloss-partial.gpkg"
    left.write_text("half")
    journal = left.with_name(f"{left.name}-journal")
    journal.write_text("SQLite would roll this back into the new file")
    with atomic_path(path) as partial:
        assert partial == left
        assert not left.exists()
        assert not journal.exists()
        partial.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_the_users_own_is_not_taken_for_a_half_written_one(tmp_path):
    own = tmp_path / "map.partial.tif"
    own.write_text("the user's")
    with atomic_path(tmp_path / "map.tif") as partial:
        partial.write_text("ours")
    assert own.read_text() == "the user's"


def test_a_file_needs_its_folder(tmp_path):
    path = tmp_path / "none" / "map.tif"
    with pytest.raises(FileNotFoundError, match="no such"), atomic_path(path):
        pass


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "scores"
    with atomic_folder(path) as partial:
        (partial / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "a.txt").read_text() == "a"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores"
    path.mkdir()
    (path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="full"), atomic_folder(path) as partial:
        (partial / "a.txt").write_text("new")
        raise OSError("the disk is full")
    assert (path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_that_says_all_is_there_comes_last(tmp_path, monkeypatch):
    path = tmp_path / "scores"
    path.mkdir()
    (path / "notes.txt").write_text("the user's")
    moved = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: (moved.append(b.name), replace(a, b))
    )
    with atomic_folder(path, last="a.json") as partial:
        for name in ("a.json", "b.png", "c.csv"):
            (partial / name).write_text(name)
    assert moved == ["b.png", "c.csv", "a.json"]
    assert sorted(file.name for file in path.iterdir()) == [
        *("a.json", "b.png", "c.csv", "notes.txt")
    ]


def test_hidden_files_are_none_of_the_users(tmp_path):
    for name in ("b.TIF", "a.tif", "._a.tif", ".c.bdloss-partial.tif", "d.png"):
        (tmp_path / name).touch()
    found = visible_files(tmp_path, {".tif"})
    assert [path.name for path in found] == ["a.tif", "b.TIF"]
