"""Every sentence that a seller reads.

A sentence names one fact of the deal and what it changes about the uplift, compared with the average
decision that the model learned from. It never states a sign or a unit that a quick reader could turn round:
"adds ... more than on average" or "is worth ... less than on average", always in points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from features.catalog import Feature

Value = float | bool | str | None
LONGEST_TEXT = 60
TOGETHER = ", together with "


@dataclass(frozen=True)
class Wording:
    """Words for the features of one model.

    Parameters
    ----------
    words : each feature of the model by its name
    currency : code of the amounts' currency, for example ``EUR``; None where it is not known
    """

    words: Mapping[str, Feature]
    currency: str | None = None

    def sentence(
        self,
        features: Sequence[str],
        values: Mapping[str, Value],
        points: float,
        unseen: Collection[str] = (),
    ) -> str:
        """Say what a term of the model changes: one feature, or two that work together.

        Parameters
        ----------
        features : the term's features
        values : what is known of the deal; a name that is absent is not recorded
        points : the term's contribution in percentage points, relative to the average decision
        unseen : names whose value the model never saw while it learned
        """
        facts = [self.fact(name, values.get(name), name in unseen) for name in features]
        return f"{together(*facts) if len(facts) > 1 else facts[0]}: {change(points)}"

    def fact(self, name: str, value: Value, is_unseen: bool = False) -> str:
        """Say what is known: "First sale of this partner to this customer", "Days open (12 days)"."""
        word = self.words[name]
        if value is None:
            return _within(word.missing_phrase or f"{word.label}: not on record")
        if is_unseen:
            return f"{word.label} ({_text(value)}, new to the model)"
        if word.phrases and (phrase := word.phrases.get(_key(value))):
            return phrase
        return f"{word.label} ({self._shown(value, word.unit)})"

    def _shown(self, value: Value, unit: str) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str) or value is None:
            return _text(value)
        return quantity(float(value), unit, self.currency)


def together(fact: str, other: str) -> str:
    """Say two facts that work together."""
    return f"{fact}{TOGETHER}{lowered(other)}"


def tenths_of(points: float) -> int:
    """Round to tenths of a point, halves away from zero: all that a sentence tells of a contribution."""
    tenths = int(abs(points) * 10 + 0.5)
    return tenths if points > 0 else -tenths


def change(points: float) -> str:
    """Say what a contribution changes, rounded to a tenth of a point."""
    tenths = tenths_of(points)
    if not tenths:
        return "vendor help is worth about as much as on average."
    size = f"{abs(tenths) / 10:,.1f} points"
    if tenths > 0:
        return f"vendor help adds {size} more than on average."
    return f"vendor help is worth {size} less than on average."


def quantity(value: float, unit: str, currency: str | None = None) -> str:
    """Write a number with its unit: "1 day", "1,200 people", "35%", "2.4 times", "120,000 EUR"."""
    return quantities(unit, currency)(value)


def quantities(unit: str, currency: str | None = None) -> Callable[[float], str]:
    """Return what writes numbers of one unit."""
    if unit == "currency" and currency:
        return lambda value: f"{_digits(value)} {currency}"
    return _QUANTITIES.get(unit, _digits)


def _share(value: float) -> str:
    return f"{_digits(100 * value)}%"


def _ratio(value: float) -> str:
    return _share(value) if abs(value) < 1 else f"{_digits(value)} times"


def _days(value: float) -> str:
    size = abs(value)
    digits = f"{value:,.0f}" if 10 <= size < 1e15 else _digits(value)
    return f"{digits} day" if digits in _ONE else f"{digits} days"


def _people(value: float) -> str:
    digits = _digits(value)
    return f"{digits} person" if digits in _ONE else f"{digits} people"


_ONE = ("1", "-1")
_QUANTITIES = {"share": _share, "ratio": _ratio, "days": _days, "people": _people}


def _digits(value: float) -> str:
    """At most one decimal, none from 100 on; small numbers keep two significant digits."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.1e}"
    if 0 < size < 0.1:
        return f"{value:.2g}"
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _within(phrase: str) -> str:
    """The phrase with its own colon turned into brackets: the sentence has a colon already."""
    head, _, rest = phrase.partition(": ")
    return f"{head} ({rest})" if rest else phrase


def _text(value: Value) -> str:
    """A text of the request as one line that cannot break a sentence, a log or a page's layout."""
    line = re.sub(r"\s+", " ", "".join(char if char.isprintable() else " " for char in str(value))).strip()
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _key(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def lowered(phrase: str) -> str:
    """The phrase as it goes on within a sentence; names and abbreviations keep their capitals."""
    starts_a_word = len(phrase) > 1 and phrase[0].isupper() and phrase[1:2].islower()
    return phrase[0].lower() + phrase[1:] if starts_a_word else phrase
