"""The server's side of the watcher: started where a model is named by an address, kept up, ended with it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from features.problems import UserError
from serving.pointer import Pointer
from serving.settings import Settings
from serving.side_process import SideProcess
from serving.variables import is_address

RESTART_SECONDS = 5.0


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


def start_watcher(settings: Settings) -> SideProcess | None:
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
    watching = SideProcess.start("serving.watcher", watched, place, RESTART_SECONDS, subprocess.PIPE)
    try:
        if moves:
            _await_first(watching.process)
        watching.settings = _resolved(watched)
    except BaseException:
        watching.stop()
        raise
    watching.keep_up()  # the pointers stay where one ends, so the server serves on meanwhile
    return watching


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
