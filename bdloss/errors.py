"""What can be wrong with what the user gives; commands say each in one line.

Each is a built-in error too, so that callers need to know none of these names.
"""


class InputError(ValueError):
    """What was given breaks a rule: the message says which, and what it got."""


class DamagedFileError(InputError):
    """A file is not whole, or is not what its name says."""


class OutputExistsError(InputError, FileExistsError):
    """A file that would be written is there, and may not be replaced."""


class NoOverlapError(InputError):
    """What was given lies elsewhere: it has nothing in common with the raster."""
