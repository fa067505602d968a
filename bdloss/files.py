"""Files that commands write: whole or not there, no input, and one command's alone."""

import errno
import os
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from bdloss.errors import InputError

ASIDE = ".bdloss-partial"  # in the name of what is being written
BESIDE = ("", "-journal", ".aux.xml", ".msk", ".ovr", ".ovr.tmp", ".msk.ovr.tmp")
DAMAGED = (  # what reading a file that is not whole, or was changed, may raise
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError),
    *(RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error),
    *(IndexError, tokenize.TokenError, SyntaxError, MemoryError, OverflowError),
)
# What file systems say that cannot lock, as some that machines share: there it is left.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: str | PathLike) -> Iterator[Path]:
    """Let a file be written under another name; rename it when it is whole.

    Args:
        path: The file to write.

    Yields:
        The name to write to: `.map.bdloss-partial.tif` for `map.tif`. What a process
        that was killed has left of it is removed, and nothing of it, nor of what GDAL
        writes beside it, stays if the block fails.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}")
    aside = path.with_name(f".{path.stem}{ASIDE}{path.suffix}")
    _remove_file(aside)
    try:
        yield aside
        aside.replace(path)
    finally:
        _remove_file(aside)


def _remove_file(path: Path) -> None:
    for suffix in BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def folder_aside(path: Path) -> Path:
    """Return the name of a folder until it is whole: `.NAME.bdloss-partial`."""
    return path.with_name(f".{path.name}{ASIDE}")


@contextmanager
def atomic_folder(path: Path, last: str | None = None) -> Iterator[Path]:
    """Let a folder be filled under another name; rename it when it is whole.

    Args:
        path: The folder. Where it exists, its files of the same names are replaced.
        last: The file whose presence says that all others are there.

    Yields:
        The folder to fill, empty; nothing of it stays if the block fails.
    """
    aside = folder_aside(path)
    shutil.rmtree(aside, ignore_errors=True)  # what a process that was killed has left
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
    """Return the files of a folder with one of these suffixes, in whatever case.

    Names that begin with a dot are none of the user's: what is being written, and
    what macOS puts beside each file on foreign disks (`._town.tif`).

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


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, by whatever name.

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
    """Hold a folder, or a file made for it, against other processes.

    However the process ends, by `kill -9` too, the next one may hold it. It holds
    against processes of this machine; of others, where the file system can.

    Args:
        path: A folder that exists, or a file, which is made.

    Raises:
        ValueError: If another process holds it.
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
            raise InputError(f"in use by another process: {path}") from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        yield
    finally:
        os.close(holder)
