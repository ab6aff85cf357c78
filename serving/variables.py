"""One STEPIN_* variable as a field of a dataclass: how its text is read, checked and written back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any

from features.problems import UserError

_READ, _WRITE = "read", "write"
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def variable(name: str) -> str:
    """Return the variable of a field: ``STEPIN_POLL_SECONDS`` for ``poll_seconds``."""
    return f"STEPIN_{name.upper()}"


def number(lowest: float, highest: float, what: str, default: float | None = None) -> Any:
    """Declare a finite number from `lowest` to `highest`; `what` says its unit, for the refusal."""

    def read(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise UserError(
                f"{name} should be a number from {lowest:g} to {highest:g} ({what}); came {text!r}."
            )
        return value

    return _declared(read, lambda value: repr(float(value)), default)


def text(default: str | None = None) -> Any:
    """Declare a text."""
    return _declared(lambda _name, given: given, str, default)


def place() -> Any:
    """Declare a file or folder, or a registry address.

    A path is written back as an absolute one, since processes may work elsewhere.
    """
    return _declared(lambda _name, given: Path(given), _written, None)


def flag(default: bool = False) -> Any:
    """Declare yes or no."""

    def read(name: str, given: str) -> bool:
        if given.lower() not in (*_YES, *_NO):
            raise UserError(f"{name} should be 1 or 0; came {given!r}.")
        return given.lower() in _YES

    return _declared(read, lambda value: "1" if value else "0", default)


def choice(options: Sequence[str], default: str) -> Any:
    """Declare one of some words."""

    def read(name: str, given: str) -> str:
        if given not in options:
            raise UserError(f"{name} should be one of {', '.join(options)}; came {given!r}.")
        return given

    return _declared(read, str, default)


def words() -> Any:
    """Declare texts, separated by commas."""

    def read(_name: str, given: str) -> tuple[str, ...]:
        return tuple(word for each in given.split(",") if (word := each.strip()))

    return _declared(read, ",".join, ())


def read_all(cls: type, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the declared fields of a dataclass; an empty variable counts as not given.

    Raises
    ------
    UserError
        A variable that cannot be used, by name.
    """
    found = {}
    for each in _declared_fields(cls):
        name = variable(each.name)
        if given := environ.get(name, "").strip():
            found[each.name] = each.metadata[_READ](name, given)
    return found


def write_all(values: Any) -> dict[str, str]:
    """Write the declared fields that differ from their defaults; `read_all` reads them back."""
    return {
        variable(each.name): each.metadata[_WRITE](value)
        for each in _declared_fields(type(values))
        if (value := getattr(values, each.name)) != each.default
    }


def names(cls: type) -> list[str]:
    """Return the variables that a dataclass declares."""
    return [variable(each.name) for each in _declared_fields(cls)]


def is_address(path: Path | None) -> bool:
    """Whether a model is named by a registry address (``models:/NAME@ALIAS``) rather than by its folder."""
    return str(path).startswith("models:")


def _written(path: Path) -> str:
    return str(path if is_address(path) else path.absolute())


def _declared(read: Callable[[str, str], Any], write: Callable[[Any], str], default: Any) -> Any:
    return field(default=default, metadata={_READ: read, _WRITE: write})


def _declared_fields(cls: type) -> list[Field[Any]]:
    return [each for each in fields(cls) if _READ in each.metadata and each.default is not MISSING]
