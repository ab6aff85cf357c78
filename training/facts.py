"""What is known about a trained model, as plain values: ``facts.json``, ``GET /v1/model`` and the report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from features.catalog import feature as words_of
from features.decisions import DecisionTable
from training.claims import ever_against_never
from training.config import TrainingConfig
from training.evaluate import Evaluation
from training.policy import Policy
from training.scorecard import Scorecard
from training.sequence import Judged, answered


def describe(
    decisions: DecisionTable,
    parts: Sequence[Judged],
    fewer_blocks: bool,
    card: Scorecard,
    evaluation: Evaluation,
    doubts: dict[str, Any],
    policy: Policy,
    config: TrainingConfig,
    name: str,
    now: datetime,
) -> dict[str, Any]:
    """What is known about the model, JSON-able: ``facts.json``, ``GET /v1/model`` and the report."""
    about = decisions.about
    ever = ever_against_never(about)
    return {
        "name": name,
        "version": None,
        "trained_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "question": about["question"],
        "against": about.get("against", "wait") if about["kind"] == "crm" else None,
        "protocol": [list(part) for part in about.get("protocol") or []],
        "source_kind": about["kind"],
        "outcome": about["outcome"],
        "outcome_unit": about.get("outcome_unit"),
        "currency": about.get("currency"),
        "amount_feature": about.get("amount_feature"),
        "stage_order": about.get("stage_order") or [],
        "learned_from": {
            **_extent(decisions),
            "held_out": _judged_extent(decisions, parts, fewer_blocks),
            "data_digest": decisions.digest(),
            "flow": about.get("flow", []),
            "left_out_columns": about.get("left_out_columns", []),
            "final_values": about.get("final_values") or [],
            "audit": about.get("audit") or [],
            "coordination": about.get("coordination"),
            "closed_deals": ever[1] if ever else None,
        },
        "features": [_in_words(feature.name, feature.kind, about["kind"]) for feature in card.features],
        "evaluation": evaluation.to_dict(),
        "doubts": doubts,
        "bias_per_unit_strength": doubts.get("bias_per_unit_strength"),
        "policy": policy.to_dict(),
        "settings": config.to_dict(),
    }


def _judged_extent(decisions: DecisionTable, parts: Sequence[Judged], fewer_blocks: bool) -> dict[str, Any]:
    """What the recipe was judged on: in all, and block by block."""
    blocks = []
    for part in parts:
        extent = _extent(decisions.take(part.rows))
        blocks.append(
            {"block": part.block, "learned_from": part.learned}
            | {key: extent[key] for key in ("decisions", "from", "to")}
        )
    return {
        **_extent(decisions.take(answered(parts))),
        "by_time": bool(decisions.rows["decided_at"].notna().all()),
        "fewer_blocks_than_asked": fewer_blocks,
        "blocks": blocks,
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
