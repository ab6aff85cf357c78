"""What an answer costs the server: beside the least of a JSON route, and beside `mlflow models serve`.

All servers run at the same time on the loopback, each in a process of its own, and are asked in turns, so
that whatever else the machine does meets all of them. CPU time is what the kernel says of the server's
process and its children: the client's is not in it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.one import ONE_THREAD
from benchmarks.processes import Connection, Server, free_port, running
from features import UserError
from training.basis import BOOLEAN, NUMBER
from training.scorecard import Scorecard

ROOT = Path(__file__).parents[1]
ECHO, OURS, BARE = "raw ASGI echo of the request", "stepin", "stepin, no journal, no log"
BATCH, BARE_BATCH = "stepin, 1,000 deals a request", "stepin, 1,000 deals a request, no journal, no log"
MLFLOW = "mlflow models serve, SHAP values"
MOST_TIMES_ECHO, LEAST_TIMES_CHEAPER, LEAST_DEALS = 3.0, 150.0, 40_000
MOST_START_SECONDS, MOST_MEBIBYTES = 1.5, 120.0
"""What is to be reached."""


AT_ONCE = 8
"""Requests for one deal that wait at the same time, as those of several sales people do."""


@dataclass(frozen=True)
class Effort:
    """How much is asked: rounds of so many requests to each server."""

    rounds: int = 9
    requests: int = 1500
    batches: int = 3
    mlflow_requests: int = 12
    deals: int = 1000
    crm_deals: int = 6000


SHORT = Effort(rounds=2, requests=30, batches=1, mlflow_requests=2, deals=50)


def compare(effort: Effort, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Learn a model of a simulated CRM, serve it, and yield the figures of each server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_model(folder, effort, seed)
        shap_model = _make_shap_model(folder)
        yield from measure(folder / "model", effort, shap_model, seed)


def measure(
    model: Path, effort: Effort, shap_model: Path | UserError | None = None, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Serve a model folder, and a model of MLflow's if there is one; yield the figures of each server.

    A peer that could not be made has its reason in place of figures.
    """
    card = Scorecard.read(model)
    deals = random_deals(card, effort.deals, seed)
    about = {"table": "serving", "world": "crm", "rows": len(card.features), "seed": seed}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        started = _start(model, folder, stack)
        lanes = [
            _Lane(
                ECHO,
                started["echo"],
                "/",
                [orjson.dumps(deal) for deal in deals],
                effort.requests,
                1,
                AT_ONCE,
            ),
            *_lanes_of_ours(started["ours"], (OURS, BATCH), deals, effort),
            *_lanes_of_ours(started["bare"], (BARE, BARE_BATCH), deals, effort),
        ]
        failed = shap_model if isinstance(shap_model, UserError) else None
        if isinstance(shap_model, Path):
            try:
                lanes.append(_lane_of_mlflow(shap_model, folder, stack, deals, effort))
            except UserError as problem:
                failed = problem
        _run(lanes, effort.rounds)
        for lane in lanes:
            yield about | {"learner": lane.name} | lane.figures()
    if failed is not None:
        yield about | {"learner": MLFLOW, "failed": str(failed)}


def random_deals(card: Scorecard, n: int, seed: int) -> list[dict[str, Any]]:
    """Deals with values of what the model has seen, one in ten not recorded; no two alike."""
    rng = np.random.default_rng(seed)

    def value(feature: Any) -> Any:
        if rng.random() < 0.1:
            return None
        if feature.kind == NUMBER:
            return round(float(rng.uniform(feature.knots[0], feature.knots[-1])), 2)
        if feature.kind == BOOLEAN:
            return bool(rng.random() < 0.5)
        return str(rng.choice(feature.levels))

    return [
        {"deal_id": f"D-{i}", "features": {each.name: value(each) for each in card.features}}
        for i in range(n)
    ]


class _Lane:
    """One kind of request to one server, and what it cost in each round."""

    def __init__(
        self,
        name: str,
        server: Server,
        path: str,
        bodies: Sequence[bytes],
        requests: int,
        deals: int = 1,
        at_once: int = 1,
    ) -> None:
        self.name, self.server, self.path = name, server, path
        self.bodies, self.requests, self.deals, self.at_once = bodies, requests, deals, at_once
        self.cpu: list[float] = []
        self.sent = 0

    def run(self) -> None:
        """Ask a round over connections of its own; CPU seconds a request are added to `cpu`."""
        lines = [Connection(self.server.port) for _ in range(self.at_once)]
        before = self.server.cpu_seconds()
        for _ in range(self.requests // self.at_once):
            for line in lines:
                line.send(self.path, self.bodies[self.sent % len(self.bodies)])
                self.sent += 1
            for line in lines:
                line.receive()
        asked = self.requests // self.at_once * self.at_once
        self.cpu.append((self.server.cpu_seconds() - before) / asked)
        for line in lines:
            line.close()

    def figures(self) -> dict[str, Any]:
        """Medians over the rounds, the first left out where there are several."""
        rounds = self.cpu[1:] or self.cpu
        resident, share, beside = self.server.megabytes()
        return {
            "cpu_us": 1e6 * statistics.median(rounds),
            "rounds_us": [1e6 * each for each in rounds],
            "deals_a_second": self.deals / statistics.median(rounds),
            "start": self.server.start_seconds,
            "resident": resident,
            "share": share,
            "beside": beside,
        }


def _run(lanes: Sequence[_Lane], rounds: int) -> None:
    for _ in range(rounds):
        for lane in lanes:
            lane.run()


def _start(model: Path, folder: Path, stack: ExitStack) -> dict[str, Server]:
    echo, ours, bare = free_port(), free_port(), free_port()
    loops = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    uvicorn = [sys.executable, "-m", "uvicorn", "benchmarks.echo:app", *loops, "--app-dir", str(ROOT)]
    serve = [sys.executable, "-m", "stepin", "serve", str(model.absolute()), "--port"]
    nothing = {"STEPIN_JOURNAL": "off", "STEPIN_LOG": "off"}
    path = {"PYTHONPATH": str(ROOT)}
    run = stack.enter_context
    return {
        "echo": run(running([*uvicorn, "--port", str(echo)], echo, "/", folder / "echo")),
        "ours": run(running([*serve, str(ours)], ours, "/readyz", folder / "ours", path)),
        "bare": run(running([*serve, str(bare)], bare, "/readyz", folder / "bare", path | nothing)),
    }


def _lanes_of_ours(
    server: Server, names: tuple[str, str], deals: Sequence[dict[str, Any]], effort: Effort
) -> list[_Lane]:
    one, many = names
    path, bodies = "/v1/recommendations", [orjson.dumps(deal) for deal in deals]
    batch = [orjson.dumps({"deals": list(deals)})]
    return [
        _Lane(one, server, path, bodies, effort.requests, 1, AT_ONCE),
        _Lane(many, server, f"{path}/batch", batch, effort.batches, len(deals)),
    ]


def _lane_of_mlflow(
    model: Path, folder: Path, stack: ExitStack, deals: Sequence[dict[str, Any]], effort: Effort
) -> _Lane:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port)]
    command += ["-h", "127.0.0.1", "--env-manager", "local", "--workers", "1"]
    bin_folder = str(Path(sys.executable).parent)  # mlflow looks for uvicorn there
    more = ONE_THREAD | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    server = stack.enter_context(running(command, port, "/ping", folder / "mlflow", more))
    names = list(deals[0]["features"])
    bodies = [
        orjson.dumps({"dataframe_split": {"columns": names, "data": [list(deal["features"].values())]}})
        for deal in deals
    ]
    return _Lane(MLFLOW, server, "/invocations", bodies, effort.mlflow_requests)


# What is served


def _make_model(folder: Path, effort: Effort, seed: int) -> None:
    crm, decisions = str(folder / "crm"), str(folder / "decisions.parquet")
    _stepin(folder, "simulate", crm, "--deals", str(effort.crm_deals), "--seed", str(seed))
    _stepin(folder, "features", crm, decisions)
    _stepin(folder, "train", crm, "--out", str(folder / "model"), "--seed", str(seed))


def _stepin(folder: Path, *words: str) -> None:
    _ran([sys.executable, "-m", "stepin", *words], folder)


def _make_shap_model(folder: Path) -> Path | UserError:
    names = [feature.name for feature in Scorecard.read(folder / "model").features]
    command = [sys.executable, "-m", "benchmarks.shap_model", str(folder / "decisions.parquet")]
    try:
        _ran([*command, str(folder / "shap"), *names], folder)
    except UserError as problem:
        return problem
    return folder / "shap"


def _ran(command: Sequence[str], folder: Path) -> None:
    more = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"{' '.join(command[1:5])} failed; it said: {said[:200]}")


def main() -> None:
    """Measure a model folder: ``python -m benchmarks.serving MODEL [MLFLOW_MODEL]``."""
    model, *others = map(Path, sys.argv[1:])
    for line in measure(model, Effort(), others[0] if others else None):
        print(json.dumps({name: value for name, value in line.items() if name != "rounds_us"}))


if __name__ == "__main__":
    main()
