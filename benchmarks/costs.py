"""Sections of ``docs/benchmarks.md`` about seconds and memory: learning, engines, a company's CRM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import company
from benchmarks.markdown import table
from benchmarks.words import COMPANY, ENGINES, ENGINES_CHOICE, SIZE

Run = dict[str, Any]
OURS = "numpy"
WITHIN = 2.0  # an engine may cost so many times the fastest, if it reads best


def scaling(runs: Sequence[Run]) -> str:
    """What learning costs, by decisions."""
    found = sorted((r for r in runs if r["table"] == "scaling"), key=lambda r: (r["learner"], r["rows"]))
    if not found:
        return ""
    lines = [
        [
            run["learner"],
            f"{run['learned_from']:,}",
            f"{run['cpu']:.0f}",
            f"{run['wall']:.0f}",
            f"{1e6 * run['cpu'] / run['learned_from']:.0f}",
            f"{run['memory']:,.0f}",
        ]
        for run in found
    ]
    head = ["what", "decisions", "CPU s", "wall s", "CPU µs a row", "peak MB"]
    return SIZE + "\n\n" + table(head, lines)


def engines(runs: Sequence[Run]) -> str:
    """The heaviest features on every engine, a table for each size, and whether ours is near the fastest."""
    found = [run for run in runs if run["table"] == "engines"]
    if not found:
        return ""
    sizes = sorted({run["rows"] for run in found})
    parts = [_engines_at([run for run in found if run["rows"] == rows]) for rows in sizes]
    return "\n\n".join([ENGINES, *parts, ENGINES_CHOICE])


def _engines_at(runs: list[Run]) -> str:
    ended = [run for run in runs if "failed" not in run]
    least = {name: min((run[name] for run in ended), default=0.0) for name in ("cpu", "wall", "grown")}
    lines = []
    for run in sorted(runs, key=lambda run: run.get("cpu", float("inf"))):
        name = f"**{run['learner']}**" if run["learner"] == OURS else run["learner"]
        if "failed" in run:
            lines.append([name, run["failed"], *[""] * 7])
            continue
        cells = [
            cell
            for figure, form in (("cpu", ".2f"), ("wall", ".2f"), ("grown", ",.0f"))
            for cell in (format(run[figure], form), f"{run[figure] / least[figure]:.1f}")
        ]
        lines.append([name, *cells, f"{run['memory']:,.0f}", str(run["lines"])])
    head = ["engine", "CPU s", "× least", "wall s", "× least", "MB added", "× least", "peak MB", "lines"]
    title = f"### {runs[0]['rows']:,} deals, {runs[0]['asked']:,} moments asked about"
    return "\n\n".join([title, table(head, lines), _nearness(ended, least)])


def _nearness(runs: list[Run], least: dict[str, float]) -> str:
    ours = next((run for run in runs if run["learner"] == OURS), None)
    if ours is None or len(runs) < 2:
        return ""
    times = [ours[name] / least[name] for name in ("cpu", "wall")]
    said = "within" if max(times) <= WITHIN else "not within"
    return (
        f"Ours takes {times[0]:.1f} times the least CPU and {times[1]:.1f} times the least time: "
        f"{said} {WITHIN:g} times the fastest."
    )


def crm(runs: Sequence[Run]) -> str:
    """Every step from a simulated CRM to its decision table, by deals; linear or not; against the target."""
    found = [run for run in runs if run["table"] == "company"]
    if not found:
        return ""
    steps = list(dict.fromkeys(run["learner"] for run in found))
    found.sort(key=lambda run: (steps.index(run["learner"]), run["rows"]))
    lines = [
        [
            run["learner"],
            f"{run['rows']:,}",
            f"{run['wall']:.1f}",
            f"{run['cpu']:.1f}",
            f"{1e6 * run['cpu'] / run['rows']:.0f}",
            f"{run['memory']:,.0f}",
        ]
        for run in found
    ]
    head = ["step", "deals", "wall s", "CPU s", "CPU µs a deal", "peak MB"]
    whole = [run for run in found if run["learner"] == company.WHOLE]
    return "\n\n".join(part for part in (COMPANY, table(head, lines), _linear(whole), _target(whole)) if part)


def _linear(whole: list[Run]) -> str:
    if len(whole) < 2:
        return ""
    first, last = whole[0], whole[-1]
    deals, cost = last["rows"] / first["rows"], last["cpu"] / first["cpu"]
    return (
        f"From {first['rows']:,} to {last['rows']:,} deals, {deals:g} times as many, features cost "
        f"{cost:.0f} times the CPU, {cost / deals:.2f} times as much a deal."
    )


def _target(whole: list[Run]) -> str:
    if not whole or whole[-1]["rows"] < 1_000_000:
        return ""
    most, megabytes = company.MOST_SECONDS, company.MOST_MEGABYTES
    run = whole[-1]
    said = "met" if run["wall"] < most and run["memory"] < megabytes else "missed"
    return (
        f"{run['rows']:,} deals make {run['decisions']:,} decisions in {run['wall']:.0f} seconds with "
        f"{run['memory'] / 1000:.1f} GB; the target of {most} seconds and {megabytes / 1000:g} GB is {said}."
    )
