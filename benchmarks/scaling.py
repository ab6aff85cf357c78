"""What size costs: ``python -m benchmarks.scaling fit|train ROWS SEED`` measures one, in its own process."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import one, worlds
from benchmarks.worlds import Decisions
from features.decision_table import DecisionTable

ROOT = Path(__file__).parents[1]
LEARNERS = {"fit": "UpliftModel.fit", "train": "training.pipeline.train"}
_FIRST_DAY = pd.Timestamp("2022-01-01", tz="UTC")


def measure(what: str, rows: int, seed: int = 0) -> dict[str, Any]:
    """Figures of one size, from a process of its own; `fit` on one thread, `train` on its default."""
    command = [sys.executable, "-m", "benchmarks.scaling", what, str(rows), str(seed)]
    environment = one.environment() if what == "fit" else None
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    about = {"table": "scaling", "world": "smooth", "rows": rows, "seed": seed, "learner": LEARNERS[what]}
    return about | json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Make the decisions, then measure."""
    what, rows, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    decisions = worlds.smooth(rows, seed, n_test=0).train
    importlib.import_module("training.uplift" if what == "fit" else "training.pipeline")
    cpu, wall = time.process_time(), time.perf_counter()
    if what == "fit":
        _fit(decisions)
    else:
        _train(decisions)
    figures = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "memory": one.peak_megabytes(),
        "learned_from": len(decisions),
    }
    print(json.dumps(figures))


def _fit(decisions: Decisions) -> None:
    from training.uplift import UpliftModel

    d = decisions
    UpliftModel().fit(d.X, d.treatment, d.outcome, d.groups, deals=d.deals)


def _train(decisions: Decisions) -> None:
    from training.pipeline import train

    with tempfile.TemporaryDirectory() as folder:
        train(as_table(decisions), Path(folder) / "model")


def as_table(decisions: Decisions) -> DecisionTable:
    """The decisions as `training.pipeline.train` takes them, an hour between each and the next."""
    n = len(decisions)
    names = pd.Index(np.char.add("D", np.arange(n).astype(str)).astype(object), name="decision_id")
    deal = pd.Series(decisions.deals).astype(str).to_numpy()
    rows = pd.DataFrame(
        {
            "deal_id": deal,
            "partner_id": pd.Series(decisions.groups).astype(str).to_numpy(),
            "decided_at": _FIRST_DAY + pd.to_timedelta(np.arange(n) * (8760 * 3 / n), unit="h"),
            "stage": decisions.X["stage"].astype(str).to_numpy(),
            "amount": np.nan,
            "stepped_in": decisions.treatment,
            "outcome": decisions.outcome,
        },
        index=names,
    )
    unknown = dict.fromkeys(
        ("outcome_unit", "currency", "amount_feature", "grace_days", "horizon_days", "exported_at")
    )
    about = {**unknown, "kind": "flat", "outcome": "binary", "question": "What does size cost?"}
    about |= {"stage_order": [], "left_out_columns": [], "flow": []}
    return DecisionTable(rows, decisions.X.set_axis(names), about)


if __name__ == "__main__":
    main()
