"""Whether the average rests on one partner: what it would be without each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.basis import Array

MOST_NAMED = 5


def influence(
    phi: Array, partners: NDArray | pd.Series, break_even: float, most_named: int = MOST_NAMED
) -> dict[str, Any] | None:
    """Average effect without each partner in turn, from the partners' sums alone.

    Parameters
    ----------
    phi : doubly robust scores of the decisions that the average is taken over, shape (n,)
    partners : whose they are, shape (n,); a missing one is nobody's, and stays in
    break_even : what pays for stepping in, in the scores' unit

    Returns
    -------
    dict or None
        ``average``, ``n``, ``n_partners``; ``lo`` and ``hi``, the least and the greatest average without one
        partner; ``largest``: the partners that move it most, each with ``partner``, ``n``, ``share`` of
        decisions, ``without`` (the average without it) and ``change``; ``turns_sign`` and
        ``crosses_break_even``: ``n`` partners without whom the average lies on the other side, and the
        ``partners`` among them that move it most. None with fewer than two partners.

    Notes
    -----
    Without partner c: (sum of all - sum of c) / (n - n_c). The scores are not made anew; they never saw a
    decision of their own partner, and one partner hardly moves the models behind the others' scores.
    """
    table = pd.DataFrame({"partner": np.asarray(partners, dtype=object), "phi": phi})
    own = table.groupby("partner", sort=True)["phi"].agg(["sum", "size"])
    n, total = len(table), float(np.sum(phi))
    if len(own) < 2:
        return None
    average = total / n
    own["without"] = (total - own["sum"]) / np.maximum(n - own["size"], 1)
    own["change"] = own["without"] - average
    own = own.loc[own["change"].abs().sort_values(ascending=False, kind="stable").index]
    return {
        "average": average,
        "n": n,
        "n_partners": len(own),
        "lo": float(own["without"].min()),
        "hi": float(own["without"].max()),
        "largest": [
            {
                "partner": str(name),
                "n": int(row["size"]),
                "share": float(row["size"] / n),
                "without": float(row["without"]),
                "change": float(row["change"]),
            }
            for name, row in own.head(most_named).iterrows()
        ],
        "turns_sign": _beyond(own["without"], average, 0.0, most_named),
        "crosses_break_even": _beyond(own["without"], average, break_even, most_named),
    }


def _beyond(without: pd.Series, average: float, line: float, most_named: int) -> dict[str, Any]:
    """How many partners hold the average on its side of the line, and the first of them."""
    names = without.index[(without > line) != (average > line)]
    return {"n": len(names), "partners": [str(name) for name in names[:most_named]]}
