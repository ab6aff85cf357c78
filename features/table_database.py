"""CRM tables in a database, one table or view of the same name each."""

from typing import Any

import pandas as pd
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from features.problems import UserError
from features.schema import Clock, Tables, check, utc_now
from features.tables import COLUMNS, TABLE_NAMES


def is_database(place: str) -> bool:
    """Tell whether a text is a database's URL rather than a folder."""
    return "://" in place


def read_database(url: str, clock: Clock = utc_now) -> Tables:
    """Read and check the CRM tables of a database.

    Parameters
    ----------
    url : as SQLAlchemy reads it, for example ``postgresql+psycopg://user:password@host/name``

    Raises
    ------
    UserError
        The database cannot be reached, or lacks a table. No password is repeated.
    TableError
        As ``schema.check``.
    """
    try:
        engine = create_engine(url, hide_parameters=True)
    except (ArgumentError, ImportError, ValueError):  # the last of a port that is no number
        raise UserError(
            "The CRM tables' database should be a URL such as postgresql+psycopg://user:password@host/name, "
            "with its driver installed; came something else."
        ) from None
    try:
        return check(Tables(**_frames(engine)), clock)
    except SQLAlchemyError as error:
        raise UserError(
            f"The CRM tables cannot be read from their database ({type(error).__name__}). "
            "Check that it runs, and that the user may read them."
        ) from None
    finally:
        engine.dispose()


def _frames(engine: Engine) -> dict[str, Any]:
    found = inspect(engine)
    there = {*found.get_table_names(), *found.get_view_names()}
    missing = [name for name in TABLE_NAMES if name not in there]
    if missing:
        raise UserError(
            f"The database lacks {', '.join(missing)}: each of {', '.join(TABLE_NAMES)} is needed, "
            "as a table or view; one without rows will do."
        )
    with engine.connect() as connection:
        return {name: pd.read_sql_table(name, connection) for name in COLUMNS if name in there}
