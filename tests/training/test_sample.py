import numpy as np
import pandas as pd
import pytest

from training.sample import whole_deals


@pytest.fixture
def deals():
    rng = np.random.default_rng(0)
    return pd.Series(np.char.add("D", rng.integers(0, 400, 2000).astype(str)))


def test_a_deal_is_drawn_whole_or_not_at_all(deals):
    drawn = whole_deals(deals, 900, seed=1)
    assert 800 < drawn.sum() <= 900
    assert pd.Series(drawn).groupby(deals).nunique().max() == 1


def test_neither_row_order_nor_the_kind_of_text_changes_the_draw(deals):
    drawn = whole_deals(deals, 900, seed=1)
    mixed = np.random.default_rng(1).permutation(2000)
    assert (whole_deals(deals.iloc[mixed], 900, seed=1) == drawn[mixed]).all()
    assert (whole_deals(deals.to_numpy(dtype=object), 900, seed=1) == drawn).all()


def test_another_seed_draws_others_and_every_deal_has_its_chance(deals):
    times = sum(whole_deals(deals, 900, seed).astype(int) for seed in range(60))
    assert not (whole_deals(deals, 900, 1) == whole_deals(deals, 900, 2)).all()
    assert times.min() > 8
    assert times.mean() == pytest.approx(60 * 900 / 2000, rel=0.02)


def test_few_rows_are_all_kept_and_a_giant_deal_alone_too(deals):
    assert whole_deals(deals, 2000, 0).all()
    assert whole_deals(np.array(["giant"] * 50), 10, 0).all()
