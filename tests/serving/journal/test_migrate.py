"""Opening: from nothing, again, many at once; and what is refused."""

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from journal_rows import query

from features.problems import UserError
from serving.journal.database import read_url
from serving.journal.migrate import NEWEST, SCRIPTS, VERSION_TABLE, check_newest, migrate

OPEN = """
import sys
from serving.journal.database import read_url
from serving.journal.migrate import migrate
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
migrate(read_url(sys.argv[1]))
print(*sorted(name for name in ("alembic", "pandas", "pyarrow", "fastapi") if name in sys.modules))
"""


def test_the_newest_version_is_the_last_script_and_versions_count_up() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions[0] == NEWEST
    assert revisions[::-1] == [f"{number:04}" for number in range(1, len(revisions) + 1)]


def test_many_that_start_at_once_find_one_journal(url: str) -> None:
    starting = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for each in starting:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in starting:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    ends = [each.communicate(timeout=60) for each in starting]
    assert [(each.returncode, errors) for each, (_, errors) in zip(starting, ends, strict=True)] == [
        (0, "")
    ] * 4
    # One made the tables, and the others, that waited for it, did not even load what makes them.
    assert sorted(out.strip() for out, _ in ends) == ["", "", "", "alembic"]
    assert query(url, f"SELECT version_num FROM {VERSION_TABLE}") == [(NEWEST,)]
    check_newest(read_url(url))


def test_a_database_of_a_later_version_is_refused_and_left_alone(url: str) -> None:
    database = read_url(url)
    migrate(database)
    engine = database.engine()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0902'")
    engine.dispose()
    said = (
        f"The journal in {re.escape(database.name)} has version 0902, and this stepin knows up to {NEWEST}: "
        "install the stepin that wrote it, or a later one."
    )
    for look in (migrate, check_newest):
        with pytest.raises(UserError, match=f"^{said}$"):
            look(database)
    assert query(url, f"SELECT version_num FROM {VERSION_TABLE}") == [("0902",)]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear customer, " * 100)
    said = f"{path} is no SQLite database: name a file that stepin made, or one that is not there."
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        migrate(read_url(f"sqlite:///{path}"))
    assert path.read_text() == "Dear customer, " * 100


def test_somebody_elses_tables_of_our_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "survey.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE answers (question TEXT)")
    connection.close()
    with pytest.raises(UserError, match="holds tables of somebody else with our names: name a database of"):
        migrate(read_url(f"sqlite:///{path}"))
    assert query(f"sqlite:///{path}", "SELECT name FROM sqlite_master") == [("answers",)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepin", "The database should be a URL such as sqlite:///stepin.db, or postgresql://"),
        ("sqlite://", "The database should be a file, without options: sqlite:///stepin.db"),
        ("sqlite:///:memory:", "The database should be a file, without options: sqlite:///stepin.db"),
        ("mysql://u:hunter2@host/db", "The database should be SQLite or PostgreSQL .* came mysql"),
        (
            "sqlite:////no/such/folder/j.db",
            r"The journal in /no/such/folder/j.db cannot be opened \(unable to",
        ),
        (
            "postgresql://u:hunter2@127.0.0.1:1/db",
            r"The journal in postgresql://u:\*\*\*@127.0.0.1:1/db cannot",
        ),
        (
            "postgresql://u:x@127.0.0.1:1/db?password=hunter2&sslpassword=hunter2",
            r"The journal in postgresql://u:\*\*\*@127.0.0.1:1/db cannot",
        ),
        ("postgresql://u:x@hunter2@host/db", "The database's URL has more than one @: write one within a"),
        ("postgresql://u:x#y@host:hunter2/db", "The database should be a URL such as sqlite:///stepin.db"),
    ],
)
def test_a_database_that_cannot_be_is_refused_without_its_password(text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}") as refused:
        migrate(read_url(text))
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_looking_makes_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(
        UserError, match=f"^There is no journal at {re.escape(str(path))}: name it with --data"
    ):
        check_newest(read_url(f"sqlite:///{path}"))
    assert not path.exists()
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(UserError, match="holds no journal: name another"):
        check_newest(read_url(f"sqlite:///{path}"))
