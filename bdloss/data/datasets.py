"""Data sets by their names."""

import inspect
from collections.abc import Callable
from os import PathLike
from typing import Any

from bdloss.data.aicd import read_aicd
from bdloss.data.folder import read_folder
from bdloss.data.inria import read_inria
from bdloss.data.potsdam import read_potsdam
from bdloss.data.scenes import Splits
from bdloss.data.synthetic import read_synthetic
from bdloss.data.unpacked import check_choice
from bdloss.errors import InputError

READERS: dict[str, Callable[..., Splits]] = {
    "folder": read_folder,
    "inria": read_inria,
    "potsdam": read_potsdam,
    "aicd": read_aicd,
    "synthetic": read_synthetic,
}


def read_dataset(name: str, root: str | PathLike, **settings: Any) -> Splits:
    """Find the scenes of a dataset.

    Args:
        name: One of `READERS`.
        root: Its folder.
        settings: What its reader takes.

    Returns:
        The scenes by what they are for.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no such dataset, its reader takes no such setting, or as
            the reader says.
    """
    taken = settings_of(name)
    for setting in settings:
        if setting not in taken:
            raise InputError(
                f"{name} takes the settings {', '.join(taken)}, got {setting!r}"
            )
    return READERS[name](root, **settings)


def settings_of(name: str) -> list[str]:
    """Return the names of the settings that the reader of a dataset takes.

    Args:
        name: One of `READERS`.

    Raises:
        ValueError: If there is no such dataset.

    Example:
        >>> settings_of("aicd")
        ['shadows', 'classes']
    """
    check_choice("dataset", name, READERS)
    _, *settings = inspect.signature(READERS[name]).parameters
    return settings
