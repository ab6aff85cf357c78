"""The small file that says which model to serve: the watcher writes it, each server process polls it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.problems import UserError

REGISTRY_LOST = "registry_lost"
SUCCESSOR_REFUSED = "successor_refused"
TROUBLES = (REGISTRY_LOST, SUCCESSOR_REFUSED)
MOST_BYTES = 64 * 1024


class PointerError(UserError):
    """A pointer file that says nothing usable."""


@dataclass(frozen=True)
class Pointer:
    """Which model to serve, and what keeps another one from being named here."""

    folder: str | None
    """Absolute path of a model folder on this machine; None while there was none yet."""
    name: str
    version: str | None
    digest: str
    """What the folder's manifest says; the folder has to bear it out. Empty where there is no folder."""
    trouble: str | None = None
    """One of `TROUBLES`; None where the registry answers and its newest choice is the one named here."""
    sentence: str | None = None
    """The trouble in words."""

    def write(self, path: Path) -> None:
        """Replace the file at once: who reads it finds the former one or this one, whole."""
        handle, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: Path) -> Pointer:
        """Read what `write` wrote.

        Raises
        ------
        PointerError
            No such file, or not a pointer.
        """
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(MOST_BYTES))
            return cls._from(content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise PointerError(
                f"The pointer file {path.name} is not readable as one; expected a JSON object with folder, "
                "name, version and digest."
            ) from None

    @classmethod
    def _from(cls, content: Mapping[str, Any]) -> Pointer:
        name, digest = content["name"], content["digest"]
        wanted = [content.get(key) for key in ("folder", "version", "trouble", "sentence")]
        if not all(isinstance(each, str) for each in (name, digest, *(x for x in wanted if x is not None))):
            raise TypeError("texts")
        folder, version, trouble, sentence = wanted
        if trouble not in (None, *TROUBLES) or (folder is not None and not Path(folder).is_absolute()):
            raise ValueError("trouble or folder")
        return cls(folder, name, version, digest, trouble, sentence)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever the file is replaced or written; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size
