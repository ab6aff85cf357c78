"""From a decision table to a judged model folder: the steps in order, readable as a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.catalog import feature as words_of
from features.decisions import DecisionTable
from training import clustered, doubt, evaluate, model_folder
from training.config import TrainingConfig
from training.folds import newest_deals, random_groups
from training.gate import refuse_too_little, refuse_unjudgeable
from training.nuisance import Nuisances, scores
from training.policy import Advice, Policy
from training.report import write_report
from training.scorecard import Z_90, Answers, Scorecard
from training.uplift import UpliftModel, cross_fit_for_judging
from training.verdict import NOT_ENOUGH

STEPS = (
    "Setting the newest deals aside",
    "Learning from the older ones",
    "Judging on the newest",
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
    notify: Notify = lambda _step: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Trained:
    """Learn from the older decisions, judge on the newest, write the model folder.

    The model that was judged is the model that is written. Where the held-out decisions do not show that
    effects differ, the average effect alone is written, and the report says so.

    Raises
    ------
    UserError
        Too little evidence, a place that is taken, or a table that can't be learned from. Nothing is written.
    """
    config = config or TrainingConfig()
    model_folder.refuse_occupied(out, overwrite)
    refuse_too_little(decisions, config.least_outcomes)
    notify(STEPS[0])
    held_out = split(decisions, config)
    older, newest = decisions.take(~held_out), decisions.take(held_out)
    refuse_too_little(older, config.least_outcomes)
    refuse_unjudgeable(newest)
    notify(STEPS[1])
    model = _model(config).fit(
        older.X, older.treatment, older.outcome, older.groups, deals=older.rows["deal_id"]
    )
    notify(STEPS[2])
    nuisances = _judging_nuisances(decisions, config)
    phi = scores(nuisances, decisions.treatment, decisions.outcome).doubly_robust
    policy = _policy_for(decisions, config.policy)
    answers = model.answers(newest.X)
    held = _held_out(newest, answers, nuisances.take(held_out), phi[held_out])
    constant = _constant(phi[~held_out], model.support(older.X), older.groups, held)
    evaluation = evaluate.judge(held, policy, constant)
    card = model.scorecard_
    if not evaluation.heterogeneous:
        card = card.average_only(*constant, enough=evaluation.evidence != NOT_ENOUGH)
        answers = card.evaluate(model.read(newest.X))
    notify(STEPS[3])
    doubts = doubt.doubts(decisions, nuisances, model, evaluation, _judging_seed(config))
    notify(STEPS[4])
    facts = describe(decisions, older, newest, card, evaluation, doubts, policy, config, name, clock())
    with model_folder.writing(out, overwrite) as fresh:
        card.write(fresh)
        model_folder.write_facts(fresh, facts)
        judged(newest, answers, phi[held_out], policy).to_parquet(fresh / "held_out.parquet", index=False)
        write_report(fresh, facts, evaluation, card)
    return Trained(out, model_folder.verify(out).digest, facts, evaluation)


def split(decisions: DecisionTable, config: TrainingConfig) -> NDArray[np.bool_]:
    """Mark the held-out rows: the newest deals, or random partners where there are no dates."""
    dates = decisions.rows["decided_at"]
    if dates.isna().any():
        return random_groups(decisions.groups, config.held_out_share, config.random_state)
    moments = dates.dt.tz_convert(None).to_numpy()
    return newest_deals(decisions.rows["deal_id"].to_numpy(dtype=str), moments, config.held_out_share)


def judged(newest: DecisionTable, answers: Answers, phi: NDArray, policy: Policy) -> pd.DataFrame:
    """The held-out decisions with what the model said and what came of them; fractions, one row each."""
    advice = policy.advise(answers.uplift, answers.sd, newest.rows["amount"].to_numpy(), answers.supported)
    return newest.rows.reset_index().assign(
        **answer_columns(answers, advice), doubly_robust_score=phi, propensity=answers.propensity
    )


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


def _model(config: TrainingConfig) -> UpliftModel:
    return UpliftModel(
        n_folds=config.n_folds,
        draws=config.draws,
        most_pairs=config.most_pairs,
        least_propensity=config.least_propensity,
        random_state=config.random_state,
        n_jobs=config.n_jobs,
    )


def _judging_nuisances(decisions: DecisionTable, config: TrainingConfig) -> Nuisances:
    """Nuisances for the held-out scores: from all times, but never from a decision's own partner."""
    return cross_fit_for_judging(
        decisions.X,
        decisions.treatment,
        decisions.outcome,
        decisions.groups,
        _judging_seed(config),
        config.n_jobs,
    )


def _constant(
    phi: NDArray, supported: NDArray, partners: NDArray, held: evaluate.HeldOut
) -> tuple[float, float]:
    """Average uplift and its standard deviation, to be served where effects can't be shown to differ.

    The average is that of the older decisions, so that the held-out ones can judge it; their standard error
    adds to its own, because tomorrow's average may lie as far off as theirs.
    """
    past = clustered.mean(phi[supported], partners[supported])
    recent = clustered.mean(held.phi[held.supported], held.groups[held.supported])
    known = np.isfinite(past.se) and np.isfinite(recent.se)
    return (past.value, float(np.hypot(past.se, recent.se))) if known else (0.0, 1.0)


def _judging_seed(config: TrainingConfig) -> int:
    return config.random_state + 1


def _policy_for(decisions: DecisionTable, policy: Policy) -> Policy:
    return Policy.from_dict(policy.to_dict() | {"outcome": decisions.about["outcome"]})


def _held_out(
    newest: DecisionTable, answers: Answers, nuisances: Nuisances, phi: NDArray
) -> evaluate.HeldOut:
    return evaluate.HeldOut(
        phi=phi,
        uplift=answers.uplift,
        sd=answers.sd,
        supported=answers.supported,
        treatment=newest.treatment,
        outcome=newest.outcome,
        groups=newest.groups,
        amount=newest.rows["amount"].to_numpy(),
        deals=newest.rows["deal_id"].to_numpy(dtype=str) if newest.about["kind"] == "crm" else None,
        propensity=nuisances.propensity,
        step_back=nuisances.step_back,
    )


def describe(
    decisions: DecisionTable,
    older: DecisionTable,
    newest: DecisionTable,
    card: Scorecard,
    evaluation: evaluate.Evaluation,
    doubts: dict[str, Any],
    policy: Policy,
    config: TrainingConfig,
    name: str,
    now: datetime,
) -> dict[str, Any]:
    """What is known about the model, JSON-able: ``facts.json``, ``GET /v1/model`` and the report."""
    about = decisions.about
    return {
        "name": name,
        "version": None,
        "trained_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "question": about["question"],
        "source_kind": about["kind"],
        "outcome": about["outcome"],
        "outcome_unit": about.get("outcome_unit"),
        "currency": about.get("currency"),
        "amount_feature": about.get("amount_feature"),
        "stage_order": about.get("stage_order") or [],
        "learned_from": {
            **_extent(older),
            "held_out": _extent(newest),
            "data_digest": decisions.digest(),
            "flow": about.get("flow", []),
            "left_out_columns": about.get("left_out_columns", []),
        },
        "features": [_in_words(feature.name, feature.kind, about["kind"]) for feature in card.features],
        "evaluation": evaluation.to_dict(),
        "doubts": doubts,
        "bias_per_unit_strength": doubts.get("bias_per_unit_strength"),
        "policy": policy.to_dict(),
        "settings": config.to_dict(),
    }


def _extent(table: DecisionTable) -> dict[str, Any]:
    dates = table.rows["decided_at"].dropna()
    return {
        "decisions": len(table.rows),
        "deals": int(table.rows["deal_id"].nunique()),
        "partners": int(table.rows["partner_id"].nunique()) or None,
        "stepped_in_share": float(np.mean(table.treatment)),
        "mean_outcome": float(np.mean(table.outcome)),
        "from": dates.min().isoformat() if len(dates) else None,
        "to": dates.max().isoformat() if len(dates) else None,
    }


def _in_words(name: str, kind: str, source_kind: str) -> dict[str, str]:
    words = words_of(name) if source_kind == "crm" else None
    return {
        "name": name,
        "kind": kind,
        "unit": words.unit if words else "",
        "meaning": words.meaning if words else "",
    }
