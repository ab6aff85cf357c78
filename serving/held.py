"""A model ready to answer, with the one in its shadow: what a request uses from start to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from features.problems import UserError
from serving.model import ServedModel, load
from serving.reading import DealAsked, Reader, Value
from serving.recommend import Answered, Recommender
from serving.settings import Settings
from training.scorecard import BadValue

SERVED, SHADOW = "served", "shadow"


@dataclass(frozen=True)
class Held:
    """A model ready to answer, with the one in its shadow: what one request uses from start to end."""

    model: ServedModel
    recommender: Recommender
    reader: Reader
    names: frozenset[str]
    shadow: Held | None = None
    on_shadow_failure: Callable[[Held, Exception], None] = field(
        default=lambda _held, _error: None, repr=False
    )

    def answer(
        self, asked: DealAsked, now: datetime, all_reasons: bool = False, **more: Any
    ) -> tuple[Answered, Answered | None]:
        """Answer one deal, and score it in the shadow; None where there is no shadow, or it failed.

        Parameters
        ----------
        asked : a deal read by this holder's own `reader`
        now, all_reasons, more : as `Recommender.answer` takes them
        """
        served = self.recommender.answer(asked, now, all_reasons, **more)
        shadows = self._in_shadow([asked], [served], now)
        return served, shadows[0] if shadows else None

    def answer_many(
        self, asked: Sequence[DealAsked], now: datetime, all_reasons: bool = False, **more: Any
    ) -> tuple[list[Answered], list[Answered]]:
        """Like `answer` for many: the answers, and those in shadow, as many or fewer, joined by their ids."""
        served = self.recommender.answer_many(asked, now, all_reasons, **more)
        return served, self._in_shadow(asked, served, now)

    def _in_shadow(
        self, asked: Sequence[DealAsked], served: Sequence[Answered], now: datetime
    ) -> list[Answered]:
        """Whatever goes wrong here is counted, and the served answers leave as they are."""
        shadow = self.shadow
        if shadow is None:
            return []
        answers = []
        try:
            read = [
                (own, given) for deal, given in zip(asked, served, strict=True) if (own := self._own(deal))
            ]
            if len(read) == 1:  # one deal is answered by a quicker way than many
                answers = [shadow.recommender.answer(read[0][0], now)]
            elif read:
                answers = shadow.recommender.answer_many([own for own, _ in read], now)
            return [_beside(answer, given) for answer, (_, given) in zip(answers, read, strict=True)]
        except Exception as error:
            self.on_shadow_failure(shadow, error)
            return []

    def _own(self, asked: DealAsked) -> DealAsked | None:
        """The deal with what the shadow knows of; None where the same name means another kind there."""
        shadow = self.shadow
        assert shadow is not None
        own = {name: value for name, value in asked.features.items() if name in shadow.names}
        try:
            shadow.model.scorecard.check_values(own)
        except BadValue as bad:
            self.on_shadow_failure(shadow, bad)
            return None
        return replace(asked, features=own)


def _beside(answer: Answered, served: Answered) -> Answered:
    """An answer in shadow bears the id of the one that was given: the journal joins them by it."""
    record = {**answer.record, "recommendation_id": served.recommendation_id, "role": SHADOW}
    return replace(answer, recommendation_id=served.recommendation_id, record=record)


def prepare(settings: Settings, digest: str | None = None) -> Held:
    """Verify, read and try a model, so that what is swapped in does answer.

    Parameters
    ----------
    settings : its folder and name, and what overrides its policy
    digest : what the folder should have; None for whatever its manifest says

    Raises
    ------
    UserError
        The model cannot be served: see `serving.model.load`; or it is another one, or cannot answer.
    """
    model = load(settings)
    if digest not in (None, model.digest):
        raise UserError(
            f"{settings.model} holds another model than the one that was announced; its digest differs."
        )
    names = frozenset(spec.name for spec in model.scorecard.features)
    held = Held(model, Recommender.of(model), model.reader, names)
    for features in ({}, _usual(model)):
        _try(held, DealAsked("trial", features, None))
    return held


def _usual(model: ServedModel) -> dict[str, Value]:
    """A deal in the middle of what the model saw."""
    usual: dict[str, Value] = {}
    for spec in model.scorecard.features:
        if spec.kind == "number":
            usual[spec.name] = float(spec.knots[len(spec.knots) // 2])
        elif spec.kind == "boolean":
            usual[spec.name] = True
        elif spec.levels:
            usual[spec.name] = spec.levels[0]
    return usual


def _try(held: Held, asked: DealAsked) -> None:
    try:
        answered, _ = held.answer(asked, datetime.now(UTC))
        answer = orjson.loads(answered.body)
        sums_up = math.isfinite(answer["uplift_points"])
    except Exception as error:
        raise UserError(
            f"The model in {held.model.folder} cannot answer ({type(error).__name__} on a trial deal). "
            "Train it again."
        ) from error
    if not sums_up:
        raise UserError(f"The model in {held.model.folder} answers without a number. Train it again.")
