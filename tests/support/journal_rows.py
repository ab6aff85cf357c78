"""Answers as the server records them, made up."""

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from features.journal_columns import ANSWER_COLUMNS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def an_answer(number: int = 0, **changes: Any) -> dict[str, Any]:
    """The record of one answer; `number` moves its time, its deal and its uplift."""
    uplift = 0.08 + number / 10_000
    answer = {
        "recommendation_id": str(uuid.uuid4()),
        "deal_id": f"D-{number}",
        "asked_at": NOON + timedelta(seconds=number),
        "as_of": NOON + timedelta(seconds=number),
        "stage": "propose",
        "advice": "step_in",
        "default_action_applied": False,
        "score": 87.5,
        "uplift": uplift,
        "uplift_low": uplift - 0.05,
        "uplift_high": uplift + 0.05,
        "break_even": 0.05,
        "chance": 1.0,
        "model_name": "winter",
        "model_version": "3",
        "model_digest": "ab" * 32,
        "role": "served",
        "facts": json.dumps({"amount": 1000.0 * number, "stage": "propose", "competitor": "Łódź AG"}),
        "asked_by": "key-1",
    }
    assert tuple(answer) == ANSWER_COLUMNS
    return {**answer, **changes}


def stored_ids(url: str) -> list[str]:
    """The ids of the answers in the journal, read without any of its code."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [row[0] for row in connection.execute("SELECT recommendation_id FROM answers")]
        finally:
            connection.close()
    return [row[0] for row in query(url, "SELECT recommendation_id FROM answers")]


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database itself; times and booleans come as it keeps them."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]
    finally:
        engine.dispose()


async def eventually(holds: Callable[[], bool | Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until it holds; fail if it never does."""
    async with asyncio.timeout(seconds):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
