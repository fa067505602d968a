"""Strips of rows: a map on disk in pieces, so that a run that was stopped goes on.

A strip is a file of its own, which is there only when it is whole: some rows of all
columns, or of a panel of them where the map is wide. Machines that share a folder, or
whose files are brought together in one, make a map by strips.
"""

import gzip
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bdloss.constants import KERAS
from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED, locked, unique_path
from bdloss.geo.windows import TILE, Window

SETTINGS = "settings.json"
AREA = "area.wkb"  # the shape of the area of interest, if there is one
SUFFIX = ".npy.gz"
LOCK = ".lock"  # of files that say which part of the rows a process is at
# Rows and columns, first and last, in the name of a file.
PLACE = re.compile(r"(\d{9,})-(\d{9,})_(\d{9,})-(\d{9,})")
PIXELS_AT_A_TIME = 4_000_000  # of all columns, that are read
# What rows and masks that do not say so were made with.
UNSAID = {"engine": KERAS, "panels": 1}
IDENTITY = ("image", "image_time")  # settings that `raster.identify` gives


class Strip(NamedTuple):
    """A file of finished rows, of some columns; the last ones are those beyond it."""

    col: int
    row: int
    last_col: int
    last_row: int
    path: Path


class StripStore:
    """Finished rows of the map of one raster.

    Args:
        folder: Where they lie; made by `start`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @contextmanager
    def held(self, part: int = 1, parts: int = 1) -> Iterator[None]:
        """Hold a part of the rows against other processes: see `files.locked`.

        Args:
            part: Which part, from 1.
            parts: How many there are. Others may be at the other parts.

        Raises:
            ValueError: If another process is at it, or the folder is not ours.
        """
        self.check_ours()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f"{part}-of-{parts}{LOCK}"
        with locked(lock):
            try:
                yield
            finally:
                if self.folder.exists() and not (self.folder / SETTINGS).exists():
                    lock.unlink(missing_ok=True)  # nothing was begun
                    with suppress(OSError):  # others hold other parts
                        self.folder.rmdir()

    def start(
        self, settings: Mapping[str, Any], resume: bool, area: bytes | None = None
    ) -> None:
        """Make the folder, or go on with the one that an earlier run left.

        Args:
            settings: All that the rows depend on.
            resume: Whether strips that are there are kept; without it they are removed.
            area: The shape of the area of interest, which `area` then gives.

        Raises:
            ValueError: If the strips that are there were made with other settings or of
                another image, or the folder is not ours.
        """
        self.check_ours()
        if not resume:
            self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        wanted = json.loads(json.dumps(settings))
        if not path.exists():
            with unique_path(path) as partial:
                partial.write_text(json.dumps(wanted, indent=2))
        found, wanted = ({**UNSAID, **said} for said in (self.settings, wanted))
        for key in {**found, **wanted}:
            if found.get(key) != wanted.get(key):
                if key in IDENTITY:
                    other = "an older version of bdloss"
                    if key in found:
                        other = "another image of this name"
                    raise InputError(
                        f"begun with {other}; give --no-resume to start over, or "
                        f"remove it: {self.folder}"
                    )
                raise InputError(
                    f"begun with {key} {found.get(key)}, not {wanted.get(key)}; give "
                    f"--no-resume to start over, or remove it: {self.folder}"
                )

        if area is not None:
            with unique_path(self.folder / AREA) as partial:
                partial.write_bytes(area)

    @property
    def area(self) -> bytes:
        """The shape of the area of interest, as it was given; empty if none was."""
        path = self.folder / AREA
        return path.read_bytes() if path.exists() else b""

    @property
    def begun(self) -> bool:
        """Whether an earlier run, or another part, has made the folder."""
        return (self.folder / SETTINGS).exists()

    def count(self, parts: Iterable[Window]) -> int:
        """Return how many strips of parts of the raster there are.

        Args:
            parts: Whole columns of strips, as `windows.share` gives them.
        """
        return sum(len(self._strips_of(part)) for part in parts)

    def _clear(self) -> None:
        """Remove settings and strips; locks of other processes stay."""
        for strip in self._strips():
            strip.path.unlink()
        (self.folder / AREA).unlink(missing_ok=True)
        # The last, for it says whose the folder is.
        (self.folder / SETTINGS).unlink(missing_ok=True)

    def check_ours(self) -> None:
        """Refuse a folder of this name that holds something else.

        Raises:
            ValueError: If there are other files than ours in it.
        """
        names = {p.name for p in self.folder.iterdir()} if self.folder.exists() else ()
        strangers = [name for name in names if not name.startswith(SETTINGS)]
        strangers = [name for name in strangers if not name.endswith(LOCK)]
        if strangers and SETTINGS not in names:
            raise InputError(
                "finished rows are kept in a folder of their own, got one of other "
                f"files: {self.folder}"
            )

    def drop_damaged(self, part: Window) -> None:
        """Remove strips that are not as they were written; they are made anew.

        Args:
            part: Whole columns of strips that no other process is at.

        Raises:
            OSError: If they cannot be read, as of a disk that is not there; they stay.
        """
        for strip in self._strips_of(part):
            try:
                with _Rows([strip]) as rows:
                    rows.take(rows.ready)
            except InputError:
                strip.path.unlink(missing_ok=True)

    @property
    def settings(self) -> dict[str, Any]:
        """What the rows depend on."""
        path = self.folder / SETTINGS
        try:
            settings = json.loads(path.read_text())
            return dict(settings.items())
        except (ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"damaged, give --no-resume to start over: {path}"
            ) from error

    def write(self, row: int, layers: np.ndarray, col: int = 0) -> None:
        """Add a strip.

        Args:
            row: Row of the raster that it begins with.
            layers: Array of shape `(layers, rows, width)`, uint8.
            col: Column of the raster that it begins with.
        """
        _, rows, width = layers.shape
        name = f"{row:09}-{row + rows:09}_{col:09}-{col + width:09}{SUFFIX}"
        with (
            unique_path(self.folder / name) as partial,
            gzip.open(partial, "wb", compresslevel=1) as file,
        ):
            # Row by row, so that some can be read.
            np.save(file, np.ascontiguousarray(layers.swapaxes(0, 1)))

    def finished(self, part: Window) -> int:
        """Return the first row of a part of the raster that is missing.

        Args:
            part: Whole columns of strips.

        Returns:
            The row; that beyond the part if none is missing.
        """
        row = part.row
        for strip in self._strips_of(part):
            if strip.row <= row < strip.last_row:
                row = strip.last_row
        return min(row, part.row + part.height)

    def read(self, columns: Window | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rows from the top, some at a time.

        Rows that are there twice come once.

        Args:
            columns: A window over whole columns of strips, which alone are read; None
                for all.

        Yields:
            The row that comes first, and the layers of these rows,
            `(layers, rows, width)`.

        Raises:
            ValueError: If a strip is not as it was written, or rows are missing.
        """
        panels: dict[int, list[Strip]] = {}
        for strip in self._strips():
            if columns is None or strip.col == columns.col:
                panels.setdefault(strip.col, []).append(strip)
        with ExitStack() as files:
            readers = [files.enter_context(_Rows(panels[col])) for col in panels]
            while ready := min((reader.ready for reader in readers), default=0):
                if len({reader.row for reader in readers}) > 1:
                    raise InputError(f"rows are missing: {self.folder}")
                row, width = readers[0].row, sum(reader.width for reader in readers)
                rows = min(ready, max(1, PIXELS_AT_A_TIME // width))
                parts = [reader.take(rows) for reader in readers]
                yield row, np.concatenate(parts, axis=2) if parts[1:] else parts[0]

    def remove(self) -> None:
        """Remove the strips and their folder, in one step.

        Raises:
            ValueError: If the folder is not ours.
        """
        self.check_ours()
        old = self.folder.with_name(f"{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of a run killed while it did so
        with suppress(FileNotFoundError):  # another process was quicker
            self.folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def _strips(self) -> list[Strip]:
        """Return the strips, from the left and then from the top."""
        strips = []
        for path in self.folder.glob(f"*-*{SUFFIX}"):
            if place := PLACE.fullmatch(path.name.removesuffix(SUFFIX)):
                row, last_row, col, last_col = map(int, place.groups())
                if row < last_row and col < last_col:
                    strips.append(Strip(col, row, last_col, last_row, path))
        return sorted(strips)

    def _strips_of(self, part: Window) -> list[Strip]:
        """Return the strips of the columns of a part that reach into its rows."""
        return [
            strip
            for strip in self._strips()
            if (strip.col, strip.last_col) == (part.col, part.col + part.width)
            and strip.row < part.row + part.height
            and strip.last_row > part.row
        ]


def in_tiles(
    pieces: Iterable[tuple[int, np.ndarray]],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield pieces of rows that end where tiles of a GeoTIFF do.

    So each tile is written once, and files are the same whatever the pieces were.

    Args:
        pieces: The row that each begins with, and its layers, `(layers, rows, width)`,
            from the top without a gap.

    Example:
        >>> pieces = [(500, np.zeros((2, 20, 3))), (520, np.zeros((2, 9, 3)))]
        >>> [(row, layers.shape[1]) for row, layers in in_tiles(pieces)]
        [(500, 12), (512, 17)]
    """
    first, kept = 0, list[np.ndarray]()
    for row, layers in pieces:
        while layers.shape[1]:
            if not kept:
                first = row
            room = TILE - row % TILE
            kept.append(layers[:, :room])
            row, layers = row + kept[-1].shape[1], layers[:, room:]
            if row % TILE == 0:
                yield first, np.concatenate(kept, axis=1)
                kept = []
    if kept:
        yield first, np.concatenate(kept, axis=1)


class _Rows:
    """The rows of strips of the same columns, taken from the top, some at a time.

    Args:
        strips: The strips, from the top.

    Attributes:
        row: The row that comes next.
        width: Number of columns.
    """

    def __init__(self, strips: Sequence[Strip]):
        self.row = strips[0].row
        self.width = strips[0].last_col - strips[0].col
        self._strips = list(reversed(strips))
        self._open: Strip | None = None
        self._file: gzip.GzipFile | None = None
        self._layers = 0

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def ready(self) -> int:
        """How many rows the strip has that comes next; 0 after the last."""
        while self._open is None and self._strips:
            strip = self._strips.pop()
            if strip.last_row > self.row:
                skipped = max(0, self.row - strip.row)
                self.row = strip.row
                self._begin(strip)
                if skipped:
                    self.take(skipped)
        return self._open.last_row - self.row if self._open else 0

    def take(self, rows: int) -> np.ndarray:
        """Return the next rows, at most those that are ready: `(layers, rows, width)`.

        Raises:
            ValueError: If the strip is not as it was written.
        """
        strip, file = self._open, self._file
        assert strip is not None and file is not None
        with _damage(strip):
            wanted = rows * self._layers * self.width
            content = file.read(wanted)
            self.row += rows
            if self.row == strip.last_row:
                content += file.read()  # nothing but the sum, which is checked
                file.close()
                self._open = None
            taken = np.frombuffer(bytearray(content), np.uint8)
            return taken.reshape(rows, self._layers, self.width).swapaxes(0, 1)

    def _begin(self, strip: Strip) -> None:
        """Open a strip."""
        with _damage(strip):
            self._file = gzip.GzipFile(strip.path)
            version = np.lib.format.read_magic(self._file)
            if version != (1, 0):
                raise InputError(f"version {version}")
            shape, _, kind = np.lib.format.read_array_header_1_0(self._file)
            rows, self._layers, width = shape
            expected = strip.last_row - strip.row, strip.last_col - strip.col
            if kind != np.uint8 or (rows, width) != expected:
                raise InputError(f"{kind} of {shape}")
            self._open = strip


@contextmanager
def _damage(strip: Strip) -> Iterator[None]:
    """Say in one line which strip is not as it was written."""
    try:
        yield
    except DAMAGED as error:
        failed = isinstance(error, (OSError, MemoryError))  # a disk, not this file
        if failed and not isinstance(error, gzip.BadGzipFile):
            raise
        raise DamagedFileError(
            f"damaged rows; give the predict command again: {strip.path}"
        ) from error
