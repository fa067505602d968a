"""Files that a command reads and writes: none may be both, none two commands'."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems say that cannot lock, as some that machines share: there it is left.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, by whatever name.

    Args:
        outputs: Files that would be written; they need not exist.
        inputs: Files that are read.

    Raises:
        ValueError: If an output is an input: the same file, through links too.

    Example:
        >>> refuse_overlap([Path("a/../town.tif")], [Path("town.tif")])
        Traceback (most recent call last):
        ValueError: an output must not replace an input, got town.tif as both
    """
    read = {path.resolve(): path for path in inputs}
    for output in outputs:
        if output.resolve() in read:
            raise ValueError(
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
            raise ValueError(f"in use by another process: {path}") from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        yield
    finally:
        os.close(holder)
