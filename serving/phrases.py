"""Reasons in words, quickly: what was said of a value, or of a change, is kept and said again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
            (name, features[0], facts[features[0]], features[1:], [facts[each] for each in features[1:]])
            for name, features in zip(card.term_names, card.term_features, strict=True)
        ]
        self._changes = _Changes()

    def reasons(
        self, terms: Iterable[int], points: Iterable[float], values: Mapping[str, Value]
    ) -> list[dict[str, Any]]:
        """Word some terms, by position in ``Scorecard.term_names``, and their contributions in points."""
        reasons = []
        all_terms, changes, get = self._terms, self._changes, values.get
        for term, its_points in zip(terms, points, strict=True):
            name, feature, facts, second, facts_of_second = all_terms[term]
            value: Any = get(feature)
            fact = facts[value]
            if second:
                other = get(second[0])
                fact = together(fact, facts_of_second[0][other])
                value = {feature: value, second[0]: other}
            sentence = fact + changes[tenths_of(its_points)]
            reasons.append({"feature": name, "value": value, "points": its_points, "sentence": sentence})
        return reasons


class _Facts(dict[Value, str]):
    """What is said of a feature's values: of each level, and of the numbers that came of late.

    A text that training never saw is worded and not kept: there are too many, and they may be long.
    """

    def __init__(self, wording: Wording, feature: Feature) -> None:
        super().__init__()
        self._wording, self._name = wording, feature.name
        self._levels = frozenset(feature.levels) if feature.kind == CATEGORY else None

    def __missing__(self, value: Value) -> str:
        is_unseen = self._levels is not None and value is not None and value not in self._levels
        said = self._wording.fact(self._name, value, is_unseen)
        if not is_unseen:
            if self._levels is None and len(self) >= _MOST_NUMBERS:
                self.clear()
            self[value] = said
        return said


class _Changes(dict[int, str]):
    """What follows a fact, by tenths of a point."""

    def __missing__(self, tenths: int) -> str:
        said = f": {change(tenths / 10)}"
        if abs(tenths) <= _MOST_TENTHS:
            self[tenths] = said
        return said
