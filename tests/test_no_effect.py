"""Nothing is found where there is nothing: the whole of training on simulated CRMs.

``benchmarks/truth.py --no-effect`` prints the same for any number of deals and seeds.
"""

import pytest
from truths import judged


@pytest.mark.slow
def test_nothing_is_found_where_there_is_nothing(tmp_path):
    contained = 0
    for seed in range(1, 11):
        trained, known = judged(4_000, seed, tmp_path / str(seed), effect=False)
        contained += trained.evaluation.average.contains(0.0)
        assert known.advised_share < 0.02
        assert trained.evaluation.naive.value < -0.05
    assert contained >= 8
