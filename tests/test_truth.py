"""Planted truth is found: the whole of training on simulated CRMs.

``benchmarks/truth.py`` prints the same for any number of deals and seeds.
"""

import pytest
from truths import judged


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
