"""Commands on the journal of answers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stepin_cli.console import say, waiting
from stepin_cli.options import as_json_option, database_option, database_url, path_type
from stepin_cli.places import refuse_table_place, whole_file

if TYPE_CHECKING:
    from serving.journal.database import Database


@click.group()
def journal() -> None:
    """What was advised, what was decided, what happened."""


@journal.command()
@click.argument("out", metavar="OUT.parquet", type=path_type)
@database_option
@as_json_option
def export(out: Path, database: str | None, as_json: bool) -> None:
    """Write every answer to OUT.parquet, with its deal's newest outcome and its own newest override.

    Times are UTC, uplifts fractions, facts the JSON text of the features used. Servers may write meanwhile:
    the file is the journal as it stood at one moment.
    """
    from serving.journal.database import read_url
    from serving.journal.migrate import check_newest

    place = read_url(database_url(database, os.environ))
    refuse_table_place(out, place.path if place.is_sqlite else Path())
    check_newest(place)
    with waiting(f"Reading the journal in {place.name}"):
        counts = _write(place, out)
    say(
        {"out": str(out), **counts},
        as_json,
        f"{out}: {counts['answers']:,} answers, {counts['with_outcome']:,} of them with an outcome, "
        f"{counts['overridden']:,} overridden",
    )


def _write(place: "Database", out: Path) -> dict[str, int]:
    """Write the file whole or not at all, a piece at a time, whatever the journal's size."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sqlalchemy.exc import DBAPIError

    from features.problems import UserError
    from serving.journal.export import read_joined

    schema = _schema()
    counts = {"answers": 0, "with_outcome": 0, "overridden": 0}
    engine = place.engine(pool_size=1)
    try:
        with whole_file(out) as fresh, pq.ParquetWriter(fresh, schema) as writer:
            for rows in read_joined(engine):
                table = pa.Table.from_pylist([dict(row._mapping) for row in rows], schema=schema)
                writer.write_table(table)
                counts["answers"] += len(rows)
                counts["with_outcome"] += len(rows) - table["outcome"].null_count
                counts["overridden"] += len(rows) - table["override_decided"].null_count
    except DBAPIError as error:
        raise UserError(f"{place.name} cannot be read now ({type(error).__name__}). Try again.") from None
    finally:
        engine.dispose()
    return counts


def _schema() -> Any:
    """The file's columns: those of the journal, in Parquet's types, also where there are no rows."""
    import pyarrow as pa
    from sqlalchemy import Boolean, Float, Text

    from serving.journal.export import joined
    from serving.journal.tables import UtcDateTime

    types = {
        Text: pa.string(),
        Float: pa.float64(),
        Boolean: pa.bool_(),
        UtcDateTime: pa.timestamp("us", "UTC"),
    }
    return pa.schema([(column.key, types[type(column.type)]) for column in joined().selected_columns])
