"""Strips of rows: a map on disk in pieces, so that a run that was stopped goes on.

A strip is a file of its own, which is there only when it is whole. Machines that share
a folder, or whose files are brought together in one, make a map by strips.
"""

import gzip
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from bdloss.constants import KERAS
from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED, locked, unique_path

SETTINGS = "settings.json"
AREA = "area.wkb"  # the shape of the area of interest, if there is one
SUFFIX = ".npy.gz"
LOCK = ".lock"  # of files that say which part of the rows a process is at
ROWS = re.compile(r"(\d{9,})-(\d{9,})")  # first and last, in the name of a file
UNSAID = {"engine": KERAS}  # what rows and masks that do not say so were made with
IDENTITY = ("image", "image_time")  # settings that `raster.identify` gives


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
        self._drop_damaged()
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
                    f"--no-resume to start over: {self.folder}"
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

    def _clear(self) -> None:
        """Remove settings and strips; locks of other processes stay."""
        for _, _, path in self._files():
            path.unlink()
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

    def _drop_damaged(self) -> None:
        """Remove strips that are not as they were written; they are made anew."""
        for begin, end, path in self._files():
            try:
                self._load(begin, end, path)
            except InputError:
                path.unlink()

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

    def write(self, row: int, layers: np.ndarray) -> None:
        """Add a strip.

        Args:
            row: Row of the raster that it begins with.
            layers: Array of shape `(layers, rows, width)`, uint8.
        """
        name = f"{row:09}-{row + layers.shape[1]:09}{SUFFIX}"
        with (
            unique_path(self.folder / name) as partial,
            gzip.open(partial, "wb", compresslevel=1) as file,
        ):
            np.save(file, layers)

    def finished(self, first: int, last: int) -> int:
        """Return the first row from `first` on that is missing, at most `last`."""
        row = first
        for begin, end, _ in self._files():
            if begin <= row < end:
                row = end
        return min(row, last)

    def read(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the strips from the top, each with the row that it begins with.

        Rows that are there twice come once.

        Raises:
            ValueError: If a strip is not as it was written.
        """
        row = 0
        for begin, end, path in self._files():
            row = max(row, begin)
            if end > row:
                yield row, self._load(begin, end, path)[:, row - begin :]
                row = end

    def _load(self, begin: int, end: int, path: Path) -> np.ndarray:
        """Return the layers of a strip, whose sum is checked."""
        try:
            # Whole, for numpy stops where the array ends, before the sum.
            content = io.BytesIO(gzip.decompress(path.read_bytes()))
            layers = np.load(content, allow_pickle=False)
            if layers.dtype != np.uint8 or layers.shape[1] != end - begin:
                raise InputError(f"rows {begin} to {end} of {layers.shape}")
        except DAMAGED as error:
            raise DamagedFileError(
                f"damaged rows; give the predict command again: {path}"
            ) from error
        return layers

    def remove(self) -> None:
        """Remove the strips and their folder, in one step.

        Raises:
            ValueError: If the folder is not ours.
        """
        self.check_ours()
        old = self.folder.with_name(f"{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of a run killed while it did so
        if self.folder.exists():
            self.folder.rename(old)
            shutil.rmtree(old)

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return first row, last row and path of each strip, from the top."""
        files = []
        for path in sorted(self.folder.glob(f"*-*{SUFFIX}")):
            if rows := ROWS.fullmatch(path.name.removesuffix(SUFFIX)):
                files.append((int(rows[1]), int(rows[2]), path))
        return files
