"""What following the advice is worth, against what else one could do with the same decisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training import clustered
from training.clustered import Estimate, parts_of
from training.held_out import HeldOut

Floats = NDArray[np.float64]


def policy_value(phi: ArrayLike, acts: ArrayLike, cost: ArrayLike, groups: ArrayLike) -> Estimate:
    """Net gain per decision of stepping in where `acts`, over always stepping back.

    Parameters
    ----------
    phi : doubly robust scores (n,)
    acts : where the rule steps in (n,), or the share of times that it does; it must not have been made from
        these decisions' outcomes
    cost : uplift that pays for stepping in, (n,) or a scalar
    groups : partner of each decision (n,)

    Notes
    -----
    The held-out scores are summed, never the predictions of those chosen: a list picked for its high
    predictions has been picked for its errors too (Athey & Wager 2021).
    """
    return compare(phi, acts, 0.0, cost, groups)


def compare(
    phi: ArrayLike, acts_a: ArrayLike, acts_b: ArrayLike, cost: ArrayLike, groups: ArrayLike
) -> Estimate:
    """Net gain per decision of rule a over rule b, paired by decision; shapes as in `policy_value`."""
    scores = np.asarray(phi, dtype=float)
    more = np.asarray(acts_a, dtype=float) - np.asarray(acts_b, dtype=float)
    return clustered.mean(
        more * (scores - np.asarray(cost, dtype=float)), groups, np.broadcast_to(more, scores.shape)
    )


def people_gain(held: HeldOut, cost: ArrayLike) -> Floats:
    """Net gain (n,) of what people did over always stepping back.

    With the nuisances at hand it is the outcome less the doubly robust score of stepping back; without
    them the scores of the decisions where the vendor stepped in, right only if the outcome model is.
    """
    if held.propensity is None or held.step_back is None:
        return held.treatment * (held.phi - np.asarray(cost, dtype=float))
    left = held.outcome - held.step_back
    back = held.step_back + np.where(held.treatment, 0, left / (1 - held.propensity))
    return held.outcome - back - np.where(held.treatment, cost, 0)


def value_and_gain(
    seen: HeldOut, acts: NDArray[np.bool_], cost: Floats
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Net value per decision of the advice and of its rivals, and the advice's gain over each of them.

    Notes
    -----
    ``biggest`` and ``likeliest`` step in as often as the advice does within each block, on the deals with
    the largest amounts, and with the best chance of winning if the vendor steps back. They are left out
    where no amount, or no chance, is known.
    """
    rules: dict[str, Floats] = {"always": np.ones(len(acts)), "never": np.zeros(len(acts))}
    for name, order in (("biggest", seen.amount), ("likeliest", seen.chance)):
        if order is not None and np.isfinite(order).any():
            rules[name] = first_ones(order, acts, seen.blocks)
    people = people_gain(seen, cost)
    advice = acts * (seen.phi - cost)
    values = {"advice": policy_value(seen.phi, acts, cost, seen.groups)}
    values |= {
        name: policy_value(seen.phi, rule, cost, seen.groups)
        for name, rule in rules.items()
        if name != "never"
    }
    gains = {name: compare(seen.phi, acts, rule, cost, seen.groups) for name, rule in rules.items()}
    values["people"] = clustered.mean(people, seen.groups)
    gains["people"] = clustered.mean(advice - people, seen.groups)
    return values, gains


def first_ones(order: Floats, acts: NDArray[np.bool_], blocks: NDArray | None = None) -> Floats:
    """Share of times (n,) that a rule steps in which takes the highest first, as many as `acts` in a block.

    Unknown comes last. Deals that are tied at the edge share the places that are left.
    """
    part = parts_of(blocks, len(order))
    known = np.where(np.isfinite(order), order, -np.inf)
    taken = np.zeros(len(order))
    for block in range(part.max(initial=-1) + 1):
        rows = np.flatnonzero(part == block)
        many = int(np.sum(acts[rows]))
        if not many:
            continue
        edge = np.partition(known[rows], len(rows) - many)[len(rows) - many]
        above, tied = known[rows] > edge, known[rows] == edge
        taken[rows] = above + tied * (many - above.sum()) / tied.sum()
    return taken
