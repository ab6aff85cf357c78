"""What was advised, what was decided, what happened: SQLite, or PostgreSQL.

Names are loaded when first asked for, so that ``serving.journal.tables`` costs no web framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.journal.store import Journal as Journal
    from serving.journal.store import Stored as Stored

_HOMES = {"Journal": "serving.journal.store", "Stored": "serving.journal.store"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'serving.journal' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
