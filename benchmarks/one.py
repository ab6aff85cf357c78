"""One learner on one world, in a process of its own: ``python -m benchmarks.one WORLD.pkl LEARNER SECONDS``.

Its last line is a JSON object with the figures. One thread, so that CPU seconds can be compared.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measures
from benchmarks.entries import entry
from benchmarks.learners import Entry, Learner
from benchmarks.worlds import World

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "POLARS_MAX")}
_MOST_CALLS = 50
_MOST_SECONDS = 1.0


def main() -> None:
    """Read the world, fit, measure, print."""
    world_file, name, most_seconds = sys.argv[1:]
    warnings.simplefilter("ignore")  # peers warn a lot, and a bench is no test
    with Path(world_file).open("rb") as file:
        world = pickle.load(file)  # our own file, written a moment ago by the same command
    chosen = entry(name)
    for module in chosen.modules:
        importlib.import_module(module)  # what an import costs is nobody's accuracy
    _die_after(float(most_seconds))
    print(json.dumps(measure(chosen, world)))


def measure(chosen: Entry, world: World) -> dict[str, Any]:
    """Fit on `world.train`, judge on `world.test`: accuracy, intervals, CPU seconds, memory, latency."""
    learner = chosen.make()
    start = time.process_time()
    learner.fit(world.train)
    figures: dict[str, Any] = {"cpu": time.process_time() - start, "memory": peak_megabytes()}
    figures |= measures.accuracy(learner.effect(world.test.X), world.test.uplift)
    interval = learner.interval(world.test.X)
    if interval is not None:
        figures |= measures.interval_quality(interval, world.test.uplift)
    return figures | {"latency": milliseconds(one_row(learner, world))}


def one_row(learner: Learner, world: World) -> Callable[[], Any]:
    """The call that answers one decision, with reasons."""
    return learner.one_row(world.test.X.iloc[[0]])


def milliseconds(call: Callable[[], Any]) -> float:
    """Median time of a call, the first one left out."""
    call()
    took: list[float] = []
    while len(took) < _MOST_CALLS and sum(took) < _MOST_SECONDS:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return 1000 * statistics.median(took)


def peak_megabytes() -> float:
    """Peak memory of this process so far, in millions of bytes.

    On Linux from the process itself: what ``getrusage`` says begins with the peak of whoever started it.
    """
    if (own := _status("VmHWM")) is not None:
        return own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def resident_megabytes() -> float:
    """Memory of this process now, in millions of bytes; its peak where the system does not say."""
    own = _status("VmRSS")
    return peak_megabytes() if own is None else own


def _status(name: str) -> float | None:
    """A line of ``/proc/self/status``, in millions of bytes; None where there is no such line."""
    status = Path("/proc/self/status")
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found.group(1)) * 1024 / 1e6 if found else None


def _die_after(seconds: float) -> None:
    """Have the system end this process when it has computed for so long."""
    used = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used, used + 5))


def environment() -> dict[str, str]:
    """The environment in which a learner is run: one thread for every library."""
    return {**os.environ, **ONE_THREAD, "TQDM_DISABLE": "1"}


if __name__ == "__main__":
    main()
