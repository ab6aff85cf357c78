"""Splits that keep what belongs together on one side."""

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from features.problems import UserError


def grouped_folds(groups: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """Fold of each row, shape (n,): rows of one group share a fold, folds are about equally large.

    Raises
    ------
    UserError
        Fewer groups than folds.
    """
    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise UserError(
            f"{n_groups} {'group' if n_groups == 1 else 'groups'} (partners) came; cross-fitting needs at "
            f"least {n_folds}, so that each is judged by a model that never saw it."
        )
    fold = np.empty(len(groups), dtype=np.int64)
    for number, (_, held_out) in enumerate(GroupKFold(n_folds).split(groups, groups=groups)):
        fold[held_out] = number
    return fold


def newest_deals(deal_ids: NDArray, decided_at: NDArray, share: float) -> NDArray[np.bool_]:
    """Mark the rows of the deals whose first decision is among the newest `share`, shape (n,).

    A deal stays on one side with all its decisions. Time orders the split, so the judged decisions lie
    after those that were learned from; they overlap only where old deals live long.
    """
    _, deal = np.unique(deal_ids, return_inverse=True)
    when = np.asarray(decided_at).astype("datetime64[us]").astype(np.int64)
    first = np.full(deal.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, deal, when)
    edge = np.quantile(first, 1.0 - share)
    newest = first > edge
    if not newest.any() and (first < edge).any():  # coarse dates: many deals share the last one
        newest = first == edge
    return newest[deal]


def random_groups(groups: NDArray, share: float, seed: int) -> NDArray[np.bool_]:
    """Mark the rows of a random `share` of the groups, shape (n,): for tables without dates."""
    names, code = np.unique(groups, return_inverse=True)
    chosen = np.random.default_rng(seed).permutation(len(names)) < round(share * len(names))
    return chosen[code]
