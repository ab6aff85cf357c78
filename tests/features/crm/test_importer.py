"""The importer: what becomes of an export, row by row."""

from pathlib import Path

import pytest

from features import read_tables
from features.crm import import_export

SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "salesforce_demo"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the Salesforce-shaped sample is not on this machine")
def test_the_real_sample_imports_as_it_is(tmp_path: Path) -> None:
    summary = import_export(SAMPLE, tmp_path / "crm")
    tables = read_tables(tmp_path / "crm")
    assert summary.crm == "salesforce"
    assert len(tables.deals) == 36
    assert set(tables.deals["partner_id"]) == {"(no partner on record)"}
    assert summary.rows_in == summary.rows_kept + summary.rows_refused + summary.rows_passed_over == 102
