"""Deals -> the server's answers -> the rows of an import file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import IO, Any

import orjson

from features.problems import UserError
from serving.answer_body import Answered
from serving.reading import DealAsked
from serving.recommend import Recommender
from serving.write_back.layout import Layout

_AT_ONCE = 1000


def write_rows(
    layout: Layout, recommender: Recommender, deals: Iterable[DealAsked], now: datetime, file: IO[str]
) -> Counter[str]:
    """Write a heading and a row for each deal; return how many got which advice.

    Parameters
    ----------
    layout : of the CRM
    recommender : of the model; what it says is what the server would answer
    deals : with the model's own features; each deal once, since a loader takes one row for a record
    now : in UTC; stands for a moment that a deal does not name
    file : open for text with ``newline=""``, in the layout's encoding

    Raises
    ------
    UserError
        A deal comes twice.
    """
    out = csv.writer(file, lineterminator=layout.line_end)
    out.writerow(layout.columns)
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    for some in _by_thousands(deals):
        for deal, answered in zip(some, recommender.answer_many(some, now), strict=True):
            if deal.deal_id in seen:
                raise UserError(
                    f"Deal '{deal.deal_id[:60]}' comes twice, but a CRM's loader takes one row for a record. "
                    "Score the open deals of a folder of CRM tables, or a file with a row per deal."
                )
            seen.add(deal.deal_id)
            facts = facts_of(answered)
            counts[facts["advice"]] += 1
            facts["advice"] = layout.advice[facts["advice"]]
            out.writerow([layout.text(facts[fact]) for fact in layout.columns.values()])
    return counts


def facts_of(answered: Answered) -> dict[str, Any]:
    """What an import file may hold of an answer, by the names in `layout.FACTS`."""
    body = orjson.loads(answered.body)
    low, high = body["uplift_interval_points"]
    sentences = [reason["sentence"] for reason in body["reasons"][:3]]
    value = body["expected_value"]
    return {
        **{f"reason_{i + 1}": sentences[i] if i < len(sentences) else None for i in range(3)},
        **{f"model_{name}": body["model"][name] for name in ("name", "version", "digest")},
        **{name: body[name] for name in ("deal_id", "stage", "score", "advice", "default_action_applied")},
        **{name: body[name] for name in ("uplift_points", "break_even_points")},
        "uplift_low_points": low,
        "uplift_high_points": high,
        "expected_value": None if value is None else value["amount"],
        "as_of": datetime.fromisoformat(body["as_of"]),
    }


def _by_thousands(deals: Iterable[DealAsked]) -> Iterator[Sequence[DealAsked]]:
    waiting = iter(deals)
    while some := list(islice(waiting, _AT_ONCE)):
        yield some
