"""Options that several commands take."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

path_type = click.Path(path_type=Path)
as_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
columns_option = click.option(
    "--columns", type=path_type, help="Columns file (TOML) of a flat table: which column is what."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="The same seed, the same result.",
)


def _count_of_jobs(_context: click.Context, _option: click.Parameter, jobs: int) -> int:
    """Refuse a number of threads that joblib would read otherwise than meant."""
    if jobs == 0 or jobs < -1:
        raise click.BadParameter("should be 1 or more, or -1 for one a core.")
    return jobs


DATABASE = "sqlite:///stepin.db"
database_option = click.option(
    "--database",
    metavar="URL",
    help=f"Database of the server. [default: STEPIN_DATABASE, or {DATABASE}]",
)


def database_url(given: str | None, environ: Mapping[str, str]) -> str:
    """Return the database that a command means, as `database_option` says."""
    return given or environ.get("STEPIN_DATABASE", "").strip() or DATABASE


jobs_option = click.option(
    "--jobs", type=int, default=-1, callback=_count_of_jobs, help="Threads for the folds; -1 is one a core."
)

allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="COLUMN",
    help="Keep a column that the leakage audit stops at; you have looked. Can be given again.",
)
_TRIAL = (
    click.option(
        "--grace-days",
        type=click.IntRange(1, 3650),
        default=14,
        show_default=True,
        help="Days within which stepping in counts.",
    ),
    click.option(
        "--horizon-days",
        type=click.IntRange(1, 3650),
        default=180,
        show_default=True,
        help="Days within which a win counts.",
    ),
    click.option(
        "--every-days",
        type=click.IntRange(1, 3650),
        help="Decide every so many days since a deal's creation. [default: at each stage entry]",
    ),
    click.option(
        "--against",
        type=click.Choice(["wait", "never"]),
        default="wait",
        show_default=True,
        help="Stepping in now against waiting, or against nobody coming within the horizon.",
    ),
)


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take the target trial: grace_days, horizon_days, every_days, against."""
    for option in reversed(_TRIAL):
        command = option(command)
    return command


def options_given(context: click.Context, names: Iterable[str]) -> list[str]:
    """Return those of the options that stand on the command line, as they are written there."""
    given = click.core.ParameterSource.COMMANDLINE
    return [f"--{name.replace('_', '-')}" for name in names if context.get_parameter_source(name) is given]
