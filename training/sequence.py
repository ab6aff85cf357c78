"""Judge forward in time: learn from the blocks before, answer the next one, put all answers together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.decisions import DecisionTable
from training import clustered
from training.censoring import Weights, all_alike
from training.config import TrainingConfig
from training.folds import sequential_blocks
from training.gate import NotEnoughEvidenceError, refuse_too_little, refuse_unjudgeable
from training.nuisance import scores
from training.scorecard import Answers
from training.uplift import UpliftModel

Floats = NDArray[np.float64]
Fit = Callable[[DecisionTable], UpliftModel]


@dataclass(frozen=True)
class Judged:
    """A block of decisions and what a model said of them that learned from the blocks before."""

    block: int
    rows: NDArray[np.bool_]
    """Which decisions of the table are the block's, shape (n,)."""
    learned: int
    """Decisions that the model learned from."""
    model: UpliftModel
    answers: Answers
    constant: clustered.Estimate
    """Average uplift of the supported decisions that the model learned from."""


def blocks_in_time(
    decisions: DecisionTable, config: TrainingConfig, counts: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], bool]:
    """Block of each decision, shape (n,), and whether there had to be fewer than `config` asks for.

    Where not every outcome counts, `counts` of shape (n,) says which.

    Block 0 is only learned from. Where it is too small for that, the blocks after it are joined to it, as
    long as one is left to judge. Without a date for each decision, partners are put in random order.

    Raises
    ------
    NotEnoughEvidenceError
        Even with one judged block there is too little to learn from, or to judge.
    """
    dates = decisions.rows["decided_at"]
    is_dated = bool(dates.notna().all())
    units = decisions.rows["deal_id"].to_numpy(dtype=str) if is_dated else decisions.groups
    when = dates.dt.tz_convert(None).to_numpy() if is_dated else None
    blocks = sequential_blocks(units, when, config.first_share, config.judged_blocks, config.random_state)
    told = np.ones(len(decisions), dtype=bool) if counts is None else counts
    while blocks.max() > 1 and _refused(decisions.take((blocks == 0) & told), config.least_outcomes):
        blocks = np.maximum(blocks - 1, 0)
    refuse_unjudgeable(decisions.take((blocks > 0) & told))
    refuse_too_little(decisions.take((blocks == 0) & told), config.least_outcomes)
    return blocks, int(blocks.max()) < config.judged_blocks


def _refused(decisions: DecisionTable, least_outcomes: int) -> bool:
    try:
        refuse_too_little(decisions, least_outcomes)
    except NotEnoughEvidenceError:
        return True
    return False


def judged_blocks(
    decisions: DecisionTable, blocks: NDArray[np.int64], fit: Fit, weights: Weights = all_alike
) -> list[Judged]:
    """Learn from the blocks before each judged one, and answer it; `fit` must use the same `weights`."""
    return [_judged(decisions, blocks, number, fit, weights) for number in range(1, int(blocks.max()) + 1)]


def _judged(
    decisions: DecisionTable, blocks: NDArray[np.int64], number: int, fit: Fit, weights: Weights
) -> Judged:
    older, rows = decisions.take(blocks < number), blocks == number
    model = fit(older)
    answers = model.answers(decisions.X[rows])
    answers = replace(answers, terms=answers.terms[:, :0])  # the reasons are not judged, and are wide
    return Judged(number, rows, len(older), model, answers, _average(model, older, weights(older)))


def _average(model: UpliftModel, learned: DecisionTable, weight: Floats | None) -> clustered.Estimate:
    """Average uplift of the supported decisions, from scores that know nothing later than they do."""
    phi = scores(model.nuisances_, learned.treatment, learned.outcome, weight).doubly_robust
    supported = model.support(learned.X)
    return clustered.mean(phi[supported], learned.groups[supported])


def constant_of(past: clustered.Estimate, recent: clustered.Estimate) -> tuple[float, float]:
    """Mean and standard deviation of one effect for all, to be served where effects can't be shown to differ.

    The mean is that of `past`, the decisions learned from. The standard error of the `recent` average, the
    held-out decisions', adds to its own, because tomorrow's average may lie as far off as theirs.
    """
    known = np.isfinite(past.se) and np.isfinite(recent.se)
    return (past.value, float(np.hypot(past.se, recent.se))) if known else (0.0, 1.0)


def pooled(parts: Sequence[Judged], values: Sequence[Any]) -> NDArray[Any]:
    """One array over all judged decisions, in the table's order, from an array or a number for each block."""
    places = [np.flatnonzero(part.rows) for part in parts]
    each = [np.broadcast_to(value, rows.shape) for rows, value in zip(places, values, strict=True)]
    return np.concatenate(each)[np.argsort(np.concatenate(places))]


def answered(parts: Sequence[Judged]) -> NDArray[np.bool_]:
    """Which decisions of the table were judged, shape (n,)."""
    return np.any([part.rows for part in parts], axis=0)
