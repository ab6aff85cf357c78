"""What a CRM's loader expects, as data: one TOML file a CRM beside this one."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.problems import UserError
from training.policy import ADVICE

CRMS = ("salesforce", "dynamics", "hubspot")
FACTS = (
    "deal_id",
    "stage",
    "score",
    "advice",
    "default_action_applied",
    "uplift_points",
    "uplift_low_points",
    "uplift_high_points",
    "break_even_points",
    "expected_value",
    "reason_1",
    "reason_2",
    "reason_3",
    "model_name",
    "model_version",
    "model_digest",
    "as_of",
)
_KEYS = ("title", "encoding", "line_end", "time", "longest_text", "missing", "most_mb", "columns", "advice")
_LINE_ENDS = ("\n", "\r\n")


@dataclass(frozen=True)
class Layout:
    """An import file: which columns, and how values are written in them."""

    title: str
    columns: Mapping[str, str]
    """The CRM's name for each column, in their order, and the fact (one of `FACTS`) that it holds."""
    advice: Mapping[str, str]
    """What each advice is called in the CRM."""
    encoding: str = "utf-8"
    line_end: str = "\r\n"
    time: str = "%Y-%m-%dT%H:%M:%SZ"
    """As `strftime` takes it; times are in UTC."""
    longest_text: int = 255
    missing: str = ""
    """Stands for what is not known; a loader may take an empty text for "leave it as it is"."""
    most_mb: float | None = None
    """What the CRM takes in one file."""

    @classmethod
    def read(cls, named: str) -> Layout:
        """Read the layout of a CRM by its name, or a TOML file of the user's own.

        Raises
        ------
        UserError
            No such CRM or file, or a file that says something else than a layout.
        """
        path = Path(__file__).with_name(f"{named}.toml") if named in CRMS else Path(named)
        if named not in CRMS and path.suffix != ".toml":
            raise UserError(f"--write-back takes {', '.join(CRMS)} or a file FILE.toml; came '{named}'.")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; name {', '.join(CRMS)}, or a file FILE.toml.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is no TOML file in UTF-8: {error}.") from None
        return _checked(content, path)

    def text(self, value: Any) -> str:
        """Write a value as the loader reads it: points with three decimals, times in UTC, true and false."""
        if value is None:
            return self.missing
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            return value.astimezone(UTC).strftime(self.time)
        if isinstance(value, float):
            return f"{value:.3f}"
        text = str(value)
        return text if len(text) <= self.longest_text else text[: self.longest_text - 1] + "…"


def _checked(content: Mapping[str, Any], path: Path) -> Layout:
    unknown = sorted(set(content) - set(_KEYS))
    if unknown:
        raise UserError(f"{path} has '{unknown[0]}', which no layout has. Known: {', '.join(_KEYS)}.")
    columns, advice = content.get("columns"), content.get("advice", {})
    if not isinstance(columns, dict) or "deal_id" not in columns.values():
        raise UserError(f'{path} needs a table [columns] with a column for deal_id: "Name" = "deal_id".')
    for column, fact in columns.items():
        if fact not in FACTS:
            raise UserError(f"{path}: column '{column}' holds '{fact}'; expected one of {', '.join(FACTS)}.")
    if not isinstance(advice, dict) or not set(advice) <= set(ADVICE) or not _are_texts(advice.values()):
        raise UserError(f"{path}: [advice] should give texts for {', '.join(ADVICE)}.")
    _check_forms(content, path)
    rest = {key: value for key, value in content.items() if key not in ("columns", "advice")}
    return Layout(
        **{"title": path.stem, **rest}, columns=columns, advice={a: advice.get(a, a) for a in ADVICE}
    )


def _check_forms(content: Mapping[str, Any], path: Path) -> None:
    texts = [content[key] for key in ("title", "encoding", "line_end", "time", "missing") if key in content]
    if not _are_texts(texts):
        raise UserError(f"{path}: title, encoding, line_end, time and missing should be texts.")
    if content.get("line_end", "\n") not in _LINE_ENDS:
        raise UserError(f'{path}: line_end should be "\\n" or "\\r\\n".')
    try:
        codecs.lookup(content.get("encoding", "utf-8"))
    except LookupError:
        raise UserError(f"{path}: encoding '{content['encoding']}' is not known; use \"utf-8\".") from None
    for key, least in (("longest_text", 20), ("most_mb", 1)):
        value = content.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{path}: {key} should be a whole number from {least}.")


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
