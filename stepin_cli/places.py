"""What a command line names: sources to read, places to write, models to serve.

Whatever can't be is refused here, in one sentence and before any work.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepin_cli.console import waiting

if TYPE_CHECKING:
    from features import DecisionTable


def read_source(
    source: Path, columns: Path | None, trial: Mapping[str, Any], allow: Collection[str]
) -> "DecisionTable":
    """Decision table from a folder of CRM tables, a decision table's file, or a flat file with `columns`.

    `trial` is what `build_decisions` takes; it belongs to a folder of CRM tables.
    """
    from features import DecisionTable, build_decisions, read_flat, read_tables

    if source.is_dir():
        return build_decisions(read_tables(source), **trial, allow=allow)
    if columns is not None:
        return read_flat(source, columns, allow=allow)
    return DecisionTable.read(source)


def read_to_score(source: Path, columns: Path | None, categories: Collection[str]) -> "DecisionTable":
    """Like `read_source`, but of a folder the open deals, and of a flat file every row.

    `categories` are the features that a model learned as such: their texts stay texts.
    """
    from features import DecisionTable, open_decisions, read_flat, read_tables

    if source.is_dir():
        return open_decisions(read_tables(source))
    if columns is not None:
        return read_flat(source, columns, for_scoring=True, categories=categories)
    return DecisionTable.read(source)


def refuse_trial_of_another(source: Path, given: Sequence[str]) -> None:
    """Refuse settings of the target trial where the decisions are made already."""
    from features.problems import UserError

    if given and not source.is_dir():
        raise UserError(
            f"{given[0]} belongs to a folder of CRM tables; the decisions of {source} are made already. "
            "Leave it out, or give the folder."
        )


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


def refuse_table_place(out: Path, source: Path, endings: Sequence[str] = (".parquet",)) -> None:
    """Refuse a file that cannot be written, or should not be, before any work."""
    from features.problems import UserError
    from features.tables import COLUMNS

    if out.suffix not in endings:
        written = {".parquet": "Parquet", ".csv": "CSV"}
        raise UserError(
            f"{out} should end in {' or '.join(endings)}: "
            f"the table is written as {' or '.join(written[ending] for ending in endings)}."
        )
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file in it.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: there is no folder {out.parent}. Make it first.")
    if source.is_file() and out.exists() and out.samefile(source):
        raise UserError(f"{out} is the source itself; name another file for the results.")
    if source.is_dir() and out.absolute().parent.samefile(source) and out.stem in (*COLUMNS, "truth"):
        raise UserError(f"{out} would be one of the tables of {source} itself; name another file.")
    refuse_place(out)


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


def write_table(table: Any, out: Path) -> None:
    """Write Parquet, or CSV in UTF-8 where `out` ends so: whole or not at all."""
    with whole_file(out) as fresh:
        if out.suffix == ".csv":
            table.to_csv(fresh, index=False)
        else:
            table.to_parquet(fresh, index=False)


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Give a place beside `out` to write to; what was written there is `out` once the block ends well."""
    fresh = out.with_name(f".{out.name}.part")
    try:
        yield fresh
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
