"""From a posterior over coefficients to the scorecard's tables."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.additive import AdditiveModel
from training.basis import BOOLEAN, CATEGORY, NUMBER, Array, Feature, Place
from training.design import PairTerm
from training.effect import Posterior
from training.scorecard import Cells, Pair, Scorecard, Support

_CELL_FEATURES = 3
_CELL_LEVELS = 10
_SEEN_OFTEN = 20
_BY_CHANCE = 0.001


def compile_scorecard(
    posterior: Posterior,
    places: Sequence[Place],
    outcome: AdditiveModel,
    propensity: AdditiveModel,
    treated: NDArray[np.bool_],
    binary: bool,
    support: Support,
    chance: Array | None = None,
) -> Scorecard:
    """Multiply every basis table with its coefficients, for the point and for each draw.

    With the `chance` of stepping in of each decision, shape (n,), as told by models that did not know its
    partner, levels that were only ever seen one way are found and left out of the support.
    """
    design = posterior.design
    columns = np.column_stack([posterior.mean, (posterior.draws - posterior.mean).T])
    if binary:
        columns[0, 0] = np.clip(columns[0, 0], -1.0, 1.0)  # no probabilities differ by more
    effect = tuple(table @ columns[at] for table, at in zip(design.tables, design.columns, strict=True))
    low = tuple(
        np.zeros((f.n_rows, 0)) if t is None else t for f, t in zip(design.features, design.low, strict=True)
    )
    pairs = tuple(_pair(pair, low, columns) for pair in design.pairs)
    spread = [float(place.read(table[:, 0]).std()) for place, table in zip(places, effect, strict=True)]
    in_pairs = [_pair_spread(pair, low, places) for pair in pairs]
    used = {i for pair in pairs for i in (pair.first, pair.second)}
    return Scorecard(
        features=design.features,
        binary=binary,
        heterogeneous=True,
        baseline=columns[0],
        effect=effect,
        low=tuple(t if i in used else t[:, :0] for i, t in enumerate(low)),
        pairs=pairs,
        doubt=tuple(_doubt(i, posterior, spread[i]) for i in range(len(design.features))),
        misfit_variance=posterior.misfit_variance,
        outcome_intercept=outcome.intercept,
        outcome=outcome.tables,
        propensity_intercept=propensity.intercept,
        propensity=propensity.tables,
        cells=replace(
            _cells(design.features, places, propensity, spread, treated),
            one_way=() if chance is None else _one_way(design.features, places, treated, chance),
        ),
        support_rule=support,
        importance=(*spread, *in_pairs),
    )


def _pair(pair: PairTerm, low: Sequence[Array], columns: Array) -> Pair:
    shape = (low[pair.first].shape[1], low[pair.second].shape[1], columns.shape[1])
    return Pair(pair.first, pair.second, columns[pair.columns].reshape(shape))


def _pair_spread(pair: Pair, low: Sequence[Array], places: Sequence[Place]) -> float:
    first, second = places[pair.first].read(low[pair.first]), places[pair.second].read(low[pair.second])
    return float(np.einsum("ni,ij,nj->n", first, pair.weights[:, :, 0], second).std())


def _doubt(i: int, posterior: Posterior, spread: float) -> Array:
    """Variance for a value that training never saw: as uncertain as the seen values differ.

    A level that was not seen is drawn like the others, with their estimated deviation; a value missing
    where none ever was could be any of those seen.
    """
    design = posterior.design
    feature, at = design.features[i], design.columns[i]
    doubt = np.zeros(feature.n_rows)
    owned = [sd for b, sd in zip(design.blocks, posterior.block_sd, strict=True) if _inside(b.columns, at)]
    if feature.kind != NUMBER and owned:
        doubt[feature.unseen_row] = max(owned) ** 2
    if not feature.had_missing:
        doubt[feature.missing_row] = spread**2
    return doubt


def _inside(columns: slice, at: slice) -> bool:
    return at.start <= columns.start and columns.stop <= at.stop and at.start < at.stop


def _cells(
    features: Sequence[Feature],
    places: Sequence[Place],
    propensity: AdditiveModel,
    spread: Sequence[float],
    treated: NDArray[np.bool_],
) -> Cells:
    """Count decisions by the few-level features that tell most about the choice and about its effect."""
    small = [
        i
        for i, f in enumerate(features)
        if f.kind != NUMBER and 2 <= f.n_known <= (2 if f.kind == BOOLEAN else _CELL_LEVELS)
    ]
    chosen_by = [float(places[i].read(propensity.tables[i]).std()) for i in range(len(features))]
    telling = np.array(chosen_by) / max(max(chosen_by), 1e-12) + np.array(spread) / max(max(spread), 1e-12)
    best = tuple(sorted(sorted(small, key=lambda i: -telling[i])[:_CELL_FEATURES]))
    counts = np.zeros((*(features[i].n_rows for i in best), 2), dtype=np.int64)
    np.add.at(counts, (*(places[i].low.astype(np.intp) for i in best), treated.astype(np.int64)), 1)
    return Cells(best, counts)


def _one_way(
    features: Sequence[Feature], places: Sequence[Place], treated: NDArray[np.bool_], chance: Array
) -> tuple[tuple[int, int], ...]:
    """Levels of categories that were seen often, yet only with the vendor, or only without.

    Often is twenty decisions or more, and so many that decisions like these, choice by choice, would all
    have gone one way less than once in a thousand times. A level seen less says too little: it stays in.
    """
    return tuple(
        (i, int(row))
        for i, feature in enumerate(features)
        if feature.kind == CATEGORY
        for row in _one_way_rows(places[i].low, treated, chance)
        if row < feature.n_known
    )


def _one_way_rows(rows: NDArray[np.integer], treated: NDArray[np.bool_], chance: Array) -> Iterator[np.int64]:
    seen = np.bincount(rows)
    for same, log_chance in ((treated, np.log(chance)), (~treated, np.log1p(-chance))):
        always = np.bincount(rows, weights=same) == seen
        by_chance = np.bincount(rows, weights=log_chance) < np.log(_BY_CHANCE)
        yield from np.flatnonzero((seen >= _SEEN_OFTEN) & always & by_chance)
