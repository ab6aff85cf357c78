"""The model that answers, and the one in its shadow: swapped between two requests, never during one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from features.problems import UserError
from serving.held import SERVED, SHADOW, Held, prepare
from serving.pointer import REGISTRY_LOST, SUCCESSOR_REFUSED, Pointer, stamp
from serving.reading import DealAsked
from serving.recommend import Answered
from serving.settings import Settings

__all__ = ["EVENTS", "Held", "ModelSlot", "OnEvent", "prepare"]

OnEvent = Callable[[str, str], None]
"""Takes a kind (`EVENTS`) and a sentence: for a log line and a counter."""
EVENTS = (
    "model_swapped",
    "successor_refused",
    "shadow_swapped",
    "shadow_refused",
    "shadow_failed",
    "registry_lost",
    "registry_back",
)
_MOST_UNTOLD = 100
LOOKS_PER_POLL = 4
"""A pointer is looked at more often than the registry is asked: a look is one stat."""


@dataclass
class _Side:
    """One followed address: the served model's or the shadow's."""

    role: str
    pointer: Path | None
    seen: tuple[int, int, int] | None = None
    refused: str | None = None
    """Why the newest choice is not in use; None where it is."""
    lost: str | None = None
    """Why the registry could not be asked; None where it could."""


class ModelSlot:
    """Holds the model that answers.

    ``current`` is one attribute: a request reads it once, and keeps what it read until it has answered. It
    is replaced as a whole, by `look`, so that no request meets half of a change.
    """

    def __init__(self, settings: Settings, held: Held, on_event: OnEvent | None) -> None:
        self.current = held
        self.shadow_failures = 0
        self._settings, self._on_event = settings, on_event
        self._untold: deque[tuple[str, str]] = deque(maxlen=_MOST_UNTOLD)
        self._served = _Side(SERVED, settings.model_pointer)
        self._shadow = _Side(SHADOW, settings.shadow_pointer)
        self._failed_digests: set[str] = set()

    @classmethod
    def open(cls, settings: Settings, on_event: OnEvent | None = None) -> ModelSlot:
        """Load the first model, and the shadow's if there is one.

        Without `on_event` what happens is kept for whoever calls `listen`: a model can be refused before
        anything else is opened.

        A process that starts later takes what the pointer names by then. A shadow that cannot be read is
        told as an event; it keeps nobody from starting.

        Raises
        ------
        UserError
            The model cannot be served.
        """
        seen = stamp(settings.model_pointer) if settings.model_pointer else None  # before it is read
        pointer = _read(settings.model_pointer)
        held = _first(settings, pointer)
        slot = cls(settings, held, on_event)
        slot.current = replace(held, on_shadow_failure=slot._count_failure)
        if pointer is not None and _is_of(held, pointer):
            slot._served.seen = seen  # else the next `look` tries again, and says why not
            slot._tell_trouble(slot._served, pointer)
        slot._open_shadow()
        return slot

    @property
    def shadow(self) -> Held | None:
        """The model in shadow, if any."""
        return self.current.shadow

    def answer(
        self, asked: DealAsked, now: datetime, all_reasons: bool = False, **more: Any
    ) -> tuple[Answered, Answered | None]:
        """Answer from the model of this moment; see `Held.answer`.

        Where something is awaited between reading a request and answering it, take ``current`` once and use
        its `reader` and `answer`: the next model may have other features.
        """
        return self.current.answer(asked, now, all_reasons, **more)

    def state(self) -> dict[str, Any]:
        """What readiness tells: the models in use, and why a newer one is not."""
        shadow = self.current.shadow
        return {
            "model": _tag(self.current),
            "successor_refused": self._served.refused,
            "registry_lost": self._served.lost or self._shadow.lost,
            "shadow": None if shadow is None else _tag(shadow),
            "shadow_refused": self._shadow.refused,
        }

    async def follow(self) -> None:
        """Look for another model until cancelled; returns at once where nothing moves."""
        if self._served.pointer is None and self._shadow.pointer is None:
            return
        while True:
            await asyncio.sleep(self._settings.poll_seconds / LOOKS_PER_POLL)
            await self.look()

    async def look(self) -> None:
        """Take what the pointers name, if they changed since the last look; the loop serves meanwhile."""
        for side in (self._served, self._shadow):
            if side.pointer is None:
                continue
            found = stamp(side.pointer)
            if found is not None and found != side.seen:
                side.seen = found
                await self._take(side, side.pointer)

    async def _take(self, side: _Side, path: Path) -> None:
        try:
            pointer = Pointer.read(path)
            held = self._held(side)
            if pointer.folder is not None and (held is None or not _is_of(held, pointer)):
                held = await asyncio.to_thread(_load, self._settings, pointer)
                self._put(side, held)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._refuse(side, _sentence(error))
        else:
            self._tell_trouble(side, pointer)

    def _held(self, side: _Side) -> Held | None:
        return self.current if side.role == SERVED else self.current.shadow

    def _put(self, side: _Side, held: Held) -> None:
        before = self._held(side)
        if side.role == SERVED:
            self.current = replace(
                held, shadow=self.current.shadow, on_shadow_failure=self.current.on_shadow_failure
            )
        else:
            self.current = replace(self.current, shadow=held)
        kind = "model_swapped" if side.role == SERVED else "shadow_swapped"
        was = f", in place of {_called(before)}" if before else ""
        self._say(kind, f"{_called(held)} {'answers' if side.role == SERVED else 'scores in shadow'}{was}.")

    def _refuse(self, side: _Side, sentence: str) -> None:
        if side.refused == sentence:
            return
        side.refused = sentence
        self._say(SUCCESSOR_REFUSED if side.role == SERVED else "shadow_refused", sentence)

    def _tell_trouble(self, side: _Side, pointer: Pointer | None) -> None:
        """Take over what the watcher says of the registry, and tell what changed."""
        trouble, sentence = (pointer.trouble, pointer.sentence or "") if pointer else (None, "")
        if trouble == SUCCESSOR_REFUSED:
            self._refuse(side, sentence)
        elif trouble is None:
            side.refused = None
        lost = sentence if trouble == REGISTRY_LOST else None
        if lost and not side.lost:
            self._say("registry_lost", lost)
        if side.lost and not lost:
            self._say("registry_back", "The registry answers again.")
        side.lost = lost

    def _open_shadow(self) -> None:
        settings, side = self._settings, self._shadow
        if settings.shadow is None and side.pointer is None:
            return
        try:
            if side.pointer is None:
                assert settings.shadow is not None
                named = replace(settings, model=settings.shadow, model_name=None, model_version=None)
                self._put(side, prepare(named))
            elif (found := stamp(side.pointer)) is not None:
                side.seen = found
                pointer = Pointer.read(side.pointer)
                if pointer.folder is not None:
                    self._put(side, _load(settings, pointer))
                self._tell_trouble(side, pointer)
        except Exception as error:
            self._refuse(side, _sentence(error))

    def _count_failure(self, shadow: Held, error: Exception) -> None:
        self.shadow_failures += 1
        if shadow.model.digest not in self._failed_digests:  # once a model: each request would fill the log
            self._failed_digests.add(shadow.model.digest)
            self._say(
                "shadow_failed",
                f"{_called(shadow)} in shadow could not score a deal ({type(error).__name__}); "
                "the answers are not touched. Further failures are counted only.",
            )

    def listen(self, on_event: OnEvent) -> None:
        """Tell `on_event` what happened until now, and what happens from now on."""
        self._on_event = on_event
        while self._untold:
            self._say(*self._untold.popleft())

    def _say(self, kind: str, sentence: str) -> None:
        if self._on_event is None:
            self._untold.append((kind, sentence))
            return
        with suppress(Exception):  # who is told may fail; the model goes on being followed
            self._on_event(kind, sentence)


def _first(settings: Settings, pointer: Pointer | None) -> Held:
    """The model to start with: the pointer's, else the one that the settings name."""
    if pointer is not None and pointer.folder is not None:
        try:
            return _load(settings, pointer)
        except UserError:
            pass
    return prepare(settings)


def _read(path: Path | None) -> Pointer | None:
    if path is None:
        return None
    try:
        return Pointer.read(path)
    except UserError:
        return None


def _load(settings: Settings, pointer: Pointer) -> Held:
    assert pointer.folder is not None
    named = replace(
        settings, model=Path(pointer.folder), model_name=pointer.name, model_version=pointer.version
    )
    return prepare(named, pointer.digest)


def _is_of(held: Held, pointer: Pointer) -> bool:
    tag = held.model.name_tag
    return (tag["digest"], tag["name"], tag["version"]) == (pointer.digest, pointer.name, pointer.version)


def _tag(held: Held) -> dict[str, Any]:
    return {key: held.model.name_tag[key] for key in ("name", "version", "digest")}


def _called(held: Held) -> str:
    tag = held.model.name_tag
    return f"{tag['name']} {tag['version']}" if tag["version"] else str(tag["name"])


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"The model could not be loaded ({type(error).__name__}). Train it again, or copy it again."
