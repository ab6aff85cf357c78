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


def sequential_blocks(
    units: NDArray, when: NDArray | None, first_share: float, n_blocks: int, seed: int = 0
) -> NDArray[np.int64]:
    """Block of each row, shape (n,), forward in time: 0 is learned from only, 1, 2, ... are judged in turn.

    Parameters
    ----------
    units : what stays in one block with all its rows, shape (n,): deals; partners where there are no dates
    when : moment of each row, shape (n,); None puts the units in random order instead
    first_share : share of units, those that came first, in block 0
    n_blocks : the others are cut into so many blocks of about equal size
    seed : of the random order

    Returns
    -------
    ndarray (n,)
        Numbered without gaps. Units whose first moment is the same share a block, so coarse dates may make
        fewer blocks than asked, and a single moment makes one.

    Notes
    -----
    A unit is placed by its first row. Blocks overlap in time only where old deals live long.
    """
    _, unit = np.unique(units, return_inverse=True)
    n_units = int(unit.max(initial=-1)) + 1
    if when is None:
        first = np.random.default_rng(seed).permutation(n_units)
    else:
        first = np.full(n_units, np.iinfo(np.int64).max)
        np.minimum.at(first, unit, np.asarray(when).astype("datetime64[us]").astype(np.int64))
    _, moment, tied = np.unique(first, return_inverse=True, return_counts=True)
    middle = (np.cumsum(tied) - tied / 2)[moment] / max(n_units, 1)
    edges = first_share + (1 - first_share) * np.arange(n_blocks) / n_blocks
    block = np.searchsorted(edges, middle, side="left")
    return np.unique(block, return_inverse=True)[1].astype(np.int64)[unit]
