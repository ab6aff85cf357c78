"""The application: a model, a journal, the routes that answer from them, and the door around all of it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from serving.api import create_api
from serving.door import Door
from serving.journal import Journal
from serving.keys import Keys
from serving.logs import Logs
from serving.metrics import Metrics
from serving.service import Service
from serving.settings import Settings
from serving.slot import ModelSlot
from serving.todo import refuse_capacity_without_hours

Clock = Callable[[], datetime]
CTRL_C = frozenset({signal.SIGINT})


def now() -> datetime:
    """Return this moment, in UTC."""
    return datetime.now(UTC)


class Application(Door):
    """The door, and the service behind it: an ASGI application."""

    service: Service


def create_app(settings: Settings, *, clock: Clock = now) -> Application:
    """Load the model, open the journal, and answer from them.

    Parameters
    ----------
    settings : what the server is told
    clock : tells the time in UTC

    Raises
    ------
    UserError
        The model cannot be served (`serving.model.load`), or the database not be opened
        (`serving.journal.Journal.open`).
    """
    slot = ModelSlot.open(settings)  # first: a model that cannot be served leaves no database behind
    refuse_capacity_without_hours(settings.capacity_hours, slot.current.model.policy)
    journal = Journal.open(settings.database, settings.journal, settings.journal_lost)
    logs, metrics = Logs.of(settings.log), Metrics(settings.metrics_folder, journal)
    _tell(slot, logs, metrics)
    service = Service(settings, slot, journal, metrics, clock)
    keys = Keys(journal.engine, settings.keys_required)
    app = create_api(service, _lifespan(service, logs))
    door = Application(app, service.handlers(), settings, keys, metrics, logs)
    door.service = service
    return door


def app_from_environ() -> Application:
    """Make the application from STEPIN_* variables: the factory that worker processes call.

    A worker whose parent is gone ends as if it were told to: else it would keep the port, and answer without
    anything beside it, unnoticed.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CTRL_C)  # held back by `serving.server` while we were imported
    settings = Settings.from_environ(os.environ)
    threading.Thread(target=_end_with_parent, args=(settings,), name="stepin-parent", daemon=True).start()
    return create_app(settings)


def _end_with_parent(settings: Settings) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # what was taken is finished, and recorded, first
    if settings.metrics_folder is not None:  # the parent, which made it, could not
        shutil.rmtree(settings.metrics_folder, ignore_errors=True)


def _tell(slot: ModelSlot, logs: Logs, metrics: Metrics) -> None:
    """Log and count what happens to the model from now on, and say which one answers."""

    def tell_models() -> None:
        metrics.serves(slot.current.model.name_tag)
        if slot.shadow is not None:
            metrics.serves(slot.shadow.model.name_tag, "shadow")

    def tell(kind: str, sentence: str) -> None:
        metrics.event(kind)
        logs.event(kind, sentence=sentence)
        tell_models()

    slot.listen(tell)
    tell_models()


def _lifespan(service: Service, logs: Logs) -> Callable[[FastAPI], Any]:
    """Follow the model while the server runs; record what waits before it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        told = _Told(logs, service.metrics)
        logging.getLogger("stepin").addHandler(told)
        follows = [
            asyncio.create_task(service.slot.follow()),
            asyncio.create_task(service.todo.keep(lambda: service.slot.current)),
        ]
        try:
            yield
        finally:
            for each in follows:
                each.cancel()
            await asyncio.gather(*follows, return_exceptions=True)
            await service.knowledge.close()
            await service.journal.close()
            service.metrics.flush()
            logging.getLogger("stepin").removeHandler(told)

    return lifespan


class _Told(logging.Handler):
    """What our own parts say by the standard way becomes a line of the log.

    What bears a kind (the journal, when it is lost, and when it is back) is an event of its own, and counted.
    """

    def __init__(self, logs: Logs, metrics: Metrics) -> None:
        super().__init__(logging.WARNING)
        self.logs, self.metrics = logs, metrics

    def emit(self, record: logging.LogRecord) -> None:
        kind = getattr(record, "kind", None)
        if kind is not None:
            self.metrics.event(kind)
        self.logs.event(kind or record.name.removeprefix("stepin."), sentence=record.getMessage())
