"""What would not fit into memory is refused before it is begun."""

import os

from bdloss.errors import InputError


def refuse_beyond_memory(needed: float, what: str) -> None:
    """Refuse what needs more memory than the machine has.

    Args:
        needed: Bytes that it needs at least.
        what: What needs them, as in "4 windows of 100000 x 100000 pixels".

    Raises:
        ValueError: If there are not so many.

    Example:
        >>> refuse_beyond_memory(1e18, "a window of 500000000 pixels")
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bdloss.errors.InputError: a window of 500000000 pixels needs 1000000000 GB ...
    """
    if not hasattr(os, "sysconf"):  # on Windows, which does not say so easily
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"{what} needs {needed / 1e9:.0f} GB of memory or more, "
            f"this machine has {there / 1e9:.0f}"
        )
