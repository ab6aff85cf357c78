"""Planted truth is found, and nothing where there is nothing: the whole of training on simulated CRMs.

``benchmarks/truth.py`` prints the same for any number of deals and seeds.
"""

import pandas as pd
import pytest

from features import build_decisions, simulate
from training.against_truth import against_truth
from training.pipeline import train


def judged(deals, seed, folder, effect=True):
    made = simulate(deals, seed, effect=effect)
    trained = train(build_decisions(made.tables), folder / "model")
    held_out = pd.read_parquet(trained.folder / "held_out.parquet")
    return trained, against_truth(held_out, made.truth, break_even=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_truth_is_found_where_the_naive_comparison_is_far_off(seed, tmp_path):
    trained, known = judged(20_000, seed, tmp_path)
    average = trained.evaluation.average
    assert abs(known.estimated_average - known.true_average) < 0.02
    assert average.contains(known.true_average)
    assert abs(known.naive - known.true_average) > 0.08
    assert known.correlation >= 0.75
    assert 0.80 <= known.coverage <= 0.97
    assert known.share_of_oracle >= 0.85


@pytest.mark.slow
def test_nothing_is_found_where_there_is_nothing(tmp_path):
    contained = 0
    for seed in range(1, 11):
        trained, known = judged(4_000, seed, tmp_path / str(seed), effect=False)
        contained += trained.evaluation.average.contains(0.0)
        assert known.advised_share < 0.02
        assert trained.evaluation.naive.value < -0.05
    assert contained >= 8
