"""The journal leaves the server as one table."""

import asyncio

import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_line import done, one_document, run
from journal_rows import NOON, an_answer

from features.journal_columns import JOINED_COLUMNS
from serving.journal import Journal


def record(url, n):
    async def go():
        journal = Journal.open(url, "strict", "refuse")
        await journal.record([an_answer(number, recommendation_id=f"r-{number}") for number in range(n)])
        if n:
            await journal.add_outcome({"deal_id": "D-1", "outcome": "won", "closed_at": NOON, "sent_by": "k"})
            no = {"deal_id": "D-2", "decided": "step_back", "reason": "They know us.", "sent_by": "k"}
            await journal.add_override({"recommendation_id": "r-2", **no})
        await journal.close()

    asyncio.run(go())


def test_answers_are_exported_with_what_came_of_them(here, monkeypatch):
    record("sqlite:///told.db", 12_000)
    monkeypatch.setenv("STEPIN_DATABASE", "sqlite:///told.db")
    said = one_document(done("journal", "export", "out.parquet", "--json").out)
    assert said == {"out": "out.parquet", "answers": 12_000, "with_outcome": 1, "overridden": 1}
    table = pd.read_parquet("out.parquet")
    assert tuple(table.columns) == JOINED_COLUMNS
    assert list(table["recommendation_id"]) == [f"r-{number}" for number in range(12_000)]
    row = table.iloc[1]
    assert (row["outcome"], row["closed_at"], row["uplift"]) == ("won", NOON, an_answer(1)["uplift"])
    assert list(table.index[table["override_decided"].notna()]) == [2]
    assert str(table["asked_at"].dtype) == "datetime64[us, UTC]"


def test_an_empty_journal_is_a_table_of_the_same_columns(here):
    record("sqlite:///stepin.db", 0)
    out = done("journal", "export", "out.parquet").out
    assert out == "out.parquet: 0 answers, 0 of them with an outcome, 0 overridden\n"
    empty = pq.read_schema("out.parquet")
    record("sqlite:///other.db", 3)
    done("journal", "export", "more.parquet", "--database", "sqlite:///other.db")
    assert pq.read_schema("more.parquet") == empty
    assert tuple(empty.names) == JOINED_COLUMNS


@pytest.mark.parametrize(
    ("out", "database", "said"),
    [
        ("out.parquet", "sqlite:///none.db", "There is no journal at none.db: name it with --database or "),
        (
            "out.csv",
            "sqlite:///stepin.db",
            "out.csv should end in .parquet: the table is written as Parquet.",
        ),
        ("no/out.parquet", "sqlite:///stepin.db", "no/out.parquet cannot be written: there is no folder no."),
        ("out.parquet", "oracle://x", "The database should be SQLite or PostgreSQL"),
    ],
)
def test_what_cannot_be_exported_is_refused(here, out, database, said):
    record("sqlite:///stepin.db", 0)
    ended = run("journal", "export", out, "--database", database)
    assert ended.status == 1
    assert ended.err.startswith(f"stepin: {said}")
    assert sorted(each.name for each in here.iterdir()) == ["stepin.db"]
