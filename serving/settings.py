"""What the server is told: read once, at the top, from STEPIN_* variables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.problems import UserError

_NUMBERS = {
    # field: (lowest, highest, what it is)
    "break_even_points": (-100.0, 100.0, "percentage points"),
    "hours": (0.0, 1e6, "vendor hours"),
    "cost_per_hour": (0.0, 1e9, "money, in the currency of the amounts"),
    "margin": (1e-6, 1.0, "a share of the deal's amount"),
}
_NAMES = ("model_name", "model_version")


@dataclass(frozen=True)
class Settings:
    """Settings of one server. What is not given is taken from the model's own facts.

    ``STEPIN_MODEL``
        The model folder that `stepin train` wrote. Needed.
    ``STEPIN_MODEL_NAME``, ``STEPIN_MODEL_VERSION``
        What the registry calls the model; each answer says it.
    ``STEPIN_BREAK_EVEN_POINTS``
        Uplift in percentage points that pays for stepping in, where costs are not given.
    ``STEPIN_HOURS``
        Vendor hours that stepping in takes.
    ``STEPIN_COST_PER_HOUR``
        What such an hour costs, in the currency of the amounts.
    ``STEPIN_MARGIN``
        Share of a deal's amount that is earned when it is won: above 0, at most 1.

    With hours, cost per hour and margin the break-even is computed for each deal whose amount is known.
    """

    model: Path
    break_even_points: float | None = None
    hours: float | None = None
    cost_per_hour: float | None = None
    margin: float | None = None
    model_name: str | None = None
    model_version: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables above from `environ`; an empty one counts as not given.

        Raises
        ------
        UserError
            A variable that cannot be used, by name.
        """
        model = environ.get("STEPIN_MODEL", "").strip()
        if not model:
            raise UserError("STEPIN_MODEL is not set: name the model folder that stepin train wrote.")
        if model.startswith("models:"):
            raise UserError(
                "STEPIN_MODEL should be a model folder; came a registry address. "
                "Start the server with stepin serve, which looks it up."
            )
        numbers = {field: _number(environ, field) for field in _NUMBERS}
        names = {field: environ.get(_variable(field), "").strip() or None for field in _NAMES}
        given: dict[str, Any] = {**numbers, **names}
        return cls(Path(model), **given)

    def to_environ(self) -> dict[str, str]:
        """Write the variables that `from_environ` reads back to the same settings."""
        numbers = {_variable(field): getattr(self, field) for field in _NUMBERS}
        given = {name: repr(float(value)) for name, value in numbers.items() if value is not None}
        names = {_variable(field): getattr(self, field) for field in _NAMES if getattr(self, field)}
        return {"STEPIN_MODEL": str(self.model.absolute()), **given, **names}

    def policy_changes(self) -> dict[str, float]:
        """Return the numbers that override the policy of the model's facts."""
        return {field: getattr(self, field) for field in _NUMBERS if getattr(self, field) is not None}


def _variable(field: str) -> str:
    return f"STEPIN_{field.upper()}"


def _number(environ: Mapping[str, str], field: str) -> float | None:
    text = environ.get(_variable(field), "").strip()
    if not text:
        return None
    lowest, highest, what = _NUMBERS[field]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:
        raise UserError(
            f"{_variable(field)} should be a number from {lowest:g} to {highest:g} ({what}); came {text!r}."
        )
    return value
