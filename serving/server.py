"""Runs the application until it is told to stop, and says on stderr where it is."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from features.problems import UserError
from serving.app import CTRL_C, create_app
from serving.building import building
from serving.follow import following
from serving.journal.database import read_url
from serving.journal.migrate import migrate
from serving.keys import Keys, are_needed, refuse_open_door
from serving.model import load
from serving.protocol import GuardedProtocol
from serving.settings import Settings
from training import model_folder

_BACKLOG = 2048
_GRACE_SECONDS = 10


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 8080, workers: int = 1) -> None:
    """Serve until SIGTERM or Ctrl+C; requests that were taken are finished first.

    One line on stderr says where, once the address is taken and the model read; nothing else is printed
    unless something fails. With several workers each is a process of its own, told its settings by STEPIN_*
    variables.

    Parameters
    ----------
    settings : what to serve; a model named by a registry address is resolved and followed
    host, port : where to listen; port 0 takes a free one, and the line says which
    workers : number of processes, at least 1

    Raises
    ------
    UserError
        The model cannot be served, or the address cannot be taken.
    """
    if workers < 1:
        raise UserError(f"workers should be 1 or more; came {workers}.")
    guarded = replace(settings, keys_required=are_needed(settings.keys_required, host))
    with following(guarded) as followed, _knowing(followed) as told:
        if workers == 1:
            _serve_here(told, host, port)
        else:
            _serve_in_workers(told, host, port, workers)


class _Announced(uvicorn.Server):
    """A server that says where it is when it has started."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self.line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        _say(self.line)

    def stop(self, *_signal: object) -> None:
        self.should_exit = True


class _Workers(Multiprocess):
    """Worker processes, which hold Ctrl+C back until they can end by it in good order.

    It reaches all processes of a terminal at once: in the midst of an import it would end in a traceback.
    """

    def init_processes(self) -> None:
        resource_tracker.ensure_running()  # its start would let the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CTRL_C)
        try:
            super().init_processes()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _knowing(settings: Settings) -> Iterator[Settings]:
    """Start the process that builds facts, where the model can be asked by CRM fields."""
    is_from_crm = model_folder.read_facts(settings.model).get("source_kind") == "crm"
    if settings.data is not None and not is_from_crm:
        raise UserError(
            "STEPIN_DATA is set, but the model learned from a table of its own: CRM tables mean nothing to "
            "it. Leave STEPIN_DATA out, or serve a model that learned from CRM tables."
        )
    if not is_from_crm:
        yield settings
        return
    with building(settings) as told:
        yield told


def _serve_here(settings: Settings, host: str, port: int) -> None:
    with _listening(host, port) as sock:
        app = create_app(settings)
        _refuse_open_door(app.keys, host)
        server = _Announced(_config(app), _ready_line(app.service.slot.current.model.name_tag, host, sock))
        with _stopped_by_signals(server):
            server.run(sockets=[sock])


def _serve_in_workers(settings: Settings, host: str, port: int, workers: int) -> None:
    tag = load(settings).name_tag  # what cannot be served is refused here, once, not in each worker
    with _listening(host, port) as sock, TemporaryDirectory(prefix="stepin-metrics-") as folder:
        shared = replace(settings, metrics_folder=Path(folder))
        _prepare_database(shared, host)
        with _environment(shared):
            config = _config("serving.app:app_from_environ", factory=True, workers=workers)
            supervisor = _Workers(config, sockets=[sock])
            _say(_ready_line(tag, host, sock))  # the address is taken: early callers wait, and are answered
            supervisor.run()


def _prepare_database(settings: Settings, host: str) -> None:
    """Bring the database to the newest version before the workers come, and look for keys."""
    database = read_url(settings.database)
    migrate(database)
    engine = database.engine()
    _refuse_open_door(Keys(engine, settings.keys_required), host)
    engine.dispose()


def _refuse_open_door(keys: Keys | None, host: str) -> None:
    if keys is not None and keys.required:
        keys.load()
        refuse_open_door(keys, host)


def _config(app: Any, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # X-Forwarded-For would let a caller choose the address that its rate counts for
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **more,
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    if not 0 <= port <= 65535:
        raise UserError(f"The port should be a number from 0 to 65535; came {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the socket says that it is TCP: else they wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        unknown = error.errno is None or error.errno < 0  # from the look-up of the name
        why = "no such host" if unknown else os.strerror(error.errno or 0).lower()
        mend = "Name another address" if unknown else "Choose another port; 0 takes a free one"
        raise UserError(f"Cannot listen on port {port} of {host}: {why}. {mend}.") from None
    with sock:
        yield sock


@contextmanager
def _stopped_by_signals(server: _Announced) -> Iterator[None]:
    """Let SIGTERM and Ctrl+C end the server, not the process: what follows in the caller still runs.

    uvicorn raises the signal again once it has stopped; here it then meets a handler that has no more to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {each: signal.signal(each, server.stop) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """Hand the settings to worker processes, which inherit the environment."""
    before = {name: text for name, text in os.environ.items() if name.startswith("STEPIN_")}
    _replace_environment(settings.to_environ())
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(variables: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("STEPIN_")]:
        del os.environ[name]
    os.environ.update(variables)


def _ready_line(tag: Mapping[str, Any], host: str, sock: socket.socket) -> str:
    version = f" {tag['version']}" if tag["version"] else ""
    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{sock.getsockname()[1]}"
    return f"stepin serves {tag['name']}{version} at {where} - docs at {where}/docs"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
