"""Options that several commands take."""

from pathlib import Path

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


jobs_option = click.option(
    "--jobs", type=int, default=-1, callback=_count_of_jobs, help="Threads for the folds; -1 is one a core."
)
