"""What a mapping's TOML may hold where: refuse another type in a sentence."""

from collections.abc import Mapping
from typing import Any

from features.problems import UserError


def known_keys(section: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a key that nobody knows."""
    for key in section:
        if key not in known:
            raise UserError(f"{where} has an unknown key '{key}'. Known keys: {', '.join(known)}.")


def section(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return a section, empty where it is absent."""
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} should be a section; came {value!r}.")
    return value


def tables(content: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """Return a list of sections, empty where it is absent."""
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{where}: {key} should be a list of sections such as [[{key}]]; came {value!r}.")
    return value


def texts(content: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts, one text alone too, empty where it is absent."""
    value = content.get(key, [])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: {key} should be a text or a list of texts; came {value!r}.")
    return tuple(value)


def text(content: Mapping[str, Any], key: str, where: str, default: str = "") -> str:
    """Return one text."""
    value = content.get(key, default)
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} should be a text; came {value!r}.")
    return value


def flag(content: Mapping[str, Any], key: str, where: str) -> bool:
    """Return true or false, false where it is absent."""
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"{where}: {key} should be true or false; came {value!r}.")
    return value


def number(content: Mapping[str, Any], key: str, where: str) -> float | None:
    """Return a number, None where it is absent."""
    value = content.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UserError(f"{where}: {key} should be a number; came {value!r}.")
    return value


def words(content: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """Return lines such as "their word" = "ours", none where they are absent."""
    value = section(content, key, where)
    if not all(isinstance(item, str) for item in value.values()):
        raise UserError(f'{where}: {key} should hold lines such as "Their word" = "ours"; came {value!r}.')
    return value
