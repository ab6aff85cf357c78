"""Is the ranking worth anything: what those ranked first gain above the average.

Ranks are taken within blocks, because the predictions of different models must not be compared with each
other; the blocks' figures are added, weighted by their decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.clustered import Estimate, dummies, from_influence, means_within, parts_of

Floats = NDArray[np.float64]


def autoc(
    priority: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None
) -> Estimate:
    """Area under the targeting operator characteristic: the plain mean of TOC(q) over q = i/n.

    Parameters
    ----------
    priority : what decisions are ranked by, highest first, shape (n,); ties share their places
    phi : doubly robust scores of decisions that `priority` was not learned from, shape (n,)
    groups : cluster of each decision, shape (n,)
    blocks : decisions that one model ranked, shape (n,); one block where None

    Notes
    -----
    TOC(q) is the mean effect of the first share q less the mean effect of all (Yadlowsky, Fleming, Shah,
    Brunskill & Wager, JASA 2025, section 2). Summing over q gives each place r the weight
    sum of 1/k for k = r..n, minus 1. The influence of a decision is its own weighted score plus what its
    presence does to the places of those ranked below it; effects uniform on (0, 1) in their true order
    give 0.25. Weighting TOC(q) by 1/q instead, as some packages do, gives a figure of another meaning,
    which grows with the number of decisions.
    """
    return _ranked(_autoc_parts, priority, phi, groups, blocks)


def qini(priority: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None) -> Estimate:
    """Qini coefficient: the mean of q TOC(q) over q = i/n; parameters as for `autoc`.

    Notes
    -----
    It weights the first few less than AUTOC does, so it sees small effects in many decisions better, and
    large ones in a few worse (Yadlowsky et al. 2025, section 2.1). Each place r has the weight
    (n + 1 - 2 r) / 2n. Effects uniform on (0, 1) in their true order have TOC(q) = (1 - q) / 2, so their
    Qini coefficient is the integral of q (1 - q) / 2, 1/12.
    """
    return _ranked(_qini_parts, priority, phi, groups, blocks)


def toc_curve(
    priority: ArrayLike,
    phi: ArrayLike,
    groups: ArrayLike,
    n_points: int = 40,
    blocks: ArrayLike | None = None,
) -> list[dict[str, float]]:
    """TOC at `n_points` shares q, each with a pointwise 95% interval: keys q, value, lo, hi.

    A tie that straddles a share counts with the part of it that fits. The interval takes the place of
    the cut as known.
    """
    scores = np.asarray(phi, dtype=float)
    part = parts_of(blocks, len(scores))
    ranked = [(rows, *_places(np.asarray(priority, dtype=float)[rows])) for rows in _rows(part)]
    away = scores - means_within(scores, part)
    curve = []
    for q in np.arange(1, n_points + 1) / n_points:
        weight = np.empty(len(scores))
        for rows, places, ties in ranked:
            within = np.empty(len(rows))
            cut = max(round(q * len(rows)), 1)
            within[places] = _shared((np.arange(len(rows)) < cut).astype(float), ties)
            weight[rows] = within * len(rows) / cut
        top = means_within(weight * away, part)
        at = from_influence(
            float(np.mean(weight * away)), weight * (away - top) - away, groups, weight - 1, residual=away
        )
        curve.append({"q": float(q), "value": at.value, "lo": at.lo, "hi": at.hi})
    return curve


Parts = Callable[[Floats, NDArray[np.int64]], tuple[Floats, Floats]]


def _ranked(
    parts: Parts, priority: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None
) -> Estimate:
    """Mean of weighted scores, with weights that only know each decision's place in its block."""
    order, scores = np.asarray(priority, dtype=float), np.asarray(phi, dtype=float)
    part = parts_of(blocks, len(scores))
    weight, others = np.zeros(len(scores)), np.zeros(len(scores))
    for rows in _rows(part):
        places, ties = _places(order[rows])
        if not ties[-1]:
            continue  # a model that ranks nothing tells nothing
        weight[rows[places]], others[rows[places]] = parts(_shared(scores[rows[places]], ties), ties)
    if not np.any(weight):
        return from_influence(0.0 if len(scores) else math.nan, weight, groups)
    value = float(np.mean(weight * scores))
    influence = weight * scores + others
    influence -= means_within(influence, part)
    away = scores - means_within(scores, part)
    rest = away - weight * float(weight @ away) / float(weight @ weight)
    design = np.column_stack([dummies(part), weight])
    return from_influence(value, influence, groups, weight, design, rest)


def _autoc_parts(ordered: Floats, ties: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weight of each place, and the influence of a decision there on the places below it."""
    ranks = np.arange(1, len(ordered) + 1)
    weights = _shared(np.cumsum((1 / ranks)[::-1])[::-1] - 1, ties)
    return weights, -_shared(np.cumsum((ordered / ranks)[::-1])[::-1], ties)


def _qini_parts(ordered: Floats, ties: NDArray[np.int64]) -> tuple[Floats, Floats]:
    n = len(ordered)
    weights = _shared((n + 1 - 2 * np.arange(1, n + 1)) / (2 * n), ties)
    return weights, _shared(np.cumsum(ordered) / n, ties)


def _rows(part: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(part == k) for k in range(part.max(initial=-1) + 1)]


def _places(priority: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order from highest to lowest, and the tie (0, 1, ...) of each place."""
    order = np.argsort(-priority, kind="stable")
    ordered = priority[order]
    return order, np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])]).astype(np.int64)[: len(order)]


def _shared(values: Floats, ties: NDArray[np.int64]) -> Floats:
    """Values with each tie replaced by its mean."""
    return (np.bincount(ties, weights=values) / np.bincount(ties))[ties]
