"""From a decision table to a judged model folder: the steps in order, readable as a recipe."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.decisions import DecisionTable
from training import censoring, clustered, doubt, evaluate, model_folder
from training.claims import ever_against_never
from training.config import TrainingConfig
from training.facts import describe
from training.gate import look, refuse_no_overlap, refuse_too_little
from training.leaks import audited
from training.nuisance import Nuisances, reweighted, scores
from training.policy import Advice, Policy
from training.report import write_report
from training.scorecard import Z_90, Answers, Scorecard
from training.sequence import Judged, answered, blocks_in_time, constant_of, judged_blocks, pooled
from training.uplift import UpliftModel, cross_fit_for_judging
from training.verdict import NOT_ENOUGH

STEPS = (
    "Putting the deals in order of time",
    "Learning from older deals and judging on newer ones",
    "Learning from all of them",
    "Doubting the result",
    "Writing the model",
)
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A judged model on disk."""

    folder: Path
    digest: str
    facts: dict[str, Any]
    evaluation: evaluate.Evaluation


def train(
    decisions: DecisionTable,
    out: Path,
    config: TrainingConfig | None = None,
    *,
    name: str = "stepin",
    overwrite: bool = False,
    allow: Collection[str] = (),
    notify: Notify = lambda _step: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Trained:
    """Judge the recipe forward in time, learn from all decisions, write the model folder.

    Each block of newer deals is answered by a model that learned from all blocks before it. The model that
    is written learned from all decisions by the same recipe. Where the judged decisions do not show that
    effects differ, the average effect alone is written, and the report says so.

    Parameters
    ----------
    allow : features to learn from although the leakage audit finds that they know the future

    Raises
    ------
    UserError
        Too little evidence, a place that is taken, a feature that knows the future, or a table that can't be
        learned from. Nothing is written.
    """
    config = config or TrainingConfig()
    model_folder.refuse_occupied(out, overwrite)
    refuse_too_little(decisions, config.least_outcomes)
    decisions = audited(decisions, allow)
    notify(STEPS[0])
    asked = censoring.is_asked(decisions)
    censored = censoring.weigh(decisions, _judging_seed(config), config.n_jobs) if asked else None
    weights = censored.of if censored else censoring.all_alike
    weight = weights(decisions)
    blocks, fewer = blocks_in_time(decisions, config, None if weight is None else weight > 0)
    notify(STEPS[1])
    nuisances = _judging_nuisances(decisions, config, weight)
    refuse_no_overlap(decisions, nuisances.propensity, config.least_propensity, config.random_state)
    parts = judged_blocks(
        decisions, blocks, lambda table: _fit(table, config, weight=weights(table)), weights
    )
    phi = scores(nuisances, decisions.treatment, decisions.outcome, weight).doubly_robust
    policy = _policy_for(decisions, config.policy)
    held = _held_out(decisions, parts, nuisances, phi, weight)
    recent = clustered.mean(held.phi[held.supported], held.groups[held.supported])
    constants = [constant_of(part.constant, recent) for part in parts]
    ever = ever_against_never(decisions.about)
    evaluation = evaluate.judge(held, policy, _by_row(parts, constants), ever[0] if ever else None)
    notify(STEPS[2])
    model = _fit(decisions, config, nuisances, weight)
    card = _served(model, decisions, phi, evaluation)
    notify(STEPS[3])
    doubts = doubt.doubts(decisions, nuisances, model, evaluation, _judging_seed(config), weights)
    notify(STEPS[4])
    facts = describe(decisions, parts, fewer, card, evaluation, doubts, policy, config, name, clock())
    facts["gate"] = look(decisions, nuisances.propensity, config.least_propensity, config.least_outcomes)
    facts["learned_from"]["later_joiners"] = censored.to_dict() if censored else None
    with model_folder.writing(out, overwrite) as fresh:
        card.write(fresh)
        model_folder.write_facts(fresh, facts)
        answers = [
            _said(part, decisions, *each, evaluation) for part, each in zip(parts, constants, strict=True)
        ]
        judged(decisions, parts, answers, phi, policy).to_parquet(fresh / "held_out.parquet", index=False)
        write_report(fresh, facts, evaluation, card)
    return Trained(out, model_folder.verify(out).digest, facts, evaluation)


def judged(
    decisions: DecisionTable,
    parts: Sequence[Judged],
    answers: Sequence[Answers],
    phi: NDArray,
    policy: Policy,
) -> pd.DataFrame:
    """The held-out decisions with what the models said and what came of them; fractions, one row each."""
    tables = []
    for part, said in zip(parts, answers, strict=True):
        rows = decisions.rows[part.rows]
        advice = policy.advise(said.uplift, said.sd, rows["amount"].to_numpy(), said.supported)
        table = rows.reset_index().assign(
            **answer_columns(said, advice),
            doubly_robust_score=phi[part.rows],
            propensity=said.propensity,
            block=part.block,
        )
        tables.append(table.set_index(np.flatnonzero(part.rows)))
    return pd.concat(tables).sort_index()


def answer_columns(answers: Answers, advice: Advice) -> dict[str, NDArray]:
    """What is said of each decision, as columns of shape (n,); effects as fractions."""
    return {
        "advice": advice.advice,
        "score": np.where(answers.supported, advice.score, np.nan),
        "uplift": answers.uplift,
        "uplift_lo": answers.uplift - Z_90 * answers.sd,
        "uplift_hi": answers.uplift + Z_90 * answers.sd,
        "break_even": advice.break_even,
        "win_if_step_back": answers.win[:, 0],
        "win_if_step_in": answers.win[:, 1],
        "supported": answers.supported,
        "similar_decisions": answers.similar,
    }


def _fit(
    decisions: DecisionTable,
    config: TrainingConfig,
    nuisances: Nuisances | None = None,
    weight: NDArray[np.float64] | None = None,
) -> UpliftModel:
    model = UpliftModel(
        n_folds=config.n_folds,
        draws=config.draws,
        most_pairs=config.most_pairs,
        least_propensity=config.least_propensity,
        random_state=config.random_state,
        n_jobs=config.n_jobs,
    )
    return model.fit(
        decisions.X,
        decisions.treatment,
        decisions.outcome,
        decisions.groups,
        deals=decisions.rows["deal_id"],
        nuisances=nuisances,
        outcome_weight=weight,
    )


def _judging_nuisances(
    decisions: DecisionTable, config: TrainingConfig, weight: NDArray[np.float64] | None
) -> Nuisances:
    """Nuisances for the held-out scores: from all times, but never from a decision's own partner."""
    return cross_fit_for_judging(
        decisions.X,
        decisions.treatment,
        decisions.outcome,
        decisions.groups,
        _judging_seed(config),
        config.n_jobs,
        weight,
    )


def _served(
    model: UpliftModel, decisions: DecisionTable, phi: NDArray, evaluation: evaluate.Evaluation
) -> Scorecard:
    """The model's tables; or the average alone, where the held-out decisions don't show more."""
    if evaluation.heterogeneous:
        return model.scorecard_
    supported = model.support(decisions.X)
    average = clustered.mean(phi[supported], decisions.groups[supported])
    constant = constant_of(average, evaluation.average)
    return model.scorecard_.average_only(*constant, enough=evaluation.evidence != NOT_ENOUGH)


def _said(
    part: Judged, decisions: DecisionTable, average: float, sd: float, evaluation: evaluate.Evaluation
) -> Answers:
    """What would have been served for a block before it came."""
    if evaluation.heterogeneous:
        return part.answers
    card = part.model.scorecard_.average_only(average, sd, enough=evaluation.evidence != NOT_ENOUGH)
    return card.evaluate(part.model.read(decisions.X[part.rows]))


def _by_row(parts: Sequence[Judged], constants: Sequence[tuple[float, float]]) -> evaluate.Constant:
    centres, spreads = zip(*constants, strict=True)
    return pooled(parts, centres), pooled(parts, spreads)


def _judging_seed(config: TrainingConfig) -> int:
    return config.random_state + 1


def _policy_for(decisions: DecisionTable, policy: Policy) -> Policy:
    return Policy.from_dict(policy.to_dict() | {"outcome": decisions.about["outcome"]})


def _held_out(
    decisions: DecisionTable,
    parts: Sequence[Judged],
    nuisances: Nuisances,
    phi: NDArray,
    weight: NDArray[np.float64] | None,
) -> evaluate.HeldOut:
    """The judged decisions; with weights, their outcomes are those that stand in for never being joined."""
    rows = answered(parts)
    outcome = reweighted(nuisances, decisions.treatment, decisions.outcome, weight)
    is_whole = decisions.about["kind"] == "crm" and weight is None
    table, known = decisions.take(rows), nuisances.take(rows)
    return evaluate.HeldOut(
        phi=phi[rows],
        uplift=pooled(parts, [part.answers.uplift for part in parts]),
        sd=pooled(parts, [part.answers.sd for part in parts]),
        supported=pooled(parts, [part.answers.supported for part in parts]),
        treatment=table.treatment,
        outcome=outcome[rows],
        groups=table.groups,
        amount=table.rows["amount"].to_numpy(),
        deals=table.rows["deal_id"].to_numpy(dtype=str) if is_whole else None,
        propensity=known.propensity,
        step_back=known.step_back,
        chance=pooled(parts, [part.answers.win[:, 0] for part in parts]),
        blocks=pooled(parts, [part.block for part in parts]),
    )
