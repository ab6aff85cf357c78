"""How much one caller may take: bodies in bytes and seconds, requests in a minute, memory for all of it."""

import asyncio
import time

import pytest

from serving import limits
from serving.limits import Gone, Intake, Rates, caller_of, declared_bytes, drain
from serving.problems import Busy, NotHttp, TooLarge, TooManyRequests, TooSlow


def coming(*pieces, seconds=0.0, ends=True):
    """A `receive` that gives the pieces, each after so many seconds, and then waits or hangs up."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": n < len(pieces) or not ends}
        for n, piece in enumerate(pieces, 1)
    ]
    given = iter([*messages, {"type": "http.disconnect"}])

    async def receive():
        if seconds:
            await asyncio.sleep(seconds)
        return next(given)

    return receive


def read(receive, declared=None, most=1000, intake=None):
    return asyncio.run((intake or Intake(0.2)).read(receive, declared, most))


@pytest.mark.parametrize("seconds", [0.0, 0.01])
@pytest.mark.parametrize("pieces", [(b"abc",), (b"a", b"b", b"c"), (b"", b"abc"), (b"abc", b""), (b"",)])
def test_a_body_is_whole_however_it_comes(pieces, seconds):
    assert read(coming(*pieces, seconds=seconds)) == b"".join(pieces)


@pytest.mark.parametrize(
    ("receive", "declared", "error"),
    [
        (coming(b"x" * 1001), None, TooLarge),
        (coming(b"x" * 600, b"x" * 401), None, TooLarge),
        (coming(b"never read"), 1001, TooLarge),
        (coming(ends=False), None, Gone),
        (coming(b"ab", ends=False), 10, Gone),
        (coming(b"a", b"b", seconds=0.15), None, TooSlow),
    ],
)
def test_a_body_that_cannot_be_had_is_refused(receive, declared, error):
    intake = Intake(0.2)
    with pytest.raises(error):
        read(receive, declared, intake=intake)
    assert intake.held_bytes == 0


def test_what_has_come_buys_time():
    assert len(read(coming(*[b"x" * 10_000] * 5, seconds=0.08), most=10**6)) == 50_000
    with pytest.raises(TooSlow):
        read(coming(*[b"x" * 100] * 5, seconds=0.08), most=10**6)


def test_a_task_that_was_refused_for_its_slowness_goes_on_unharmed():
    async def go():
        with pytest.raises(TooSlow):
            await Intake(0.02).read(coming(b"a", seconds=5), None, 10)
        await asyncio.sleep(0.05)
        return asyncio.current_task().cancelling()

    assert asyncio.run(go()) == 0


def test_large_bodies_share_a_bounded_room(monkeypatch):
    monkeypatch.setattr(limits, "MOST_BUFFERED", 300_000)

    async def go():
        intake = Intake(1.0)
        held = asyncio.create_task(intake.read(coming(b"x" * 200_000, b"x", seconds=0.1), None, 10**6))
        await asyncio.sleep(0.15)
        with pytest.raises(Busy):
            await intake.read(coming(b"x" * 150_000, b"x"), None, 10**6)
        small = await intake.read(coming(b"x" * 1000, b"x"), None, 10**6)
        return len(small), len(await held), intake.held_bytes

    assert asyncio.run(go()) == (1001, 200_001, 0)


def test_what_was_refused_is_thrown_away_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(limits, "DRAIN_SECONDS", 0.1)
    start = time.monotonic()
    asyncio.run(drain(coming(*[b"x"] * 1000, seconds=0.01)))
    assert 0.05 < time.monotonic() - start < 0.8
    monkeypatch.setattr(limits, "DRAIN_BYTES", 5)
    receive = coming(*[b"x"] * 10)
    asyncio.run(drain(receive))
    assert read(receive) == b"xxxxx"


@pytest.mark.parametrize(
    ("headers", "declared"),
    [
        ({}, 0),
        ({b"content-length": b"12"}, 12),
        ({b"transfer-encoding": b"chunked"}, None),
        ({b"transfer-encoding": b"chunked", b"content-length": b"12"}, None),
        ({b"content-length": b"9" * 5000}, 1 << 63),
    ],
)
def test_the_declared_length_is_read(headers, declared):
    assert declared_bytes(headers) == declared


@pytest.mark.parametrize("text", [b"-1", b"", b"1.5", b"a", b"1_0", "٣".encode()])
def test_a_length_that_is_none_is_refused(text):
    with pytest.raises(NotHttp):
        declared_bytes({b"content-length": text})


# Rates


def takes(rates, caller, now):
    try:
        rates.take(caller, now)
    except TooManyRequests as refused:
        return int(refused.headers["Retry-After"])
    return 0


def test_a_minutes_requests_may_come_at_once_and_then_at_the_rate():
    rates = Rates(60)
    assert [takes(rates, "a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert [takes(rates, "a", 1.0), takes(rates, "a", 1.0)] == [0, 1]
    assert [takes(rates, "a", 100.0) for _ in range(61)] == [0] * 60 + [1]


def test_over_an_hour_nobody_gets_more_than_the_rate():
    rates = Rates(30)
    granted = sum(takes(rates, "a", n / 10) == 0 for n in range(36_000))
    assert granted == 30 + 60 * 30 - 1


def test_a_slow_rate_says_how_long_to_wait_and_keeps_its_word():
    rates = Rates(1)
    assert takes(rates, "a", 0.0) == 0
    assert takes(rates, "a", 15.0) == 45
    assert takes(rates, "a", 59.0) == 1
    assert takes(rates, "a", 60.0) == 0


def test_callers_do_not_take_from_each_other():
    rates = Rates(1)
    assert [takes(rates, caller, 0.0) for caller in "abcab"] == [0, 0, 0, 60, 60]


def test_the_callers_that_are_remembered_are_bounded_and_the_busy_ones_stay():
    rates = Rates(2, most_buckets=3)
    for n in range(10_000):
        takes(rates, "busy", 0.0)
        takes(rates, f"caller {n}", 0.0)
    assert len(rates._buckets) == 3
    assert takes(rates, "busy", 0.0) > 0


@pytest.mark.parametrize(
    ("client", "caller"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 6), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 6), "fe80::/64"),
        (None, ""),
    ],
)
def test_a_caller_is_an_address_or_a_network_of_one_holder(client, caller):
    assert caller_of(client) == caller
