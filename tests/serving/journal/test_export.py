"""The joined journal, computed a second way in plain Python."""

import asyncio
import random
from datetime import timedelta
from typing import Any

from journal_rows import NOON, an_answer
from sqlalchemy import insert

from features.journal_columns import JOINED_COLUMNS
from serving.journal import Journal
from serving.journal.export import joined, read_joined
from serving.journal.tables import answers, outcomes, overrides


def fill(journal: Journal, seed: int) -> tuple[list[dict[str, Any]], ...]:
    """Some 60 answers on 12 deals, in any order, with all that may come back."""
    rng = random.Random(seed)
    deals = [f"D-{number}" for number in range(12)]
    moments = [NOON + timedelta(seconds=second) for second in rng.sample(range(10_000), 150)]
    asked = [
        an_answer(number, deal_id=rng.choice(deals), asked_at=moments.pop(), recommendation_id=f"r-{number}")
        for number in range(50)
    ]
    shadows = [{**row, "role": "shadow", "advice": "step_back"} for row in asked[::5]]
    ended = [
        {
            "outcome_id": f"o-{number}",
            "deal_id": rng.choice([*deals[:8], "D-never-asked-about"]),
            "outcome": rng.choice(["won", "lost", "open"]),
            "closed_at": rng.choice([None, NOON]),
            "received_at": moments.pop(),
            "sent_by": "key-1",
        }
        for number in range(20)
    ]
    decided = [
        {
            "override_id": f"v-{number}",
            "recommendation_id": rng.choice([None, *(row["recommendation_id"] for row in asked), "r-none"]),
            "deal_id": rng.choice(deals),
            "decided": rng.choice(["step_in", "step_back"]),
            "reason": f"reason {number}",
            "received_at": moments.pop(),
            "sent_by": "key-1",
        }
        for number in range(30)
    ]
    for each in decided[::2]:
        each["recommendation_id"] = None
    with journal.writing() as connection:
        for table, rows in ((answers, asked + shadows), (outcomes, ended), (overrides, decided)):
            rng.shuffle(rows)
            connection.execute(insert(table), rows)
    return asked + shadows, ended, decided


def newest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row["received_at"], default={})


def expected_rows(
    asked: list[dict[str, Any]], ended: list[dict[str, Any]], decided: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    def meant(override: dict[str, Any]) -> str | None:
        if override["recommendation_id"]:
            return str(override["recommendation_id"])
        before = [
            row
            for row in asked
            if row["deal_id"] == override["deal_id"]
            and row["role"] == "served"
            and row["asked_at"] <= override["received_at"]
        ]
        return max(before, key=lambda row: row["asked_at"])["recommendation_id"] if before else None

    rows = []
    for row in sorted(asked, key=lambda row: (row["asked_at"], row["role"])):
        outcome = newest([each for each in ended if each["deal_id"] == row["deal_id"]])
        mine = [each for each in decided if meant(each) == row["recommendation_id"]]
        override = newest(mine if row["role"] == "served" else [])
        rows.append(
            {
                **row,
                "outcome": outcome.get("outcome"),
                "closed_at": outcome.get("closed_at"),
                "outcome_received_at": outcome.get("received_at"),
                "override_decided": override.get("decided"),
                "override_reason": override.get("reason"),
                "override_received_at": override.get("received_at"),
            }
        )
    return rows


def test_an_answer_is_joined_with_the_last_word_on_it(url: str) -> None:
    journal = Journal.open(url, "off", "refuse")
    expected = expected_rows(*fill(journal, seed=3))
    found = [row._asdict() for rows in read_joined(journal.engine, 7) for row in rows]
    asyncio.run(journal.close())
    assert found == expected
    assert tuple(found[0]) == JOINED_COLUMNS
    for name in ("outcome", "closed_at", "override_decided"):
        assert {row[name] is None for row in found} == {True, False}


def test_reading_sees_one_moment_while_others_write(url: str) -> None:
    async def go() -> list[int]:
        journal = Journal.open(url, "strict", "refuse")
        await journal.record([an_answer(number) for number in range(100)])
        sizes = []
        for rows in read_joined(journal.engine, 30):
            sizes.append(len(rows))
            await journal.record([an_answer(1000 + len(sizes))])
        await journal.close()
        return sizes

    assert asyncio.run(go()) == [30, 30, 30, 10]


def test_a_long_journal_is_joined_by_indexes(sqlite_url: str) -> None:
    """Without: 85 seconds for 180,000 answers and 5,000 overrides. With: 5."""
    journal = Journal.open(sqlite_url, "off", "refuse")
    statement = str(joined().compile(journal.engine, compile_kwargs={"literal_binds": True}))
    with journal.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    asyncio.run(journal.close())
    joins = [line.partition("INDEX ")[2] for line in plan if line.endswith("LEFT-JOIN")]
    assert len(joins) == 3
    for column in ("deal_id=?", "answer_id=?", "override_id=?"):
        assert any(column in line for line in joins), plan
