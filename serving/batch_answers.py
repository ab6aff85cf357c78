"""What scorecard and policy say of a batch, turned from columns into one answer's parts after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.answer_body import Said
from training.batch_scorer import BatchScore
from training.policy import Z_90, Policy

Floats = NDArray[np.float64]


class Judged:
    """A batch with its advice: n deals as they stand (column 0) and at m other stages.

    Parameters
    ----------
    scores : of the batch
    amounts : of the deals, shape (n,); NaN where unknown
    policy : decides
    """

    def __init__(self, scores: BatchScore, amounts: Floats, policy: Policy) -> None:
        shape = scores.uplift.shape
        self._scores, self._half = scores, Z_90 * scores.sd
        self._advised = policy.advise(
            scores.uplift.ravel(), scores.sd.ravel(), np.repeat(amounts, shape[1]), scores.supported.ravel()
        )
        self._policy = policy

    def said(self) -> Iterator[Said]:
        """What is said of each deal as it stands."""
        scores, advised, half = self._scores, self._advised, self._half[:, 0]
        own = slice(None, None, scores.uplift.shape[1])
        columns = (
            advised.advice[own],
            advised.default_action_applied[own],
            advised.score[own],
            scores.uplift[:, 0],
            scores.uplift[:, 0] - half,
            scores.uplift[:, 0] + half,
            advised.break_even[own],
            *scores.win.T,
            scores.propensity,
            scores.similar,
            scores.supported[:, 0],
            advised.expected_value[own],
        )
        return map(Said._make, zip(*(column.tolist() for column in columns), strict=True))

    def plays(self, stages: Sequence[Sequence[str]], first: Sequence[int]) -> list[list[dict[str, Any]]]:
        """Who leads each deal at some of its columns: as many as `stages` names, from column `first` on."""
        shape = self._scores.uplift.shape
        leads = self._policy.leads(self._advised, (self._scores.uplift - self._half).ravel())
        rows = zip(
            stages, first, leads.reshape(shape).tolist(), (100 * self._scores.uplift).tolist(), strict=True
        )
        return [
            [
                {"stage": stage, "lead": lead, "uplift_points": points}
                for stage, lead, points in zip(names, lead_row[at:], points_row[at:], strict=False)
            ]
            for names, at, lead_row, points_row in rows
        ]


def shown(terms: Floats, each_way: int | None) -> Iterator[tuple[list[int], list[float], float]]:
    """For each deal, the terms to list, largest first, with their points; and the points of all others.

    Parameters
    ----------
    terms : shape (n, n_terms), fractions
    each_way : how many for and how many against are listed; None for all. A term of no size is never listed.
    """
    by_size = np.argsort(-np.abs(terms), axis=1, kind="stable")
    sorted_terms = np.take_along_axis(terms, by_size, axis=1)
    is_listed = sorted_terms != 0
    if each_way is not None:
        helps, hurts = sorted_terms > 0, sorted_terms < 0
        is_listed = (helps & (helps.cumsum(axis=1) <= each_way)) | (
            hurts & (hurts.cumsum(axis=1) <= each_way)
        )
    others = 100 * np.where(is_listed, 0.0, sorted_terms).sum(axis=1)
    listed, points = by_size[is_listed].tolist(), (100 * sorted_terms[is_listed]).tolist()
    ends = accumulate(is_listed.sum(axis=1).tolist(), initial=0)
    for (start, end), other in zip(pairwise(ends), others.tolist(), strict=True):
        yield listed[start:end], points[start:end], other


def names_of(masks: NDArray[np.bool_], names: Sequence[str]) -> list[list[str]]:
    """For each deal, the names whose mask, of shape (n, n_names), is set."""
    found = [names[i] for i in masks.nonzero()[1].tolist()]
    ends = accumulate(masks.sum(axis=1).tolist(), initial=0)
    return [found[start:end] for start, end in pairwise(ends)]
