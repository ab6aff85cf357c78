"""JSON from files that nobody vouches for: bounded, finite, and of a depth that nothing stumbles over."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEPEST = 32
LARGEST_WHOLE = 2**63 - 1


def read_json(path: Path, most_bytes: int) -> Any:
    """Read a file of at most `most_bytes`.

    Raises
    ------
    ValueError
        It is larger, is no JSON in UTF-8, holds NaN, Infinity, a number beyond all floats or all 64-bit
        integers, half of a surrogate pair, one name twice in an object, or is nested deeper than 32.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError("size")
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("depth") from None
    for text in _texts(value):
        text.encode("utf-8")  # UnicodeEncodeError is a ValueError
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) > LARGEST_WHOLE:
        raise ValueError("number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("name")
    return found


def _texts(value: Any) -> Iterator[str]:
    """All texts and names within, without recursion."""
    waiting = [(value, 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError("depth")
        if isinstance(here, str):
            yield here
        elif isinstance(here, dict):
            yield from here
            waiting += [(inner, depth + 1) for inner in here.values()]
        elif isinstance(here, list):
            waiting += [(inner, depth + 1) for inner in here]
