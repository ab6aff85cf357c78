"""The server's side of the watcher: started where a model is named by an address, kept up, ended with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.problems import UserError
from serving.pointer import Pointer
from serving.settings import Settings
from serving.variables import is_address

RESTART_SECONDS = 5.0
_END_SECONDS = 5.0


@dataclass
class Watching:
    """A watcher that runs, and the settings for those who follow its pointers."""

    settings: Settings
    place: Path
    """Folder of the pointers and of the fetched models; removed by `stop`."""
    process: subprocess.Popen[bytes]
    _environ: dict[str, str] = field(repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def keep_up(self) -> None:
        """Start it again whenever it ends by itself: the pointers stay, so the server serves on meanwhile."""
        while True:
            self.process.wait()
            if self._stopped.wait(RESTART_SECONDS):
                return
            with self._changing:
                if self._stopped.is_set():
                    return
                _close(self.process)
                self.process = _start(self._environ)

    def stop(self) -> None:
        """End it, and remove what it fetched."""
        self._stopped.set()
        with self._changing:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
            self.process.kill()
            self.process.wait()
            _close(self.process)
        shutil.rmtree(self.place, ignore_errors=True)


@contextmanager
def following(settings: Settings) -> Iterator[Settings]:
    """Give settings whose model is a folder; a registry address is resolved, and followed, until the end.

    Where neither model is an address the settings are given as they came, and no process is started.

    Raises
    ------
    UserError
        The address of the model names nothing that can be served. That of the shadow may: it is then looked
        up again at each poll, and the server says why there is none.
    """
    watching = start_watcher(settings)
    if watching is None:
        yield settings
        return
    try:
        yield watching.settings
    finally:
        watching.stop()


def start_watcher(settings: Settings) -> Watching | None:
    """Start the watcher and wait for the first model; None where there is nothing to watch.

    Raises
    ------
    UserError
        As `following`.
    """
    moves, shadow_moves = is_address(settings.model), is_address(settings.shadow)
    if not moves and not shadow_moves:
        return None
    place = Path(tempfile.mkdtemp(prefix="stepin-models-"))
    watched = replace(
        settings,
        model_pointer=place / "served.json" if moves else None,
        shadow_pointer=place / "shadow.json" if shadow_moves else None,
    )
    environ = {**_not_ours(), **watched.to_environ()}
    environ["PYTHONPATH"] = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    watching = Watching(watched, place, _start(environ), environ)
    try:
        if moves:
            _await_first(watching.process)
        watching.settings = _resolved(watched)
    except BaseException:
        watching.stop()
        raise
    threading.Thread(target=watching.keep_up, name="watcher", daemon=True).start()
    return watching


def _start(environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that ends when this one does: its standard input ends then."""
    command = [sys.executable, "-P", "-m", "serving.watcher"]
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _await_first(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        said = json.loads(line)
    except ValueError:
        raise UserError(
            "The process that looks models up in the registry ended before it found one. "
            "Serve a model folder instead, or see what it wrote above."
        ) from None
    if said.get("refused"):
        raise UserError(said["refused"])


def _resolved(watched: Settings) -> Settings:
    shadow = None if is_address(watched.shadow) else watched.shadow
    if watched.model_pointer is None:
        return replace(watched, shadow=shadow)
    pointer = Pointer.read(watched.model_pointer)
    assert pointer.folder is not None, "the watcher found a model without a folder"
    return replace(
        watched,
        model=Path(pointer.folder),
        model_name=pointer.name,
        model_version=pointer.version,
        shadow=shadow,
    )


def _not_ours() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("STEPIN_")}
