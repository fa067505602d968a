"""Settings as tables: typed, checked by pydantic, refused in one line."""

import copy
import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bdloss.errors import InputError

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]

# Rules that pydantic says in words of Python.
RULES = {
    "model_type": "must be a table",
    "list_type": "must be a list",
    "too_short": "must have at least one item",
}

Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """A table of settings: all of them have defaults, and no others are taken."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


def make_settings(
    kind: type[Kind], table: Mapping[str, Any], renamed: Mapping[str, str] | None = None
) -> Kind:
    """Check a table and make its settings.

    Args:
        kind: Settings to make.
        table: Values by their names, tables in it too.
        renamed: Names of before and those of now, to find what was meant by an unknown
            one; with dots between table and setting.

    Returns:
        The settings.

    Raises:
        ValueError: If a name is unknown (it says the nearest known one), a value is of
            another type, or out of its range.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        path = _path_of(faults[0], table)
        name, got = ".".join(map(str, path)), faults[0]["input"]
        if faults[0]["type"] == "extra_forbidden":
            known = {**_known_without(path, kind, table), **(renamed or {})}
            meant = known[difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]]
            raise InputError(
                f"unknown setting {name!r}; did you mean {meant!r}?"
            ) from None
        # A value that may be of two types has a fault for each of them.
        rules = [_rule(fault) for fault in faults if _path_of(fault, table) == path]
        rule = " or ".join(dict.fromkeys(rules))
        if faults[0]["type"] == "value_error":  # a rule of our own, which names all
            raise InputError(rule) from None
        if faults[0]["type"] == "union_tag_invalid":  # a kind of table that is none
            name, got = f"{name}.name", faults[0]["ctx"]["tag"]
        raise InputError(f"{name} {rule}, got {got!r}") from None


def flatten(settings: Any, name: str = "") -> dict[str, Any]:
    """Return settings under the names that `--set` gives them.

    Args:
        settings: A table, a list of tables, or a value.
        name: Name so far.

    Example:
        >>> flatten({"seed": 1, "stage": [{"epochs": 3}]})
        {'seed': 1, 'stage.0.epochs': 3}
    """
    items: Iterator[tuple[Any, Any]]
    if isinstance(settings, dict):
        items = iter(settings.items())
    elif isinstance(settings, list) and settings and isinstance(settings[0], dict):
        items = enumerate(settings)
    else:
        return {name: settings}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{name}.{key}" if name else str(key))
    return flat


def _path_of(fault: ErrorDetails, table: Any) -> list[str | int]:
    """Return the way to a setting; pydantic's names the types that were tried too."""
    path = []
    for part in fault["loc"]:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return path


def _rule(fault: ErrorDetails) -> str:
    """Return what is required, in words that follow a name."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "union_tag_invalid":
        return f"must be one of {context['expected_tags']}"
    return RULES.get(kind) or fault["msg"].replace("Input should", "must")


def _known_without(
    path: list[str | int], kind: type[Settings], table: Mapping[str, Any]
) -> dict[str, str]:
    """Return the names of the settings of a table, or of all defaults, as a dict."""
    others: Any = copy.deepcopy(dict(table))
    node = others
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    try:
        made = kind.model_validate(others)
    except ValidationError:  # of another fault
        made = kind()
    return {name: name for name in flatten(made.model_dump())}
