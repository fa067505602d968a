"""Checkpoints: where a training stands after an epoch, on disk."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bdloss.errors import DamagedFileError, InputError
from bdloss.files import DAMAGED, atomic_path

logger = logging.getLogger(__name__)

CHECKPOINTS_KEPT = 2  # the newest, and the one before should that be damaged
METADATA = "facts"  # the array that holds rows and seconds as JSON


class State(NamedTuple):
    """All that a training needs to go on as if it had never stopped.

    The rate, w, the best score and the order of patches follow from the rows.

    Attributes:
        rows: A row an epoch, as Keras logs them.
        seconds: Time spent so far.
        network: Variables of the network, those of its random numbers too.
        optimizer: Variables of the optimizer.
    """

    rows: list[dict[str, float]]
    seconds: float
    network: list[np.ndarray]
    optimizer: list[np.ndarray]

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return len(self.rows)


def state_path(folder: Path, epoch: int) -> Path:
    """Return the file of the checkpoint after an epoch, counted from 1."""
    return folder / f"epoch-{epoch:05d}.npz"


def save_state(state: State, folder: Path, keep_epochs: Collection[int] = ()) -> None:
    """Write a checkpoint aside, rename it when whole, and remove older ones.

    Args:
        state: Where the training stands.
        folder: Folder of checkpoints; made if need be.
        keep_epochs: Epochs whose checkpoints stay, beside the newest two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = state_path(folder, state.epoch)
    arrays: dict[str, Any] = {}
    for kind in ("network", "optimizer"):
        arrays |= {f"{kind}{i}": array for i, array in enumerate(getattr(state, kind))}
    metadata = {"rows": state.rows, "seconds": state.seconds, "digest": _digest(arrays)}
    arrays[METADATA] = np.array(json.dumps(metadata))
    with atomic_path(path) as partial:
        np.savez(partial, **arrays)
    kept = {state_path(folder, epoch) for epoch in keep_epochs}
    for old in _whole(folder)[:-CHECKPOINTS_KEPT]:
        if old not in kept:
            old.unlink()


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return what changes with the names, kinds and values of arrays."""
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(repr((name, array.dtype.str, array.shape)).encode())
        whole.update(array.data if array.size else b"")
    return whole.hexdigest()


def _whole(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that were written to their end, in order."""
    return sorted(folder.glob("epoch-?????.npz"))


def read_state(path: Path) -> State:
    """Read a checkpoint.

    Args:
        path: File of `save_state`.

    Returns:
        The state.

    Raises:
        ValueError: If the file is not whole.
        FileNotFoundError: If there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)  # reads all of it, and checks each sum
        metadata = json.loads(str(arrays.pop(METADATA)))
        if metadata.get("digest", _digest(arrays)) != _digest(arrays):
            raise InputError("not the arrays that were written")
        parts: dict[str, list[np.ndarray]] = {"network": [], "optimizer": []}
        for name, array in arrays.items():
            parts[name.rstrip("0123456789")].append(array)
        return State(metadata["rows"], metadata["seconds"], **parts)
    except DAMAGED as error:
        raise DamagedFileError(f"damaged checkpoint: {path}") from error


def newest_epoch(folder: Path) -> int:
    """Return after which epoch the newest checkpoint is, damaged or not; 0 of none."""
    names = [path.stem for path in _whole(folder)]
    return int(names[-1].removeprefix("epoch-")) if names else 0


def newest_state(folder: Path) -> State | None:
    """Read the newest checkpoint that is whole; those that are not are warned of.

    Args:
        folder: Folder of checkpoints; it need not exist.

    Returns:
        The state, or None if there is none.
    """
    for path in reversed(_whole(folder)):
        try:
            return read_state(path)
        except InputError as error:
            logger.warning("%s; trying the one before", error)
    return None
