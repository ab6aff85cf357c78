"""Runs of the comparison, kept as JSON lines: a run that is repeated replaces its line."""

from __future__ import annotations

import json
import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import one, real, worlds
from benchmarks.worlds import World

Make = Callable[[int, int], World]
ROOT = Path(__file__).parents[1]
IBM = ROOT.parent / "shared" / "data" / "ibm_win_loss" / "sales_win_loss.csv.gz"
IBM_COLUMNS = ROOT / "examples" / "ibm_win_loss.toml"
PACKAGES = ("econml", "causalml", "metalearners", "lightgbm", "scikit-learn", "numpy", "pandas")
KEY = ("table", "world", "rows", "seed", "learner")


@dataclass(frozen=True)
class Results:
    """A file of JSON lines, one for each run; `KEY` says which run a line is of."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """All runs, in the order in which they were first made."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def put(self, run: dict[str, Any]) -> None:
        """Add a run, or replace the one with the same key."""
        kept = {self._key(old): old for old in self.read()} | {self._key(run): run}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept.values()))
        fresh.replace(self.path)

    def has(self, **key: Any) -> bool:
        """Whether there is such a run."""
        return self._key(key) in {self._key(old) for old in self.read()}

    @staticmethod
    def _key(run: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(run.get(name) for name in KEY)


def makers(ibm: Path = IBM) -> dict[str, Make]:
    """Worlds by name; IBM's table is among them where its file is there."""
    made: dict[str, Make] = {
        "crm": worlds.crm,
        "smooth": worlds.smooth,
        "sharp": worlds.sharp,
        "constant": worlds.constant,
        "zero": lambda n, seed: worlds.constant(n, seed, uplift=0.0),
    }
    if ibm.exists():
        made["ibm"] = lambda n, seed: real.planted_on(ibm, IBM_COLUMNS, n, seed)
    return made


def environment() -> dict[str, Any]:
    """What the runs were made with, in words."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    words = f"Python {platform.python_version()}, {', '.join(found)}, on {machine}"
    return {"table": "environment", "words": words}


def compare(
    make: Make,
    world: str,
    rows: int,
    seed: int,
    learners: Iterable[str],
    results: Results,
    most_seconds: float,
    say: Callable[[str], None],
) -> None:
    """Run every learner on the same data, each in a process of its own, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "world.pkl"
        made = make(rows, seed)
        file.write_bytes(pickle.dumps(made, protocol=5))
        about = {"table": "worlds", "world": world, "rows": rows, "seed": seed}
        size = {"learned_from": len(made.train), "judged_on": len(made.test)}
        del made
        for learner in learners:
            run = {**about, "learner": learner, **size, **_run(file, learner, most_seconds)}
            results.put(run)
            say(_line(run))


def _run(file: Path, learner: str, most_seconds: float) -> dict[str, Any]:
    """Figures of one run, or `failed` with the reason."""
    command = [sys.executable, "-m", "benchmarks.one", str(file), learner, str(most_seconds)]
    done = subprocess.run(
        command, cwd=ROOT, env=one.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"failed": f"over {most_seconds:.0f} CPU seconds"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _line(run: dict[str, Any]) -> str:
    head = f"{run['world']} {run['rows']} seed {run['seed']} {run['learner']}:"
    if "failed" in run:
        return f"{head} {run['failed']}"
    covered = f" covered {run['coverage']:.2f}" if "coverage" in run else ""
    return f"{head} rmse {run['rmse']:.4f}{covered} cpu {run['cpu']:.1f} s, {run['memory']:.0f} MB"
