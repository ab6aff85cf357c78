"""API keys: made once, kept as hashes, checked in constant time.

A key reads ``stepin_<id>_<secret>`` and is sent as ``Authorization: Bearer``. The secret is 32 random bytes.
The database keeps their SHA-256 only. A slow hash with a salt protects passwords, because people choose
guessable ones; nobody guesses 256 random bits, however fast the hash is, so a fast one is enough, and costs a
request half a microsecond.

Scopes: ``read`` (the model, its documentation, known deals, lists, metrics), ``score`` (advice on facts that
the caller brings), ``record`` (outcomes, overrides, events), ``admin`` (all of these). `serving.routes` says
which route needs which.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, Row, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from features.problems import UserError
from serving.journal.tables import api_keys
from serving.problems import KeyNeeded

SCOPES = ("read", "score", "record", "admin")
PREFIX = b"stepin_"
BEARER = b"bearer "
ANONYMOUS = "anonymous"
REFRESH_SECONDS = 3.0
"""A key that was made or revoked elsewhere is known to every worker this much later (twice it at most)."""
USE_NOTED_SECONDS = 60.0
LONGEST_TOKEN = 200
LONGEST_NAME = 100
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Key:
    """A live key."""

    key_id: str
    scopes: frozenset[str]
    secret_hash: bytes

    def may(self, scope: str) -> bool:
        """Was it made for this scope?"""
        return scope in self.scopes or "admin" in self.scopes


# Making, listing and revoking


def create(engine: Engine, name: str, scopes: Iterable[str], now: datetime) -> str:
    """Store a new key and return it: nobody, the database included, can show it again.

    Raises
    ------
    UserError
        No name, or no scope that there is.
    """
    name, asked = name.strip(), set(scopes)
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError(f"A key's name should be a text of 1 to {LONGEST_NAME} characters: who will use it.")
    if not asked or asked - set(SCOPES):
        raise UserError(f"A key needs one or more of the scopes {', '.join(SCOPES)}.")
    key_id, secret = secrets.token_hex(5), secrets.token_urlsafe(32)
    row = {
        "key_id": key_id,
        "name": name,
        "secret_hash": hashlib.sha256(secret.encode()).hexdigest(),
        "scopes": " ".join(scope for scope in SCOPES if scope in asked),
        "created_at": now,
    }
    with engine.begin() as connection:
        connection.execute(insert(api_keys), row)
    return f"{PREFIX.decode()}{key_id}_{secret}"


def listed(engine: Engine) -> list[Row]:
    """Return every key ever made, the oldest first, without what its secret could be found from."""
    shown = [column for column in api_keys.c if column.name != "secret_hash"]
    with engine.connect() as connection:
        return list(connection.execute(select(*shown).order_by(api_keys.c.created_at, api_keys.c.key_id)))


def revoke(engine: Engine, key_id: str, now: datetime) -> None:
    """Let a key be no longer live; raises UserError where none with this id is."""
    live = (api_keys.c.key_id == key_id) & api_keys.c.revoked_at.is_(None)
    with engine.begin() as connection:
        done = connection.execute(update(api_keys).where(live).values(revoked_at=now))
    if not done.rowcount:
        raise UserError("No live key has this id. stepin key list shows them.")


# Checking


class Keys:
    """The live keys, as one worker knows them.

    They are held in memory and read again every few seconds, in a thread, while requests come. After a
    pause the first request waits for that, so that a revoked key never opens a door that stood idle. While
    the database cannot be read, what was known stays valid.

    Parameters
    ----------
    engine : the journal's database
    required : is a key needed at all?
    clock : seconds that only go forward
    """

    def __init__(
        self,
        engine: Engine,
        required: bool,
        refresh_seconds: float = REFRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine, self.required = engine, required
        self.refresh_seconds, self._clock = refresh_seconds, clock
        self._live: Mapping[bytes, Key] = {}
        self._read_at = -1e9
        self._reading: asyncio.Task[None] | None = None
        self._used: set[str] = set()
        self._use_noted_at = clock()

    def load(self) -> None:
        """Read the live keys now; raises SQLAlchemyError."""
        live = select(api_keys.c.key_id, api_keys.c.scopes, api_keys.c.secret_hash)
        with self.engine.connect() as connection:
            rows = list(connection.execute(live.where(api_keys.c.revoked_at.is_(None))))
        keys = (
            Key(row.key_id, frozenset(row.scopes.split()), bytes.fromhex(row.secret_hash)) for row in rows
        )
        self._live = {key.key_id.encode(): key for key in keys}
        self._read_at = self._clock()

    def has_live_key(self) -> bool:
        """Could anybody enter?"""
        return bool(self._live)

    def check(self, authorization: bytes | None) -> Key | None:
        """Return the key that was sent; None where none is needed and no key of ours was sent.

        A key that is sent must be live even where none is needed: its sender expects it to count.

        Raises
        ------
        KeyNeeded
            None was sent, or one that was never made, is revoked, or has another secret.
        """
        sent = authorization or b""
        token = sent[len(BEARER) :].strip() if sent[: len(BEARER)].lower() == BEARER else b""
        if not token.startswith(PREFIX) or len(token) > LONGEST_TOKEN:
            if self.required:
                raise KeyNeeded
            return None
        key_id, _, secret = token[len(PREFIX) :].partition(b"_")
        key = self._live.get(key_id)
        # The hash is compared for an unknown id too: time does not tell which ids there are.
        known = _NO_HASH if key is None else key.secret_hash
        if not hmac.compare_digest(hashlib.sha256(secret).digest(), known) or key is None:
            raise KeyNeeded
        self._used.add(key.key_id)
        return key

    async def keep_fresh(self) -> None:
        """Read the keys again if it is time to; only after a pause is that waited for."""
        age = self._clock() - self._read_at
        if age < self.refresh_seconds:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_again())
        if age > 2 * self.refresh_seconds:
            await asyncio.wait((self._reading,), timeout=1.0)

    async def _read_again(self) -> None:
        try:
            await asyncio.to_thread(self.load)
            if self._clock() - self._use_noted_at > USE_NOTED_SECONDS:
                used, self._used = self._used, set()
                self._use_noted_at = self._clock()
                await asyncio.to_thread(self._note_use, used)
        except SQLAlchemyError:  # the journal tells of a lost database; keys stay as they were
            self._read_at = self._clock()

    def _note_use(self, key_ids: set[str]) -> None:
        with self.engine.begin() as connection:
            for key_id in sorted(key_ids):
                row = update(api_keys).where(api_keys.c.key_id == key_id)
                connection.execute(row.values(last_used_at=datetime.now(UTC)))


# Where a key is needed


def is_loopback(host: str) -> bool:
    """Do only processes of this machine reach a server at this address?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None) if host else []
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)


def are_needed(keys_required: bool, host: str) -> bool:
    """Must a request bring a key: because the setting says so, or because others reach this address?"""
    return keys_required or not is_loopback(host)


def refuse_open_door(keys: Keys, host: str) -> None:
    """Refuse to serve where keys are needed and nobody has one.

    Raises
    ------
    UserError
        It names the command that makes a key.
    """
    if not keys.required or keys.has_live_key():
        return
    if is_loopback(host):
        why, other = "STEPIN_KEYS_REQUIRED is set", "leave the setting out"
    else:
        why, other = f"others reach the server at {host}", "serve at 127.0.0.1"
    raise UserError(
        f"An API key is needed, for {why}, but there is none yet. "
        f"Make one with stepin key create NAME --scope score, or {other}."
    )
