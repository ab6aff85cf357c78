"""One answer as bytes and as a row of the journal, from what scorecard and policy say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from serving.model import STAGE, ServedModel
from serving.reading import DealAsked

SERVED, ANONYMOUS = "served", "anonymous"
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


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
    missing: Sequence[str] = ()
    """The model's features that were not given."""


class Said(NamedTuple):
    """What scorecard and policy say of one deal; fractions, except for the score."""

    advice: str
    is_default: bool
    score: float
    uplift: float
    low: float
    high: float
    break_even: float
    win_if_step_back: float
    win_if_step_in: float
    propensity: float
    similar: int
    supported: bool
    expected_value: float


class Reasons(NamedTuple):
    """The reasons that are listed, and the points of all others together."""

    listed: orjson.Fragment
    other_points: float


class AnswerWriter:
    """Writes the answers of one model; what is the same in all of them is written once."""

    def __init__(self, model: ServedModel) -> None:
        tag = model.name_tag
        self._tag, self._model = orjson.Fragment(orjson.dumps(tag)), tag
        self._has_stage = any(f.name == STAGE and f.kind == "category" for f in model.scorecard.features)
        self._baseline_points = 100 * float(model.scorecard.baseline[0])
        self._currency = model.wording.currency
        self._bias = float(model.facts.get("bias_per_unit_strength") or 0)

    def write(
        self,
        deal: DealAsked,
        now: datetime,
        now_text: str,
        recommendation_id: str,
        said: Said,
        reasons: Reasons,
        playbook: Sequence[Mapping[str, Any]],
        missing: Sequence[str],
        unseen: Sequence[str],
        extra: Mapping[str, Any] | None = None,
    ) -> Answered:
        """Write one answer; `now_text` is `utc_text` of `now`, `extra` are fields after the others."""
        (advice, is_default, score, uplift, low, high, break_even, step_back, step_in) = said[:9]
        supported, value = said.supported, said.expected_value
        # No score where such deals were not seen both ways: it would be a guess.
        told_score = score if supported else None
        as_of = deal.as_of or now
        stage = deal.features.get(STAGE) if self._has_stage else None
        body = {
            "recommendation_id": recommendation_id,
            "deal_id": deal.deal_id,
            "as_of": now_text if deal.as_of is None else utc_text(as_of),
            "stage": stage,
            "advice": advice,
            "default_action_applied": is_default,
            "score": told_score,
            "uplift_points": 100 * uplift,
            "uplift_interval_points": (100 * low, 100 * high),
            "break_even_points": 100 * break_even,
            "win_probability": {"step_back": step_back, "step_in": step_in},
            "expected_value": {"amount": value, "currency": self._currency} if math.isfinite(value) else None,
            "baseline_points": self._baseline_points,
            "reasons": reasons.listed,
            "other_points": reasons.other_points,
            "evidence": {
                "seen_both_ways": supported,
                "chance_vendor_steps_in": said.propensity,
                "similar_decisions": said.similar,
                "hidden_factor_to_flip": abs(uplift - break_even) / self._bias if self._bias else None,
            },
            "playbook": playbook,
            "missing": missing,
            "unseen": unseen,
            "model": self._tag,
        }
        record = {
            "recommendation_id": recommendation_id,
            "deal_id": deal.deal_id,
            "asked_at": now,
            "as_of": as_of,
            "stage": stage,
            "advice": advice,
            "default_action_applied": is_default,
            "score": told_score,
            "uplift": uplift,
            "uplift_low": low,
            "uplift_high": high,
            "break_even": break_even,
            "chance": 1.0,
            "model_name": self._model["name"],
            "model_version": self._model["version"],
            "model_digest": self._model["digest"],
            "role": SERVED,
            "facts": orjson.dumps(deal.features).decode(),
            "asked_by": ANONYMOUS,
        }
        if extra:
            body.update(extra)
        return Answered(recommendation_id, orjson.dumps(body), record, missing)


def utc_text(moment: datetime) -> str:
    """Write a moment in UTC: ``2025-03-31T12:00:00Z``."""
    return moment.astimezone(UTC).isoformat()[:-6] + "Z"


def new_ids(n: int, now: datetime) -> list[str]:
    """Make ids that nobody can guess and that sort by time: UUIDs of version 7, 74 bits of them random."""
    time = f"{int(now.timestamp() * 1000) & 0xFFFFFFFFFFFF:012x}"
    head = f"{time[:8]}-{time[8:]}-7"
    chance = os.urandom(10 * n).hex()
    return [
        f"{head}{chance[i : i + 3]}-{_VARIANT[chance[i + 3]]}{chance[i + 4 : i + 7]}-{chance[i + 7 : i + 19]}"
        for i in range(0, 20 * n, 20)
    ]
