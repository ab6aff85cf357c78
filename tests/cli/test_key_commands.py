"""Keys are made, listed and revoked on the command line, and count where the server looks."""

import sqlalchemy
from command_line import done, one_document, run

from serving.journal.database import read_url
from serving.keys import Keys


def test_a_key_is_shown_once_and_kept_as_a_hash(here):
    made = done("key", "create", "CRM nightly", "--scope", "score", "--scope", "read").out.strip()
    listed = one_document(done("key", "list", "--json").out)["keys"]
    assert made.startswith("stepin_")
    (row,) = listed
    assert (row["name"], row["scopes"], row["revoked_at"]) == ("CRM nightly", "read score", None)
    assert made.split("_")[1] == row["key_id"]
    secret = made.split("_", 2)[2]
    assert secret not in done("key", "list").out
    stored = b"".join(file.read_bytes() for file in here.iterdir() if file.is_file())
    assert secret.encode() not in stored
    assert row["key_id"].encode() in stored


def test_a_revoked_key_opens_nothing(here):
    url = f"sqlite:///{here / 'other.db'}"
    made = one_document(done("key", "create", "CRM", "--scope", "admin", "--database", url, "--json").out)
    kept = done("key", "create", "desk", "--scope", "read", "--database", url).out.strip()
    key_id = made["key"].split("_")[1]
    assert done("key", "revoke", key_id, "--database", url).out == f"{key_id} is revoked.\n"
    engine = read_url(url).engine()
    keys = Keys(engine, required=True)
    keys.load()
    assert keys.check(f"Bearer {kept}".encode()).scopes == {"read"}
    assert set(keys._live) == {kept.split("_")[1].encode()}
    engine.dispose()
    assert f"{key_id}  " in done("key", "list", "--database", url).out
    assert "revoked 2" in done("key", "list", "--database", url).out


def test_the_database_is_the_one_that_the_server_is_told(here, monkeypatch):
    monkeypatch.setenv("STEPIN_DATABASE", f"sqlite:///{here / 'told.db'}")
    done("key", "create", "CRM", "--scope", "score")
    assert (here / "told.db").exists()
    assert not (here / "stepin.db").exists()


def test_mistakes_are_told_in_a_sentence(here):
    url = f"sqlite:///{here / 'keys.db'}"
    said = run("key", "list", "--database", url)
    assert (said.status, said.err) == (
        1,
        f"stepin: There is no journal at {here / 'keys.db'}: name it with --database or STEPIN_DATABASE.\n",
    )
    done("key", "create", "CRM", "--scope", "score", "--database", url)
    cases = {
        ("revoke", "abc"): "stepin: No live key has this id. stepin key list shows them.\n",
        ("create", " ", "--scope", "read"): (
            "stepin: A key's name should be a text of 1 to 100 characters: who will use it.\n"
        ),
    }
    for arguments, sentence in cases.items():
        said = run("key", *arguments, "--database", url)
        assert (said.status, said.err) == (1, sentence)
    assert run("key", "create", "CRM", "--database", url).status == 2
    assert run("key", "create", "CRM", "--scope", "all", "--database", url).status == 2


def test_a_list_without_keys_says_how_to_make_one(here):
    key = done("key", "create", "CRM", "--scope", "score").out.split("_")[1]
    engine = sqlalchemy.create_engine("sqlite:///stepin.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM api_keys")
    engine.dispose()
    assert done("key", "list").out == "No keys. Make one with stepin key create NAME --scope score.\n"
    assert run("key", "revoke", key).status == 1
