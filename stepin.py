"""The front door: ``stepin`` on the command line.

Progress goes to stderr, results to stdout; ``--json`` gives one JSON document on stdout. Exit status 0 is
done, 1 refused or failed, 2 wrong usage. Each floor is imported only by the commands that need it.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from stepin_console import left_out_line, outcome_lines, say, steps, waiting
from stepin_places import (
    model_folder,
    named_model,
    read_source,
    refuse_place,
    refuse_table_place,
    refuse_unreadable,
    write_parquet,
)

_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_columns = click.option(
    "--columns",
    type=click.Path(path_type=Path),
    help="Columns file (TOML) of a flat table: which column is what.",
)
_path = click.Path(path_type=Path)


_seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="The same seed, the same result.",
)


def _jobs(_context: click.Context, _option: click.Parameter, jobs: int) -> int:
    if jobs == 0 or jobs < -1:
        raise click.BadParameter("should be 1 or more, or -1 for one a core.")
    return jobs


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one sentence and status 1, wrong usage in status 2."""
    from features.problems import UserError

    try:
        with _sigterm_as_ctrl_c():
            status = cli.main(arguments, prog_name="stepin", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:
        asked.show()
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "stepin"
        _end(f"{error.format_message().rstrip('.')}. See: {where} --help", 2)
    except click.ClickException as error:
        _end(error.format_message())
    except click.Abort:
        _end("stopped before it was done.")
    except UserError as error:
        _end(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OURS:
            raise
        _end(
            f"this command needs {error.name}, which is not installed. "
            "Install what learning needs with: pip install 'stepin[train]'"
        )
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
    if isinstance(status, int) and status:  # from Exit, which click turns into its status
        sys.exit(status)


_OURS = ("features", "training", "serving", "stepin_console", "stepin_demo", "stepin_places")


def _end(sentence: str, status: int = 1) -> NoReturn:
    click.echo(f"stepin: {sentence}", err=True)
    sys.exit(status)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl+C does, so that nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="stepin")
def cli() -> None:
    """Step in, or step back? Learns from past partner deals when vendor involvement raised the
    probability of winning, and says so deal by deal.
    """


@cli.command()
@click.option("--deals", default=20_000, show_default=True, help="Deals to simulate.")
@_seed
@click.option(
    "--out", type=_path, default=Path("stepin-demo"), show_default=True, help="Folder for all it makes."
)
@click.option("--serve", "keep_serving", is_flag=True, help="Keep the server up at the end.")
@_json
def demo(deals: int, seed: int, out: Path, keep_serving: bool, as_json: bool) -> None:
    """Make the whole journey on a simulated CRM: simulate, train, register, serve, ask."""
    import stepin_demo

    refuse_place(out)

    stepin_demo.run(deals, seed, out, keep_serving, as_json)


@cli.command()
@click.argument("folder", metavar="DIR", type=_path)
@click.option("--deals", default=20_000, show_default=True, help="Deals to simulate.")
@_seed
@click.option("--no-effect", is_flag=True, help="Make the vendor's help worth exactly nothing.")
@_json
def simulate(folder: Path, deals: int, seed: int, no_effect: bool, as_json: bool) -> None:
    """Write the tables of a simulated CRM, whose truth is known, to DIR."""
    from features.simulator import refuse_occupied
    from features.simulator import simulate as make

    refuse_occupied(folder)
    refuse_place(folder)
    with waiting(f"Simulating {deals:,} deals"):
        made = make(deals, seed, effect=not no_effect)
        made.write(folder)
    counts = {name: len(table) for name, table in made.tables.by_name().items()}
    average = float(made.truth["uplift"].mean())
    say(
        {"folder": str(folder), "rows": counts, "true_average_uplift_points": 100 * average},
        as_json,
        f"{folder}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()),
        f"The truth lies apart in {folder / 'truth.parquet'}: {100 * average:+.1f} points on average.",
        f"Next: stepin train {folder} --out MODEL",
    )


@cli.command()
@click.argument("folder", metavar="DIR", type=_path)
@click.argument("out", metavar="OUT.parquet", type=_path)
@click.option(
    "--grace-days",
    type=click.IntRange(1, 3650),
    default=14,
    show_default=True,
    help="Days within which stepping in counts.",
)
@click.option(
    "--horizon-days",
    type=click.IntRange(1, 3650),
    default=180,
    show_default=True,
    help="Days within which a win counts.",
)
@_json
def features(folder: Path, out: Path, grace_days: int, horizon_days: int, as_json: bool) -> None:
    """Turn the CRM tables in DIR into the decision table OUT.parquet."""
    from features import build_decisions, read_tables

    refuse_table_place(out, folder)
    with waiting("Building decisions and their features"):
        decisions = build_decisions(read_tables(folder), grace_days, horizon_days)
        decisions.write(out)
    lines = [f"  {step['n']:>9,}  {step['what']}: {step['why']}" for step in decisions.about["flow"]]
    say(
        {"decisions": len(decisions.rows), "out": str(out), "about": decisions.about},
        as_json,
        f"{out}: {len(decisions.rows):,} decisions x {decisions.features.shape[1]} features",
        *lines,
        *left_out_line(decisions.about["left_out_columns"]),
    )


@cli.command()
@click.argument("source", type=_path)
@_columns
@click.option("--out", type=_path, help="Model folder to write. [default: stepin-model]")
@click.option("--overwrite", is_flag=True, help="Replace a model that stands there.")
@click.option("--register", "register_as", metavar="NAME", help="Register the model in MLflow.")
@_seed
@click.option(
    "--break-even", default=3.0, show_default=True, help="Points of uplift that pay for stepping in."
)
@click.option("--hours", type=float, help="Vendor hours that stepping in takes.")
@click.option("--cost-per-hour", type=float, help="What such an hour costs.")
@click.option("--margin", type=float, help="Share of a deal's amount that a win earns.")
@click.option("--jobs", type=int, default=-1, callback=_jobs, help="Threads for the folds; -1 is one a core.")
@click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")
@_json
def train(
    source: Path,
    columns: Path | None,
    out: Path | None,
    overwrite: bool,
    register_as: str | None,
    seed: int,
    break_even: float,
    hours: float | None,
    cost_per_hour: float | None,
    margin: float | None,
    jobs: int,
    track: bool,
    as_json: bool,
) -> None:
    """Learn from SOURCE, judge on its newer deals, write a model folder.

    SOURCE is a folder of CRM tables, a decision table made by `stepin features`, or a CSV, CSV.GZ or
    Parquet file with a row per decision (then --columns says which column is what).
    """
    from features.problems import UserError
    from training.model_folder import refuse_occupied
    from training.policy import Policy
    from training.registry import check_name

    folder = out or Path("stepin-model")
    refuse_occupied(folder, overwrite)
    refuse_place(folder)
    refuse_unreadable(source, columns)
    if register_as is not None:
        check_name(register_as)
    policy = Policy(break_even_points=break_even, hours=hours, cost_per_hour=cost_per_hour, margin=margin)
    from training.config import TrainingConfig
    from training.pipeline import STEPS
    from training.pipeline import train as learn
    from training.tracking import track as record

    config = TrainingConfig(random_state=seed, n_jobs=jobs, policy=policy)
    with steps(2 + len(STEPS)) as notify:
        notify("Reading and building decisions")
        decisions = read_source(source, columns)
        trained = learn(
            decisions, folder, config, name=register_as or "stepin", overwrite=overwrite, notify=notify
        )
        notify("Recording the run")
        try:
            run = record(trained, decisions, config, register_as) if track or register_as else None
        except UserError as error:
            raise UserError(
                f"{folder} holds the whole model, but the run was not recorded: {error}"
            ) from None
    say(
        {
            "model": str(folder),
            "digest": trained.digest,
            "version": run.version if run else None,
            "run_id": run.run_id if run else None,
            "facts": trained.facts,
        },
        as_json,
        *outcome_lines(trained, run),
    )


@cli.command()
@click.argument("model")
@click.argument("source", type=_path)
@click.argument("out", metavar="OUT.parquet", type=_path)
@_columns
@_json
def score(model: str, source: Path, out: Path, columns: Path | None, as_json: bool) -> None:
    """Advise on every decision of SOURCE, or on the open deals of a folder of CRM tables."""
    refuse_table_place(out, source)
    refuse_unreadable(source, columns)
    folder = model_folder(model)
    from training.scoring import learned_categories, score_table

    categories = learned_categories(folder)
    with waiting("Scoring"):
        table = score_table(folder, read_source(source, columns, True, categories))
        write_parquet(table, out)
    shares = table["advice"].value_counts().to_dict()
    say(
        {"out": str(out), "decisions": len(table), "advice": shares},
        as_json,
        f"{out}: {len(table):,} decisions",
        *(f"  {n:>9,}  {advice}" for advice, n in shares.items()),
    )


@cli.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def serve(model: str, host: str, port: int, workers: int) -> None:
    """Serve MODEL, a model folder or models:/NAME@ALIAS, over HTTP until stopped."""
    from serving.server import serve as run
    from serving.settings import Settings

    run(Settings.from_environ({**os.environ, **named_model(model)}), host, port, workers)


@cli.command()
@click.argument("name")
@click.argument("version", type=int)
@_json
def promote(name: str, version: int, as_json: bool) -> None:
    """Make VERSION of the registered model NAME the champion."""
    from training import registry

    former = registry.promote(name, version)
    was = f" (before: version {former})" if former else ""
    say(
        {"name": name, "champion": version, "previous": former},
        as_json,
        f"models:/{name}@champion is version {version}{was}",
    )


@cli.command()
@click.argument("name")
@_json
def rollback(name: str, as_json: bool) -> None:
    """Give the title back to the champion before."""
    from training import registry

    version = registry.rollback(name)
    say({"name": name, "champion": version}, as_json, f"models:/{name}@champion is version {version} again")


if __name__ == "__main__":
    main()
