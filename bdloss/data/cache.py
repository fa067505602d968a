"""Cache: scenes decoded once into a folder, from which any part is read at once."""

import errno
import functools
import glob
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from bdloss.data import scenes
from bdloss.data.ground_truth import GroundTruth
from bdloss.data.scenes import Scene, SceneData
from bdloss.errors import InputError
from bdloss.files import DAMAGED
from bdloss.geo.raster import open_raster
from bdloss.geo.trust import local_sources
from bdloss.geo.windows import Window

FORMAT_VERSION = 1  # another one makes every scene anew
ONNX_VERSION = 2  # another one brings every network to ONNX anew
DEFAULT_LIMIT = 50 * 2**30  # bytes; INRIA's training split is 16 GB
DISK_RESERVE = 2 * 2**30  # bytes that are left free on the disk
STRIP_PIXELS = 2**25  # pixels that are decoded at a time
MAX_MAPPED_FILES = 16  # two or three of a scene
ENTRY_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}(\.partial\w+)?")
HARMLESS_ERRORS = {  # no room after all, another process was faster, cleared meanwhile
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENOENT,
}

Shapes = dict[str, tuple[int, ...]]  # of the arrays of a scene, by their names

_sizes: dict[Path, int] = {}  # bytes in each folder, so that it is summed up once


class StoredArray(NDArrayOperatorsMixin):
    """An array of a scene that stays on disk; a part of it is read when asked for.

    A part comes from the cache by memory mapping or, where there is no entry (no room
    for it, or cleared since), from the window of the files of the scene, many times
    slower. Nothing is kept in memory, and of the files only those used last stay open,
    however many scenes there are. NumPy's functions and operators take it as an array.

    Attributes:
        shape: Height, width and, of pixels, bands.
        dtype: uint8.
        size: Number of elements.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, file: Path, scene: Scene, shape: tuple[int, ...]):
        self.shape = shape
        self.size = int(np.prod(shape))
        self._file = file
        self._scene = scene

    @property
    def is_cached(self) -> bool:
        """Whether parts come from the cache, not from the files of the scene."""
        return self._file.is_file()

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """Return the rows and columns that two slices say, as a new array."""
        try:
            return np.array(_map_file(self._file)[part])
        except FileNotFoundError:
            pass
        (top, bottom, _), (left, right, _) = (
            axis.indices(length)
            for axis, length in zip(part, self.shape[:2], strict=True)
        )
        window = Window(top, left, bottom - top, right - left)
        return getattr(_load_window(self._scene, window), self._file.stem)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Return the whole array, for NumPy."""
        whole = self[:, :]
        return whole if dtype is None else whole.astype(dtype)


@functools.lru_cache(MAX_MAPPED_FILES)
def _map_file(file: Path) -> np.ndarray:
    """Map a file; to map it for each patch takes longer than to copy the patch."""
    return np.load(file, mmap_mode="r")


def default_folder() -> Path:
    """Return where scenes are cached unless told otherwise.

    Returns:
        `bdloss` in the user's cache folder: `$XDG_CACHE_HOME`, or `~/.cache`.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bdloss"


def load_cached(
    scene: Scene,
    folder: Path,
    limit: int = DEFAULT_LIMIT,
    strip_pixels: int = STRIP_PIXELS,
) -> SceneData:
    """Return a scene that is decoded into a cache, once for all runs.

    It is decoded anew when a file of it changes (its size or times do), and what
    was there before is removed. Several processes may do so at once: an entry
    appears whole or not at all. A scene for which there is no room is not cached.

    Args:
        scene: The scene.
        folder: The cache; made if it does not exist.
        limit: Most bytes that the cache may hold: a pixel takes one for each band, one
            for its mask and one for contact if that is wanted. `DISK_RESERVE` bytes
            stay free on its disk too.
        strip_pixels: Number of pixels that are decoded at a time, but a row at least.

    Returns:
        What `load_scene` does, in arrays that stay on disk.

    Raises:
        FileNotFoundError: As in `load_scene`.
        ValueError: As in `load_scene`.
    """
    image, truth = scene.image.resolve(), scene.truth.resolve()
    scene = scene._replace(image=image, truth=truth)
    identity = _digest(scene)
    entry = folder / f"{identity}-{_digest(*_stamps(scene))}"
    shapes = _stored_shapes(entry, _names_of(scene))
    if shapes is None:
        shutil.rmtree(entry, ignore_errors=True)  # if it was there, it was damaged
        _map_file.cache_clear()
        shapes = _shapes_of(scene)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{identity}-{'[0-9a-f]' * 16}"):
            if old != entry:  # which another process may just have made
                shutil.rmtree(old, ignore_errors=True)
                _sizes.pop(folder, None)
        if _has_room(folder, shapes, limit):
            _store(scene, shapes, entry, strip_pixels)
    return SceneData(
        **{
            name: StoredArray(_file_of(entry, name), scene, shape)  # type: ignore[abstract, arg-type]
            for name, shape in shapes.items()
        }
    )


def _names_of(scene: Scene) -> tuple[str, ...]:
    """Return which arrays a scene has."""
    return SceneData._fields if scene.contact else SceneData._fields[:2]


def _file_of(entry: Path, name: str) -> Path:
    return entry / f"{name}.npy"


def _stored_shapes(entry: Path, names: Sequence[str]) -> Shapes | None:
    """Return the shapes of the arrays of an entry that is whole; None of another."""
    try:
        arrays = {name: _load_whole(_file_of(entry, name)) for name in names}
    except DAMAGED:
        return None
    sides = {array.shape[:2] for array in arrays.values()}
    axes = [array.ndim for array in arrays.values()]
    whole = len(sides) == 1 and axes == [3, 2, 2][: len(names)]
    if not whole or any(array.dtype != np.uint8 for array in arrays.values()):
        return None
    return {name: array.shape for name, array in arrays.items()}


def _load_whole(file: Path) -> np.ndarray:
    """Map a file of an array, which must be as long as its head says."""
    array = np.lib.format.open_memmap(file, mode="r")
    if array.offset + array.nbytes != file.stat().st_size:
        raise InputError(f"not of its size: {file}")
    return array


def onnx_file(folder: Path, digest: str) -> Path:
    """Return where a model of a digest is kept for other engines than Keras."""
    return folder / "engines" / f"{digest}-{ONNX_VERSION}.onnx"


def cache_size(folder: Path) -> int:
    """Return how many bytes a cache holds; 0 if there is no such folder."""
    size = 0
    for path in _entries(folder):
        files = path.glob("*.npy") if path.is_dir() else [path]
        for file in files:
            with suppress(FileNotFoundError):  # removed by another process
                size += file.stat().st_size
    return size


def clear_cache(folder: Path) -> int:
    """Remove what is in a cache, and nothing else that lies in its folder.

    A training that reads from it goes on, by windows of the files of its scenes.

    Args:
        folder: The cache; there need be none.

    Returns:
        How many bytes were removed.
    """
    size = cache_size(folder)
    for path in _entries(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    _sizes.pop(folder, None)
    return size


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    scenes = [path for path in folder.iterdir() if ENTRY_NAME.fullmatch(path.name)]
    engines = onnx_file(folder, "").parent
    return [*scenes, *engines.glob("*.onnx"), *engines.glob("*.json")]


def _digest(*values: object) -> str:
    return hashlib.sha256(repr((FORMAT_VERSION, *values)).encode()).hexdigest()[:16]


def _stamps(scene: Scene) -> Iterator[tuple[str, int, int, int]]:
    """Yield each file of a scene with its size and times, files beside it too."""
    for path in _paths(scene):
        if GroundTruth(path).is_vector:
            beside = path.parent.glob(f"{glob.escape(path.stem)}.*")
            files = {str(file) for file in beside}
        else:
            files = _files_of(path)
        for file in sorted(files):
            stat = os.stat(file)  # noqa: PTH116
            yield file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _files_of(path: Path) -> set[str]:
    """Return the files of a raster, those that virtual ones are made of too."""
    files: set[str] = set()
    virtual = [file for file in local_sources(path) if file.suffix.lower() == ".vrt"]
    for file in (path, *virtual):
        with open_raster(file) as source:
            files.update(name for name in source.files if Path(name).exists())
    return files


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _paths(item)


def _shapes_of(scene: Scene) -> Shapes:
    """Return the shapes of the arrays of a scene."""
    with open_raster(scene.image) as source:
        height, width = scene.area[2:] if scene.area else source.shape
    corner = scenes.load_scene(scene._replace(area=Window(0, 0, 1, 1)))
    return {
        name: (height, width, *getattr(corner, name).shape[2:])
        for name in _names_of(scene)
    }


def _load_window(scene: Scene, window: Window) -> SceneData:
    """Read a window of a scene, the same pixels as if all of it were read."""
    if not _has_windows(scene):
        whole = scenes.load_scene(scene)
        return SceneData._make(
            part if part is None else part[window.slices] for part in whole
        )
    top, left = scene.area[:2] if scene.area else (0, 0)
    moved = window._replace(row=window.row + top, col=window.col + left)
    return scenes.load_scene(scene._replace(area=moved))


def _has_windows(scene: Scene) -> bool:
    """Return whether the edges of windows lie between pixels of the file."""
    return float(scene.scale).is_integer()


def _has_room(folder: Path, shapes: Shapes, limit: int) -> bool:
    """Return whether a scene fits, and count it as if it were there."""
    size = sum(math.prod(shape) for shape in shapes.values())
    if folder not in _sizes:
        _sizes[folder] = cache_size(folder)
    free = shutil.disk_usage(folder).free - DISK_RESERVE
    room = size <= min(free, limit - _sizes[folder])
    _sizes[folder] += size * room
    return room


def _store(scene: Scene, shapes: Shapes, entry: Path, strip_pixels: int) -> None:
    """Decode a scene into an entry that appears when it is whole, if it can be."""
    height, width = shapes["mask"]
    rows = max(1, strip_pixels // width) if _has_windows(scene) else height
    partial = Path(tempfile.mkdtemp(prefix=f"{entry.name}.partial", dir=entry.parent))
    try:
        with ExitStack() as stack:
            files = {}
            for name, shape in shapes.items():
                file = stack.enter_context(_file_of(partial, name).open("wb"))
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                files[name] = file
            for row in range(0, height, rows):
                strip = Window(row, 0, min(rows, height - row), width)
                data = _load_window(scene, strip)
                for name, file in files.items():
                    file.write(np.ascontiguousarray(getattr(data, name)).data)
        partial.rename(entry)
    except OSError as error:
        # Written as files, not through a mapping, which a full disk would kill.
        if error.errno not in HARMLESS_ERRORS:
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
