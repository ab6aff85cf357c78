"""How often true nulls are rejected: each statistic of the judgement, on scores without any effect.

    python benchmarks/size.py --replications 1000

Decisions of a partner share a part of their scores (an intra-class correlation), the priority, the choice
and the rule vary by partner too, and nothing has any effect. 5% is promised; rows that ignore the partners
stand beside it.
"""

import argparse
from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from training import clustered
from training.calibration import best_linear_predictor, calibration_slope, less_loss
from training.claims import decompose
from training.clustered import Estimate
from training.targeting import autoc, qini
from training.worth import compare

Floats = NDArray[np.float64]
CORRELATION = 0.15
ONE_SIDED = ("AUTOC", "Qini", "best linear predictor")


def layouts() -> dict[str, list[int]]:
    """Decisions of each partner: about 1,000 of equal partners, and of partners with Pareto-like sizes."""
    unequal = {
        f"40 partners, the largest {max(each) / sum(each):.0%}": each for each in (_pareto(2.0), _pareto(1.2))
    }
    return {"20 partners x 50": [50] * 20, "40 partners x 25": [25] * 40, **unequal}


def _pareto(tail: float, n: int = 40) -> list[int]:
    """Quantiles of a Pareto distribution, the largest first."""
    return [int(12 * ((place + 0.5) / n) ** (-1 / tail)) for place in range(n)]


def null_statistics(sizes: list[int], seed: int) -> Iterator[dict[str, Callable[[], Estimate]]]:
    """Statistics of one world after the other: nothing has an effect, and no ranking is worth anything.

    Two blocks with a model each; every partner stands in both.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n, none = len(groups), np.zeros(len(groups))
    rows = np.arange(n)

    def alike(correlation: float) -> Floats:
        shared = rng.normal(0, np.sqrt(correlation), len(sizes))[groups]
        return shared + rng.normal(0, np.sqrt(1 - correlation), n)

    while True:
        phi, ranking, outcome, blocks = (
            alike(CORRELATION),
            alike(0.5),
            alike(CORRELATION),
            rng.integers(0, 2, n),
        )
        chance = 1 / (1 + np.exp(-alike(0.3)))
        chosen = rng.random(n) < chance
        scores = np.where(chosen, outcome / chance, -outcome / (1 - chance))
        world = (ranking, phi, groups, blocks)
        parts = (chosen, outcome, scores, chance, none, groups)
        yield {
            "average": lambda phi=phi: clustered.mean(phi, groups),
            "naive": lambda y=outcome, t=chosen: clustered.difference(y, t, groups),
            "picking by chance": lambda parts=parts: decompose(*parts)["baseline"],
            "picking by gain": lambda parts=parts: decompose(*parts)["gain"],
            "slope": lambda world=world: calibration_slope(*world),
            "gain over never": lambda p=phi, r=ranking: compare(p, r > 0.5, none, 0.0, groups),
            "loss": lambda p=phi, r=ranking: less_loss(r, -r, p, groups),
            "AUTOC": lambda world=world: autoc(*world),
            "Qini": lambda world=world: qini(*world),
            "best linear predictor": lambda world=world: best_linear_predictor(*world)["difference"],
            "row-wise average": lambda phi=phi: clustered.mean(phi, rows),
            "row-wise AUTOC": lambda p=phi, r=ranking, b=blocks: autoc(r, p, rows, b),
        }


def rejected(name: str, estimate: Estimate) -> bool:
    """Whether the test at 5% rejects: one-sided for rankings, two-sided for everything else."""
    if name.removeprefix("row-wise ") in ONE_SIDED:
        return estimate.p_positive < 0.05
    return not estimate.contains(0)


def size(
    sizes: list[int], replications: int, seed: int = 8, only: Collection[str] | None = None
) -> dict[str, float]:
    """Share of true nulls that each test rejects; of all tests, or of those named in `only`."""
    worlds = null_statistics(sizes, seed)
    counts: dict[str, int] = {}
    for _ in range(replications):
        for name, estimate in next(worlds).items():
            if only is None or name in only:
                counts[name] = counts.get(name, 0) + rejected(name, estimate())
    return {name: count / replications for name, count in counts.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=8)
    arguments = parser.parse_args()
    found = {name: size(sizes, arguments.replications, arguments.seed) for name, sizes in layouts().items()}
    print("| rejected at 5% | " + " | ".join(found) + " |")
    print("|---|" + "--:|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | " + " | ".join(f"{100 * each[name]:.1f}%" for each in found.values()) + " |")


if __name__ == "__main__":
    main()
