"""A process that records answers as fast as the journal takes them, and says which it was told are recorded.

    python journal_load.py answers URL MODE NAME N    records N answers, id by id on stdout
    python journal_load.py outcomes URL N             loads outcomes of N deals, each three times
    python journal_load.py forks URL MODE             for each line on stdin, forks a process that records
                                                      answers until it is killed

Run with the repository in PYTHONPATH. What stands on stdout was written before anything else happened: a
killed process has said all that it knew.
"""

import asyncio
import os
import sys
import time

from journal_rows import an_answer

from serving.journal import Journal
from serving.problems import JournalLost

TASKS = 32


def tell(text: str) -> None:
    """Write a line at once, in one piece."""
    os.write(1, f"{text}\n".encode())


async def record_answers(url: str, mode: str, name: str, n: int) -> None:
    """Record `n` answers from many tasks at once; `tell` each that was acknowledged, with the time."""
    journal = Journal.open(url, mode, "refuse")
    numbers = iter(range(n))

    async def one_after_the_other() -> None:
        for number in numbers:
            row = an_answer(number, recommendation_id=f"{name}-{number}")
            try:
                await journal.record([row])
            except JournalLost:
                tell(f"refused {name}-{number}")
            else:
                tell(f"recorded {name}-{number} {time.monotonic()}")
            await asyncio.sleep(0)

    await asyncio.gather(*(one_after_the_other() for _ in range(TASKS)))
    await journal.close()
    tell(f"end {journal.unjournaled()}")


async def load_outcomes(url: str, n: int) -> None:
    """Tell each outcome three times, twice at once."""
    journal = Journal.open(url, "strict", "refuse")
    for number in range(n):
        outcome = {"deal_id": f"D-{number}", "outcome": "won", "sent_by": "loader"}
        told = await asyncio.gather(journal.add_outcome(outcome), journal.add_outcome(outcome))
        told.append(await journal.add_outcome(outcome))
        tell(f"stored {sum(each.is_new for each in told)}")
    await journal.close()
    tell("end 0")


def fork_on_demand(url: str, mode: str) -> None:
    """Importing takes half a second; forking does not."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            tell(f"pid {os.getpid()}")
            asyncio.run(record_answers(url, mode, line.strip(), sys.maxsize))
        os.waitpid(pid, 0)
        tell("gone")


if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    if what == "answers":
        asyncio.run(record_answers(url, rest[0], rest[1], int(rest[2])))
    elif what == "outcomes":
        asyncio.run(load_outcomes(url, int(rest[0])))
    else:
        fork_on_demand(url, rest[0])
