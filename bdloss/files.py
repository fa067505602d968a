"""How files are written: whole or not at all, never over an input, under a lock."""

import errno
import os
import shutil
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from bdloss.errors import InputError, InUseError, OutputExistsError

ASIDE = ".bdloss-partial"  # in the names of files that are being written
# endings of what GDAL and SQLite write beside a file, itself included
BESIDE = ("", "-journal", ".aux.xml", ".msk", ".ovr", ".ovr.tmp", ".msk.ovr.tmp")
DAMAGED = (  # what reading an incomplete or changed file may raise
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError),
    *(RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error),
    *(IndexError, tokenize.TokenError, SyntaxError, MemoryError, OverflowError),
)
# Errors of file systems that cannot lock, such as some network shares.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: str | PathLike) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it when it is complete.

    Args:
        path: The file to write.

    Yields:
        The temporary name: `.map.bdloss-partial.tif` for `map.tif`. What a killed
        process left under it is removed first. If the block fails, the file is removed,
        and so is what GDAL writes beside it.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    aside = path.with_name(f".{path.stem}{ASIDE}{path.suffix}")
    remove_file(aside)
    try:
        yield aside
        aside.replace(path)
    finally:
        remove_file(aside)


@contextmanager
def unique_path(path: Path) -> Iterator[Path]:
    """As `atomic_path`, where machines may write a file of one name at once."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file and what GDAL and SQLite write beside it, if they exist."""
    for suffix in BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove a folder unless something lies in it."""
    with suppress(OSError):
        folder.rmdir()


def folder_aside(path: Path) -> Path:
    """Return the temporary name of a folder: `.NAME.bdloss-partial`."""
    return path.with_name(f".{path.name}{ASIDE}")


@contextmanager
def atomic_folder(path: Path, last: str | None = None) -> Iterator[Path]:
    """Fill a folder under a temporary name, and rename it when it is complete.

    Args:
        path: The folder. Where it exists, its files of the same names are replaced.
        last: The file that is moved last, so that its presence says that all are there.

    Yields:
        The temporary folder, empty; it is removed if the block fails.
    """
    aside = folder_aside(path)
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
    aside.mkdir(parents=True)
    try:
        yield aside
        if path.exists():
            for file in sorted(
                aside.iterdir(), key=lambda file: (file.name == last, file.name)
            ):
                file.replace(path / file.name)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder with one of these suffixes, in upper or lower case.

    Hidden files are left out: those that are being written, and those that macOS puts
    beside each file on foreign disks (`._town.tif`).

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def refuse_existing(path: str | PathLike, overwrite: bool) -> None:
    """Refuse to write a file that exists, unless it may be replaced.

    Args:
        path: The file.
        overwrite: Whether it may be replaced.

    Raises:
        FileExistsError: If it exists and may not.
    """
    if not overwrite and Path(path).exists():
        raise OutputExistsError(f"{path} exists; give --overwrite")


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over an input, whatever path it is given by.

    Args:
        outputs: Files that would be written; they need not exist.
        inputs: Files that are read.

    Raises:
        ValueError: If an output is an input: the same file, through links too.

    Example:
        >>> refuse_overlap([Path("a/../a.tif")], [Path("a.tif")])
        Traceback (most recent call last):
        bdloss.errors.InputError: an output must not replace an input, got a.tif as both
    """
    read = {path.resolve(): path for path in inputs}
    for output in outputs:
        if output.resolve() in read:
            raise InputError(
                "an output must not replace an input, "
                f"got {read[output.resolve()]} as both"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a folder, or a lock file, against other processes.

    The lock ends with its process, by `kill -9` too. It holds against processes of this
    machine, and of others where the file system supports that; where it cannot lock at
    all, none is taken.

    Args:
        path: A folder that exists, or a lock file, which is created.

    Raises:
        ValueError: If another process has it locked.
    """
    if fcntl is None:
        yield
        return
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    holder = os.open(path, how, 0o666)
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"in use by another process: {path}") from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        yield
    finally:
        os.close(holder)
