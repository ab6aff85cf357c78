"""``docs/benchmarks.md``, written from the runs on file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import costs, serving_page
from benchmarks.entries import ENTRIES
from benchmarks.markdown import table
from benchmarks.words import CPU, HEAD, LALONDE, NOTES, SETTINGS, TITLES

Run = dict[str, Any]
OURS = "stepin"
NOT_PEERS = (OURS, "constant")


def write(runs: Sequence[Run]) -> str:
    """The whole page as Markdown."""
    compared = [run for run in runs if run["table"] == "worlds"]
    blocks = {}
    for world in TITLES:
        for rows in sorted({run["rows"] for run in compared if run["world"] == world}):
            blocks[world, rows] = [r for r in compared if (r["world"], r["rows"]) == (world, rows)]
    parts = [HEAD, _made_on(runs), _summary(blocks), SETTINGS, _settings_table()]
    for (world, rows), block in blocks.items():
        first = min(size for name, size in blocks if name == world)
        parts += [f"## {TITLES[world]}" if rows == first else "", _one_size(world, block)]
    parts += [_hillstrom(runs), _lalonde(runs), costs.scaling(runs), costs.crm(runs), costs.engines(runs)]
    parts.append(serving_page.answers(runs))
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(blocks: dict[tuple[str, int], list[Run]]) -> str:
    """One line for each world and size: stepin, the best peer, and how far apart."""
    lines = []
    for (world, rows), runs in blocks.items():
        of = _by_learner(runs)
        ours, best = of.get(OURS, []), best_peer(of)
        if not ours or best is None or "rmse" not in ours[0]:
            continue
        name = TITLES[world].split(":")[0]
        cells = [_COLUMNS["error"](ours), best, _COLUMNS["error"](of[best])]
        gaps = _gaps(ours, of[best])
        better = f"{int((gaps > 0).sum())} of {len(gaps)}" if len(gaps) else "–"
        lines.append(
            [name, f"{rows:,}", *cells, better, mean("coverage", ".0%")(ours), mean("cpu", ".1f")(ours)]
        )
    if not lines:
        return ""
    head = ["world", "rows", "stepin's error", "best peer", "its error", "seeds won", "90% covers", "CPU s"]
    return "## In short\n\n" + table(head, lines) + "\n\n" + CPU


def _by_learner(runs: list[Run]) -> dict[str, list[Run]]:
    of = {entry.name: [run for run in runs if run["learner"] == entry.name] for entry in ENTRIES}
    return {name: found for name, found in of.items() if found}


# One world, one size


def _one_size(world: str, runs: list[Run]) -> str:
    rows, seeds = runs[0]["rows"], sorted({run["seed"] for run in runs})
    of = _by_learner(runs)
    title = f"### {rows:,} rows, {'seeds' if len(seeds) > 1 else 'seed'} {_listed(seeds)}"
    verdict = paired_verdict(of, varies=any(run.get("r2") is not None for run in runs))
    note = NOTES.get((world, rows), "")
    return "\n\n".join(part for part in (title, _figures(of), verdict, note) if part)


_Cell = Callable[[list[Run]], str]


def spread(name: str, form: str, scale: float = 1.0) -> _Cell:
    """A cell: mean of a figure over the runs, ± its standard deviation where there are several."""

    def cell(runs: list[Run]) -> str:
        values = [scale * run[name] for run in runs if run.get(name) is not None]
        if not values:
            return "–"
        text = format(float(np.mean(values)), form)
        return f"{text} ± {float(np.std(values, ddof=1)):{form.lstrip('+')}}" if len(values) > 1 else text

    return cell


def mean(name: str, form: str, scale: float = 1.0) -> _Cell:
    """A cell: mean of a figure over the runs."""
    return lambda runs: spread(name, form, scale)(runs).split(" ±")[0]


_COLUMNS: dict[str, _Cell] = {
    "error": spread("rmse", ".2f", 100),
    "R²": mean("r2", ".2f"),
    "rank": mean("rank", ".2f"),
    "regret": spread("regret", ".2f"),
    "slope": mean("slope", ".2f"),
    "bias": mean("bias", "+.2f"),
    "sd": mean("sd", ".1f"),
    "90% covers": mean("coverage", ".0%"),
    "width": mean("width", ".1f"),
    "CPU s": mean("cpu", ".1f"),
    "MB": mean("memory", ".0f"),
    "ms a row": mean("latency", ".2f"),
}


def _figures(of: dict[str, list[Run]]) -> str:
    lines = []
    for name, found in sorted(of.items(), key=lambda item: _order(item[1])):
        done = [run for run in found if "failed" not in run]
        if done:
            cells = [cell(done) for cell in _COLUMNS.values()]
        else:
            cells = [found[0]["failed"], *[""] * (len(_COLUMNS) - 1)]
        some = f" ({len(done)} of {len(found)} runs ended)" if 0 < len(done) < len(found) else ""
        lines.append([f"**{name}**" if name == OURS else name + some, *cells])
    return table(["learner", *_COLUMNS], lines)


def _order(runs: list[Run]) -> float:
    errors = [run["rmse"] for run in runs if "rmse" in run]
    return float(np.mean(errors)) if errors else math.inf


def best_peer(of: dict[str, list[Run]]) -> str | None:
    """The peer with the least mean error; None where none has ended."""
    ended = {name: _order(runs) for name, runs in of.items() if name not in NOT_PEERS}
    best = min(ended, key=lambda name: ended[name], default=None)
    return best if best is not None and ended[best] < math.inf else None


def _gaps(ours: list[Run], theirs: list[Run]) -> NDArray[np.float64]:
    """Their error less ours in points, for each seed that both have ended."""
    of = {run["seed"]: run["rmse"] for run in ours if "rmse" in run}
    return np.array([100 * (r["rmse"] - of[r["seed"]]) for r in theirs if "rmse" in r and r["seed"] in of])


def paired_verdict(of: dict[str, list[Run]], varies: bool = True) -> str:
    """How stepin compares with the most accurate peer, seed by seed on the same data.

    Where all effects are equal, no peer is named: the spread of the effects is the figure to read.
    """
    best = best_peer(of)
    ours = [run for run in of.get(OURS, []) if "rmse" in run]
    if best is None or not ours or not varies:
        return ""
    gaps = _gaps(ours, of[best])
    if not len(gaps):
        return ""
    spread_of = f" (standard deviation {np.std(gaps, ddof=1):.2f})" if len(gaps) > 1 else ""
    better = f"in {int((gaps > 0).sum())} of {len(gaps)} seeds" if len(gaps) > 1 else "on the one seed"
    if len(gaps) == 1 and gaps[0] <= 0:
        better = "nowhere"
    return (
        f"The best peer's error ({best}) less stepin's, on the same data: {gaps.mean():+.2f} points"
        f"{spread_of}; stepin's is smaller {better}. {_cost(ours, of)}"
    )


def _cost(ours: list[Run], of: dict[str, list[Run]]) -> str:
    """CPU time against the fastest peer whose R² is within 0.02 of ours, or better."""
    r2, close = np.mean([run["r2"] for run in ours]), {}
    for name, runs in of.items():
        done = [run for run in runs if run.get("r2") is not None]
        if name not in NOT_PEERS and done and np.mean([run["r2"] for run in done]) >= r2 - 0.02:
            close[name] = float(np.mean([run["cpu"] for run in done]))
    if not close:
        return "No peer comes within 0.02 R² of it."
    name = min(close, key=lambda key: close[key])
    ratio = float(np.mean([run["cpu"] for run in ours])) / close[name]
    return f"CPU time: {ratio:.2f} times that of {name}, the fastest peer within 0.02 R² of it."


# Other tables


def _hillstrom(runs: Sequence[Run]) -> str:
    found = [run for run in runs if run["table"] == "hillstrom"]
    if not found:
        return ""
    lines = [
        [
            run["learner"],
            *(f"{100 * run[k]:+.2f}" for k in ("average", "autoc", "qini")),
            f"{run['cpu']:.1f}",
        ]
        for run in sorted(found, key=lambda run: -run["autoc"])
    ]
    first = found[0]
    words = (
        "## Hillstrom's e-mail trial\n\nE-mail for women against none, by who visited within two weeks; "
        f"one half learned from, the other ({first['judged_on']:,} people) judged on. The truth is not "
        "known; the choice was a coin's. The trial's own difference in the judged half: "
        f"{100 * first['trial']:.2f} points (standard error {100 * first['trial_se']:.2f}). Standard error "
        f"of an AUTOC: about {100 * first['autoc_se']:.2f}."
    )
    return (
        words
        + "\n\n"
        + table(["learner", "mean effect, points", "AUTOC, points", "Qini, points", "CPU s"], lines)
    )


def _lalonde(runs: Sequence[Run]) -> str:
    found = [run for run in runs if run["table"] == "lalonde"]
    if not found:
        return ""
    about = next(run for run in found if "treated" in run)
    lines = [
        [
            run["learner"],
            _dollars(run.get("value"), run.get("se")),
            "" if run is about else _away(run, about),
            _dollars(run.get("all"), run.get("all_se")),
        ]
        for run in found
    ]
    head = ["", "on rows with support", "trial's standard errors away", "on all rows"]
    return LALONDE.format(**about) + "\n\n" + table(head, lines)


def _away(run: Run, benchmark: Run) -> str:
    """Distance from the benchmark in its standard errors; – where no row had support."""
    if run.get("value") is None or benchmark.get("se") is None:
        return "–"
    return f"{(run['value'] - benchmark['value']) / benchmark['se']:+.2f}"


def _dollars(value: float | None, se: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" + (f" ({se:,.0f})" if se is not None else "")


# Words about how it was made


def _settings_table() -> str:
    return table(
        ["learner", "settings", "reasons"], [[e.name, e.settings, e.reasons or "–"] for e in ENTRIES]
    )


def _made_on(runs: Sequence[Run]) -> str:
    found = [run for run in runs if run["table"] == "environment"]
    return f"Made with {found[-1]['words']}." if found else ""


def _listed(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
