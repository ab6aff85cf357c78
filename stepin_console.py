"""What a command says while it works, on stderr, and what it leaves, on stdout."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
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


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that something is going on, with the time it takes, on stderr."""
    with steps(1) as notify:
        notify(what)
        yield


@contextmanager
def steps(n: int) -> Iterator[Callable[[str], None]]:
    """Show how far it is, on stderr; call with the name of each of the n steps as it starts."""
    with _bar(n) if sys.stderr.isatty() else _log(n) as notify:
        yield notify


@contextmanager
def _log(n: int) -> Iterator[Callable[[str], None]]:
    """One line for each step that ended well, for a file or a pipe."""
    done, current, since = 0, "", time.monotonic()

    def notify(step: str) -> None:
        nonlocal done, current, since
        if current:
            done += 1
            click.echo(f"[{done}/{n}] {current}, {time.monotonic() - since:.1f} s", err=True)
        current, since = step, time.monotonic()

    yield notify
    notify("")


@contextmanager
def _bar(n: int) -> Iterator[Callable[[str], None]]:
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
        bar.update(task, completed=n)
