"""The command line as a test runs it, and what it said and left behind."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

import stepin

ROOT = Path(__file__).parents[2]
STEPIN = [sys.executable, "-m", "stepin"]


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


def run(*arguments: object) -> Said:
    """Run a command in this process, as the shell would."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err), threadpool_limits(limits=1):
        try:
            stepin.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    return Said(status, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Said:
    said = run(*arguments)
    assert said.status == 0, said.err
    return said


def one_document(text: str) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(text, parse_constant=refuse)  # fails on anything before or after it
    assert isinstance(document, dict)
    return document


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def changed(crm: Path, folder: Path, **changes) -> Path:
    """A copy of the CRM as CSV; a change makes a table of a table, or None of it."""
    folder.mkdir()
    for file in crm.glob("*.parquet"):
        table = pd.read_parquet(file)
        if file.stem in changes:
            table = changes[file.stem](table)
        if table is not None and file.stem != "truth":
            table.to_csv(folder / f"{file.stem}.csv", index=False)
    return folder
