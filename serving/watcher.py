"""A process of its own, with MLflow: follows registry addresses, and says in pointer files what they name.

``python -m serving.watcher`` is started by `serving.follow`. It reads STEPIN_* variables, prints one line of
JSON when the first model is found or refused, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.problems import UserError
from serving.held import SERVED, SHADOW, prepare
from serving.pointer import REGISTRY_LOST, SUCCESSOR_REFUSED, Pointer, PointerError
from serving.settings import Settings
from serving.variables import is_address
from training import registry

POLLS = 2
"""How often the registry is asked in a poll interval: what is left of it is for fetching and loading."""
FETCH_AGAIN_SECONDS = 60.0
KEPT_COPIES = 2
# A registry that is away is found out in seconds, not minutes; a user's own choice stands.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class NotFetched(UserError):  # noqa: N818 - it may succeed later, unlike a model that is at fault
    """The registry names a version, but its files cannot be had."""


@dataclass
class Watch:
    """One address, followed.

    Parameters
    ----------
    role : served or shadow
    address : ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``
    pointer_path : the file to keep
    settings : as the server has them, so that a model is tried here as it will be used there
    clock : seconds that only grow
    """

    role: str
    address: str
    pointer_path: Path
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    pointer: Pointer | None = None
    _named: registry.Named | None = None
    _failed: registry.Named | None = None
    _why: str = ""
    _again_at: float = 0.0
    _copies: list[Path] = field(default_factory=list)

    def poll(self) -> None:
        """Ask the registry once; whatever is wrong with it ends up in the pointer, never in an exception."""
        try:
            named = registry.look_up(self.address)
        except Exception as error:
            return self._say(REGISTRY_LOST, _sentence(error, f"{self.address} could not be looked up"))
        if named == self._named:
            self._failed = None
            return self._say(None, None)
        if named != self._failed or self.clock() >= self._again_at:
            self._take(named)
        if named == self._failed:
            self._say(SUCCESSOR_REFUSED, self._why)

    def _take(self, named: registry.Named) -> None:
        copies = list(self._copies)
        try:
            self._use(self._fetch(named))
        except Exception as error:
            for copy in self._copies[len(copies) :]:
                shutil.rmtree(copy, ignore_errors=True)
            self._copies = copies
            self._failed, self._why = named, _sentence(error, f"Version {named.version} could not be used")
            waits = FETCH_AGAIN_SECONDS if isinstance(error, NotFetched | OSError) else float("inf")
            self._again_at = self.clock() + waits
        else:
            self._named, self._failed = named, None

    def _fetch(self, named: registry.Named) -> registry.Registered:
        """Copy the version beside the pointers, so that nothing that is served lies in anybody's hands."""
        prefix = f"{self.role}-{named.version}-"
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=self.pointer_path.parent))
        self._copies.append(place)
        try:
            found = registry.locate(f"models:/{named.name}/{named.version}", into=place)
        except Exception as error:
            why = _sentence(error, f"Version {named.version} of '{named.name}' could not be fetched")
            raise NotFetched(why) from error
        return found

    def _use(self, found: registry.Registered) -> None:
        version = str(found.version)
        changes = {"model": found.folder, "model_name": found.name, "model_version": version}
        held = prepare(replace(self.settings, **changes))  # type: ignore[arg-type]
        pointer = Pointer(str(found.folder.absolute()), found.name, version, held.model.digest)
        pointer.write(self.pointer_path)
        self.pointer = pointer
        for copy in self._copies[:-KEPT_COPIES]:
            shutil.rmtree(copy, ignore_errors=True)
        self._copies = self._copies[-KEPT_COPIES:]

    def _say(self, trouble: str | None, sentence: str | None) -> None:
        before = self.pointer or Pointer(None, self.address, None, "")
        pointer = replace(before, trouble=trouble, sentence=sentence)
        if pointer == self.pointer:
            return
        with suppress(OSError):  # a full disk: said at the next poll
            pointer.write(self.pointer_path)
            self.pointer = pointer


def watches(settings: Settings) -> list[Watch]:
    """The addresses among the settings, the served one first."""
    named = [
        (SERVED, settings.model, settings.model_pointer),
        (SHADOW, settings.shadow, settings.shadow_pointer),
    ]
    return [
        Watch(role, str(model), pointer, settings, pointer=_former(pointer))
        for role, model, pointer in named
        if model is not None and pointer is not None and is_address(model)
    ]


def _former(path: Path) -> Pointer | None:
    """What a watcher before this one left, which holds until the registry says otherwise."""
    try:
        return Pointer.read(path)
    except PointerError:
        return None


def main() -> int:
    """Watch until the standard input ends; status 1 where the served model was refused at first."""
    for name, text in _IMPATIENT.items():
        os.environ.setdefault(name, text)
    settings = Settings.from_environ(os.environ)
    watched = watches(settings)
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    for each in watched:
        each.poll()
        if each.role == SERVED:
            refused = None if each.pointer and each.pointer.folder else _refusal(each)
            print(json.dumps({"refused": refused}), flush=True)
            if refused:
                return 1
    while True:
        time.sleep(settings.poll_seconds / POLLS)
        for each in watched:
            each.poll()


def _refusal(watch: Watch) -> str:
    said = watch.pointer.sentence if watch.pointer else None
    return said or f"{watch.address} could not be served."


def _end_with_parent(watched: list[Watch]) -> None:
    sys.stdin.buffer.read()
    for each in watched:
        shutil.rmtree(each.pointer_path.parent, ignore_errors=True)
    os._exit(0)


def _sentence(error: Exception, else_said: str) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"Looking models up needs {error.name}: install it with pip install 'stepin[train]'."
    return f"{else_said} ({type(error).__name__})."


if __name__ == "__main__":
    sys.exit(main())
