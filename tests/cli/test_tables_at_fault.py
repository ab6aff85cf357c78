"""Tables that cannot be used, and tables that only look so."""

import re

import pandas as pd
import pytest
from command_line import changed, done, run


def with_first(column, value, n=1):
    def change(table):
        values = table[column].astype("object")
        values.iloc[:n] = value
        return table.assign(**{column: values})

    return change


def closed_before_created(table):
    day_before = table["created_at"] - pd.Timedelta(days=1)
    return table.assign(closed_at=day_before.where(table["outcome"] != "open"))


FIRST_FIVE = "D0000000, D0000001, D0000002, D0000003, D0000004, ..."
AT_FAULT = [
    ("a table is missing", {"partners": lambda _: None}, r".* lacks partners: each of .*"),
    (
        "text for a number",
        {"deals": with_first("amount", "lots", 7)},
        rf"deals\.csv: column 'amount' should be a number; came text such as 'lots': mend it, or leave it "
        rf"empty \(7 rows: {FIRST_FIVE}\)\.",
    ),
    (
        "an outcome nobody knows",
        {"deals": with_first("outcome", "Won ")},
        r"deals\.csv: column 'outcome' should be one of won, lost, open; came 'Won ' \(1 row: D0000000\)\.",
    ),
    (
        "a date in the future",
        {"deals": with_first("created_at", "2999-01-01")},
        r"deals\.csv: column 'created_at' should not lie in the future; it is .* UTC \(1 row: D0000000\)\.",
    ),
    (
        "closed before created",
        {"deals": closed_before_created},
        r"deals\.csv: column 'closed_at' should not lie before created_at \([\d]+ rows: D0000000, .*\)\.",
    ),
    (
        "an id twice",
        {"deals": lambda deals: pd.concat([deals, deals.head(1)])},
        r"deals\.csv: column 'deal_id' should name each row once; came more than once "
        r"\(2 rows: D0000000, D0000000\)\.",
    ),
    (
        "nobody ever stepped in",
        {"involvements": lambda table: table.head(0)},
        r"None of the [\d,]+ decisions stepped in; both kinds are needed to compare\.",
    ),
    (
        "nothing was won",
        {"deals": lambda deals: deals.assign(outcome=deals["outcome"].replace("won", "lost"))},
        r"None of the [\d,]+ decisions won within the horizon; both kinds are needed to compare\.",
    ),
]


@pytest.mark.parametrize(("_what", "changes", "message"), AT_FAULT, ids=[what for what, _, _ in AT_FAULT])
def test_a_table_at_fault_is_refused_in_one_sentence(_what, changes, message, crm, here):
    changed(crm, here / "tables", **changes)
    said = run("train", "tables", "--out", "model")
    assert re.fullmatch(f"stepin: {message}\n", said.err)
    assert (said.status, said.out) == (1, "")
    assert not list(here.glob("*model*"))


def test_missing_amounts_numbers_as_text_and_columns_that_say_nothing_are_no_fault(crm, here):
    def untidy(deals):
        texts = deals["amount"].map(lambda amount: f"{amount:.1f}", na_action="ignore")
        return deals.assign(amount=texts.where(deals.index % 2 == 0), product_line="core", competitor=None)

    changed(crm, here / "tables", deals=untidy)
    said = done("features", "tables", "out.parquet")
    [line] = [line for line in said.out.splitlines() if line.startswith("Left out, for they say nothing: ")]
    assert "product_line (the same everywhere)" in line
    assert "competitor (all missing)" in line


def test_too_little_to_learn_from_is_refused_with_counts(here):
    done("simulate", "small", "--deals", "100")
    said = run("train", "small", "--out", "model")
    assert re.fullmatch(
        r"stepin: The evidence is not enough to advise on: \d+ decisions, \d+ won with the vendor, "
        r"\d+ lost with the vendor, \d+ won without, \d+ lost without; at least 40 of each are needed\. "
        r"Nothing was written\. Bring more past deals(: about [\d,]+ more decisions like these)?\.\n",
        said.err,
    )
    assert (said.status, said.out) == (1, "")
    assert {path.name for path in here.iterdir()} == {"small"}
