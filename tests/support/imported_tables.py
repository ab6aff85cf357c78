"""What an import left, as tests of every CRM ask for it."""

from pathlib import Path

import pandas as pd


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def refused_lines(out: Path) -> dict[tuple[str, int], str]:
    """Reason of each refused row, by its file and line."""
    table = pd.read_csv(out / "refused.csv")
    return {(row.file, row.line): row.reason for row in table.itertuples()}
