"""Files that a command reads and writes: none may be both."""

from collections.abc import Iterable
from pathlib import Path


def refuse_overlap(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, by whatever name.

    Args:
        outputs: Files that would be written; they need not exist.
        inputs: Files that are read.

    Raises:
        ValueError: If an output is an input: the same file, through links too.

    Example:
        >>> refuse_overlap([Path("a/../town.tif")], [Path("town.tif")])
        Traceback (most recent call last):
        ValueError: an output must not replace an input, got town.tif as both
    """
    read = {path.resolve(): path for path in inputs}
    for output in outputs:
        if output.resolve() in read:
            raise ValueError(
                "an output must not replace an input, "
                f"got {read[output.resolve()]} as both"
            )
