"""Classes of a ground truth, and what tells them apart in it.

    [dataset.classes]          # in an experiment
    building = 1               # a value of masks, a colour, or a value of an attribute
    road = 2

The numbers of classes, from 1, follow the order of the table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator

from bdloss.colours import COLOUR, default_colours
from bdloss.constants import CONTACT, IGNORED
from bdloss.errors import InputError
from bdloss.geo.windows import Window

BACKGROUND, UNKNOWN = "background", "ignored"  # names of what is no class
ATTRIBUTE = "class"  # of outlines
MAX_CLASSES = 250  # numbers of a byte without 0 and what else one may mean

Code = int | str  # a value of masks, a colour, or a value of an attribute

# Background by kind of codes, unless it is said to be something else.
NOTHING: dict[str, Code] = {"value": 0, "colour": "#000000"}


def _kind_of(code: Code) -> str:
    if isinstance(code, int):
        return "value"
    return "colour" if COLOUR.fullmatch(code) else "attribute"


def _normal(code: Code) -> Code:
    """Return a colour in small letters, and all else as it is."""
    if isinstance(code, str) and COLOUR.fullmatch(code):
        return code.lower()
    return code


def _check_classes(classes: dict[str, Code]) -> dict[str, Code]:
    names = [name for name in classes if name not in (BACKGROUND, UNKNOWN)]
    if classes and not (0 < len(names) <= MAX_CLASSES and CONTACT not in names):
        raise InputError(
            f"dataset.classes must have 1 to {MAX_CLASSES} names beside {BACKGROUND} "
            f"and {UNKNOWN}, none of them {CONTACT}, got {', '.join(classes)}"
        )
    seen: dict[Code, str] = {}
    for name, code in classes.items():
        first = next(iter(seen), code)
        if _kind_of(code) != _kind_of(first):
            raise InputError(
                "dataset.classes must all be values, all colours or all values of an "
                f"attribute, got {first!r} and {code!r}"
            )
        if _normal(code) in seen:
            raise InputError(
                f"dataset.classes must differ, {seen[_normal(code)]} and {name} are "
                f"both {code!r}"
            )
        seen[_normal(code)] = name
    return classes


# What each class has in the truth, by its name; an empty table is buildings alone.
Classes = Annotated[dict[str, Code], AfterValidator(_check_classes)]


class ClassTable(NamedTuple):
    """Classes, and what tells them apart in masks or outlines.

    Attributes:
        names: Names of the classes, whose numbers are from 1 in this order.
        codes: What is known, and the number of its class; 0 is none, 255 is ignored.
        attribute: That of outlines whose values the codes are.
    """

    names: tuple[str, ...]
    codes: tuple[tuple[Code, int], ...]
    attribute: str = ATTRIBUTE

    @classmethod
    def of(
        cls,
        classes: Mapping[str, Code],
        attribute: str = ATTRIBUTE,
        others: Mapping[Code, int] | None = None,
    ) -> "ClassTable":
        """Number the classes of an experiment.

        Args:
            classes: Their codes by their names, at least one; `background` and
                `ignored` are no classes.
            attribute: That of outlines.
            others: Numbers of other codes; None for black or 0 as background.

        Example:
            >>> ClassTable.of({"road": 3, "building": 7, "ignored": 9}).codes
            ((0, 0), (3, 1), (7, 2), (9, 255))
        """
        kind = _kind_of(next(iter(classes.values())))
        if others is None:
            others = {NOTHING[kind]: 0} if kind in NOTHING else {}
        names = [name for name in classes if name not in (BACKGROUND, UNKNOWN)]
        numbers = {name: number for number, name in enumerate(names, 1)}
        numbers |= {BACKGROUND: 0, UNKNOWN: IGNORED}
        codes = dict(others)
        for name, code in classes.items():
            codes[_normal(code)] = numbers[name]
        return cls(tuple(names), tuple(codes.items()), attribute)

    @property
    def kind(self) -> str:
        """What the codes are: `value`, `colour` or `attribute`."""
        return _kind_of(self.codes[-1][0])

    @property
    def colours(self) -> list[str]:
        """The colour of each class: that by which it is told, or one of ours."""
        if self.kind != "colour":
            return default_colours(len(self.names))
        by_number = {number: str(code) for code, number in self.codes}
        return [by_number[number] for number in range(1, 1 + len(self.names))]

    def decode(
        self, values: np.ndarray, known: np.ndarray, path: str, window: Window
    ) -> np.ndarray:
        """Return the number of the class of each pixel of a mask.

        Args:
            values: Values, or colours as numbers 0xRRGGBB, of shape `(height, width)`.
            known: Where there is one, bool of this shape.
            path: The mask, to name it.
            window: Where they lie in it.

        Returns:
            Array of the same shape, uint8; 255 where nothing is known.

        Raises:
            ValueError: If a value is not among the codes.
        """
        if self.kind == "attribute":
            raise InputError(
                "classes of masks are told by values or colours, not by an attribute: "
                f"{path}"
            )
        pairs = sorted((_as_value(code), number) for code, number in self.codes)
        codes, numbers = (np.array(part) for part in zip(*pairs, strict=True))
        places = np.minimum(np.searchsorted(codes, values), len(codes) - 1)
        strange = known & (codes[places] != values)
        if strange.any():
            row, col = np.unravel_index(strange.argmax(), strange.shape)
            value = values[row, col].item()
            said = f"#{value:06x}" if self.kind == "colour" else f"{value:g}"
            raise InputError(
                f"a mask must have the {self.kind}s of its classes, got {said} at row "
                f"{window.row + row}, column {window.col + col}: {path}"
            )
        return np.where(known, numbers.astype(np.uint8)[places], np.uint8(IGNORED))

    def numbers_of(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the number of the class of each outline.

        Args:
            values: Their values of the attribute.
            path: The file, to name it.

        Raises:
            ValueError: If a value is not among the codes.
        """
        numbers = dict(self.codes)
        found = []
        for value in values.tolist():
            if value not in numbers:
                raise InputError(
                    f"outlines must have the classes {', '.join(map(str, numbers))} as "
                    f"{self.attribute}, got {value!r}: {path}"
                )
            found.append(numbers[value])
        return np.array(found, np.uint8)


def _as_value(code: Any) -> int:
    return code if isinstance(code, int) else int(code[1:], 16)
