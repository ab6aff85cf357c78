"""What was known about a deal, and when: tables, decisions, features as of a moment.

Names are loaded when first asked for, so that ``features.catalog`` costs no pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.build import build_features as build_features
    from features.decisions import DecisionTable as DecisionTable
    from features.decisions import build_decisions as build_decisions
    from features.decisions import open_decisions as open_decisions
    from features.flat import read_flat as read_flat
    from features.problems import UserError as UserError
    from features.schema import Tables as Tables
    from features.schema import read_tables as read_tables
    from features.simulator import simulate as simulate

_HOMES = {
    "DecisionTable": "features.decisions",
    "Tables": "features.schema",
    "UserError": "features.problems",
    "build_decisions": "features.decisions",
    "build_features": "features.build",
    "open_decisions": "features.decisions",
    "read_flat": "features.flat",
    "read_tables": "features.schema",
    "simulate": "features.simulator",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'features' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
