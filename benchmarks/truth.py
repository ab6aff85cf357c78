"""Is planted truth found, and nothing where there is nothing?

    python benchmarks/truth.py --deals 20000 --seeds 1 2 3
    python benchmarks/truth.py --deals 20000 --seeds 1 2 3 4 5 6 7 8 9 10 --no-effect

A line for each seed: what `stepin train` makes of a simulated CRM, on the held-out decisions with support.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from features import build_decisions, simulate
from training.against_truth import against_truth
from training.pipeline import train

COLUMNS = (
    "seed",
    "true",
    "estimate (95%)",
    "naive",
    "corr.",
    "covered",
    "of oracle",
    "step_in",
    "served",
    "s",
)


def main() -> None:
    """Print a Markdown table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--deals", type=int, default=20_000)
    asked.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked.add_argument("--no-effect", action="store_true")
    given = asked.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "--:|" * len(COLUMNS))
    for seed in given.seeds:
        print("| " + " | ".join(one(given.deals, seed, not given.no_effect)) + " |", flush=True)


def one(deals: int, seed: int, effect: bool) -> list[str]:
    """Cells of one seed; effects in points."""
    made = simulate(deals, seed, effect=effect)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trained = train(build_decisions(made.tables), Path(folder) / "model")
        took = time.perf_counter() - start
        known = against_truth(pd.read_parquet(trained.folder / "held_out.parquet"), made.truth, 0.03)
    average = trained.evaluation.average
    return [
        str(seed),
        f"{100 * known.true_average:+.1f}",
        f"{100 * average.value:+.1f} ({100 * average.lo:+.1f} to {100 * average.hi:+.1f})",
        f"{100 * known.naive:+.1f}",
        f"{known.correlation:.2f}",
        f"{100 * known.coverage:.0f}%",
        f"{100 * known.share_of_oracle:.0f}%",
        f"{100 * known.advised_share:.1f}%",
        "each deal's" if trained.evaluation.heterogeneous else "the average",
        f"{took:.0f}",
    ]


if __name__ == "__main__":
    main()
