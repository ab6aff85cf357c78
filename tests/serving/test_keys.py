"""Keys: what is kept, what is checked, who is let in, and where nobody may be."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from features.problems import UserError
from serving import keys
from serving.journal.database import read_url
from serving.journal.migrate import migrate
from serving.journal.tables import api_keys
from serving.keys import Keys, are_needed, is_loopback, refuse_open_door
from serving.problems import KeyNeeded

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path):
    database = read_url(f"sqlite:///{tmp_path / 'stepin.db'}")
    migrate(database)
    engine = database.engine()
    yield engine
    engine.dispose()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def bearer(key):
    return f"Bearer {key}".encode()


def refused(known, authorization):
    try:
        known.check(authorization)
    except KeyNeeded:
        return True
    return False


def test_the_database_keeps_a_hash_of_the_secret_and_no_more(engine):
    made = keys.create(engine, " CRM ", ["score", "read", "score"], NOW)
    with engine.connect() as connection:
        (row,) = connection.execute(select(api_keys))
    _, key_id, secret = made.split("_", 2)
    assert len(secret) >= 43  # 32 random bytes
    assert row._asdict() == {
        "key_id": key_id,
        "name": "CRM",
        "secret_hash": hashlib.sha256(secret.encode()).hexdigest(),
        "scopes": "read score",
        "created_at": NOW,
        "revoked_at": None,
        "last_used_at": None,
    }


def test_no_two_keys_are_alike(engine):
    made = [keys.create(engine, "CRM", ["read"], NOW) for _ in range(20)]
    assert len({key.split("_", 2)[2] for key in made}) == len({key.split("_")[1] for key in made}) == 20


def test_only_the_very_key_is_let_in(engine):
    first, second = (keys.create(engine, name, ["score"], NOW) for name in ("one", "two"))
    known = Keys(engine, required=True)
    known.load()
    assert known.check(bearer(first)).key_id == first.split("_")[1]
    assert known.check(b"BEARER  " + first.encode()).may("score")
    id_of, secret_of = (lambda key: key.split("_")[1]), (lambda key: key.split("_", 2)[2])
    false = [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        first.encode(),
        b"Basic " + first.encode(),
        bearer(first[:-1]),
        bearer(first + "x"),
        bearer(f"stepin_{id_of(first)}_{secret_of(second)}"),
        bearer(f"stepin_{id_of(first)}_"),
        bearer(f"stepin_{id_of(first)}"),
        bearer(f"stepin_nobody_{secret_of(first)}"),
        bearer(f"stepin__{'0' * 64}"),
        bearer(first * 10),
        b"Bearer stepin_\xff_\xff",
    ]
    assert [each for each in false if not refused(known, each)] == []


def test_where_none_is_needed_a_false_one_is_refused_all_the_same(engine):
    known = Keys(engine, required=False)
    known.load()
    assert known.check(None) is None
    assert known.check(b"Bearer of another service") is None
    assert refused(known, b"Bearer stepin_a_b")


def test_admin_may_all_and_others_what_they_were_made_for(engine):
    known = Keys(engine, required=True)
    made = {scope: keys.create(engine, scope, [scope], NOW) for scope in keys.SCOPES}
    known.load()
    may = {
        scope: [each for each in keys.SCOPES if known.check(bearer(key)).may(each)]
        for scope, key in made.items()
    }
    assert may == {"read": ["read"], "score": ["score"], "record": ["record"], "admin": list(keys.SCOPES)}


@pytest.mark.parametrize(
    ("name", "scopes", "sentence"),
    [
        ("", ["read"], "A key's name should be a text of 1 to 100 characters: who will use it."),
        ("x" * 101, ["read"], "A key's name should be a text of 1 to 100 characters: who will use it."),
        ("a\nb", ["read"], "A key's name should be a text of 1 to 100 characters: who will use it."),
        ("CRM", [], "A key needs one or more of the scopes read, score, record, admin."),
        ("CRM", ["write"], "A key needs one or more of the scopes read, score, record, admin."),
    ],
)
def test_a_key_that_says_nothing_is_not_made(engine, name, scopes, sentence):
    with pytest.raises(UserError) as told:
        keys.create(engine, name, scopes, NOW)
    assert str(told.value) == sentence


# What changes elsewhere


def test_a_key_made_or_revoked_elsewhere_counts_a_moment_later(engine):
    async def go():
        clock = Clock()
        known = Keys(engine, True, clock=clock)
        first = keys.create(engine, "one", ["read"], NOW)
        await known.keep_fresh()
        assert not refused(known, bearer(first))
        second = keys.create(engine, "two", ["read"], NOW)
        keys.revoke(engine, first.split("_")[1], NOW)
        clock.now += keys.REFRESH_SECONDS - 0.1
        await known.keep_fresh()
        before = refused(known, bearer(first)), refused(known, bearer(second))
        clock.now += 0.2
        await known.keep_fresh()
        await known._reading
        return before, (refused(known, bearer(first)), refused(known, bearer(second)))

    assert asyncio.run(go()) == ((False, True), (True, False))


def test_after_a_pause_a_revoked_key_does_not_pass_even_once(engine):
    async def go():
        clock = Clock()
        known = Keys(engine, True, clock=clock)
        made = keys.create(engine, "one", ["read"], NOW)
        await known.keep_fresh()
        assert not refused(known, bearer(made))
        keys.revoke(engine, made.split("_")[1], NOW)
        clock.now += 3600
        await known.keep_fresh()
        return refused(known, bearer(made))

    assert asyncio.run(go())


def test_a_lost_database_leaves_the_keys_as_they_were(engine, tmp_path):
    async def go():
        clock = Clock()
        known = Keys(engine, True, clock=clock)
        made = keys.create(engine, "one", ["read"], NOW)
        await known.keep_fresh()
        engine.dispose()
        (tmp_path / "stepin.db").unlink()
        clock.now += 3600
        await known.keep_fresh()
        await known._reading
        return refused(known, bearer(made))

    assert not asyncio.run(go())


def test_use_is_noted_once_a_minute(engine):
    async def go():
        clock = Clock()
        known = Keys(engine, True, clock=clock)
        made = keys.create(engine, "one", ["read"], NOW)
        unused = keys.create(engine, "two", ["read"], NOW)
        await known.keep_fresh()
        known.check(bearer(made))
        clock.now += keys.USE_NOTED_SECONDS + 1
        await known.keep_fresh()
        await known._reading
        return {row.key_id: row.last_used_at for row in keys.listed(engine)}, made, unused

    noted, made, unused = asyncio.run(go())
    assert abs((datetime.now(UTC) - noted[made.split("_")[1]]).total_seconds()) < 60
    assert noted[unused.split("_")[1]] is None


def test_revoking_twice_is_told(engine):
    key_id = keys.create(engine, "one", ["read"], NOW).split("_")[1]
    keys.revoke(engine, key_id, NOW)
    with pytest.raises(UserError, match=r"^No live key has this id\. stepin key list shows them\.$"):
        keys.revoke(engine, key_id, NOW)


# Where nobody may be let in


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_only_this_machine_reaches_the_loopback(host):
    assert is_loopback(host)
    assert not are_needed(False, host)
    assert are_needed(True, host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "2001:db8::1", "no host", "\u2603" * 80]
)
def test_elsewhere_keys_are_needed_whatever_is_set(host):
    assert not is_loopback(host)
    assert are_needed(False, host)


def test_a_door_that_nobody_can_open_is_not_built(engine):
    known = Keys(engine, required=True)
    known.load()
    for host, why, other in (
        ("0.0.0.0", "others reach the server at 0.0.0.0", "serve at 127.0.0.1"),
        ("127.0.0.1", "STEPIN_KEYS_REQUIRED is set", "leave the setting out"),
    ):
        with pytest.raises(UserError) as told:
            refuse_open_door(known, host)
        assert str(told.value) == (
            f"An API key is needed, for {why}, but there is none yet. "
            f"Make one with stepin key create NAME --scope score, or {other}."
        )
    refuse_open_door(Keys(engine, required=False), "127.0.0.1")
    made = keys.create(engine, "CRM", ["score"], NOW)
    known.load()
    refuse_open_door(known, "0.0.0.0")
    keys.revoke(engine, made.split("_")[1], NOW)
    known.load()
    with pytest.raises(UserError):
        refuse_open_door(known, "0.0.0.0")


def test_the_time_of_a_check_does_not_tell_whether_an_id_exists(engine):
    """Both ways hash and compare: their times differ by noise, not by a hash (0.5 µs of some 2)."""
    made = keys.create(engine, "one", ["read"], NOW)
    known = Keys(engine, required=True)
    known.load()
    hashed = []
    sha256 = hashlib.sha256
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys.hashlib, "sha256", lambda text: hashed.append(text) or sha256(text))
        assert refused(known, bearer(made[:-3] + "abc"))
        assert refused(known, bearer(f"stepin_nobody_{made[-40:]}"))
    assert len(hashed) == 2


def test_a_check_costs_microseconds(engine):
    made = keys.create(engine, "one", ["read"], NOW)
    known = Keys(engine, required=True)
    known.load()
    authorization, best = bearer(made), 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            known.check(authorization)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 30e-6
