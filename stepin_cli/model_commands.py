"""Commands that make, judge, use and serve models."""

import os
from pathlib import Path
from typing import Any

import click

from stepin_cli.console import outcome_lines, say, steps
from stepin_cli.options import (
    allow_option,
    as_json_option,
    columns_option,
    jobs_option,
    options_given,
    path_type,
    seed_option,
    trial_options,
)
from stepin_cli.places import (
    read_source,
    refuse_place,
    refuse_table_place,
    refuse_trial_of_another,
    refuse_unreadable,
)


@click.command()
@click.option("--deals", default=20_000, show_default=True, help="Deals to simulate.")
@seed_option
@click.option(
    "--out", type=path_type, default=Path("stepin-demo"), show_default=True, help="Folder for all it makes."
)
@click.option("--serve", "keep_serving", is_flag=True, help="Keep the server up at the end.")
@as_json_option
def demo(deals: int, seed: int, out: Path, keep_serving: bool, as_json: bool) -> None:
    """Make the whole journey on a simulated CRM: simulate, train, register, serve, ask."""
    from stepin_cli import demo as journey

    refuse_place(out)

    journey.run(deals, seed, out, keep_serving, as_json)


@click.command()
@click.argument("source", type=path_type)
@columns_option
@click.option("--out", type=path_type, help="Model folder to write. [default: stepin-model]")
@click.option("--overwrite", is_flag=True, help="Replace a model that stands there.")
@click.option("--register", "register_as", metavar="NAME", help="Register the model in MLflow.")
@seed_option
@click.option(
    "--break-even", default=3.0, show_default=True, help="Points of uplift that pay for stepping in."
)
@click.option("--hours", type=float, help="Vendor hours that stepping in takes.")
@click.option("--cost-per-hour", type=float, help="What such an hour costs.")
@click.option("--margin", type=float, help="Share of a deal's amount that a win earns.")
@jobs_option
@click.option("--track/--no-track", default=True, show_default=True, help="Record the run in MLflow.")
@trial_options
@allow_option
@as_json_option
@click.pass_context
def train(
    context: click.Context,
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
    allow: tuple[str, ...],
    as_json: bool,
    **trial: Any,
) -> None:
    """Learn from SOURCE, judge on its newer deals, write a model folder.

    SOURCE is a folder of CRM tables, a decision table made by `stepin features`, or a CSV, CSV.GZ or
    Parquet file with a row per decision (then --columns says which column is what). The days and what
    stepping in is compared with are settings for a folder of CRM tables.
    """
    from features.problems import UserError
    from training.model_folder import refuse_occupied
    from training.policy import Policy
    from training.registry import check_name

    folder = out or Path("stepin-model")
    refuse_occupied(folder, overwrite)
    refuse_place(folder)
    refuse_unreadable(source, columns)
    refuse_trial_of_another(source, options_given(context, trial))
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
        decisions = read_source(source, columns, trial, allow)
        trained = learn(
            decisions,
            folder,
            config,
            name=register_as or "stepin",
            overwrite=overwrite,
            allow=allow,
            notify=notify,
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


@click.command()
@click.argument("model")
@click.argument("source", type=path_type)
@click.argument("out", metavar="OUT", type=path_type)
@columns_option
@click.option(
    "--write-back",
    metavar="CRM",
    help="Write OUT.csv for the loader of salesforce, dynamics or hubspot, or as a FILE.toml says.",
)
@as_json_option
def score(
    model: str, source: Path, out: Path, columns: Path | None, write_back: str | None, as_json: bool
) -> None:
    """Advise on every decision of SOURCE, or on the open deals of a folder of CRM tables.

    OUT is a Parquet or CSV file, by its ending. With --write-back it is an import file for a CRM: each open
    deal's id, score, advice, points, first three reasons as the server words them, model version and as-of.
    """
    refuse_table_place(out, source, (".csv",) if write_back else (".parquet", ".csv"))
    refuse_unreadable(source, columns)
    from stepin_cli.scoring import score_for_a_crm, score_to_a_table

    if write_back:
        scored = score_for_a_crm(model, source, out, columns, write_back)
    else:
        scored = score_to_a_table(model, source, out, columns)
    n = sum(scored.advice.values())
    say(
        {"out": str(out), "decisions": n, "advice": scored.advice, "mind": scored.mind},
        as_json,
        f"{out}: {n:,} decisions" if not write_back else f"{out}: {n:,} records",
        *(f"  {count:>9,}  {advice}" for advice, count in scored.advice.items()),
        *(f"Mind: {line}" for line in scored.mind),
    )


@click.command()
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
    for library in ("OPENBLAS", "OMP", "MKL"):
        # Before numpy is there: an answer's products are so small that waking a second thread costs more.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from serving.server import serve as run
    from serving.settings import Settings

    run(Settings.from_environ({**os.environ, "STEPIN_MODEL": model}), host, port, workers)


@click.command()
@click.argument("name")
@click.argument("version", type=int)
@as_json_option
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


@click.command()
@click.argument("name")
@as_json_option
def rollback(name: str, as_json: bool) -> None:
    """Give the title back to the champion before."""
    from training import registry

    version = registry.rollback(name)
    say({"name": name, "champion": version}, as_json, f"models:/{name}@champion is version {version} again")
