"""A model on disk: data only, whole or not at all, and checked before it is used. Standard library only.

``manifest.json`` names every file with its SHA-256; the model's digest is the digest of that list. It says
that a folder is as it was sealed, not by whom: whoever makes a folder can compute one. What is read from it
is therefore bounded and checked as well, here and in `training.scorecard_check`.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.problems import UserError
from training.facts_check import misfit
from training.strict_json import read_json

FORMAT = 1
MANIFEST = "manifest.json"
FACTS = "facts.json"
REPORT = "report.html"
MOST_FILES = 64
MOST_MANIFEST_BYTES = 64 * 2**10
MOST_FACTS_BYTES = 4 * 2**20
MOST_FILE_BYTES = 2**30
MOST_REPORT_BYTES = 32 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ModelFolderError(UserError):
    """A folder that is no whole stepin model."""


@dataclass(frozen=True)
class Manifest:
    """What a verified model folder holds."""

    digest: str
    """``sha256:`` and 64 hexadecimal digits, over all files."""
    files: Mapping[str, str]


@contextmanager
def writing(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `folder`; when the block ends well, seal it and move it there.

    Raises
    ------
    ModelFolderError
        `folder` exists and `overwrite` is not set, or it holds something else than a model.
    """
    folder = Path(folder)
    refuse_occupied(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        _seal(fresh)
        fresh.chmod(0o755)
        _move(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def refuse_occupied(folder: Path, overwrite: bool = False) -> None:
    """Refuse a place where a model must not be written; see `writing`."""
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).is_file():
        raise ModelFolderError(f"{folder} exists and is no stepin model; name another folder with --out.")
    if not overwrite:
        raise ModelFolderError(
            f"{folder} already holds a model; name another folder with --out, or replace it with --overwrite."
        )


def verify(folder: Path) -> Manifest:
    """Check every file against the manifest, and that there are no others.

    Raises
    ------
    ModelFolderError
        No model, a later format, a file that is missing, changed, too large or no plain file, or one that the
        manifest does not name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(
            f"{folder} is not a folder; name a model folder, made with: stepin train SOURCE --out MODEL."
        )
    if not _is_plain_file(folder / MANIFEST):
        raise ModelFolderError(
            f"{folder} is no stepin model (it has no {MANIFEST}). "
            "Make one with: stepin train SOURCE --out MODEL."
        )
    manifest = _read_manifest(folder)
    _check_content(folder, manifest.files)
    for name, expected in manifest.files.items():
        path = folder / name
        if not _is_plain_file(path) or _sha256(path) != expected:
            raise ModelFolderError(_damaged(folder, name))
    return manifest


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = read_json(folder / MANIFEST, MOST_MANIFEST_BYTES)
        written, files, digest = content["format"], content["files"], content["digest"]
        if not isinstance(written, int) or isinstance(written, bool):
            raise ValueError("format")
        if written > FORMAT:
            raise ModelFolderError(
                f"{folder} is a model of format {written}; this stepin reads up to {FORMAT}. "
                "Upgrade stepin, or train the model again with this one."
            )
        if not isinstance(files, dict) or not isinstance(digest, str) or len(files) > MOST_FILES:
            raise ValueError("files")
    except ModelFolderError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFolderError(_damaged(folder, MANIFEST)) from None
    for name, sha256 in files.items():
        if not _NAME.fullmatch(name) or name == MANIFEST:
            raise ModelFolderError(_refused(folder, "its manifest names a file that no model has"))
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ModelFolderError(_damaged(folder, MANIFEST))
    if _digest(files) != digest:
        raise ModelFolderError(_damaged(folder, MANIFEST))
    return Manifest(digest, files)


def _check_content(folder: Path, files: Mapping[str, str]) -> None:
    """No more in the folder than the manifest names, and nothing larger than a model's file can be."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name != MANIFEST and entry.name not in files:
                what = f"it holds {_shown(entry.name)}, which its manifest does not name"
                raise ModelFolderError(_refused(folder, what))
            most = MOST_REPORT_BYTES if entry.name == REPORT else MOST_FILE_BYTES
            if entry.stat(follow_symlinks=False).st_size > most:
                what = f"its {entry.name} is larger than {most // 2**20:,} MiB"
                raise ModelFolderError(_refused(folder, what))


def _is_plain_file(path: Path) -> bool:
    """Whether it is a file of its own: no link, no pipe, no device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _shown(name: str) -> str:
    """A name that somebody else chose, in letters that every terminal shows as they are."""
    safe = "".join(char if char.isascii() and char.isprintable() else "?" for char in name)
    return f"'{safe[:60]}'"


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what is known about the model beside its tables."""
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
    (Path(folder) / FACTS).write_text(text, encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the model's facts; empty where it has none (saved by ``UpliftModel.save`` alone)."""
    path = Path(folder) / FACTS
    if not path.is_file():
        return {}
    try:
        facts = read_json(path, MOST_FACTS_BYTES)
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise ModelFolderError(_damaged(Path(folder), FACTS))
    if wrong := misfit(facts):
        raise ModelFolderError(_refused(folder, f"'{wrong[0]}' in its {FACTS} should be {wrong[1]}"))
    return facts


def _damaged(folder: Path, name: str) -> str:
    return (
        f"{folder} is a damaged model: {name} is missing or was changed after it was written. "
        "Copy the model again from where it was made, or train again."
    )


def _refused(folder: Path, why: str) -> str:
    return (
        f"{folder} is no model as stepin writes them: {why}. "
        "Copy the model again from where it was made, or train again."
    )


def _seal(folder: Path) -> None:
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    manifest = {"format": FORMAT, "digest": _digest(files), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _move(fresh: Path, folder: Path) -> None:
    """Rename into place; a model that stood there leaves only once the new one is whole."""
    if not folder.exists():
        fresh.rename(folder)
        return
    former = folder.with_name(f".{folder.name}-former-{fresh.name[-8:]}")
    folder.rename(former)
    try:
        fresh.rename(folder)
    except OSError:
        former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
