"""What a command says while it works, on stderr, and what it leaves, on stdout."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click


def say(document: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print the result on stdout: one JSON document, or lines for people."""
    click.echo(as_one_document(document) if as_json else "\n".join(lines))


def as_one_document(document: dict[str, Any]) -> str:
    """Return JSON as every parser reads it: what is no number (NaN, infinity) becomes null."""
    return json.dumps(_finite(document), default=str, indent=1, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def outcome_lines(trained: Any, run: Any) -> Iterator[str]:
    """What came of a training (`Trained`), and of its run where it was recorded, line by line."""
    evaluation, folder = trained.evaluation, trained.folder
    learned = trained.facts["learned_from"]
    judged = learned["held_out"]
    yield (
        f"Learned from {learned['decisions']:,} decisions. The same recipe was judged on "
        f"{judged['decisions']:,} of them, by models that had "
        f"{'seen older ones only.' if judged['by_time'] else 'not seen them.'}"
    )
    yield from left_out_line(learned["left_out_columns"])
    yield from audit_lines(learned.get("audit") or [])
    for line in trained.facts.get("gate") or []:
        if line["level"] != "ok":
            yield f"Mind: {line['what']}: {line['why']}."
    yield evaluation.verdict
    for claim in evaluation.claims:
        yield f"  {_amount(claim.estimate, evaluation.outcome)}  {claim.what}"
    yield "  Advice on the held-out decisions: " + ", ".join(
        f"{100 * share:.0f}% {advice}" for advice, share in evaluation.advice_shares.items()
    )
    if run and run.version:
        yield f"Registered as version {run.version} of models:/{trained.facts['name']}"
    yield f"Model: {folder}   Report: {folder / 'report.html'}"
    yield f"Next: stepin serve {folder}"


def flow_lines(flow: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How many moments are decisions, of how many deals, and why the others are not, line by line."""
    for step in flow:
        deals = f" ({step['deals']:,} deals)" if step.get("deals") is not None else ""
        yield f"  {step['n']:>9,}  {step['what']}{deals}: {step['why']}"


def audit_lines(findings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the leakage audit found and did not stop at, line by line."""
    for found in findings:
        mark = "Allowed by you" if found.get("allowed") else "Look at"
        yield f"{mark}: '{found['column']}' ({found['rule']}): {found['why']}"


def left_out_line(columns: Sequence[dict[str, str]]) -> Iterator[str]:
    """One line on the columns that were left out, or none."""
    if columns:
        named = ", ".join(f"{line['column']} ({line['why']})" for line in columns)
        yield f"Left out, for they say nothing: {named}"


def _amount(estimate: Any, outcome: str) -> str:
    unit, factor = ("points", 100.0) if outcome == "binary" else ("", 1.0)
    value, low, high = (factor * v for v in (estimate.value, estimate.lo, estimate.hi))
    return f"{value:+8.1f} {unit} ({low:+.1f} to {high:+.1f})"


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that something is going on, with the time it takes, on stderr."""
    with steps(1) as notify:
        notify(what)
        yield


@contextmanager
def steps(n: int | None) -> Iterator[Callable[[str], None]]:
    """Show how far it is, on stderr; call with the name of each of the n steps as it starts.

    None where nobody knows beforehand how many there will be.
    """
    with _bar(n) if sys.stderr.isatty() else _log(n) as notify:
        yield notify


@contextmanager
def _log(n: int | None) -> Iterator[Callable[[str], None]]:
    """One line for each step that ended well, for a file or a pipe."""
    done, current, since = 0, "", time.monotonic()
    of_all = f"/{n}" if n else ""

    def notify(step: str) -> None:
        nonlocal done, current, since
        if current:
            done += 1
            click.echo(f"[{done}{of_all}] {current}, {time.monotonic() - since:.1f} s", err=True)
        current, since = step, time.monotonic()

    yield notify
    notify("")


@contextmanager
def _bar(n: int | None) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=n)
        started = False

        def notify(step: str) -> None:
            nonlocal started
            bar.update(task, description=step, advance=1 if started else 0)
            started = True

        yield notify
        bar.update(task, total=n or 1, completed=n or 1)
