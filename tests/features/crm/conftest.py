"""A clock that stands still, the exports that the tests made, and a way to write small ones."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.crm import Imported, import_export
from features.schema import Tables

Files = Mapping[str, Sequence[Mapping[str, str]] | str | bytes]


@pytest.fixture(scope="session")
def exports() -> Path:
    """The made exports, one folder a CRM."""
    return Path(__file__).parent / "exports"


@pytest.fixture(scope="session")
def clock() -> Callable[[], datetime]:
    """15 January 2026, UTC."""
    return lambda: datetime(2026, 1, 15, tzinfo=UTC)


@pytest.fixture
def write_export(tmp_path: Path) -> Callable[[Files], Path]:
    """Write files of an export: rows as dictionaries, or their text or bytes as they are."""

    def write(files: Files, name: str = "export") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file, content in files.items():
            if isinstance(content, bytes):
                (folder / file).write_bytes(content)
            else:
                text = content if isinstance(content, str) else as_csv(content)
                (folder / file).write_bytes(text.encode())
        return folder

    return write


@pytest.fixture
def run_import(tmp_path: Path, clock: Callable[[], datetime]) -> Callable[..., Imported]:
    """Import a folder into ``tmp_path / "crm"``, at the clock's time."""

    def run(folder: Path, **options: Any) -> Imported:
        return import_export(folder, tmp_path / "crm", clock=clock, **options)

    return run


@pytest.fixture
def deals(imported: tuple[Imported, Tables, Path]) -> pd.DataFrame:
    """The deals of a module's own ``imported``, by their id."""
    return imported[1].deals.set_index("deal_id")


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as CSV; the first row's keys are the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
