"""Exports of a CRM -> the CRM tables: a small engine, and one mapping a CRM as data (TOML)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.crm.imported import Imported as Imported
    from features.crm.importer import import_export as import_export
    from features.crm.mapping import bundled as bundled
    from features.crm.mapping import read_mapping as read_mapping

_HOMES = {
    "Imported": "features.crm.imported",
    "bundled": "features.crm.mapping",
    "import_export": "features.crm.importer",
    "read_mapping": "features.crm.mapping",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'features.crm' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
