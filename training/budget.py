"""How many columns each feature may bring, so that fitting stays affordable with hundreds of features.

A fit costs the cube of the design's columns. Where features are few every one gets its full share; where
they are many, numbers get fewer hat functions and categories fewer levels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from features.problems import UserError
from training.basis import CATEGORY, NUMBER, Feature, Place

MOST_FEATURES = 750
MOST_COLUMNS = 1500
MOST_LOW_COLUMNS = 400
_HATS = (9, 7, 5, 3, 0)
_FEWEST_LEVELS = 3


def refuse_too_many(n_features: int) -> None:
    """Refuse what no budget can hold.

    Raises
    ------
    UserError
        There are more than 750 columns.
    """
    if n_features > MOST_FEATURES:
        raise UserError(
            f"X has {n_features} columns; at most {MOST_FEATURES} can be learned from. "
            "Leave out those that could matter neither to the choice nor to the outcome."
        )


def hats(features: Sequence[Feature]) -> int:
    """Hat functions for each number: 9, or as many as leave room for a third of the columns to be levels."""
    curved = sum(f.kind == NUMBER and f.n_known > 2 for f in features)
    room = MOST_COLUMNS - min(sum(f.n_known for f in features if f.kind == CATEGORY), MOST_COLUMNS // 3)
    return next((count for count in _HATS if curved * (count + 2) <= room), 0)


def most_levels(features: Sequence[Feature]) -> int:
    """Levels that a category may keep, so that all together stay within what numbers leave."""
    sizes = np.array([f.n_known for f in features if f.kind == CATEGORY])
    each = hats(features) + 2
    room = MOST_COLUMNS - sum(each if f.kind == NUMBER else 2 for f in features if f.kind != CATEGORY)
    largest = int(sizes.max(initial=0))
    fits = (count for count in range(largest, 0, -1) if np.minimum(sizes, count).sum() <= room)
    return max(next(fits, 0), _FEWEST_LEVELS)


def with_fewer_levels(feature: Feature, place: Place, most: int) -> tuple[Feature, Place]:
    """Keep the `most` commonest levels of a category; the others count as never seen."""
    if feature.kind != CATEGORY or feature.n_known <= most:
        return feature, place
    counts = np.bincount(place.low, minlength=feature.n_rows)[: feature.n_known]
    kept = np.sort(np.argsort(-counts, kind="stable")[:most])
    fewer = replace(feature, levels=tuple(feature.levels[i] for i in kept))
    row = np.full(feature.n_rows, fewer.unseen_row, dtype=place.low.dtype)
    row[kept] = np.arange(len(kept))
    row[feature.missing_row] = fewer.missing_row
    return fewer, Place(row[place.low])


def is_pair_simple(features: Sequence[Feature]) -> bool:
    """Whether numbers stand in pairs with their line only: their curve would make too many products."""
    return sum(2 if f.kind == NUMBER else min(f.n_known, 12) for f in features) > MOST_LOW_COLUMNS
