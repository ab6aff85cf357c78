"""The report's section "How far to trust it": the doubts in the words of a sales lead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from features import catalog
from training.doubt import ASSUMPTIONS
from training.verdict import amount

_MOST_MISSING = 10


def view(facts: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    """What ``report_doubts.html.j2`` shows.

    Parameters
    ----------
    facts : what is known about the model, with the key ``doubts`` as `training.doubt.doubts` returns it
    outcome : ``binary`` or ``numeric``
    """
    doubts = facts.get("doubts") or {}
    overlap = doubts.get("overlap") or {}
    missing = list((doubts.get("missing") or {}).items())[:_MOST_MISSING]
    erase, per_unit = doubts.get("strength_to_erase"), doubts.get("bias_per_unit_strength")
    return {
        "doubts": {
            "outside": overlap.get("share_outside"),
            "rules": overlap.get("rules") or [],
            "missing": [(_label(facts, name), share) for name, share in missing],
            "clipped": doubts.get("clipped_share"),
            "measure": _label(facts, doubts.get("measure") or ""),
            "erase": None if erase is None else f"{erase:.1f}",
            "per_unit": None if per_unit is None else _size(per_unit, outcome).removeprefix("+"),
        },
        "assumptions": ASSUMPTIONS,
    }


def _label(facts: Mapping[str, Any], name: str) -> str:
    """What the catalog calls a feature of CRM tables; a column of one's own keeps its name."""
    return catalog.feature(name).label if facts.get("source_kind") == "crm" else name


def _size(value: float, outcome: str) -> str:
    return amount(value, outcome) if math.isfinite(value) else "not known"
