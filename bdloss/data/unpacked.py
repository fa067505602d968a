"""Archives as people unpack them: which folder is which, and what is missing."""

from collections.abc import Iterable
from pathlib import Path

from bdloss.data.scenes import Splits
from bdloss.errors import InputError


def part_of(root: Path, needed: str, inner: str, source: str) -> Path:
    """Return the folder that holds what is needed: this one, or `inner` in it."""
    for folder in (root, root / inner):
        if (folder / needed).is_dir():
            return folder
    raise FileNotFoundError(f"no such folder: {root / needed}; {source}")


def unpacked(folder: Path) -> Path:
    """Return a folder, or the one of its name in it, as unpacking often leaves it."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def nested(root: Path, name: str) -> Path:
    """Return a file of a folder that may be unpacked into one of its own name."""
    path = root / name
    return unpacked(path.parent) / path.name


def check_names(names: Iterable[str], known: Iterable[str], root: Path) -> None:
    """Refuse names of scenes that there are not."""
    for name in names:
        if name not in known:
            raise InputError(f"no scene {name!r} among {', '.join(known)}: {root}")


def check_choice(setting: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value of a setting that is none of the choices."""
    if value not in choices:
        raise InputError(
            f"{setting} must be one of {', '.join(choices)}, got {value!r}"
        )


def not_empty(splits: Splits, root: Path, source: str) -> Splits:
    """Refuse a data set that has nothing to train on."""
    if not splits.train:
        raise InputError(f"no scenes to train on in {root}; {source}")
    return splits
