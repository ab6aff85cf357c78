"""What a company's CRM costs, step by step: ``python -m benchmarks.company STEP FOLDER DEALS SEED`` is one.

Each step runs in a process of its own on the files of the step before, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import one
from features.decisions import build_decisions
from features.schema import Tables, check, read_frame, read_tables
from features.simulator import simulate

ROOT = Path(__file__).parents[1]
Figures = dict[str, dict[str, float]]
MOST_SECONDS, MOST_MEGABYTES = 300, 8_000
"""What features may cost at a million deals, from the files to the decision table on the disk."""
WHOLE = "features, from files to file"


def measure(n_deals: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Figures of every step for a simulated CRM of so many deals, in order."""
    about = {"table": "company", "world": "crm", "rows": n_deals, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            command = [sys.executable, "-m", "benchmarks.company", step, folder, str(n_deals), str(seed)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            figures: Figures = json.loads(done.stdout.splitlines()[-1])
            for part, measured in figures.items():
                yield about | {"learner": part} | measured


def main() -> None:
    """Run one step; the last line is a JSON object with the figures of its parts."""
    step, folder, n_deals, seed = sys.argv[1:]
    print(json.dumps(STEPS[step](Path(folder), int(n_deals), int(seed))))


@contextmanager
def _measured(figures: Figures, part: str, **more: float) -> Iterator[None]:
    """Add time and peak memory of what is done within; the peak is that of the process so far."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    figures[part] = {**took, "memory": one.peak_megabytes(), **more}


def _simulate(folder: Path, n_deals: int, seed: int) -> Figures:
    figures: Figures = {}
    with _measured(figures, "simulate"):
        simulated = simulate(n_deals, seed)
    with _measured(figures, "write Parquet"):
        simulated.write(folder / "crm")
    return figures


def _read(folder: Path, _deals: int, _seed: int) -> Figures:
    figures: Figures = {}
    with _measured(figures, "read Parquet"):
        _frames(folder / "crm")
    return figures


def _check(folder: Path, _deals: int, _seed: int) -> Figures:
    figures: Figures = {}
    tables = Tables(**_frames(folder / "crm"))
    with _measured(figures, "check"):
        check(tables)
    return figures


def _build(folder: Path, _deals: int, _seed: int) -> Figures:
    figures: Figures = {}
    tables = read_tables(folder / "crm")
    with _measured(figures, "decisions and features"):
        build_decisions(tables)
    return figures


def _whole(folder: Path, _deals: int, _seed: int) -> Figures:
    """What `stepin features` does."""
    figures: Figures = {}
    with _measured(figures, WHOLE):
        table = build_decisions(read_tables(folder / "crm"))
        table.write(folder / "decisions.parquet")
    figures[WHOLE]["decisions"] = len(table)
    return figures


def _write_csv(folder: Path, _deals: int, _seed: int) -> Figures:
    (folder / "csv").mkdir()
    for name, table in _frames(folder / "crm").items():
        table.to_csv(folder / "csv" / f"{name}.csv", index=False)
    return {}


def _read_csv(folder: Path, _deals: int, _seed: int) -> Figures:
    figures: Figures = {}
    with _measured(figures, "read and check CSV"):
        read_tables(folder / "csv")
    return figures


def _frames(folder: Path) -> dict[str, Any]:
    return {file.stem: read_frame(file) for file in folder.glob("*.parquet") if file.stem != "truth"}


STEPS: dict[str, Callable[[Path, int, int], Figures]] = {
    "simulate": _simulate,
    "read": _read,
    "check": _check,
    "build": _build,
    "whole": _whole,
    "write-csv": _write_csv,
    "read-csv": _read_csv,
}

if __name__ == "__main__":
    main()
