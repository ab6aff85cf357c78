"""Side by side with other packages: run what is asked, then write the page from all runs on file.

python -m benchmarks                                     the whole comparison (hours)
python -m benchmarks --worlds smooth --rows 5000 --seeds 0 1 --learners stepin "CausalML X-learner"
python -m benchmarks --worlds --page                     the page alone
python -m benchmarks --scaling 50000 200000              what learning from so many decisions costs
python -m benchmarks --features 10000 100000 1000000     what a CRM of so many deals costs
python -m benchmarks --engines                           pandas, polars, DuckDB on the heaviest feature
python -m benchmarks --serving                           what an answer costs the server
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import company, engines, hillstrom, lalonde, page, runs, scaling, serving
from benchmarks.entries import ENTRIES, entry
from features import UserError

_SIZES = [5_000, 50_000, 500_000]
_SCALES = [50_000, 200_000, 500_000, 2_000_000]
_DEALS = [10_000, 100_000, 1_000_000]
_ENGINE_DEALS = [300_000]
_LARGE = 200_000
_LARGEST_TRAINED = 500_000  # above it, the fit alone
_WORLDS_IN_LARGE = ("crm", "smooth", "sharp")


def main() -> int:
    """Exit status 0, or 1 with one sentence."""
    given = _asked().parse_args()
    try:
        _run(given)
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _asked() -> argparse.ArgumentParser:
    asked = argparse.ArgumentParser(
        "benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [each.name for each in ENTRIES]
    add = asked.add_argument
    add("--rows", type=int, nargs="+", default=_SIZES, help="decisions to learn from")
    add("--worlds", nargs="*", help="crm smooth sharp constant zero ibm; none: no comparison at all")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="above 200,000 rows the first alone")
    add("--learners", nargs="+", default=names, metavar="NAME", help="; ".join(names))
    add("--missing", action="store_true", help="only runs that are not on file yet")
    add("--cpu-cap", type=float, default=900, metavar="SECONDS", help="a run that computes longer is ended")
    add("--ibm", type=Path, default=runs.IBM, metavar="CSV", help="IBM's sales table, if it lies elsewhere")
    add("--hillstrom", type=Path, metavar="CSV", help="Hillstrom's e-mail trial, if you have the file")
    add("--lalonde", action="store_true", help="LaLonde's data; also run where nothing else was asked")
    sizes: dict[str, Any] = {"type": int, "nargs": "*"}
    add("--scaling", metavar="ROWS", help="what learning costs; default 50,000 to 2,000,000", **sizes)
    add("--features", metavar="DEALS", help="what a CRM costs; default 10,000 to 1,000,000", **sizes)
    add("--engines", metavar="DEALS", help="the heaviest features on every engine; default 300,000", **sizes)
    add("--serving", action="store_true", help="CPU of an answer: ours, an echo, mlflow models serve")
    add("--page", action="store_true", help="write the page, whatever else is asked (it always is)")
    add("--results", type=Path, default=runs.ROOT / ".bench" / "results.jsonl", help="the runs on file")
    add("--out", type=Path, default=runs.ROOT / "docs" / "benchmarks.md", help="the page")
    return asked


def _run(given: argparse.Namespace) -> None:
    results = runs.Results(given.results)
    costs = (given.scaling, given.features, given.engines)
    other = given.lalonde or given.hillstrom or given.serving or any(asked is not None for asked in costs)
    everything = given.worlds is None and not other
    if everything or given.worlds:
        results.put(runs.environment())
    _compare(given, results, everything)
    if given.hillstrom:
        for line in hillstrom.compare(given.hillstrom, given.learners):
            results.put(line)
    if given.lalonde or everything:
        for line in lalonde.compare_averages():
            results.put(line)
    if given.scaling is not None or everything:
        for rows in given.scaling or _SCALES:
            for what in scaling.LEARNERS if rows <= _LARGEST_TRAINED else ["fit"]:
                results.put(scaling.measure(what, rows))
    _measure_tables(given, results, everything)
    if given.serving or everything:
        for line in serving.compare(serving.Effort()):
            results.put(line)
    given.out.write_text(page.write(results.read()), encoding="utf-8")
    print(f"wrote {given.out}", file=sys.stderr)


def _measure_tables(given: argparse.Namespace, results: runs.Results, everything: bool) -> None:
    """What a CRM's tables cost, and on which engine."""
    if given.features is not None or everything:
        for deals in given.features or _DEALS:
            for line in company.measure(deals):
                results.put(line)
                _say(f"{deals:,} deals, {line['learner']}: {line['wall']:.1f} s, {line['memory']:,.0f} MB")
    if given.engines is not None or everything:
        for deals in given.engines or _ENGINE_DEALS:
            for line in engines.compare(deals):
                results.put(line)


def _compare(given: argparse.Namespace, results: runs.Results, everything: bool) -> None:
    made = runs.makers(given.ibm)
    worlds = list(made) if everything else given.worlds or []
    for name in worlds:
        if name not in made:
            raise UserError(f"no world is called '{name}' here; known: {', '.join(made)}.")
    for name in given.learners:
        entry(name)
    for world in worlds:
        for rows in given.rows:
            if rows >= _LARGE and everything and world not in _WORLDS_IN_LARGE:
                continue
            for seed in given.seeds[:1] if rows >= _LARGE else given.seeds:
                key = {"table": "worlds", "world": world, "rows": rows, "seed": seed}
                asked = [n for n in given.learners if not (given.missing and results.has(**key, learner=n))]
                if asked:
                    runs.compare(made[world], world, rows, seed, asked, results, given.cpu_cap, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
