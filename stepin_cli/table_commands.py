"""Commands that make tables: a simulated CRM, and the decision table."""

from pathlib import Path
from typing import Any

import click

from stepin_cli.console import audit_lines, flow_lines, left_out_line, say, steps, waiting
from stepin_cli.options import allow_option, as_json_option, path_type, seed_option, trial_options
from stepin_cli.places import refuse_place, refuse_table_place


@click.command()
@click.argument("folder", metavar="DIR", type=path_type)
@click.option("--deals", default=20_000, show_default=True, help="Deals to simulate.")
@seed_option
@click.option("--no-effect", is_flag=True, help="Make the vendor's help worth exactly nothing.")
@as_json_option
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


@click.command("import")
@click.argument("export", metavar="EXPORT_DIR", type=path_type)
@click.argument("folder", metavar="DIR", type=path_type)
@click.option("--crm", metavar="NAME", help="Whose export it is, where its headers leave that open.")
@click.option("--map", "mapping", type=path_type, metavar="FILE.toml", help="A mapping of your own.")
@click.option(
    "--rates", type=path_type, metavar="FILE.csv", help="Rates to one currency: date, currency, rate."
)
@click.option("--currency", metavar="CODE", help="What the rates lead to. [default: the one whose rate is 1]")
@click.option("--keep-currency", metavar="CODE", help="Keep the deals in it; the others are refused.")
@click.option("--timezone", metavar="ZONE", help="Of times without an offset, such as Europe/Berlin.")
@as_json_option
def import_(
    export: Path,
    folder: Path,
    crm: str | None,
    mapping: Path | None,
    rates: Path | None,
    currency: str | None,
    keep_currency: str | None,
    timezone: str | None,
    as_json: bool,
) -> None:
    """Turn a CRM's export in EXPORT_DIR into the CRM tables in DIR.

    Every row that cannot be used stands in DIR/refused.csv, with its file, line and reason.
    """
    from features.crm import import_export

    refuse_place(folder)
    with steps(None) as notify:
        imported = import_export(
            export, folder, crm, mapping, rates, currency, keep_currency, timezone, notify=notify
        )
    say(
        imported.to_dict(),
        as_json,
        *imported.lines(),
        f"Next: stepin features {folder} decisions.parquet",
    )


@click.command()
@click.argument("folder", metavar="DIR", type=path_type)
@click.argument("out", metavar="OUT.parquet", type=path_type)
@trial_options
@allow_option
@as_json_option
def features(folder: Path, out: Path, allow: tuple[str, ...], as_json: bool, **trial: Any) -> None:
    """Turn the CRM tables in DIR into the decision table OUT.parquet.

    Says which trial the decisions imitate, and how many moments are left out at each step, and why. Stops at
    columns that know the future.
    """
    from features import build_decisions, read_tables

    refuse_table_place(out, folder)
    with waiting("Building decisions and their features"):
        decisions = build_decisions(read_tables(folder), **trial, allow=allow)
        decisions.write(out)
    about = decisions.about
    final = ", ".join(line["column"] for line in about["final_values"])
    say(
        {"decisions": len(decisions.rows), "out": str(out), "about": about},
        as_json,
        *(f"{part}: {words}" for part, words in about["protocol"]),
        f"{out}: {len(decisions.rows):,} decisions x {decisions.features.shape[1]} features",
        *flow_lines(about["flow"]),
        *left_out_line(about["left_out_columns"]),
        *([f"Without a history, so as they stand in the end: {final}"] if final else []),
        *audit_lines(about["audit"]),
        f"Next: stepin train {out} --out MODEL",
    )
