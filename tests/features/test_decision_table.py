"""One file holds a decision table, whole or not at all, and gives it back as it was."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from features.decision_table import DecisionTable
from features.decisions import build_decisions, open_decisions
from features.problems import UserError


@pytest.fixture(scope="module")
def table(make_tables):
    return build_decisions(make_tables(1))


@pytest.mark.parametrize("of", [build_decisions, open_decisions])
def test_what_was_written_is_read_with_its_types_and_levels(make_tables, tmp_path, of):
    table = of(make_tables(1))
    table.write(tmp_path / "decisions.parquet")
    again = DecisionTable.read(tmp_path / "decisions.parquet")
    assert_frame_equal(again.rows, table.rows)
    assert_frame_equal(again.features, table.features)
    assert again.about == table.about
    assert again.digest() == table.digest()


def test_levels_that_no_row_has_are_kept_in_their_order(table, tmp_path):
    features = table.features.assign(
        grade=pd.Categorical.from_codes([1] * len(table), ["low", "high", "never"], ordered=False),
        empty=pd.Categorical.from_codes([-1] * len(table), pd.Index([], dtype="str")),
    )
    wider = DecisionTable(table.rows, features, table.about)
    wider.write(tmp_path / "d.parquet")
    assert_frame_equal(DecisionTable.read(tmp_path / "d.parquet").features, wider.features)


def test_only_the_whole_file_appears(table, tmp_path, monkeypatch):
    table.write(tmp_path / "d.parquet")
    before = (tmp_path / "d.parquet").read_bytes()

    def breaks_off(_table, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", breaks_off)
    with pytest.raises(OSError, match="disk full"):
        table.take(table.treatment).write(tmp_path / "d.parquet")
    assert (tmp_path / "d.parquet").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["d.parquet"]


def test_anyone_can_read_the_file_as_parquet(table, tmp_path):
    table.write(tmp_path / "d.parquet")
    frame = pd.read_parquet(tmp_path / "d.parquet")
    assert frame["feature.amount"].equals(table.features["amount"])
    assert frame.index.name == "decision_id"


def test_the_digest_knows_content_and_not_order(table):
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = DecisionTable(table.rows.iloc[order], table.features.iloc[order], table.about)
    assert shuffled.digest() == table.digest()
    other_outcome = table.rows.assign(outcome=1 - table.rows["outcome"])
    other_amount = table.features.assign(amount=table.features["amount"] + 1)
    different = [
        DecisionTable(other_outcome, table.features, table.about),
        DecisionTable(table.rows, other_amount, table.about),
        DecisionTable(table.rows, table.features, table.about | {"horizon_days": 90}),
        DecisionTable(table.rows, table.features.rename(columns={"amount": "value"}), table.about),
        table.take(np.arange(len(table)) > 0),
    ]
    assert len({table.digest(), *(each.digest() for each in different)}) == 6


def test_taking_some_takes_rows_and_features_alike(table):
    some = table.take(table.treatment)
    assert some.treatment.all()
    assert len(some) == len(some.X) == table.treatment.sum()
    assert some.about == table.about
    assert some.rows.index.equals(some.features.index)


def test_decisions_without_a_partner_hang_together_by_deal(table):
    alone = table.rows["deal_id"].str[-1].isin(list("02468"))
    rows = table.rows.assign(partner_id=table.rows["partner_id"].mask(alone))
    groups = DecisionTable(rows, table.features, table.about).groups
    expected = np.where(alone, table.rows["deal_id"], table.rows["partner_id"])
    assert groups.tolist() == expected.tolist()


def test_two_decisions_cannot_share_an_id(table):
    first = table.take(np.arange(len(table)) < 1)
    rows, features = pd.concat([first.rows] * 2), pd.concat([first.features] * 2)
    with pytest.raises(UserError) as refusal:
        DecisionTable(rows, features, table.about)
    decision_id = first.rows.index[0]
    assert (
        str(refusal.value)
        == f"decisions would share an id; rename the deals or stages (1 row: {decision_id})."
    )


def test_what_is_no_decision_table_is_refused(table, tmp_path):
    file = tmp_path / "x.parquet"
    file.write_text("no parquet")
    with pytest.raises(UserError, match=r"^x\.parquet cannot be read as a decision table: "):
        DecisionTable.read(file)
    table.rows.to_parquet(file)
    with pytest.raises(
        UserError,
        match=r"^x\.parquet is not a decision table; write one with 'stepin features', "
        r"or say what its columns mean with --columns\.$",
    ):
        DecisionTable.read(file)
    later = pa.table({"a": [1]}).replace_schema_metadata({b"stepin": b'{"format": 2}'})
    pq.write_table(later, file)
    with pytest.raises(UserError, match=r"^x\.parquet has format 2; this version reads format 1\.$"):
        DecisionTable.read(file)
