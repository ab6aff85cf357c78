"""What was known about a deal, and when: tables, decisions, features as of a moment.

Names are loaded when first asked for, so that ``features.catalog`` costs no pandas.
"""

from importlib import import_module

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
