"""The path of one request: deal -> scorecard -> policy -> words. No input or output, no state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any

import numpy as np

from serving.answer_body import Answered as Answered
from serving.answer_body import AnswerWriter, Reasons, Said, new_ids, utc_text
from serving.batch_answers import Judged, names_of, shown
from serving.model import STAGE, ServedModel
from serving.phrases import Phrases
from serving.reading import DealAsked, Value
from training.batch_scorer import BatchScorer
from training.policy import Z_90, Decided
from training.row_scorer import RowScorer, Scored, There
from training.stacked import Stacked

REASONS_EACH_WAY = 5
LEAST_AMOUNT, MOST_AMOUNT = 0.01, 1e15
ROWS_AT_ONCE = 1000


class Recommender:
    """Answers for one model; what is the same for every deal is made once, and never changes.

    One deal is scored from lists, many in matrix products; both say the same, to rounding.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model, self._policy, self._stages = model, model.policy, model.stage_order
        self._position = {stage: i for i, stage in enumerate(self._stages)}
        stacked, moving = Stacked.of(model.scorecard), STAGE if self._stages else None
        self._rows = RowScorer(stacked, moving)
        self._batches = BatchScorer(stacked, moving, self._stages)
        self._phrases = Phrases(model.wording, model.scorecard)
        self._writer = AnswerWriter(model)
        self._amount = str(model.facts.get("amount_feature"))
        self._names = [feature.name for feature in model.scorecard.features]

    @classmethod
    def of(cls, model: ServedModel) -> Recommender:
        """Prepare the answers of `model`."""
        return cls(model)

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
        values, policy = asked.features, self._policy
        stages = self._stages_from(values.get(STAGE))
        row = self._rows.score(values, stages[1:])
        amount = _amount(values.get(self._amount))
        scored = [There(row.here.uplift, row.here.sd, row.here.supported), *row.elsewhere]
        decided = [policy.decide(each.uplift, each.sd, amount, each.supported) for each in scored]
        plays = list(map(self._play, stages, scored, decided))
        terms, points, other = _shown(row.terms, all_reasons)
        reasons = Reasons(self._phrases.reasons(terms, points, values), other)
        said, (own_id,) = _said(row.here, decided[0]), new_ids(1, now)
        return self._writer.write(
            asked, now, utc_text(now), own_id, said, reasons, plays, row.missing, row.unseen, extra
        )

    def answer_many(
        self, asked: Sequence[DealAsked], now: datetime, all_reasons: bool = False
    ) -> list[Answered]:
        """Advise on some deals; each answer is the same as if it were asked for alone: see `answer`."""
        chunks = (asked[start : start + ROWS_AT_ONCE] for start in range(0, len(asked), ROWS_AT_ONCE))
        return [answered for chunk in chunks for answered in self._answer_chunk(chunk, now, all_reasons)]

    def _answer_chunk(
        self, asked: Sequence[DealAsked], now: datetime, all_reasons: bool
    ) -> Iterator[Answered]:
        values = [deal.features for deal in asked]
        scores = self._batches.score(values)
        judged = Judged(scores, np.array([_amount(each.get(self._amount)) for each in values]), self._policy)
        stages = [self._stages_from(each.get(STAGE)) for each in values]
        first = [1 + self._position.get(each[0], -1) if each else 0 for each in stages]
        reasons = (
            Reasons(self._phrases.reasons(terms, points, own), other)
            for own, (terms, points, other) in zip(
                values, shown(scores.terms, None if all_reasons else REASONS_EACH_WAY), strict=True
            )
        )
        return map(
            self._writer.write,
            asked,
            repeat(now),
            repeat(utc_text(now)),
            new_ids(len(asked), now),
            judged.said(),
            reasons,
            judged.plays(stages, first),
            names_of(scores.missing, self._names),
            names_of(scores.unseen, self._names),
        )

    def _stages_from(self, stage: Value) -> Sequence[str]:
        """The deal's stage and those after it; none where the stage is not known."""
        if not self._stages or not isinstance(stage, str):
            return ()
        position = self._position.get(stage)
        return (stage,) if position is None else self._stages[position:]

    def _play(self, stage: str, scored: There, decided: Decided) -> dict[str, Any]:
        low = scored.uplift - Z_90 * scored.sd
        lead = self._policy.lead(decided.advice, low, decided.break_even)
        return {"stage": stage, "lead": lead, "uplift_points": 100 * scored.uplift}


def _said(scored: Scored, decided: Decided) -> Said:
    uplift, sd, step_back, step_in, propensity, supported, similar = scored
    return Said(
        decided.advice,
        decided.default_action_applied,
        decided.score,
        uplift,
        uplift - Z_90 * sd,
        uplift + Z_90 * sd,
        decided.break_even,
        step_back,
        step_in,
        propensity,
        similar,
        supported,
        decided.expected_value,
    )


def _shown(terms: list[float], all_reasons: bool) -> tuple[list[int], list[float], float]:
    """Like `batch_answers.shown`, of one deal."""
    downwards = sorted(range(len(terms)), key=terms.__getitem__, reverse=True)
    most = len(terms) if all_reasons else REASONS_EACH_WAY
    helping = [i for i in downwards[:most] if terms[i] > 0]
    hurting = [i for i in downwards[-most:] if terms[i] < 0]
    others = downwards[len(helping) : len(downwards) - len(hurting)]
    listed = sorted(helping + hurting, key=lambda i: -abs(terms[i]))
    return listed, [100 * terms[i] for i in listed], 100 * math.fsum([terms[i] for i in others])


def _amount(value: Value) -> float:
    """The deal's amount in its currency; NaN where there is none, or none that a deal can have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if LEAST_AMOUNT <= value <= MOST_AMOUNT else math.nan
