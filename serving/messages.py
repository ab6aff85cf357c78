"""What goes out, as the documentation tells it. `recommend` builds it; the tests hold the two together."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Reason(BaseModel):
    """One term of the model, and what it contributes to this deal's uplift."""

    feature: str = Field(description="A feature, or two that work together: `a × b`.")
    value: float | bool | str | dict[str, float | bool | str | None] | None = Field(
        description="The deal's own value, null where not recorded; for two features an object with both."
    )
    points: float = Field(description="Percentage points, compared with the average decision.")
    sentence: str = Field(description="The same for people.")


class WinProbability(BaseModel):
    """What the model expects either way; they differ by the uplift."""

    step_back: float = Field(ge=0, le=1)
    step_in: float = Field(ge=0, le=1)


class ExpectedValue(BaseModel):
    """Money gained by stepping in rather than back, after what it costs."""

    amount: float
    currency: str | None


class Evidence(BaseModel):
    """How far to trust the answer."""

    seen_both_ways: bool = Field(description="Did the vendor both step in and step back on deals like this?")
    chance_vendor_steps_in: float = Field(ge=0, le=1, description="As things usually go.")
    similar_decisions: int = Field(description="Past decisions like this one that the model learned from.")
    hidden_factor_to_flip: float | None = Field(
        description="How strong an unrecorded factor would have to be to turn the advice; null if unknown."
    )


class PlaybookStage(BaseModel):
    """Who should lead this deal at a stage."""

    stage: str
    lead: Literal["partner", "vendor", "joint"]
    uplift_points: float


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str | None
    digest: str
    trained_at: str | None


class ShadowPrice(BaseModel):
    """What one more hour of the vendor's would earn."""

    amount_per_hour: float
    currency: str | None


class Recommendation(BaseModel):
    """Step in or step back: the advice on one deal, and why.

    `baseline_points` + the sum of the reasons' points + `other_points` = `uplift_points`.
    """

    recommendation_id: str
    deal_id: str
    as_of: str
    stage: str | None
    advice: Literal["step_in", "step_back", "too_close_to_call", "not_enough_evidence"]
    default_action_applied: bool = Field(description="The model does not decide, so: step back.")
    score: float | None = Field(
        ge=0,
        le=100,
        description="Percent probability that stepping in gains more than it costs; null where not seen.",
    )
    uplift_points: float = Field(description="Percentage points of win probability that stepping in adds.")
    uplift_interval_points: tuple[float, float] = Field(description="90% interval.")
    break_even_points: float
    win_probability: WinProbability
    expected_value: ExpectedValue | None
    baseline_points: float = Field(description="The uplift of the average decision.")
    reasons: list[Reason] = Field(description="Largest first; the five largest each way, or all if asked.")
    other_points: float = Field(description="What the terms that are not listed contribute together.")
    evidence: Evidence
    playbook: list[PlaybookStage] = Field(description="This stage and the later ones.")
    missing: list[str] = Field(description="Features that were not given.")
    unseen: list[str] = Field(
        description="Features with a value that the model never saw, or too seldom to learn."
    )
    model: ModelName
    shadow_price: ShadowPrice | None = Field(
        default=None, description="What an hour must earn now, where the vendor's hours are limited."
    )


class Recommendations(BaseModel):
    """Advice on many deals, in the order in which they were asked about."""

    recommendations: list[Recommendation]


class ModelFeature(BaseModel):
    """A fact that the model can use."""

    name: str
    kind: Literal["number", "boolean", "category"]
    group: str | None
    unit: str
    label: str
    meaning: str
    levels: list[str] | None = Field(description="Texts seen while learning; null unless a category.")
    range: tuple[float, float] | None = Field(description="Lowest and highest seen; null unless a number.")


class ModelCard(BaseModel):
    """The model that answers: what it learned from, what it estimates, what it wants to know."""

    name: str
    version: str | None
    digest: str
    trained_at: str | None
    learned_from: dict[str, Any]
    estimand: str | None
    effect_differs: bool = Field(description="False: one average uplift for every deal.")
    average_uplift_points: float
    evaluation: dict[str, Any] = Field(description="What newer decisions showed.")
    doubts: dict[str, Any] = Field(description="What could be wrong even if every figure is right.")
    policy: dict[str, Any]
    stages: list[str]
    currency: str | None
    features: list[ModelFeature]
    report: str | None = Field(description="Where the report is served; null if the model has none.")


class Alive(BaseModel):
    """The server runs."""

    status: Literal["alive"]


class Capacity(BaseModel):
    """How far the vendor's hours go."""

    hours: float
    hours_per_deal: float
    deals: int = Field(description="Deals that the hours are enough for.")
    left_out: int = Field(description="Deals worth stepping in on that they are not enough for.")
    shadow_price: ShadowPrice | None


class DealList(BaseModel):
    """A page of open deals, each with its whole recommendation."""

    recommendations: list[Recommendation]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")
    total: int = Field(description="Deals on all pages.")
    capacity: Capacity | None


class EventTaken(BaseModel):
    """What became of one event."""

    event_id: str
    status: Literal["applied", "waits", "set_aside", "already", "differs", "recorded", "unknown"]
    detail: str | None


class EventsTaken(BaseModel):
    """What became of the events, in the order in which they were told."""

    applied: bool = Field(description="The next answer knows of them; if not yet, it soon will.")
    events: list[EventTaken]


class ServedTag(BaseModel):
    """Which model."""

    name: str
    version: str | None
    digest: str


class JournalState(BaseModel):
    """How the journal is doing in the worker that was asked."""

    mode: Literal["background", "strict", "off"]
    waiting: int = Field(description="Answers that wait for their commit.")
    oldest_seconds: float = Field(description="How long the oldest of them has waited.")


class Ready(BaseModel):
    """The server has a model and a journal, and answers."""

    status: Literal["ready"]
    model: ServedTag
    successor_refused: str | None = Field(description="Why a newer model is not in use; null where none is.")
    registry_lost: str | None = Field(description="Why the registry cannot be asked; null where it can.")
    shadow: ServedTag | None
    shadow_refused: str | None
    journal: JournalState


class Recorded(BaseModel):
    """What was told is kept: now, or since the first time that it was told."""

    status: Literal["recorded", "already"]
    outcome_id: str | None = None
    override_id: str | None = None
    received_at: datetime | None = None


class ProblemField(BaseModel):
    """A field to mend; the value sent is never repeated."""

    field: str
    expected: str


class ProblemDetails(BaseModel):
    """Why there is no answer, and what to mend (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemField]
