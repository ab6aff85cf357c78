"""Commands that make, list and revoke API keys."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from stepin_cli.console import say
from stepin_cli.options import as_json_option, database_option, database_url

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.group()
def key() -> None:
    """Make, list and revoke the API keys of the server."""


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["read", "score", "record", "admin"]),
    help="What it may do; can be given again. read: model, deals, lists, metrics. score: ask for advice on "
    "facts that the caller brings. record: outcomes, overrides, events. admin: all.",
)
@database_option
@as_json_option
def create(name: str, scopes: tuple[str, ...], database: str | None, as_json: bool) -> None:
    """Make a key for NAME (who will use it), and show it: this once, for only its hash is kept."""
    from serving import keys

    with _engine(database, make=True) as engine:
        made = keys.create(engine, name, scopes, datetime.now(UTC))
    say({"key": made, "name": name, "scopes": list(scopes)}, as_json, made)


@key.command(name="list")
@database_option
@as_json_option
def list_(database: str | None, as_json: bool) -> None:
    """Show every key that was made, the revoked ones too; never its secret."""
    from serving import keys

    with _engine(database) as engine:
        rows = [dict(row._mapping) for row in keys.listed(engine)]
    say(
        {"keys": [{name: _shown(value) for name, value in row.items()} for row in rows]},
        as_json,
        *(_line(row) for row in rows),
        *(() if rows else ("No keys. Make one with stepin key create NAME --scope score.",)),
    )


@key.command()
@click.argument("key_id", metavar="ID")
@database_option
@as_json_option
def revoke(key_id: str, database: str | None, as_json: bool) -> None:
    """Let the key ID be no longer valid; running servers know within 6 seconds."""
    from serving import keys

    with _engine(database) as engine:
        keys.revoke(engine, key_id, datetime.now(UTC))
    say({"key_id": key_id, "revoked": True}, as_json, f"{key_id} is revoked.")


@contextmanager
def _engine(database: str | None, make: bool = False) -> "Iterator[Engine]":
    """Open the database; where keys are made, bring it to the newest version first."""
    from sqlalchemy.exc import SQLAlchemyError

    from features.problems import UserError
    from serving.journal.database import read_url
    from serving.journal.migrate import check_newest, migrate

    place = read_url(database_url(database, os.environ))
    (migrate if make else check_newest)(place)
    engine = place.engine(pool_size=1)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise UserError(f"{place.name} cannot be used now ({type(error).__name__}). Try again.") from None
    finally:
        engine.dispose()


def _shown(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value


def _line(row: dict[str, Any]) -> str:
    if row["revoked_at"]:
        state = f"revoked {row['revoked_at']:%Y-%m-%d}"
    else:
        state = f"last used {row['last_used_at']:%Y-%m-%d}" if row["last_used_at"] else "not used yet"
    return f"{row['key_id']}  {row['created_at']:%Y-%m-%d}  {row['scopes']:<24}  {state:<20}  {row['name']}"
