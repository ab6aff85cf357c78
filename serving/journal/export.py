"""Answers joined with what came of them: what training learns from, and what someone asks in six months."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, Row, Select, Subquery, Text, cast, func, select

from features.journal_columns import JOINED_COLUMNS
from serving.journal.tables import answers, outcomes, overrides

SERVED = "served"


def read_joined(engine: Engine, rows_at_once: int = 5_000) -> Iterator[Sequence[Row[Any]]]:
    """Read every answer, in one look at the journal, oldest first.

    Yields
    ------
    sequence of at most `rows_at_once` rows
        Columns `JOINED_COLUMNS`; times in UTC.
    """
    with engine.connect().execution_options(yield_per=rows_at_once) as connection:
        yield from connection.execute(joined()).partitions()


def joined() -> Select[Any]:
    """Select an answer a row, with the newest outcome of its deal and its own newest override.

    An override that names a deal only belongs to the deal's last answer before it. What is joined does not
    depend on the order in which it was received, but for the last word: corrections win.
    """
    outcome, override = _newest_outcomes(), _newest_overrides()
    found = (
        select(
            answers,
            outcome.c.outcome,
            outcome.c.closed_at,
            outcome.c.received_at.label("outcome_received_at"),
            override.c.decided.label("override_decided"),
            override.c.reason.label("override_reason"),
            override.c.received_at.label("override_received_at"),
        )
        .outerjoin(outcome, (outcome.c.deal_id == answers.c.deal_id) & (outcome.c.place == 1))
        .outerjoin(
            override,
            (override.c.answer_id == answers.c.recommendation_id)
            & (answers.c.role == SERVED)
            & (override.c.place == 1),
        )
        .order_by(answers.c.asked_at, answers.c.recommendation_id, answers.c.role)
    )
    assert tuple(found.selected_columns.keys()) == JOINED_COLUMNS
    return found


def _newest_outcomes() -> Subquery:
    place = func.row_number().over(
        partition_by=outcomes.c.deal_id, order_by=(outcomes.c.received_at.desc(), outcomes.c.outcome_id)
    )
    return select(outcomes, place.label("place")).subquery()


def _newest_overrides() -> Subquery:
    before = _answers_before()
    # Cast, for SQLite joins by an index of its own making only where it knows the types to be the same.
    answer_id = cast(func.coalesce(overrides.c.recommendation_id, before.c.recommendation_id), Text)
    answered = (
        select(overrides, answer_id.label("answer_id"))
        .outerjoin(before, (before.c.override_id == overrides.c.override_id) & (before.c.place == 1))
        .subquery()
    )
    place = func.row_number().over(
        partition_by=answered.c.answer_id, order_by=(answered.c.received_at.desc(), answered.c.override_id)
    )
    return select(answered, place.label("place")).subquery()


def _answers_before() -> Subquery:
    """The served answers that an override without an answer's id may mean, the last one in place 1.

    One pass over the answers, which have no index on deals.
    """
    place = func.row_number().over(
        partition_by=overrides.c.override_id,
        order_by=(answers.c.asked_at.desc(), answers.c.recommendation_id),
    )
    return (
        select(overrides.c.override_id, answers.c.recommendation_id, place.label("place"))
        .join_from(answers, overrides, answers.c.deal_id == overrides.c.deal_id)
        .where(
            overrides.c.recommendation_id.is_(None),
            answers.c.role == SERVED,
            answers.c.asked_at <= overrides.c.received_at,
        )
        .subquery()
    )
