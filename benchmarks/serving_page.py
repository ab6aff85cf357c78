"""Section of ``docs/benchmarks.md`` about servers: what an answer costs, beside what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import table
from benchmarks.serving import (
    BATCH,
    ECHO,
    LEAST_DEALS,
    LEAST_TIMES_CHEAPER,
    MLFLOW,
    MOST_MEBIBYTES,
    MOST_START_SECONDS,
    MOST_TIMES_ECHO,
    OURS,
)
from benchmarks.words import SERVING, WHERE_ANSWERS_GO

Run = dict[str, Any]
_MISSED = "missed."
_HEAD = [
    "server",
    "CPU µs a deal",
    "times the echo",
    "deals a CPU second",
    "ready s",
    "MiB",
    "PSS MiB",
]


def answers(runs: Sequence[Run]) -> str:
    """Every server's figures, and each target with what was measured."""
    found = [run for run in runs if run["table"] == "serving"]
    of = {run["learner"]: run for run in found if "failed" not in run}
    if ECHO not in of:
        return ""
    lines = [_line(run, of[ECHO]["cpu_us"]) for run in found]
    size = f"The model has {found[0]['rows']} features."
    targets = _targets(of)
    why = [WHERE_ANSWERS_GO] if any(each.endswith(_MISSED) for each in targets) else []
    return "\n\n".join([SERVING, size, table(_HEAD, lines), "\n".join(targets), *why])


def _line(run: Run, echo_us: float) -> list[str]:
    if "failed" in run:
        return [run["learner"], run["failed"], *[""] * 5]
    return [
        f"**{run['learner']}**" if run["learner"] == OURS else run["learner"],
        f"{1e6 / run['deals_a_second']:,.0f}",
        f"{1e6 / run['deals_a_second'] / echo_us:,.1f}",
        f"{run['deals_a_second']:,.0f}",
        f"{run['start']:.1f}",
        f"{run['resident']:.0f}",
        f"{run['share']:.0f}",
    ]


def _targets(of: dict[str, Run]) -> list[str]:
    """A sentence for each target; what was not measured has none."""
    said = []
    if OURS in of:
        times = of[OURS]["cpu_us"] / of[ECHO]["cpu_us"]
        said.append(_verdict(f"An answer costs {times:.1f} times the echo", times <= MOST_TIMES_ECHO, "3"))
        start, size = of[OURS]["start"], of[OURS]["resident"]
        is_met = start < MOST_START_SECONDS and size < MOST_MEBIBYTES
        words = f"It is ready in {start:.1f} s with {size:.0f} MiB"
        if beside := of[OURS].get("beside"):
            words += f", not counting the {beside:.0f} MiB of the process that builds facts from CRM fields"
        said.append(_verdict(words, is_met, "1.5 s and 120 MiB"))
    if OURS in of and MLFLOW in of:
        times = of[MLFLOW]["cpu_us"] / of[OURS]["cpu_us"]
        words = f"An answer of `mlflow models serve` costs {times:.0f} times ours"
        said.append(_verdict(words, times >= LEAST_TIMES_CHEAPER, "150"))
    if BATCH in of:
        deals = of[BATCH]["deals_a_second"]
        words = f"In requests of 1,000 a core answers {deals:,.0f} deals a second"
        said.append(_verdict(words, deals >= LEAST_DEALS, "40,000"))
    return said


def _verdict(words: str, is_met: bool, target: str) -> str:
    return f"- {words}; the target of {target} is {'met.' if is_met else _MISSED}"
