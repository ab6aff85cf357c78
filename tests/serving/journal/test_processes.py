"""Real processes: killed under load, and several on one journal."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import journal_load
import pytest
from journal_rows import query, stored_ids

ROOT = Path(__file__).parents[3]
WINDOW_SECONDS = 0.05


def start(*arguments: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, journal_load.__file__, *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, **more)


class Forks:
    """Starts processes that record until they are killed, quickly, for what they need is imported once."""

    def __init__(self, url: str, mode: str) -> None:
        self.process = start("forks", url, mode, stdin=subprocess.PIPE)
        assert self.process.stdin
        assert self.process.stdout
        self.orders, self.told = self.process.stdin, self.process.stdout

    def kill_under_load(self, name: str, seconds: float) -> tuple[dict[str, float], float]:
        """Return when each answer was acknowledged until the kill, by its id; and when the kill was."""
        self.orders.write(f"{name}\n")
        self.orders.flush()
        word, pid = self._next()
        assert word == "pid"
        acknowledged = {}
        killed_at = None
        while (words := self._next())[0] != "gone":
            assert words[0] == "recorded", words
            acknowledged[words[1]] = float(words[2])
            if killed_at is None and float(words[2]) > min(acknowledged.values()) + seconds:
                os.kill(int(pid), signal.SIGKILL)
                killed_at = time.monotonic()
        assert killed_at is not None
        return acknowledged, killed_at

    def _next(self) -> Sequence[str]:
        return self.told.readline().split()

    def end(self) -> None:
        self.orders.close()
        self.told.close()
        assert self.process.wait(10) == 0


@pytest.fixture
def forks(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Forks]:
    forks = Forks(sqlite_url, request.param)
    yield forks
    forks.end()


@pytest.mark.parametrize("forks", ["strict"], indirect=True)
def test_sigkill_20_times_loses_no_answer_that_strict_acknowledged(forks: Forks, sqlite_url: str) -> None:
    rng = random.Random(0)
    acknowledged: set[str] = set()
    for number in range(20):
        mine, _ = forks.kill_under_load(f"k{number}", rng.uniform(0.02, 0.2))
        assert mine
        acknowledged |= mine.keys()
        stored = stored_ids(sqlite_url)  # checks the file's integrity, too
        assert len(set(stored)) == len(stored)
        assert acknowledged - set(stored) == set()


@pytest.mark.parametrize("forks", ["background"], indirect=True)
def test_sigkill_loses_no_more_than_the_window_in_background(forks: Forks, sqlite_url: str) -> None:
    for number in range(3):
        acknowledged, killed_at = forks.kill_under_load(f"b{number}", 0.7)
        stored = stored_ids(sqlite_url)
        assert len(set(stored)) == len(stored)
        lost = acknowledged.keys() - set(stored)
        # What the kill may take: 50 ms of answers, and the commit under way, which on a busy machine
        # takes a tenth of a second rather than milliseconds.
        ages = [killed_at - acknowledged[each] for each in lost]
        assert max(ages, default=0.0) < WINDOW_SECONDS + 0.4
        assert len(lost) < len(acknowledged) / 2


def test_two_servers_and_a_loader_lose_nothing_and_write_nothing_twice(url: str) -> None:
    n_answers, n_outcomes = 3000, 60
    processes = [
        start("answers", url, "strict", "a", n_answers),
        start("answers", url, "background", "b", n_answers),
        start("outcomes", url, n_outcomes),
        start("outcomes", url, n_outcomes),
    ]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert [lines[-1] for lines in said] == ["end 0"] * 4
    assert not [line for lines in said for line in lines if line.startswith("refused")]
    expected = {f"{name}-{number}" for name in "ab" for number in range(n_answers)}
    stored = stored_ids(url)
    assert len(stored) == len(expected)
    assert set(stored) == expected
    assert sorted(query(url, "SELECT deal_id FROM outcomes")) == sorted(
        (f"D-{n}",) for n in range(n_outcomes)
    )
    # Of six tellings of each outcome, by two loaders, exactly one was told that it is new.
    new = [int(line.split()[1]) for lines in said[2:] for line in lines[:-1]]
    assert sum(new) == n_outcomes
