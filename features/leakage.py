"""The leakage audit: which columns know the future, what gives them away, and what to do about it."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from features.leakage_evidence import Column, Evidence
from features.leakage_rules import COLUMN_RULES, Finding
from features.leakage_structure import FRAME_RULES
from features.leakage_tables import closed_deals, table_findings
from features.problems import UserError
from features.tables import Tables

__all__ = ["Audit", "Finding", "LeakageError", "allowed_before", "audit_columns", "audit_tables"]

MOST_ROWS = 100_000
_OWNERS = re.compile(r"^(deal|partner|customer)_|^(deals|partners|customers)\.")
_NO_SUCH_COLUMN = "--allow names '{name}', which is no column here; {near}."


class LeakageError(UserError):
    """Columns that know the future, and that nobody has allowed."""


@dataclass(frozen=True)
class Audit:
    """What was found, at most one finding a column, and which columns a human allowed after looking."""

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...] = ()

    @property
    def blatant(self) -> tuple[Finding, ...]:
        """The findings that stop, without those that were allowed."""
        return tuple(found for found in self.findings if found.verdict == "stop" and not self._allows(found))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the findings as JSON can hold them: column, verdict, rule, why, allowed."""
        return [asdict(found) | {"allowed": self._allows(found)} for found in self.findings]

    def lines(self) -> list[str]:
        """Return a line for each finding, for the console: the blatant first."""
        marks = {"stop": "knows the future", "warn": "suspect"}
        ordered = sorted(self.findings, key=lambda found: found not in self.blatant)
        return [
            f"'{found.column}' {'allowed by you' if self._allows(found) else marks[found.verdict]} "
            f"({found.rule}): {found.why}"
            for found in ordered
        ]

    def refuse(self, where: str = "") -> None:
        """Refuse the blatant.

        Parameters
        ----------
        where : what a column is left out of here, after a space: `` of the tables``

        Raises
        ------
        LeakageError
            One sentence, a line for each blatant column that says why, and what to do.
        """
        if not self.blatant:
            return
        first, *others = self.blatant
        knows, them, it = ("know", "them", "one") if others else ("knows", "it", "it")
        raise LeakageError(
            "\n".join(
                [
                    f"{len(self.blatant)} column{'s' if others else ''} {knows} the future.",
                    *(f"  '{found.column}': {found.why}" for found in self.blatant),
                    f"Leave {them} out{where}, or keep {it} after looking: --allow '{first.column}'.",
                ]
            )
        )

    def _allows(self, found: Finding) -> bool:
        return _bare(found.column) in {_bare(name) for name in self.allowed}


def audit_columns(
    frame: pd.DataFrame,
    outcome: Sequence[float] | pd.Series | np.ndarray,
    stepped_in: Sequence[bool] | pd.Series | np.ndarray,
    allow: Collection[str] = (),
    *,
    deals: pd.Series | np.ndarray | None = None,
    also_known: Collection[str] = (),
    as_of: Collection[str] = (),
) -> Audit:
    """Audit the features of a flat file or a decision table.

    Parameters
    ----------
    frame : the features, shape (n, k); any types
    outcome : 0 and 1, or a number, shape (n,); missing where nothing has come of it yet
    stepped_in : shape (n,)
    allow : columns that stay whatever is found; ``deal_Rating`` and ``Rating`` are the same
    deals : whose rows these are, shape (n,): one row of each deal is looked at
    also_known : names that may be allowed although they are no features any more
    as_of : features that were computed from what was on record at the moment: a length of time among them
        ends at the moment, so none of them accumulates until the closing

    Returns
    -------
    Audit
        Sorted by the frame's columns. Nothing is refused yet: see `Audit.refuse`.

    Raises
    ------
    UserError
        ``allow`` names no column; the nearest are offered.

    Notes
    -----
    A column is judged by figures with confidence bounds, so that a few hundred deals do not trigger by
    chance. An honest column may still be flagged where it truly is that strong: then it is allowed. A leak
    that is weak, honestly named and alone is not found by any rule.
    """
    refuse_unknown([*map(str, frame.columns), *also_known], allow)
    outcome, stepped_in = np.asarray(outcome, dtype=float), np.asarray(stepped_in, dtype=bool)
    rows = _some_rows(np.isfinite(outcome), deals)
    frame = frame.iloc[rows]
    stage = frame.get("stage")
    evidence = Evidence.of(outcome[rows], stepped_in[rows], stage)
    columns = [Column.of(str(name), frame[name], evidence) for name in frame.columns]
    found = [finding for rule in FRAME_RULES for finding in rule(columns, evidence)]
    found += [finding for rule in COLUMN_RULES for column in columns for finding in rule(column, evidence)]
    found = [each for each in found if each.rule != "accumulates" or each.column not in as_of]
    return Audit(_worst_each(found, [column.name for column in columns]), tuple(allow))


def audit_tables(tables: Tables, allow: Collection[str] = ()) -> Audit:
    """Audit the columns of CRM tables that become features, on the deals that are closed, and the open ones.

    A column of ``deals`` with a history is judged by what it held just before the deal closed. Names are the
    user's own; where two tables share one, it is ``partners.region``.

    Raises
    ------
    UserError
        ``allow`` names no column; the nearest are offered.
    """
    frame, outcome, joined = closed_deals(tables, MOST_ROWS)
    every = [*frame.columns, "customer_id", "partner_id"]
    every += [str(name) for table in (tables.deals, tables.partners, tables.customers) for name in table]
    refuse_unknown(every, allow)
    found = [*table_findings(tables, frame)]
    if 0 < outcome.sum() < len(outcome):
        found += audit_columns(frame, outcome, joined).findings
    return Audit(_worst_each(found, [*frame.columns, "customer_id", "partner_id"]), tuple(allow))


def allowed_before(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that were allowed when a decision table was made, from its ``about``."""
    return tuple(found["column"] for found in about.get("audit") or [] if found.get("allowed"))


def refuse_unknown(columns: Iterable[str], allow: Collection[str]) -> None:
    """Refuse a name that is no column, whether or not it says whose column it is."""
    known = list(dict.fromkeys(columns))
    bare = {_bare(name) for name in known}
    for name in allow:
        if name not in known and _bare(name) not in bare:
            raise UserError(_NO_SUCH_COLUMN.format(name=name, near=_near(name, known)))


def _near(name: str, known: Sequence[str]) -> str:
    """Offer the columns whose names hold the name or resemble it; without any, the first few."""
    folded = {column.casefold(): column for column in known}
    holding = [column for fold, column in folded.items() if name.casefold() in fold]
    alike = [folded[fold] for fold in get_close_matches(name.casefold(), folded, n=3)]
    near = list(dict.fromkeys([*alike, *holding]))[:5]
    named = ", ".join(f"'{each}'" for each in near or known[:5])
    if not near:
        return f"the columns are {named}{', ...' if len(known) > 5 else ''}"
    return f"the nearest {'are' if len(near) > 1 else 'is'} {named}"


def _bare(name: str) -> str:
    return _OWNERS.sub("", name)


def _some_rows(known: np.ndarray, deals: pd.Series | np.ndarray | None) -> np.ndarray:
    """One row of each deal, at random, and at most `MOST_ROWS` of them; always the same."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(known))
    if deals is not None:
        again = pd.Series(np.asarray(deals)[rows]).duplicated().to_numpy()
        rows = rows[~again]
    return np.sort(rows[:MOST_ROWS])


def _worst_each(found: Iterable[Finding], order: Sequence[str]) -> tuple[Finding, ...]:
    """Keep one finding a column: the first that stops, else the first."""
    kept: dict[str, Finding] = {}
    for finding in found:
        before = kept.get(finding.column)
        if before is None or (before.verdict == "warn" and finding.verdict == "stop"):
            kept[finding.column] = finding
    place = {name: at for at, name in enumerate(order)}
    return tuple(sorted(kept.values(), key=lambda finding: place.get(finding.column, len(place))))
