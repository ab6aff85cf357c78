"""A model folder applied to a decision table."""

from pathlib import Path

import pandas as pd

from features.decisions import DecisionTable
from features.problems import UserError
from training import model_folder
from training.pipeline import answer_columns
from training.policy import Policy
from training.uplift import UpliftModel


def score_table(folder: Path, decisions: DecisionTable) -> pd.DataFrame:
    """Advise on every decision: one row each, effects as fractions, and the strongest reason each way.

    Raises
    ------
    UserError
        The folder is no whole model, or the decisions lack columns that it learned from.
    """
    model = UpliftModel.load(folder)
    if len(decisions.rows) == 0:
        raise UserError("There is no decision to score: no deal is open. Nothing was written.")
    facts = model_folder.read_facts(folder)
    policy = Policy.from_dict(facts.get("policy", {}))
    answers = model.answers(decisions.X)
    amount = decisions.rows["amount"].to_numpy(dtype=float)
    advice = policy.advise(answers.uplift, answers.sd, amount, answers.supported)
    about = decisions.rows[["deal_id", "partner_id", "stage", "decided_at", "amount"]].reset_index()
    terms = pd.Index(model.scorecard_.term_names)
    return about.assign(
        **answer_columns(answers, advice),
        expected_value=advice.expected_value,
        propensity=answers.propensity,
        strongest_for=terms[answers.terms.argmax(axis=1)],
        strongest_against=terms[answers.terms.argmin(axis=1)],
    )
