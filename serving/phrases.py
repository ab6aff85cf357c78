"""Reasons in words, quickly: what is said of a level, or of a change, is kept and said again.

They leave as pieces of JSON, most of them made before: a reason costs one or two microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson

from serving.reading import Value
from serving.wording import TOGETHER, Wording, change, lowered, quantities, tenths_of
from training.basis import CATEGORY, NUMBER, Feature
from training.scorecard import Scorecard

_MOST_TENTHS = 1000
_POINTS, _POINTS_OF_TWO, _SENTENCE = b',"points":', b'},"points":', b',"sentence":"'
_TOGETHER = TOGETHER.encode()


class Phrases:
    """The reasons of one model's answers; each sentence is the one of `Wording.sentence`."""

    def __init__(self, wording: Wording, card: Scorecard) -> None:
        words = {feature.name: _words(wording, feature) for feature in card.features}
        self._terms = [
            _Term.of(name, features, words)
            for name, features in zip(card.term_names, card.term_features, strict=True)
        ]
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
        all_terms, changes, get = self._terms, self._changes, values.get
        pieces: list[bytes] = []
        numbers = orjson.dumps(points)[1:-1].split(b",")  # no terms: one empty number
        for term, its_points, number in zip(terms, points, numbers, strict=False):
            head, first, words, between, second, other_words = all_terms[term]
            shown, fact, _ = words[get(first)]
            ending = changes[tenths_of(its_points)]
            if other_words is None:
                pieces += (head, shown, _POINTS, number, _SENTENCE, fact, ending)
            else:
                other, _, within = other_words[get(second)]
                pieces += (head, shown, between, other, _POINTS_OF_TWO, number)
                pieces += (_SENTENCE, fact, _TOGETHER, within, ending)
        return orjson.Fragment(b"[" + b"".join(pieces)[1:] + b"]")


_Said = tuple[bytes, bytes, bytes]
"""Of a value, in pieces of JSON: itself, and the fact as a sentence begins and goes on with it."""


class _Words(dict[Value, _Said]):
    """What is said of each value of a feature.

    A number, and a text that training never saw, is worded and not kept: there are too many.
    """

    def __init__(self, wording: Wording, feature: Feature) -> None:
        super().__init__()
        self._wording, self._name = wording, feature.name
        self._levels = frozenset(feature.levels) if feature.kind == CATEGORY else None
        self._is_number = feature.kind == NUMBER

    def __missing__(self, value: Value) -> _Said:
        is_unseen = self._levels is not None and value is not None and value not in self._levels
        fact = self._wording.fact(self._name, value, is_unseen)
        said = (orjson.dumps(value), _inner(fact), _inner(lowered(fact)))
        if value is None or not (is_unseen or self._is_number):
            self[value] = said
        return said


class _NumberWords(_Words):
    """What is said of each number, where none has a phrase of its own: only the digits are made anew."""

    def __init__(self, wording: Wording, feature: Feature) -> None:
        super().__init__(wording, feature)
        word = wording.words[feature.name]
        self._size = quantities(word.unit, wording.currency)
        before = f"{word.label} ("
        self._before, self._before_within = _inner(before), _inner(lowered(before))

    def __missing__(self, value: Value) -> _Said:
        if value is None:
            return super().__missing__(None)
        size = orjson.dumps(self._size(float(value)) + ")")[1:-1]
        return orjson.dumps(value), self._before + size, self._before_within + size


class _Term(NamedTuple):
    """A term's pieces of JSON, and what is said of the values of its one or two features."""

    head: bytes
    first: str
    words: _Words
    between: bytes
    second: str
    other_words: _Words | None

    @classmethod
    def of(cls, name: str, features: tuple[str, ...], words: Mapping[str, _Words]) -> _Term:
        """Prepare a term of ``Scorecard.term_names``."""
        head, (first, *others) = b',{"feature":' + orjson.dumps(name) + b',"value":', features
        if not others:
            return cls(head, first, words[first], b"", "", None)
        (second,) = others
        between = b"," + orjson.dumps(second) + b":"
        return cls(
            head + b"{" + orjson.dumps(first) + b":", first, words[first], between, second, words[second]
        )


class _Changes(dict[int, bytes]):
    """How a sentence ends, by tenths of a point."""

    def __missing__(self, tenths: int) -> bytes:
        ending = orjson.dumps(f": {change(tenths / 10)}")[1:] + b"}"
        if abs(tenths) <= _MOST_TENTHS:
            self[tenths] = ending
        return ending


def _words(wording: Wording, feature: Feature) -> _Words:
    has_phrases = bool(wording.words[feature.name].phrases)
    return (_NumberWords if feature.kind == NUMBER and not has_phrases else _Words)(wording, feature)


def _inner(text: str) -> bytes:
    """A text as it stands between the quotes of JSON."""
    return orjson.dumps(text)[1:-1]
