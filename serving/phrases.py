"""Reasons in words, quickly: what was said of a value, or of a change, is kept and said again.

They leave as pieces of JSON, most of them made before: a reason costs half a microsecond, where making it
anew costs three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from serving.reading import Value
from serving.wording import Wording, change, tenths_of, together
from training.basis import CATEGORY, Feature
from training.scorecard import Scorecard

_MOST_NUMBERS = 1000
_MOST_TENTHS = 1000


class Phrases:
    """The reasons of one model's answers; each sentence is the one of `Wording.sentence`."""

    def __init__(self, wording: Wording, card: Scorecard) -> None:
        facts = {feature.name: _Facts(wording, feature) for feature in card.features}
        self._terms = [
            (b',{"feature":' + orjson.dumps(name) + b',"value":', features, facts[features[0]])
            for name, features in zip(card.term_names, card.term_features, strict=True)
        ]
        self._facts = facts
        self._changes = _Changes()

    def reasons(
        self, terms: Iterable[int], points: list[float], values: Mapping[str, Value]
    ) -> orjson.Fragment:
        """Word some terms, by position in ``Scorecard.term_names``, and their contributions in points.

        Returns
        -------
        Fragment
            A list of objects with feature, value, points and sentence.
        """
        all_terms, changes, get, dumps = self._terms, self._changes, values.get, orjson.dumps
        pieces: list[bytes] = []
        numbers = dumps(points)[1:-1].split(b",")
        for term, its_points, number in zip(
            terms, points, numbers, strict=False
        ):  # no terms: one empty number
            head, features, facts = all_terms[term]
            value = get(features[0])
            if len(features) == 1:
                fact, shown = facts[value], dumps(value)
            else:
                fact, shown = self._pair(features, values)
            pieces += (head, shown, b',"points":', number, fact, changes[tenths_of(its_points)])
        return orjson.Fragment(b"[" + b"".join(pieces)[1:] + b"]")

    def _pair(self, features: tuple[str, ...], values: Mapping[str, Value]) -> tuple[bytes, bytes]:
        """The beginning of the sentence, and the values of both features."""
        known = {name: values.get(name) for name in features}
        said = together(*(self._facts[name].say(value) for name, value in known.items()))
        return _opening(said), orjson.dumps(known)


class _Facts(dict[Value, bytes]):
    """How a sentence begins, by a feature's value: for each level, and for numbers that came of late.

    A text that training never saw is worded and not kept: there are too many, and they may be long.
    """

    def __init__(self, wording: Wording, feature: Feature) -> None:
        super().__init__()
        self._wording, self._name = wording, feature.name
        self._levels = frozenset(feature.levels) if feature.kind == CATEGORY else None

    def say(self, value: Value) -> str:
        """Say what is known of the feature."""
        return self._wording.fact(self._name, value, self._is_unseen(value))

    def _is_unseen(self, value: Value) -> bool:
        return self._levels is not None and value is not None and value not in self._levels

    def __missing__(self, value: Value) -> bytes:
        opening = _opening(self.say(value))
        if not self._is_unseen(value):
            if self._levels is None and len(self) >= _MOST_NUMBERS:
                self.clear()
            self[value] = opening
        return opening


class _Changes(dict[int, bytes]):
    """How a sentence ends, by tenths of a point."""

    def __missing__(self, tenths: int) -> bytes:
        ending = orjson.dumps(f": {change(tenths / 10)}")[1:] + b"}"
        if abs(tenths) <= _MOST_TENTHS:
            self[tenths] = ending
        return ending


def _opening(fact: str) -> bytes:
    return b',"sentence":' + orjson.dumps(fact)[:-1]
