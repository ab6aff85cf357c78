"""The columns file: which columns of a flat file mean what."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.problems import UserError

KNOWN_KEYS: Mapping[str, tuple[str, ...]] = {
    "decision": ("id", "partner", "decided_at", "stage", "stages"),
    "stepped_in": ("column", "yes", "no"),
    "outcome": ("column", "yes", "no", "numeric", "unit"),
    "value": ("amount", "currency"),
    "features": ("include", "exclude"),
    "reading": ("delimiter", "missing", "encoding"),
}


@dataclass(frozen=True)
class TwoValues:
    """A column whose values mean yes or no; rows with any other value are left out.

    Attributes
    ----------
    column : its name in the file
    yes, no : the texts that mean so
    """

    column: str
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnsFile:
    """What the columns of a flat file mean: the columns file, read and checked.

    Attributes
    ----------
    name : the columns file's name, for errors
    id : rows that share it are one deal; None where every row is one of its own
    partner, decided_at, stage, amount : columns, or None where there are none
    stages : the order of the stages; empty where it is not given
    stepped_in, outcome : the two columns that the effect is learned from
    numeric, outcome_unit : whether the outcome is a number such as booked revenue, and in which unit
    currency : of the amount, or None
    include, exclude : at most one of them given; the columns that are, or are not, features
    delimiter, missing, encoding : how to read a CSV; ``missing`` are the texts that mean missing
    """

    name: str
    stepped_in: TwoValues
    outcome: TwoValues
    id: str | None = None
    partner: str | None = None
    decided_at: str | None = None
    stage: str | None = None
    stages: tuple[str, ...] = ()
    numeric: bool = False
    outcome_unit: str = "share"
    amount: str | None = None
    currency: str | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    delimiter: str = ","
    missing: tuple[str, ...] = ("",)
    encoding: str = "utf-8-sig"

    @classmethod
    def read(cls, path: Path) -> "ColumnsFile":
        """Read a columns file (TOML).

        Raises
        ------
        UserError
            It cannot be read, has a key that nobody knows, lacks one that is needed, or a value of another
            type than expected.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path.name} is not TOML: {error}.") from None
        _refuse_unknown_keys(content, path.name)
        return cls._from(_Keys(content, path.name), path.name)

    @classmethod
    def _from(cls, keys: "_Keys", name: str) -> "ColumnsFile":
        numeric = keys.flag("outcome", "numeric")
        if keys.texts("features", "include") is not None and keys.texts("features", "exclude") is not None:
            raise UserError(f"{name}: [features] has both include and exclude; keep one of them.")
        delimiter = keys.text("reading", "delimiter") or ","
        if len(delimiter) != 1:
            raise UserError(f"{name}: [reading] delimiter should be one sign; came {delimiter!r}.")
        currency = keys.text("value", "currency")
        return cls(
            name=name,
            id=keys.text("decision", "id"),
            stepped_in=keys.two_values("stepped_in", needed=True),
            outcome=keys.two_values("outcome", needed=not numeric),
            partner=keys.text("decision", "partner"),
            decided_at=keys.text("decision", "decided_at"),
            stage=keys.text("decision", "stage"),
            stages=keys.texts("decision", "stages") or (),
            numeric=numeric,
            outcome_unit=(keys.text("outcome", "unit") or currency or "") if numeric else "share",
            amount=keys.text("value", "amount"),
            currency=currency,
            include=keys.texts("features", "include"),
            exclude=keys.texts("features", "exclude") or (),
            delimiter=delimiter,
            missing=keys.texts("reading", "missing") or ("",),
            encoding=keys.text("reading", "encoding") or "utf-8-sig",
        )

    def named_columns(self, for_scoring: bool) -> dict[str, str]:
        """Return every column that must be in the file, with the key that names it."""
        named = {"decision.id": self.id, "decision.partner": self.partner, "decision.stage": self.stage}
        named |= {"decision.decided_at": self.decided_at, "value.amount": self.amount}
        if not for_scoring:
            named |= {"stepped_in.column": self.stepped_in.column, "outcome.column": self.outcome.column}
        listed = {f"features.include {column}": column for column in self.include or ()}
        if not for_scoring:
            listed |= {f"features.exclude {column}": column for column in self.exclude}
        return {key: column for key, column in named.items() if column is not None} | listed


@dataclass(frozen=True)
class _Keys:
    """The content of a columns file, asked for by section and key."""

    content: Mapping[str, Any]
    name: str

    def text(self, section: str, key: str) -> str | None:
        value = self.content.get(section, {}).get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise UserError(f"{self.name}: [{section}] {key} should be a text; came {value!r}.")
        return value

    def needed(self, section: str, key: str) -> str:
        value = self.text(section, key)
        if value is None:
            raise UserError(f"{self.name}: [{section}] {key} is missing; it is needed.")
        return value

    def texts(self, section: str, key: str) -> tuple[str, ...] | None:
        value = self.content.get(section, {}).get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{self.name}: [{section}] {key} should be a list of texts; came {value!r}.")
        return tuple(value)

    def flag(self, section: str, key: str) -> bool:
        value = self.content.get(section, {}).get(key, False)
        if not isinstance(value, bool):
            raise UserError(f"{self.name}: [{section}] {key} should be true or false; came {value!r}.")
        return value

    def two_values(self, section: str, needed: bool) -> TwoValues:
        yes, no = self.texts(section, "yes") or (), self.texts(section, "no") or ()
        if needed and not (yes and no):
            lacking = " and ".join(key for key, values in (("yes", yes), ("no", no)) if not values)
            raise UserError(f"{self.name}: [{section}] {lacking} should name at least one value; came none.")
        both = sorted(set(yes) & set(no))
        if both:
            raise UserError(
                f"{self.name}: [{section}] has '{both[0]}' under yes and under no; keep one of them."
            )
        return TwoValues(self.needed(section, "column"), yes, no)


def _refuse_unknown_keys(content: Mapping[str, Any], name: str) -> None:
    for section, values in content.items():
        if section not in KNOWN_KEYS:
            known = ", ".join(KNOWN_KEYS)
            raise UserError(f"{name} has an unknown section [{section}]. Known sections: {known}.")
        if not isinstance(values, Mapping):
            raise UserError(f"{name}: {section} should be a section; came {values!r}. Write [{section}].")
        for key in values:
            if key not in KNOWN_KEYS[section]:
                known = ", ".join(KNOWN_KEYS[section])
                raise UserError(f"{name}: [{section}] has an unknown key '{key}'. Known keys: {known}.")
