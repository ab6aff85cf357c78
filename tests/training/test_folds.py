import numpy as np
import pytest

from training.folds import sequential_blocks


def in_time(deals, dates, first_share=0.4, n_blocks=3):
    return sequential_blocks(np.asarray(deals), np.asarray(dates, dtype="M8[us]"), first_share, n_blocks)


def test_a_deal_is_placed_by_its_first_decision_with_all_of_them():
    deals = ["a", "a", "b", "c", "c", "d"]
    dates = ["2024-01-01", "2024-09-01", "2024-02-01", "2024-03-01", "2024-10-01", "2024-04-01"]
    assert in_time(deals, dates, 0.5, 2).tolist() == [0, 0, 0, 1, 1, 2]


def test_blocks_follow_each_other_in_time_and_have_their_shares():
    rng = np.random.default_rng(0)
    days = rng.permutation(1000)
    blocks = in_time(np.arange(1000), np.datetime64("2020-01-01") + days)
    assert np.bincount(blocks).tolist() == [400, 200, 200, 200]
    for earlier in range(3):
        assert days[blocks == earlier].max() < days[blocks == earlier + 1].min()


@pytest.mark.parametrize("older", [5, 30, 60, 80, 95])
def test_deals_of_the_same_day_share_a_block_and_the_newer_day_is_judged(older):
    dates = ["2024-01-01"] * older + ["2024-04-01"] * (100 - older)
    assert in_time(np.arange(100), dates).tolist() == [0] * older + [1] * (100 - older)


def test_a_single_day_leaves_nothing_to_judge():
    assert set(in_time(np.arange(50), ["2024-01-01"] * 50)) == {0}


def test_without_dates_groups_stay_whole_in_random_order():
    groups = np.repeat(np.arange(40), 5)
    blocks = sequential_blocks(groups, None, 0.4, 3, seed=1)
    assert np.bincount(blocks).tolist() == [80, 40, 40, 40]
    assert all(len(set(blocks[groups == group])) == 1 for group in range(40))
    assert blocks.tolist() != sequential_blocks(groups, None, 0.4, 3, seed=2).tolist()


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(3)
    deals = rng.integers(0, 90, 300)
    dates = np.datetime64("2024-01-01") + rng.integers(0, 500, 300)
    mixed = rng.permutation(300)
    for when in (dates, None):
        blocks = sequential_blocks(deals, when, 0.4, 3)
        again = sequential_blocks(deals[mixed], None if when is None else when[mixed], 0.4, 3)
        np.testing.assert_array_equal(again, blocks[mixed])
