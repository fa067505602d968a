"""What can be wrong with what the user gives; commands say each in one line.

Each is a built-in error too, so that callers need to know none of these names.
"""


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or its kind if it has none.

    Example:
        >>> first_line(ValueError("too small\nby far")), first_line(MemoryError())
        ('too small', 'MemoryError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(ValueError):
    """What was given breaks a rule: the message says which, and what it got."""


class DamagedFileError(InputError):
    """A file is not whole, or is not what its name says."""


class InUseError(InputError):
    """Another process is at it."""


class OutputExistsError(InputError, FileExistsError):
    """A file that would be written is there, and may not be replaced."""


class NoOverlapError(InputError):
    """What was given lies elsewhere: it has nothing in common with the raster."""
