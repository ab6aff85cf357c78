"""The rows to learn from: every column located in its tables, in an order that follows from their content."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training import budget
from training.basis import CATEGORY, MANY_LEVELS, NUMBER, Array, Feature, Place, learn_levels, learn_number
from training.columns import ColumnKinds
from training.order import RowHash

MOST_NUISANCE_LEVELS = MANY_LEVELS


@dataclass(frozen=True)
class Rows:
    """n rows in canonical order: about six bytes a cell."""

    features: tuple[Feature, ...]
    places: tuple[Place, ...]
    """Per feature, of n values."""
    treated: NDArray[np.bool_]
    outcome: Array
    groups: NDArray[np.int64]
    """Codes of shape (n,)."""
    deals: NDArray[np.int64]
    order: NDArray[np.intp]
    """Where each row stood in the table that was given, shape (n,)."""
    outcome_weight: Array | None = None
    """What each outcome counts for, shape (n,); None is 1 for all."""

    @property
    def told_outcome(self) -> Array:
        """Outcomes that count at all."""
        return self.outcome if self.outcome_weight is None else self.outcome[self.outcome_weight > 0]

    def nuisance_matrix(self) -> tuple[NDArray[Any], list[bool]]:
        """One matrix for boosting: numbers as their place among the knots, levels as codes.

        Columns of more than 60 levels are left out: as native categories they harm.

        Returns
        -------
        matrix of four-byte floats, shape (n, k), NaN where missing; and which of its columns are codes
        """
        used = [i for i, (f, p) in enumerate(zip(self.features, self.places, strict=True)) if _is_told(f, p)]
        matrix = np.zeros((len(self.order), max(1, len(used))), dtype=np.float32)
        for column, i in enumerate(used):
            place = self.places[i]
            matrix[:, column] = place.low if place.weight is None else place.low + place.weight
            matrix[place.low == self.features[i].missing_row, column] = np.nan
        chosen = [self.features[i] for i in used]
        return matrix, [f.kind == CATEGORY and f.n_known > 1 for f in chosen] or [False]

    def as_given(self, values: NDArray) -> NDArray:
        """Put values of shape (n, ...) into the order of the table that was given."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


def read_rows(
    frame: pd.DataFrame,
    kinds: ColumnKinds,
    most_levels: int,
    treated: NDArray[np.bool_],
    outcome: Array,
    groups: NDArray[np.int64] | None,
    deals: NDArray[np.int64] | None,
    outcome_weight: Array | None = None,
) -> Rows:
    """Learn and locate the columns one by one, then sort the rows.

    Parameters
    ----------
    groups, deals : codes of shape (n,); None makes every row one of its own
    outcome_weight : what each outcome counts for, shape (n,); None is 1 for all
    """
    budget.refuse_too_many(frame.shape[1])
    features, places, content = [], [], RowHash(len(frame))
    for name, values in kinds.each(frame):
        kind = kinds.kinds[name]
        if isinstance(values, np.ndarray):
            feature = learn_number(name, values)
        else:
            feature = learn_levels(name, kind, values, most_levels)
        content.add(values)
        features.append(feature)
        places.append(feature.locate(values))
    most = budget.most_levels(features)
    for more in (treated, outcome, groups, deals, outcome_weight):
        if more is not None:
            content.add(more.astype(float))
    order = content.order()
    own = np.arange(len(order))
    group, deal = (own if codes is None else codes[order] for codes in (groups, deals))
    for i, place in enumerate(places):  # one by one: the old ones go
        features[i], places[i] = budget.with_fewer_levels(features[i], place.take(order), most)
    weight = None if outcome_weight is None else outcome_weight[order]
    return Rows(tuple(features), tuple(places), treated[order], outcome[order], group, deal, order, weight)


def _is_told(feature: Feature, place: Place) -> bool:
    """Whether boosting is told of a feature: it was ever known, and has not too many levels."""
    if feature.kind == NUMBER:
        return bool((place.low != feature.missing_row).any())
    has_others = bool((place.low == feature.unseen_row).any())
    return 1 <= feature.n_known <= MOST_NUISANCE_LEVELS and not has_others
