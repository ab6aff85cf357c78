"""The model folder as it is served: loaded once, as data, and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from features import catalog
from features.catalog import Feature
from features.problems import UserError
from serving.reading import Reader
from serving.settings import Settings, is_address
from serving.wording import Wording
from training import basis, model_folder
from training.policy import Policy
from training.scorecard import Scorecard

STAGE = "stage"
REPORT = "report.html"


@dataclass(frozen=True)
class ServedModel:
    """A scorecard with its facts, its policy and its words."""

    scorecard: Scorecard
    policy: Policy
    wording: Wording
    folder: Path
    digest: str
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def name_tag(self) -> dict[str, Any]:
        """Name, version, digest and date, as each answer bears them."""
        return {
            "name": str(self.facts.get("name") or self.folder.name),
            "version": _text(self.facts.get("version")),
            "digest": self.digest,
            "trained_at": _text(self.facts.get("trained_at")),
        }

    @property
    def stage_order(self) -> list[str]:
        """The stages in order; empty where the model does not know stages."""
        knows = any(spec.name == STAGE and spec.kind == "category" for spec in self.scorecard.features)
        return [str(stage) for stage in self.facts.get("stage_order") or []] if knows else []

    @property
    def is_from_crm(self) -> bool:
        """Whether it learned from CRM tables, so that CRM fields mean something to it."""
        return self.facts.get("source_kind") == "crm"

    @property
    def reader(self) -> Reader:
        """Reads requests for this model's features."""
        return Reader(self.scorecard.features, self.scorecard.check_values)

    def card(self) -> dict[str, Any]:
        """Return what GET /v1/model answers."""
        has_report = (self.folder / REPORT).is_file()
        return {
            **self.name_tag,
            "learned_from": self.facts.get("learned_from") or {},
            "estimand": _text(self.facts.get("question")),
            "effect_differs": bool(self.scorecard.heterogeneous),
            "average_uplift_points": 100 * float(self.scorecard.baseline[0]),
            "evaluation": self.facts.get("evaluation") or {},
            "doubts": self.facts.get("doubts") or {},
            "policy": self.policy.to_dict(),
            "stages": self.stage_order,
            "currency": self.wording.currency,
            "features": [_describe(spec, self.wording.words[spec.name]) for spec in self.scorecard.features],
            "report": "/v1/model/report" if has_report else None,
        }


def load(settings: Settings) -> ServedModel:
    """Verify the model folder and read it.

    Raises
    ------
    UserError
        Not a model folder, a damaged one, one of a later format, or one that learned a number rather than
        won and lost.
    """
    folder = settings.model
    if is_address(folder):
        raise UserError(
            f"The server process needs a model folder; came {folder}. "
            "Start the server with stepin serve, which looks it up."
        )
    manifest = model_folder.verify(folder)
    scorecard = Scorecard.read(folder)
    if scorecard.kind != "binary":
        raise UserError(
            f"The model in {folder} learned a numeric outcome, but the server answers in points of win "
            "probability. Use stepin score, or train on won and lost."
        )
    named = {"name": settings.model_name, "version": settings.model_version}
    facts = {**model_folder.read_facts(folder), **{key: text for key, text in named.items() if text}}
    policy = Policy.from_dict({**(facts.get("policy") or {}), **settings.policy_changes()})
    if policy.outcome != scorecard.kind:
        raise UserError(
            f"The policy of the model in {folder} is for a {policy.outcome} outcome, "
            "but the model learned won and lost. Train it again."
        )
    wording = Wording(_words(scorecard, facts), _text(facts.get("currency")))
    return ServedModel(scorecard, policy, wording, folder, manifest.digest, facts)


def _words(scorecard: Scorecard, facts: Mapping[str, Any]) -> dict[str, Feature]:
    """Words for each feature: the catalog's for CRM tables, the column's own name for a flat file."""
    is_flat = facts.get("source_kind") == "flat"
    words = {}
    for spec in scorecard.features:
        known = not is_flat or spec.name in (STAGE, "partner_id")
        words[spec.name] = catalog.feature(spec.name) if known else _plain(spec)
    amount = facts.get("amount_feature")
    if amount in words and words[amount].kind == "number":
        words[amount] = replace(words[amount], unit="currency")
    return words


def _plain(spec: basis.Feature) -> Feature:
    """A column of somebody's own file: its name, cleaned, and nothing that we do not know."""
    label = " ".join(spec.name.replace("_", " ").split()) or spec.name
    return Feature(
        name=spec.name,
        group="column",
        kind=cast(catalog.Kind, spec.kind),
        unit="",
        meaning=f"The column {label} of the file that the model learned from.",
        label=label[:1].upper() + label[1:],
    )


def _describe(spec: basis.Feature, word: Feature) -> dict[str, Any]:
    is_category, is_number = spec.kind == "category", spec.kind == "number"
    return {
        "name": spec.name,
        "kind": spec.kind,
        "group": word.group or None,
        "unit": word.unit,
        "label": word.label,
        "meaning": word.meaning,
        "levels": list(spec.levels) if is_category else None,
        "range": [float(spec.knots[0]), float(spec.knots[-1])] if is_number else None,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
