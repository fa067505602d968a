"""Memory: a check before work that would not fit, and freed memory kept for reuse."""

import ctypes
import os
import sys

from bdloss.errors import InputError

# Of malloc.h: options of mallopt, and what they are set to.
M_MMAP_MAX, NO_MAPPINGS = -4, 0
M_TRIM_THRESHOLD, KEPT = -1, 2**31 - 1  # bytes at the top of the heap


def keep_freed_memory() -> bool:
    """Let this process keep memory that it has freed, for what comes next.

    A step of a network frees large buffers that the next step needs again. The GNU C
    library gives each back to the kernel, which then clears it page by page: 3 to 11 %
    of the work on a CPU (`benchmarks/malloc_speed.py`).

    Returns:
        Whether the C library can be told; others than that of GNU cannot.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((M_MMAP_MAX, NO_MAPPINGS), (M_TRIM_THRESHOLD, KEPT))
    return all([mallopt(option, value) for option, value in options])


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
