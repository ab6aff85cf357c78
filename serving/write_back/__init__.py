"""Advice as an import file for a CRM: its own column names, the server's own answers and sentences."""

from serving.write_back.layout import CRMS, Layout
from serving.write_back.rows import write_rows

__all__ = ["CRMS", "Layout", "write_rows"]
