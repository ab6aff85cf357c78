"""Hillstrom's e-mail trial: who ranks people best, by scores that a coin made unbiased."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import lalonde, measures, real
from benchmarks.entries import entry
from benchmarks.worlds import Decisions

Floats = NDArray[np.float64]
_DRAWS = 200


def compare(path: Path, learners: Iterable[str], seed: int = 0) -> list[dict[str, Any]]:
    """A line for each learner, judged on the half of people that it never saw."""
    train, test = real.hillstrom(path, seed)
    score = trial_scores(test)
    own = lalonde.difference(test, np.ones(len(test), dtype=bool))
    about = {
        "table": "hillstrom",
        "learned_from": len(train),
        "judged_on": len(test),
        "trial": own.value,
        "trial_se": own.se,
    }
    lines = []
    for name in learners:
        learner = entry(name).make()
        start = time.process_time()
        learner.fit(train)
        cpu = time.process_time() - start
        effect = learner.effect(test.X)
        lines.append(
            {
                **about,
                "learner": name,
                "seed": seed,
                "cpu": cpu,
                "average": float(effect.mean()),
                "autoc": measures.autoc(effect, score),
                "qini": measures.qini(effect, score),
                "autoc_se": autoc_error(effect, score),
            }
        )
    return lines


def trial_scores(decisions: Decisions) -> Floats:
    """Scores whose mean over any people is their effect: known propensity, outcome less its mean."""
    e = real.HILLSTROM_PROPENSITY
    rest = decisions.outcome - decisions.outcome.mean()
    return (decisions.treatment - e) / (e * (1 - e)) * rest


def autoc_error(effect: Floats, score: Floats, seed: int = 0) -> float:
    """Standard error of the AUTOC, by half-sampling (Yadlowsky et al. 2025)."""
    rng, n = np.random.default_rng(seed), len(score)
    halves = (rng.permutation(n)[: n // 2] for _ in range(_DRAWS))
    return float(np.std([measures.autoc(effect[half], score[half]) for half in halves]))
