import numpy as np
import pandas as pd

from features.decisions import DecisionTable


def _table(partners, deals):
    n = len(deals)
    rows = pd.DataFrame(
        {
            "deal_id": deals,
            "partner_id": pd.Series(partners, dtype="str"),
            "stage": pd.Series([None] * n, dtype="str"),
            "decided_at": pd.Series([pd.NaT] * n).dt.tz_localize("UTC"),
            "stepped_in": [True] * n,
            "outcome": [1.0] * n,
            "amount": [np.nan] * n,
        },
    )
    return DecisionTable(rows, pd.DataFrame(index=rows.index), {})


def test_a_deal_whose_rows_name_several_partners_is_one_group_with_them():
    groups = _table(["P1", "P2", "P2", "P3", None], ["a", "a", "b", "c", "d"]).groups
    assert groups.tolist() == ["P1", "P1", "P1", "P3", "d"]


def test_a_partner_is_a_group_of_its_own_where_deals_name_one():
    groups = _table(["P2", "P1", "P2", None], ["a", "b", "c", "d"]).groups
    np.testing.assert_array_equal(groups, ["P2", "P1", "P2", "d"])
