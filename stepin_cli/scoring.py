"""What `stepin score` does: a table of advice, or an import file for a CRM."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stepin_cli.console import waiting
from stepin_cli.places import named_model, read_to_score, whole_file, write_table

if TYPE_CHECKING:
    from features import DecisionTable
    from serving.reading import DealAsked


@dataclass(frozen=True)
class Scored:
    """What was written."""

    advice: dict[str, int]
    """How many got which advice, the most frequent first."""
    mind: list[str]
    """What to mind about the file."""


def score_to_a_table(model: str, source: Path, out: Path, columns: Path | None) -> Scored:
    """Write a row for each decision, as Parquet or CSV by the ending of `out`."""
    from training.scoring import learned_categories, score_table

    folder = Path(named_model(model)["STEPIN_MODEL"])
    categories = learned_categories(folder)
    with waiting("Scoring"):
        table = score_table(folder, read_to_score(source, columns, categories))
        write_table(table, out)
    return Scored({str(advice): int(n) for advice, n in table["advice"].value_counts().items()}, [])


def score_for_a_crm(model: str, source: Path, out: Path, columns: Path | None, crm: str) -> Scored:
    """Write an import file: what the server would answer for each deal, in the CRM's own columns.

    STEPIN_* variables count as they do for the server, so that both say the same.
    """
    from features.problems import UserError
    from serving.model import load
    from serving.recommend import Recommender
    from serving.settings import Settings
    from serving.write_back import Layout, write_rows
    from training.scoring import learned_categories

    layout = Layout.read(crm)
    named = named_model(model)
    recommender = Recommender.of(load(Settings.from_environ({**os.environ, **named})))
    folder = Path(named["STEPIN_MODEL"])
    with waiting("Scoring"):
        decisions = read_to_score(source, columns, learned_categories(folder))
        if len(decisions.rows) == 0:
            raise UserError("There is no decision to score: no deal is open. Nothing was written.")
        now = datetime.now(UTC)
        with (
            whole_file(out) as fresh,
            fresh.open("w", encoding=layout.encoding, errors="replace", newline="") as file,
        ):
            asked = _asked(folder, decisions, source.is_dir())
            counts = write_rows(layout, recommender, asked, now, file)
    return Scored(dict(counts.most_common()), list(_to_mind(layout.title, layout.most_mb, out)))


def _asked(folder: Path, decisions: "DecisionTable", are_open: bool) -> "Iterator[DealAsked]":
    """The decisions as requests: open deals with what the export knows, others with what was known then."""
    from serving.reading import DealAsked
    from training.scoring import values_as_learned

    exported_at = datetime.fromisoformat(str(decisions.about["exported_at"])) if are_open else None
    moments = [moment if moment == moment else None for moment in decisions.rows["decided_at"]]  # NaT is not
    deals = decisions.rows["deal_id"].astype(str)
    for deal_id, moment, features in zip(deals, moments, values_as_learned(folder, decisions), strict=True):
        yield DealAsked(deal_id, features, exported_at or moment)


def _to_mind(title: str, most_mb: float | None, out: Path) -> Iterator[str]:
    size_mb = out.stat().st_size / 1e6
    if most_mb is not None and size_mb > most_mb:
        yield f"{out} has {size_mb:.0f} MB; {title} takes {most_mb:g} MB in one file. Load it in parts."
