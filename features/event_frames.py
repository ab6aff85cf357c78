"""Rows made of events, as frames of the same columns and types as the export's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from features.column_types import as_text, is_text
from features.deal_state import Row
from features.events import Event
from features.everybody import OWNERS
from features.tables import COLUMNS, DTYPES, Kind, Tables

_EXPECTED: Mapping[str, str] = {"number": "a number", "boolean": "true or false", "time": "a time as text"}
_TAKEN: Mapping[str, tuple[type, ...]] = {"number": (int, float), "boolean": (bool,), "time": (str,)}


class OwnKinds:
    """The kinds of the user's own columns: the export's, else what all events say together."""

    def __init__(self, base: Tables) -> None:
        frames = base.by_name()
        self._of_base: dict[str, dict[str, Kind]] = {
            name: {column: _kind(frames[name][column]) for column in frames[name].columns} for name in OWNERS
        }
        self._seen: dict[str, dict[str, set[type]]] = {name: {} for name in OWNERS}

    def misfit(self, event: Event) -> str | None:
        """Say which own column's value is of another kind than the export's; None if none is."""
        for name in OWNERS:
            for column, value in event.part(name.removesuffix("s")).items():
                kind = self._of_base[name].get(column, "text")
                if column in COLUMNS[name] or value is None or kind == "text":
                    continue
                if not isinstance(value, _TAKEN[kind]) or (kind == "number" and isinstance(value, bool)):
                    return f"{name}: a further column should be {_EXPECTED[kind]}, as in the tables."
        return None

    def learn(self, event: Event) -> None:
        """Take note of own columns that the export does not have."""
        for name in OWNERS:
            for column, value in event.part(name.removesuffix("s")).items():
                if column not in self._of_base[name] and column not in COLUMNS[name]:
                    kinds = self._seen[name].setdefault(column, set())
                    if value is not None:
                        kinds.add(bool if isinstance(value, bool) else type(value))

    def of(self, name: str) -> dict[str, Kind]:
        """Return the kind of every column of a table, in order."""
        plain = {column: rule.kind for column, rule in COLUMNS[name].items()}
        if name not in OWNERS:
            return plain
        further = {column: _common(kinds) for column, kinds in sorted(self._seen[name].items())}
        return {**plain, **self._of_base[name], **further}


def _common(seen: set[type]) -> Kind:
    if seen == {bool}:
        return "boolean"
    return "number" if seen and seen <= {int, float} else "text"


def _kind(values: pd.Series) -> Kind:
    if is_text(values):
        return "text"
    if pd.api.types.is_bool_dtype(values.dtype):
        return "boolean"
    return "time" if pd.api.types.is_datetime64_any_dtype(values.dtype) else "number"


def frame(rows: Sequence[Row], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Return rows as a table of typed columns; what a row does not tell is missing."""
    return pd.DataFrame({name: _typed([row.get(name) for row in rows], kind) for name, kind in kinds.items()})


def joined(base: pd.DataFrame, rows: Sequence[Row], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Return some of the export's rows, and rows of events after them; columns and types as `kinds` say."""
    lacking = [name for name in kinds if name not in base.columns]
    base = base.assign(**{name: _typed([None] * len(base), kinds[name]) for name in lacking})
    if not rows:
        return base.reset_index(drop=True)
    made = frame(rows, {name: kinds.get(name, "text") for name in base.columns})
    return pd.concat([base, made], ignore_index=True) if len(base) else made


def _typed(values: list[Any], kind: Kind) -> Any:
    if kind == "number":
        return np.array([np.nan if value is None else float(value) for value in values])
    if kind == "boolean":
        return pd.array([pd.NA if value is None else bool(value) for value in values], dtype="boolean")
    if kind == "time":
        times = pd.to_datetime(pd.Series(values, dtype="object"), utc=True, errors="coerce", format="ISO8601")
        return times.astype(DTYPES["time"]).array
    return pd.Series([_as_text(value) for value in values], dtype="str").array


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(as_text(pd.Series([value])).iloc[0])
