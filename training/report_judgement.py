"""The report's figures of the judgement, in the words of a sales lead; the details for those who ask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from training import report_pictures as pictures
from training.clustered import Estimate
from training.evaluate import Evaluation
from training.verdict import amount, span

_SHORT = ("Ever joined, against never", "The same moments", "The same moments,\ndeals alike")
_RIVALS = (
    ("never", "never stepping in"),
    ("always", "always stepping in"),
    ("people", "what people did"),
    ("biggest", "as many of the biggest deals"),
    ("likeliest", "as many of the deals likeliest to be won anyway"),
)


def view(evaluation: Evaluation, closed_deals: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What the sections claims, worth and calibration show.

    `closed_deals` counts joined, won_joined, left and won_left, where "ever against never" is of them.
    """
    return {
        "claims": _claims(evaluation) | {"closed": _closed(closed_deals)},
        "forest": _forest(evaluation),
        "judged": _judged(evaluation),
        "worth": [
            {"rival": words, **figure(evaluation.gain[name], evaluation.outcome)}
            for name, words in _RIVALS
            if name in evaluation.gain
        ],
    }


def figure(estimate: Estimate, outcome: str) -> dict[str, str]:
    """An effect and its interval in words: keys value and span."""
    return {"value": size(estimate.value, outcome), "span": _span(estimate, outcome)}


def size(value: float, outcome: str) -> str:
    """An effect in words."""
    return amount(value, outcome) if math.isfinite(value) else "not known"


def unit(outcome: str) -> tuple[str, float]:
    """Name of the unit on the pictures, and the factor from the evaluation's unit to it."""
    return ("points", 100.0) if outcome == "binary" else ("in the outcome's unit", 1.0)


def _span(estimate: Estimate, outcome: str) -> str:
    return span(estimate, outcome) if math.isfinite(estimate.se) else "no interval: too few partners"


def _claims(evaluation: Evaluation) -> dict[str, Any]:
    """The claims as rows, how the first shrinks to the last, and what the second is made of."""
    rows = [
        {"what": claim.what, "why_wrong": claim.why_wrong, **figure(claim.estimate, evaluation.outcome)}
        for claim in evaluation.claims
    ]
    values = [claim.estimate.value for claim in evaluation.claims]
    changes = [b - a for a, b in itertools.pairwise(values)]
    parts = evaluation.decomposition
    return {
        "rows": rows,
        "first": size(values[0], evaluation.outcome),
        "waiting": size(changes[0], evaluation.outcome) if len(changes) == 2 else None,
        "picking": size(changes[-1], evaluation.outcome),
        "picks_hard_deals": parts["baseline"].value < 0 if parts else changes[-1] > 0,
        "parts": [
            {"what": _part(name, part.value, evaluation.outcome), **figure(part, evaluation.outcome)}
            for name, part in parts.items()
        ],
    }


def _closed(counts: Mapping[str, int] | None) -> dict[str, str] | None:
    """The closed deals and the shares won, in words."""
    if not counts:
        return None
    return {
        "joined": f"{counts['joined']:,}",
        "left": f"{counts['left']:,}",
        "won_joined": f"{counts['won_joined'] / counts['joined']:.0%}",
        "won_left": f"{counts['won_left'] / counts['left']:.0%}",
    }


def _part(name: str, value: float, outcome: str) -> str:
    more = "more" if value > 0 else "less"
    won = f"be won {more} often" if outcome == "binary" else f"bring {more}"
    return {
        "adjusted": "What stepping in does to the average deal",
        "baseline": f"The vendor joins deals that would {won} anyway",
        "gain": f"It joins deals that gain {more} from it than the average deal",
    }[name]


def _forest(evaluation: Evaluation) -> str:
    names = _SHORT[-len(evaluation.claims) :]
    estimates = [claim.estimate for claim in evaluation.claims]
    said = [size(each.value, evaluation.outcome).removesuffix(" points") for each in estimates]
    return pictures.forest(names, said, estimates, *unit(evaluation.outcome))


def _judged(evaluation: Evaluation) -> dict[str, Any]:
    rows = [
        {
            "fifth": int(row["fifth"]),
            "n": int(row["n"]),
            "predicted": size(row["predicted"], evaluation.outcome),
            "observed": size(row["observed"], evaluation.outcome),
        }
        for row in evaluation.fifths
    ]
    many, in_words = len(rows) > 1, unit(evaluation.outcome)
    return {
        "fifths": rows,
        "calibration": pictures.calibration(evaluation.fifths, *in_words) if many else None,
        "targeting": pictures.targeting(evaluation.toc, *in_words) if many else None,
        "nearer": evaluation.less_loss["constant"].value < 0,
        "figures": _figures(evaluation),
    }


def _figures(evaluation: Evaluation) -> list[dict[str, str]]:
    """Name, value, interval, p-value and reading of each figure that is known."""
    line, less = evaluation.best_linear_predictor, evaluation.less_loss
    plain, squared = "plain", "squared"
    told = (
        ("Calibration slope", evaluation.slope, plain, "1 is right; below 1 differences are overstated"),
        ("Best linear predictor, mean", line["mean"], plain, "1 is right"),
        (
            "Best linear predictor, difference",
            line["difference"],
            plain,
            "above 0: effects differ as foretold",
        ),
        ("AUTOC", evaluation.autoc, evaluation.outcome, "area under the curve of targeting; 0 is chance"),
        ("Qini", evaluation.qini, evaluation.outcome, "the same, weighted by the share; 0 is chance"),
        ("Loss less that of one number for all", less["constant"], squared, "below 0 the model is nearer"),
        ("Loss less that of no effect at all", less["zero"], squared, "below 0 the model is nearer"),
    )
    return [
        {"name": name, "reading": reading, **_in_unit(estimate, kind, evaluation.outcome)}
        for name, estimate, kind, reading in told
        if math.isfinite(estimate.value) and math.isfinite(estimate.se)
    ]


def _in_unit(estimate: Estimate, kind: str, outcome: str) -> dict[str, str]:
    """Value, interval and one-sided p-value; losses are in squared points, or the outcome's unit squared."""
    factor = {"binary": 100.0, "squared": unit(outcome)[1] ** 2}.get(kind, 1.0)
    value, lo, hi = (f"{factor * x:+.3g}" for x in (estimate.value, estimate.lo, estimate.hi))
    words = {"binary": " points", "squared": " sq. points" if outcome == "binary" else " (unit squared)"}
    chance = "< 0.001" if estimate.p_positive < 0.001 else f"{estimate.p_positive:.3f}"
    return {
        "value": value + words.get(kind, ""),
        "span": f"{lo} to {hi}",
        "p": "" if kind == "squared" else chance,
    }
