"""The whole journey on a simulated CRM, as a newcomer would make it."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from features import DecisionTable, open_decisions, read_tables
from features.problems import UserError
from features.simulator import FEWEST_DEALS
from stepin_cli.console import as_one_document
from training.against_truth import AgainstTruth, against_truth

MARK = ".stepin-demo"
_SHOWN = {"step_in": 4, "step_back": 3, "too_close_to_call": 2, "not_enough_evidence": 1}
_START_SECONDS = 30


def run(deals: int, seed: int, out: Path, keep_serving: bool, as_json: bool) -> None:
    """Make the journey in the folder `out`; ends by itself unless `keep_serving`."""
    if deals < FEWEST_DEALS:
        raise UserError(f"--deals is {deals}; a simulated CRM needs at least {FEWEST_DEALS}.")
    _make_room(out)
    crm, model = out / "crm", out / "model"
    # Never the user's own: models, journal and settings are the demo's.
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    for name in [name for name in os.environ if name.startswith("STEPIN_")]:
        del os.environ[name]
    os.environ["STEPIN_DATABASE"] = f"sqlite:///{(out / 'stepin.db').resolve()}"
    os.environ["STEPIN_LOG"] = "off"
    console = Console(width=max(110, Console().width), highlight=False, quiet=as_json)
    _stepin(console, "simulate", str(crm), "--deals", str(deals), "--seed", str(seed))
    _stepin(console, "train", str(crm), "--out", str(model), "--register", "stepin", "--seed", str(seed))
    waiting = open_decisions(read_tables(crm))
    if len(waiting.rows) == 0:
        raise UserError("No deal is open at the end of this CRM; try another --seed, or more --deals.")
    judged = pd.read_parquet(model / "held_out.parquet")
    known = _known(judged, pd.read_parquet(crm / "truth.parquet"))
    console.print("\n[dim]$[/dim] stepin serve models:/stepin@champion --port 0")
    with serving("models:/stepin@champion") as (url, server):
        waiting = _only_what_the_model_reads(url, waiting)
        answers = _ask_all(url, waiting)
        chosen = _choose(answers)
        one = _ask_one(url, waiting, chosen[0]["deal_id"])
        _print_table(console, chosen, len(answers), url)
        _print_answer(console, one)
        _print_truth(console, known)
        _print_next(console, out, model)
        if as_json:
            said = {"folder": str(out), "model": str(model), "open_deals": len(waiting.rows), "url": url}
            click.echo(
                as_one_document({**said, "answers": chosen, "one": one, "truth": known and known.to_dict()})
            )
        if keep_serving:
            click.echo(f"\nServing at {url} - docs at {url}/docs - Ctrl+C ends it.", err=True)
            with suppress(KeyboardInterrupt):
                server.wait()


def _known(judged: pd.DataFrame, truth: pd.DataFrame) -> AgainstTruth | None:
    """How far from the truth; None where no supported decision, or only one kind, can be compared."""
    comparable = judged.loc[judged["supported"], "stepped_in"].nunique() == 2
    return against_truth(judged, truth, break_even=0.03) if comparable else None


def _make_room(out: Path) -> None:
    """Start afresh in a folder of a former demo, and in no other that holds something."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise UserError(
                f"{out} holds something that is no demo of stepin; name another folder with --out."
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _stepin(console: Console, *arguments: str) -> None:
    """Run a command as a user would, in a process of its own; its words are shown."""
    console.print(f"\n[dim]$[/dim] stepin {' '.join(arguments)}", highlight=False)
    done = subprocess.run(
        [sys.executable, "-m", "stepin", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    console.print(done.stdout.rstrip(), markup=False, highlight=False)
    if done.returncode:
        sys.exit(1)  # the command has said why


@contextmanager
def serving(model: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the real server on a free port, give its address, and stop it at the end."""
    line = [sys.executable, "-m", "stepin", "serve", model, "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        killer = threading.Timer(_START_SECONDS, server.kill)
        killer.start()
        reader = threading.Thread(target=_pass_on, args=(server,), daemon=True)
        try:
            address = _address(server)
            killer.cancel()
            reader.start()
            yield address, server
        finally:
            killer.cancel()
            server.terminate()
            server.wait(timeout=15)
            if reader.ident:
                reader.join(timeout=5)


def _pass_on(server: subprocess.Popen[str]) -> None:
    """Show what the server complains of; a pipe that nobody reads would stop it once full."""
    assert server.stderr is not None
    for line in server.stderr:
        click.echo(line, nl=False, err=True)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line.rstrip())
        if found := re.search(r"https?://\S+?:\d+", line):
            return found.group(0)
    raise UserError(f"The server did not start within {_START_SECONDS} s: {' '.join(said[-3:])}")


def _only_what_the_model_reads(url: str, waiting: DecisionTable) -> DecisionTable:
    names = [feature["name"] for feature in _ask(f"{url}/v1/model")["features"]]
    return replace(waiting, features=waiting.features[names])


def _ask_all(url: str, waiting: DecisionTable) -> list[dict[str, Any]]:
    deals = [_deal(waiting, i) for i in range(min(len(waiting.rows), 1000))]
    answered: list[dict[str, Any]] = _ask(f"{url}/v1/recommendations/batch", {"deals": deals})[
        "recommendations"
    ]
    return answered


def _ask_one(url: str, waiting: DecisionTable, deal_id: str) -> dict[str, Any]:
    row = int(np.flatnonzero((waiting.rows["deal_id"] == deal_id).to_numpy())[0])
    return _ask(f"{url}/v1/recommendations", _deal(waiting, row))


def _deal(waiting: DecisionTable, row: int) -> dict[str, Any]:
    values = waiting.features.iloc[row].to_dict()
    return {
        "deal_id": str(waiting.rows["deal_id"].iloc[row]),
        "features": {name: None if pd.isna(v) else _plain(v) for name, v in values.items()},
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _ask(url: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    body = None if document is None else json.dumps(document).encode()
    request = Request(url, body, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


def _choose(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few of each advice, the clearest first."""
    chosen = []
    for advice, n in _SHOWN.items():
        clearest = sorted(
            (a for a in answers if a["advice"] == advice), key=lambda a: -abs(a["uplift_points"])
        )
        chosen += clearest[:n]
    return chosen


def _print_table(console: Console, chosen: list[dict[str, Any]], n_open: int, url: str) -> None:
    console.print(f"\n{n_open} open deals were asked about over HTTP at {url}. Some of them:\n")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, align in (("deal", "left"), ("stage", "left"), ("advice", "left"), ("score", "right")):
        table.add_column(name, justify=align, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("uplift, points (90%)", justify="right", no_wrap=True)
    table.add_column("first reason")
    for answer in chosen:
        low, high = answer["uplift_interval_points"]
        reason = answer["reasons"][0]["sentence"] if answer["reasons"] else "the average over all deals"
        table.add_row(
            answer["deal_id"],
            answer["stage"] or "",
            answer["advice"],
            "" if answer["score"] is None else f"{answer['score']:.0f}",
            f"{answer['uplift_points']:+.1f} ({low:+.1f} to {high:+.1f})",
            reason,
        )
    console.print(table)


def _print_answer(console: Console, answer: dict[str, Any]) -> None:
    wins = answer["win_probability"]
    low, high = answer["uplift_interval_points"]
    console.print(
        f"Deal {answer['deal_id']}, asked now in stage {answer['stage']}: [bold]{answer['advice']}[/bold]"
    )
    console.print(
        f"  Win probability {100 * wins['step_back']:.0f}% if the vendor steps back, "
        f"{100 * wins['step_in']:.0f}% if it steps in: {answer['uplift_points']:+.1f} points "
        f"({low:+.1f} to {high:+.1f}); {answer['break_even_points']:.1f} pay for it."
    )
    if value := answer["expected_value"]:
        console.print(f"  Worth {value['amount']:,.0f} {value['currency'] or ''} after what it costs.")
    console.print(f"  {answer['baseline_points']:+6.1f}  the average decision")
    for reason in answer["reasons"]:
        console.print(f"  {reason['points']:+6.1f}  {reason['sentence']}", markup=False)
    console.print(f"  {answer['other_points']:+6.1f}  everything else")
    seen = answer["evidence"]
    console.print(
        f"  Evidence: {seen['similar_decisions']} similar decisions; the vendor steps into "
        f"{100 * seen['chance_vendor_steps_in']:.0f}% of such deals."
    )
    if answer["playbook"]:
        stages = "   ".join(
            f"{s['stage']}: {s['lead']} ({s['uplift_points']:+.1f})" for s in answer["playbook"]
        )
        console.print(f"  Playbook, who leads: {stages}\n")


def _print_truth(console: Console, known: AgainstTruth | None) -> None:
    if known is None:
        console.print(
            "Too few held-out decisions have support to be compared with the truth: try more --deals."
        )
        return
    console.print("Against the truth that only a simulation knows, on the held-out decisions with support:")
    console.print(f"  average effect: {100 * known.true_average:+.1f} points are true,")
    console.print(
        f"    {100 * known.estimated_average:+.1f} by the model, "
        f"{100 * known.naive:+.1f} by the naive comparison;"
    )
    console.print(
        f"  predicted and true uplift correlate at {known.correlation:.2f}; "
        f"90% intervals hold the truth for {100 * known.coverage:.0f}% of decisions;"
    )
    console.print(
        f"  following the advice reaches {100 * known.share_of_oracle:.0f}% of what an oracle would gain "
        "over the better of always and never."
    )


def _print_next(console: Console, out: Path, model: Path) -> None:
    console.print(f"\nReport: {model / 'report.html'}")
    console.print(
        f"Runs and the registered model: mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}"
    )
    console.print(f"Keep a server up:  {_command()} serve {model}", highlight=False)


def _command() -> str:
    return str(Path(sys.executable).parent / "stepin").replace(f"{Path.cwd()}{os.sep}", "")
