"""A check of memory, before work begins that would not fit into it."""

import os

from bdloss.errors import InputError


def refuse_beyond_memory(needed: float, what: str) -> None:
    """Refuse work that needs more memory than the machine has.

    Args:
        needed: Bytes that are needed at least.
        what: What needs them, as in "4 windows of 100000 x 100000 pixels".

    Raises:
        ValueError: If the machine has fewer.

    Example:
        >>> refuse_beyond_memory(1e18, "a window of 500000000 pixels")
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bdloss.errors.InputError: a window of 500000000 pixels needs 1000000000 GB ...
    """
    if not hasattr(os, "sysconf"):  # on Windows
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"{what} needs {needed / 1e9:.0f} GB of memory or more, "
            f"this machine has {there / 1e9:.0f}"
        )
