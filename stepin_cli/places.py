"""What a command line names: sources to read, places to write, models to serve.

Whatever can't be is refused here, in one sentence and before any work.
"""

import os
from collections.abc import Collection
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stepin_cli.console import waiting


def read_source(
    source: Path, columns: Path | None, for_scoring: bool = False, categories: Collection[str] = ()
) -> Any:
    """Decision table from a folder of CRM tables, a decision table's file, or a flat file with `columns`.

    For scoring, `categories` are the features that a model learned as such: their texts stay texts.
    """
    from features import DecisionTable, build_decisions, open_decisions, read_flat, read_tables

    refuse_unreadable(source, columns)
    if source.is_dir():
        tables = read_tables(source)
        return open_decisions(tables) if for_scoring else build_decisions(tables)
    if columns is not None:
        return read_flat(source, columns, for_scoring=for_scoring, categories=categories)
    return DecisionTable.read(source)


def refuse_unreadable(source: Path, columns: Path | None) -> None:
    """Refuse a source that can be nothing that we read, before any work."""
    from features.problems import UserError

    if not source.exists():
        raise UserError(f"{source} does not exist; name a folder of CRM tables or a file.")
    if source.is_dir() and columns is not None:
        raise UserError("--columns belongs to a flat file; a folder of CRM tables needs none. Leave it out.")
    if source.is_file() and columns is None and source.suffix != ".parquet":
        raise UserError(
            f"{source} needs a columns file that says what its columns mean: add --columns FILE.toml."
        )


def refuse_place(place: Path) -> None:
    """Refuse a place that cannot come to be; folders above it that are missing are made later."""
    from features.problems import UserError

    above = next(folder for folder in place.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{place} cannot be written: {above} is a file, not a folder. Name another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{place} cannot be written: nothing may be put into {above}. Name another place.")


def refuse_table_place(out: Path, source: Path) -> None:
    """Refuse a file that cannot be written, or should not be, before any work."""
    from features.problems import UserError

    if out.suffix != ".parquet":
        raise UserError(f"{out} should end in .parquet: the table is written as Parquet.")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file in it.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: there is no folder {out.parent}. Make it first.")
    if source.is_file() and out.exists() and out.samefile(source):
        raise UserError(f"{out} is the source itself; name another file for the results.")
    refuse_place(out)


def model_folder(model: str) -> Path:
    """Folder of a model; a registered one is fetched first."""
    return Path(named_model(model)["STEPIN_MODEL"])


def named_model(model: str) -> dict[str, str]:
    """Settings that name a model; a registered one is looked up by a process of its own, with MLflow."""
    if not model.startswith("models:"):
        return {"STEPIN_MODEL": model}
    from training import registry

    with waiting(f"Fetching {model}"), get_context("spawn").Pool(1) as other:
        found = other.apply(registry.locate, (model,))
    return {
        "STEPIN_MODEL": str(found.folder),
        "STEPIN_MODEL_NAME": found.name,
        "STEPIN_MODEL_VERSION": str(found.version),
    }


def write_parquet(table: Any, out: Path) -> None:
    """Whole or not at all."""
    fresh = out.with_name(f".{out.name}.part")
    try:
        table.to_parquet(fresh, index=False)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
