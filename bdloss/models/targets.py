"""The maps of a network by their names: classes, then contact if it has that map."""

from collections.abc import Sequence

from bdloss.constants import CONTACT


def class_names(targets: Sequence[str]) -> list[str]:
    """Return the names of the maps that are classes.

    Example:
        >>> class_names(["building", "contact"])
        ['building']
    """
    return [name for name in targets if name != CONTACT]
