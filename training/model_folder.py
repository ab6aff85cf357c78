"""A model on disk: data only, whole or not at all, and checked before it is used. Standard library only.

``manifest.json`` names every file with its SHA-256; the model's digest is the digest of that list.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.problems import UserError

FORMAT = 1
MANIFEST = "manifest.json"
FACTS = "facts.json"


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
    """Check every file against the manifest.

    Raises
    ------
    ModelFolderError
        No model, a later format, or a file that is missing or changed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(
            f"{folder} is not a folder; name a model folder, made with: stepin train SOURCE --out MODEL."
        )
    if not (folder / MANIFEST).is_file():
        raise ModelFolderError(
            f"{folder} is no stepin model (it has no {MANIFEST}). "
            "Make one with: stepin train SOURCE --out MODEL."
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        written, files, digest = int(manifest["format"]), dict(manifest["files"]), str(manifest["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFolderError(_damaged(folder, MANIFEST)) from None
    if written > FORMAT:
        raise ModelFolderError(
            f"{folder} is a model of format {written}; this stepin reads up to {FORMAT}. "
            "Upgrade stepin, or train the model again with this one."
        )
    for name, expected in files.items():
        plain = Path(name).name == name and not (folder / name).is_symlink()
        if not plain or not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise ModelFolderError(_damaged(folder, Path(name).name))
    if _digest(files) != digest:
        raise ModelFolderError(_damaged(folder, MANIFEST))
    return Manifest(digest, files)


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
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ModelFolderError(_damaged(Path(folder), FACTS))
    return facts


def _damaged(folder: Path, name: str) -> str:
    return (
        f"{folder} is a damaged model: {name} is missing or was changed after it was written. "
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
