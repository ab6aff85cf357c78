"""CRM tables in a database: read as a folder's are, refused in words that hold no password."""

import pytest
from pandas.testing import assert_frame_equal
from sqlalchemy import create_engine

from features import simulate
from features.problems import UserError
from features.schema import read_tables
from features.table_database import read_database
from features.tables import COLUMNS

FORM = "The CRM tables' database should be a URL such as postgresql+psycopg://user:password@host/name, "


def test_a_databases_tables_are_those_of_a_folder(tmp_path):
    simulate(120, seed=1).write(tmp_path / "crm")
    there = read_tables(tmp_path / "crm")
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = create_engine(url)
    for name in COLUMNS:
        getattr(there, name).to_sql(name, engine, index=False)
    engine.dispose()
    found = read_database(url)
    for name in COLUMNS:
        assert_frame_equal(getattr(found, name), getattr(there, name), check_dtype=False, check_like=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("crm://hunter2", FORM),
        ("postgresql+psycopg://u:x#y@host:hunter2/crm", FORM),
        ("postgresql+psycopg://u:hunter2@127.0.0.1:1/crm", "The CRM tables cannot be read from their data"),
        ("sqlite://", "The database lacks deals, stage_entries, "),
    ],
)
def test_a_database_that_cannot_be_is_refused_without_its_password(url, said):
    with pytest.raises(UserError) as refused:
        read_database(url)
    assert str(refused.value).startswith(said)
    assert "hunter2" not in str(refused.value)
