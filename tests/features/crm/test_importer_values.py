"""Times and numbers as exports write them: a column decides, a named rule says what is odd."""

import math
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import UserError
from features.crm.amounts import as_text, read_numbers
from features.crm.times import Clockwork, read_times

BERLIN = Clockwork(ZoneInfo("Europe/Berlin"))


def times(*texts, how=BERLIN):
    return read_times(pa.array(texts, pa.large_string()), how, "a.csv: column 'when'")


def numbers(*texts, decimal=None):
    return read_numbers(pa.array(texts, pa.large_string()), decimal, "a.csv: column 'amount'")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2025-02-03T10:00:00Z", "2025-02-03 10:00"),
        ("2025-02-03T10:00:00.250+0100", "2025-02-03 09:00:00.25"),
        ("2025-02-03 10:00:00-05:30", "2025-02-03 15:30"),
        ("2025-02-03", "2025-02-02 23:00"),
        ("2025/2/3 10:00", "2025-02-03 09:00"),
        ("02/13/25", "2025-02-12 23:00"),
        ("02/13/25 12:05 AM", "2025-02-12 23:05"),
        ("02/13/2025, 12:05 pm", "2025-02-13 11:05"),
        ("13.02.2025 08:30", "2025-02-13 07:30"),
        ("1700000000000", "2023-11-14 22:13:20"),
        ("2025-07-03T10:00:00.1234567", "2025-07-03 08:00:00.123456"),
    ],
)
def test_a_time_in_any_of_the_usual_forms(text, utc):
    assert times(text).utc.iloc[0] == pd.Timestamp(utc, tz="UTC")


def test_a_column_decides_whether_the_day_or_the_month_comes_first():
    assert times("02/03/2025", "13/03/2025").utc.dt.tz_convert("Europe/Berlin").dt.month.tolist() == [3, 3]
    assert times("02/03/2025", "03/13/2025").utc.dt.tz_convert("Europe/Berlin").dt.month.tolist() == [2, 3]


def test_a_column_that_cannot_decide_is_refused_with_a_hint():
    with pytest.raises(UserError) as error:
        times("02/03/2025", "04/05/2025")
    assert str(error.value) == (
        "a.csv: column 'when' holds dates such as '02/03/2025', and none of them says whether the day or "
        'the month comes first; copy the mapping, write dates = "month first" or "day first" under '
        "[reading], and give it with --map."
    )
    how = Clockwork(BERLIN.zone, "day first")
    assert times("02/03/2025", how=how).utc.dt.tz_convert("Europe/Berlin").dt.month.tolist() == [3]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("0001-01-01", "a time before 1990: taken for a blank"),
        ("1899-12-30T00:00:00", "a time before 1990: taken for a blank"),
        ("000000000001", "a time before 1990: taken for a blank"),
        ("2025-02-30", "a time that cannot be read: taken for a blank"),
        ("2025-02-03 25:00", "a time that cannot be read: taken for a blank"),
        ("02/13/25 13:05 PM", "a time that cannot be read: taken for a blank"),
        ("yesterday", "a time that cannot be read: taken for a blank"),
        ("45321", "a time that cannot be read: taken for a blank"),
    ],
)
def test_a_time_that_is_none_is_a_blank_by_a_named_rule(text, rule):
    came = times("2025-01-01T00:00:00Z", None, text)
    assert came.utc.isna().tolist() == [False, True, True]
    assert {name: places.tolist() for name, places in came.odd.items()} == {rule: [2]}


def test_what_the_change_of_the_clocks_skips_or_repeats():
    came = times("2025-03-30T02:30:00", "2025-10-26T02:30:00", "2025-10-26T02:30:00+01:00")
    assert [str(time) for time in came.utc] == [
        "2025-03-30 01:00:00+00:00",
        "2025-10-26 00:30:00+00:00",
        "2025-10-26 01:30:00+00:00",
    ]
    assert {name: places.tolist() for name, places in came.odd.items()} == {
        "a time that a change of the clocks skips: moved to the first moment after it": [0],
        "a time that a change of the clocks repeats: the first of the two taken": [1],
    }


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(
        st.datetimes(pd.Timestamp("1995-01-01").to_pydatetime(), pd.Timestamp("2030-01-01").to_pydatetime()),
        min_size=1,
        max_size=20,
    )
)
def test_times_agree_with_the_standard_library(moments):
    read = times(*(moment.isoformat() + "+00:00" for moment in moments)).utc
    assert read.tolist() == [pd.Timestamp(moment, tz="UTC") for moment in moments]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1.234,56", "1.234"], [1234.56, 1234]),
        (["1,234.56", "1,234"], [1234.56, 1234]),
        (["1,234,567", "1.5"], [1234567, 1.5]),
        (["1.234.567"], [1234567]),
        (["15000", "20000"], [15000, 20000]),
        (["€ 1 234", "12,50 €", "USD 7", "7 EUR"], [1234, 12.5, 7, 7]),
        (["1'234.50", "$1,000.25"], [1234.5, 1000.25]),
        (["1e9", "2.5E+3"], [1e9, 2500]),
        (["0.125", "0,5"], [0.125, math.nan]),
        ([".5", "0"], [0.5, 0]),
    ],
)
def test_a_column_decides_what_stands_before_the_decimals(texts, values):
    if texts == ["0.125", "0,5"]:  # one each way: nothing decides
        with pytest.raises(UserError):
            numbers(*texts)
        return
    assert numbers(*texts).values.tolist() == values


def test_a_column_that_leaves_it_open_is_refused_with_a_hint():
    with pytest.raises(UserError) as error:
        numbers("1.234", "12")
    assert str(error.value) == (
        "a.csv: column 'amount' holds numbers such as '1.234', and nothing says whether the point or the "
        'comma stands before the decimals; copy the mapping, write decimal = "." or "," under [reading], and '
        "give it with --map."
    )
    assert numbers("1.234", decimal=",").values.tolist() == [1234]
    assert numbers("1.234", decimal=".").values.tolist() == [1.234]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("-5", "a number below 0: taken for a blank"),
        ("(1,234.00)", "a number below 0: taken for a blank"),
        ("1e999", "a number that cannot be read: taken for a blank"),
        ("twelve", "a number that cannot be read: taken for a blank"),
        ("1.2.3", "a number that cannot be read: taken for a blank"),
        ("1.234,56", "a number written the other way round than its column: taken for a blank"),
    ],
)
def test_a_number_that_is_none_is_a_blank_by_a_named_rule(text, rule):
    came = numbers("1.50", "2.50", None, text)
    assert np.isnan(came.values).tolist() == [False, False, True, True]
    assert {name: places.tolist() for name, places in came.odd.items()} == {rule: [3]}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1e12, allow_nan=False), min_size=1, max_size=20), st.sampled_from(["en", "de"]))
def test_numbers_written_either_way_come_back(amounts, language):
    written = [f"{amount:,.2f}" for amount in amounts]
    if language == "de":
        written = [text.translate(str.maketrans(",.", ".,")) for text in written]
    assert numbers(*written).values.tolist() == [round(amount, 2) for amount in amounts]


def test_numbers_are_written_plainly():
    assert as_text(np.array([15000.0, 1.5, np.nan])) == ["15000", "1.5", None]
