"""The path of one request: deal -> scorecard -> policy -> words. No input or output, no state."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.model import STAGE, ServedModel
from serving.reading import DealAsked, Value
from training.basis import CATEGORY, NUMBER, Feature
from training.policy import Z_90, Advice
from training.scorecard import Answers

REASONS_EACH_WAY = 5
LEAST_AMOUNT, MOST_AMOUNT = 0.01, 1e15
SERVED, ANONYMOUS = "served", "anonymous"


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as it is sent and as the journal keeps it."""

    recommendation_id: str
    body: bytes
    """JSON, as `messages.Recommendation` describes it. No number is rounded, so that the parts add up."""
    record: dict[str, Any]
    """A row of the journal: keys exactly `features.journal_columns.ANSWER_COLUMNS`.

    ``role`` says served and ``asked_by`` anonymous: whoever knows better says so before it is recorded.
    """


@dataclass(frozen=True)
class Recommender:
    """Answers for one model; what is the same for every deal is made once, by `of`."""

    model: ServedModel
    name_tag: Mapping[str, Any]
    stage_order: Sequence[str]
    levels: Mapping[str, frozenset[str]]
    """For each category, the texts that the model saw."""

    @classmethod
    def of(cls, model: ServedModel) -> Recommender:
        """Prepare the answers of `model`."""
        categories = [feature for feature in model.scorecard.features if feature.kind == CATEGORY]
        levels = {feature.name: frozenset(feature.levels) for feature in categories}
        return cls(model, model.name_tag, model.stage_order, levels)

    def answer(
        self,
        asked: DealAsked,
        now: datetime,
        all_reasons: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Answered:
        """Advise on one deal.

        Parameters
        ----------
        asked : the deal, its values checked by `Reader`
        now : in UTC; stands for a moment that the deal does not name
        all_reasons : every term that is not zero, rather than the five largest each way
        extra : further fields of the answer, after the others
        """
        return self._answer_all([asked], now, all_reasons, extra or {})[0]

    def answer_many(
        self, asked: Sequence[DealAsked], now: datetime, all_reasons: bool = False
    ) -> list[Answered]:
        """Advise on some deals; each answer is the same as if it were asked for alone: see `answer`."""
        return self._answer_all(asked, now, all_reasons, {})

    def _answer_all(
        self, asked: Sequence[DealAsked], now: datetime, all_reasons: bool, extra: Mapping[str, Any]
    ) -> list[Answered]:
        stages = [self._stages_from(deal.features) for deal in asked]
        rows: list[Mapping[str, Value]] = []
        first_rows = []
        for deal, here_and_later in zip(asked, stages, strict=True):
            first_rows.append(len(rows))
            rows.append(deal.features)
            rows += [{**deal.features, STAGE: stage} for stage in here_and_later[1:]]
        judged = self._judge(rows)
        return [
            self._finish(
                deal, now, {**self._answer(deal, now, all_reasons, judged, row, here_and_later), **extra}
            )
            for deal, row, here_and_later in zip(asked, first_rows, stages, strict=True)
        ]

    def _finish(self, deal: DealAsked, now: datetime, answer: dict[str, Any]) -> Answered:
        low, high = answer["uplift_interval_points"]
        record = {
            "recommendation_id": answer["recommendation_id"],
            "deal_id": deal.deal_id,
            "asked_at": now,
            "as_of": deal.as_of or now,
            "stage": answer["stage"],
            "advice": answer["advice"],
            "default_action_applied": answer["default_action_applied"],
            "score": answer["score"],
            "uplift": answer["uplift_points"] / 100,
            "uplift_low": low / 100,
            "uplift_high": high / 100,
            "break_even": answer["break_even_points"] / 100,
            "chance": 1.0,
            "model_name": self.name_tag["name"],
            "model_version": self.name_tag["version"],
            "model_digest": self.name_tag["digest"],
            "role": SERVED,
            "facts": orjson.dumps(deal.features).decode(),
            "asked_by": ANONYMOUS,
        }
        return Answered(answer["recommendation_id"], orjson.dumps(answer), record)

    def _stages_from(self, values: Mapping[str, Value]) -> Sequence[str]:
        """The deal's stage and those after it; none where the stage is not known."""
        stage = values.get(STAGE)
        if not self.stage_order or not isinstance(stage, str):
            return []
        if stage not in self.stage_order:
            return [stage]
        return self.stage_order[self.stage_order.index(stage) :]

    def _judge(self, rows: Sequence[Mapping[str, Value]]) -> _Judged:
        card = self.model.scorecard
        columns = {feature.name: _column(feature, rows) for feature in card.features}
        answers = card.evaluate(columns)
        amount = str(self.model.facts.get("amount_feature"))
        amounts = np.array([_amount(row.get(amount)) for row in rows])
        advice = self.model.policy.advise(answers.uplift, answers.sd, amounts, answers.supported)
        return _Judged(answers, advice)

    def _answer(
        self,
        deal: DealAsked,
        now: datetime,
        all_reasons: bool,
        judged: _Judged,
        row: int,
        stages: Sequence[str],
    ) -> dict[str, Any]:
        """One answer from row `row`; the rows after it are the same deal at the later `stages`."""
        values, answers, advice = deal.features, judged.answers, judged.advice
        names = self.model.wording.words
        unseen = [name for name, levels in self.levels.items() if _is_unseen(values.get(name), levels)]
        uplift, sd = float(answers.uplift[row]), float(answers.sd[row])
        break_even = float(advice.break_even[row])
        return {
            "recommendation_id": str(uuid.uuid4()),
            "deal_id": deal.deal_id,
            "as_of": (deal.as_of or now).astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "stage": values.get(STAGE) if STAGE in self.levels else None,
            "advice": str(advice.advice[row]),
            "default_action_applied": bool(advice.default_action_applied[row]),
            "score": judged.score(row),
            "uplift_points": 100 * uplift,
            "uplift_interval_points": [100 * (uplift - Z_90 * sd), 100 * (uplift + Z_90 * sd)],
            "break_even_points": 100 * break_even,
            "win_probability": {
                "step_back": float(answers.win[row, 0]),
                "step_in": float(answers.win[row, 1]),
            },
            "expected_value": self._expected_value(float(advice.expected_value[row])),
            "baseline_points": 100 * float(self.model.scorecard.baseline[0]),
            **self._reasons(answers.terms[row], values, unseen, all_reasons),
            "evidence": {
                "seen_both_ways": bool(answers.supported[row]),
                "chance_vendor_steps_in": float(answers.propensity[row]),
                "similar_decisions": int(answers.similar[row]),
                "hidden_factor_to_flip": self._strength_to_flip(uplift - break_even),
            },
            "playbook": [self._play(judged, row + later, stage) for later, stage in enumerate(stages)],
            "missing": [name for name in names if values.get(name) is None],
            "unseen": unseen,
            "model": self.name_tag,
        }

    def _reasons(
        self,
        terms: NDArray[np.float64],
        values: Mapping[str, Value],
        unseen: Sequence[str],
        all_reasons: bool,
    ) -> dict[str, Any]:
        """The terms of shape (n_terms,) in words: those to show, and the sum of the others."""
        largest_first = [int(i) for i in np.argsort(-np.abs(terms), kind="stable") if terms[i] != 0]
        shown, others = (largest_first, []) if all_reasons else _five_each_way(largest_first, terms)
        reasons = [self._reason(i, 100 * float(terms[i]), values, unseen) for i in shown]
        return {"reasons": reasons, "other_points": 100 * math.fsum(terms[i] for i in others)}

    def _reason(
        self, term: int, points: float, values: Mapping[str, Value], unseen: Sequence[str]
    ) -> dict[str, Any]:
        card = self.model.scorecard
        names = card.term_features[term]
        known = {name: values.get(name) for name in names}
        return {
            "feature": card.term_names[term],
            "value": known if len(names) > 1 else known[names[0]],
            "points": points,
            "sentence": self.model.wording.sentence(names, known, points, unseen),
        }

    def _play(self, judged: _Judged, row: int, stage: str) -> dict[str, Any]:
        uplift, sd = float(judged.answers.uplift[row]), float(judged.answers.sd[row])
        advice, break_even = str(judged.advice.advice[row]), float(judged.advice.break_even[row])
        lead = self.model.policy.lead(advice, uplift - Z_90 * sd, break_even)
        return {"stage": stage, "lead": lead, "uplift_points": 100 * uplift}

    def _expected_value(self, amount: float) -> dict[str, Any] | None:
        return {"amount": amount, "currency": self.model.wording.currency} if math.isfinite(amount) else None

    def _strength_to_flip(self, distance: float) -> float | None:
        bias = self.model.facts.get("bias_per_unit_strength")
        return abs(distance) / float(bias) if bias else None


@dataclass(frozen=True)
class _Judged:
    """What the scorecard and the policy say of some rows."""

    answers: Answers
    advice: Advice

    def score(self, row: int) -> float | None:
        """No score where such deals were not seen both ways: it would be a guess."""
        return float(self.advice.score[row]) if self.answers.supported[row] else None


def _five_each_way(largest_first: Sequence[int], terms: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Split into the five largest for and the five largest against, in that order; and the rest."""
    shown: list[int] = []
    others: list[int] = []
    room = {True: REASONS_EACH_WAY, False: REASONS_EACH_WAY}
    for i in largest_first:
        helps = bool(terms[i] > 0)
        (shown if room[helps] > 0 else others).append(i)
        room[helps] -= 1
    return shown, others


def _column(feature: Feature, rows: Sequence[Mapping[str, Value]]) -> Any:
    """Values of shape (n_rows,) as `Scorecard.evaluate` takes them."""
    values = [row.get(feature.name) for row in rows]
    if feature.kind == NUMBER:
        return np.array([math.nan if value is None else float(value) for value in values])
    if feature.kind == CATEGORY:
        return values
    return [None if value is None else str(value).lower() for value in values]


def _amount(value: Value) -> float:
    """The deal's amount in its currency; NaN where there is none, or none that a deal can have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if LEAST_AMOUNT <= value <= MOST_AMOUNT else math.nan


def _is_unseen(value: Value, levels: frozenset[str]) -> bool:
    return value is not None and value not in levels
