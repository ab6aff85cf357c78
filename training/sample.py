"""Fewer decisions for a doubt: whole deals at random, in an order that does not depend on the table's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from features.decisions import DecisionTable


def sample(decisions: DecisionTable, most_rows: int, seed: int) -> DecisionTable:
    """At most `most_rows` decisions of whole deals, ordered by their ids."""
    chosen = np.flatnonzero(whole_deals(decisions.rows["deal_id"], most_rows, seed))
    ids = decisions.rows.index.to_numpy(dtype=str)[chosen]
    return decisions.take(chosen[np.argsort(ids, kind="stable")])


def whole_deals(deal_ids: NDArray | pd.Series, most_rows: int, seed: int) -> NDArray[np.bool_]:
    """Mark at most `most_rows` rows of deals drawn at random, shape (n,): all of a deal's rows or none.

    Deals are drawn by a hash of their ids, so that neither the order of the rows nor what other deals there
    are moves one before another. With no more rows than that, all are marked; one deal is marked in any case.
    """
    if len(deal_ids) <= most_rows:
        return np.ones(len(deal_ids), dtype=bool)
    key = f"{seed % 10**16:016d}"
    place = pd.util.hash_pandas_object(pd.Series(deal_ids), index=False, hash_key=key).to_numpy()
    drawn = place < np.partition(place, most_rows)[most_rows]
    return drawn if drawn.any() else place == place.min()
