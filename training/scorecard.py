"""The fitted model as plain tables of numbers: save, load, look up.

numpy at most, because serving imports this.
An effect is ``baseline + one look-up per feature + one per pair``, so the reasons are exact. Beside each
table's points stand posterior draws; summed alike, their spread is the effect's standard deviation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.answers import Z_90 as Z_90
from training.answers import Answer as Answer
from training.answers import Answers as Answers
from training.answers import Contribution as Contribution
from training.answers import TermTable as TermTable
from training.basis import BOOLEAN, NUMBER, Array, Feature, Levels, Place

PAIR_SIGN = " × "
_CHUNK_ROWS = 2048
Value = float | int | bool | str | None


class BadValue(ValueError):  # noqa: N818 - it is a value that is bad, in the words of its readers
    """A value that this model cannot take: ``feature`` and what was ``expected``; never the value itself."""

    def __init__(self, feature: str, expected: str) -> None:
        super().__init__(f"{feature}: expected {expected}")
        self.feature, self.expected = feature, expected


@dataclass(frozen=True)
class Pair:
    """Product term of two features: ``low_first @ weights @ low_second`` at a row's places."""

    first: int
    second: int
    weights: Array
    """Shape (k_first, k_second, 1 + n_draws): the point, then deviations of the draws from it."""


@dataclass(frozen=True)
class Cells:
    """Decisions seen in each combination of a few levels, without and with the vendor."""

    features: tuple[int, ...]
    counts: NDArray[np.int64]
    """Shape (rows of each feature..., 2)."""
    one_way: tuple[tuple[int, int], ...] = ()
    """Levels (feature, row) seen often, yet always or never with the vendor: a partner with such a rule."""


@dataclass(frozen=True)
class Support:
    """Where both choices were seen often enough to compare them."""

    least_propensity: float = 0.05
    least_in_cell: int = 10


NOWHERE = Support(least_propensity=1.0)
OUTSIDE = ("chance_too_low", "chance_too_high", "one_way", "never_seen", "too_few_similar")
"""Rules for where nothing can be said. A decision counts under the first that rules it out."""


@dataclass(frozen=True)
class Scorecard:
    """A fitted model in tables. Each table of a feature has ``feature.n_rows`` rows."""

    features: tuple[Feature, ...]
    binary: bool
    heterogeneous: bool
    """False: the evidence for differing effects was too weak, and only the average is served."""
    baseline: Array
    """Shape (1 + n_draws,): the average effect, and deviations of the draws."""
    effect: tuple[Array, ...]
    """Per feature, shape (n_rows, 1 + n_draws)."""
    low: tuple[Array, ...]
    """Per feature, shape (n_rows, k): its columns inside pairs; k = 0 where it is in none."""
    pairs: tuple[Pair, ...]
    doubt: tuple[Array, ...]
    """Per feature, shape (n_rows,): variance to add for a value that training never saw."""
    misfit_variance: float
    outcome_intercept: float
    outcome: tuple[Array, ...]
    """Per feature, shape (n_rows,): midpoint of both expected outcomes, on the logit scale where binary."""
    propensity_intercept: float
    propensity: tuple[Array, ...]
    cells: Cells
    support_rule: Support
    importance: tuple[float, ...]
    """Per term, standard deviation over the decisions learned from."""

    @property
    def kind(self) -> str:
        """``binary`` or ``numeric``: the outcome."""
        return "binary" if self.binary else "numeric"

    @cached_property
    def term_features(self) -> tuple[tuple[str, ...], ...]:
        """Per term, the feature or the two features that it reads."""
        names = [feature.name for feature in self.features]
        return tuple((n,) for n in names) + tuple((names[p.first], names[p.second]) for p in self.pairs)

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """Per term, ``feature`` or ``first × second``."""
        return tuple(PAIR_SIGN.join(features) for features in self.term_features)

    def tables(self) -> list[TermTable]:
        """Main terms as curves and bars, the most important first."""
        tables = []
        for feature, effect, importance in zip(self.features, self.effect, self.importance, strict=False):
            xs = feature.knots.tolist() if feature.kind == NUMBER else list(feature.levels)
            tables.append(
                TermTable(feature.name, feature.kind, xs, effect[: len(xs), 0].tolist(), importance)
            )
        return sorted(tables, key=lambda table: -table.importance)

    # Many decisions

    def evaluate(
        self, columns: Mapping[str, Array | Levels | Sequence[str | None]], with_sd: bool = True
    ) -> Answers:
        """Answer n decisions; `columns` maps each feature to values of shape (n,), missing as NaN or None.

        Without `sd`, which is NaN then, they cost a tenth.
        """
        places = [feature.locate(columns[feature.name]) for feature in self.features]
        n = len(places[0])
        parts = [self._evaluate_chunk(some, with_sd) for some in _in_chunks(places, n)]
        return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in _ANSWER_FIELDS))

    def _evaluate_chunk(self, places: Sequence[Place], with_sd: bool) -> Answers:
        n = len(places[0])
        terms = np.empty((n, len(self.term_names)))
        for i, (place, effect) in enumerate(zip(places, self.effect, strict=True)):
            terms[:, i] = place.read(effect[:, 0])
        for i, pair in enumerate(self.pairs, start=len(self.features)):
            terms[:, i] = self._products(pair, places) @ pair.weights[:, :, 0].ravel()
        uplift = self._limited(terms)
        propensity = _sigmoid(self.propensity_intercept + _sum_of(places, self.propensity, n))
        seen = self._cell_counts(tuple(places[k].low for k in self.cells.features), n)
        outside = self._outside(propensity, places, seen)
        return Answers(
            uplift=uplift,
            sd=np.sqrt(self._variance(places)) if with_sd else np.full(n, np.nan),
            terms=terms,
            win=self._outcomes(self.outcome_intercept + _sum_of(places, self.outcome, n), uplift),
            propensity=propensity,
            supported=outside < 0,
            similar=seen.sum(axis=1),
            outside=outside,
        )

    def _variance(self, places: Sequence[Place]) -> Array:
        """Of the draws, of what training never saw, and of what the form leaves out: shape (n,)."""
        total = np.tile(self.baseline[1:], (len(places[0]), 1))
        variance = np.full(len(total), self.misfit_variance)
        for place, effect, doubt in zip(places, self.effect, self.doubt, strict=True):
            total += place.read(effect[:, 1:])
            variance += doubt[place.low]
        for pair in self.pairs:
            weights = pair.weights[:, :, 1:]
            total += self._products(pair, places) @ weights.reshape(-1, weights.shape[2])
        variance += np.mean(total**2, axis=1)
        return variance

    def _products(self, pair: Pair, places: Sequence[Place]) -> Array:
        first, second = (places[k].read(self.low[k]) for k in (pair.first, pair.second))
        return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)

    def _limited(self, terms: Array) -> Array:
        """Sum the terms to an uplift; where probabilities would differ by more than 1, shrink them in place.

        Only a model gone absurd adds up to so much. All terms of such a decision shrink alike, so that the
        reasons still add up, and the two probabilities still differ by the uplift.
        """
        baseline = self.baseline[0]
        uplift: Array = baseline + terms.sum(axis=1)
        if self.binary and (absurd := np.abs(uplift) > 1.0).any():
            limit = np.sign(uplift[absurd])
            terms[absurd] *= ((limit - baseline) / (uplift[absurd] - baseline))[:, None]
            uplift[absurd] = limit
        return uplift

    def _outcomes(self, midpoint: Array, uplift: Array) -> Array:
        """Both expected outcomes, exactly `uplift` apart; probabilities stay within [0, 1]."""
        half = uplift / 2.0
        if self.binary:
            room = np.minimum(np.abs(half), 0.5)
            midpoint = np.clip(_sigmoid(midpoint), room, 1.0 - room)
        outcomes = np.stack([midpoint - half, midpoint + half], axis=-1)
        return np.clip(outcomes, 0.0, 1.0) if self.binary else outcomes

    def _cell_counts(self, rows: tuple[NDArray[np.integer], ...], n: int) -> NDArray[np.int64]:
        if not rows:
            return np.tile(self.cells.counts, (n, 1))
        counts: NDArray[np.int64] = self.cells.counts[rows]
        return counts

    def _outside(
        self, propensity: Array, places: Sequence[Place], seen: NDArray[np.int64]
    ) -> NDArray[np.int8]:
        """Position in `OUTSIDE` of the first rule that applies to each decision, or -1."""
        least, n = self.support_rule.least_propensity, len(propensity)
        one_way, never_seen = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        for feature, row in self.cells.one_way:
            one_way |= places[feature].low == row
        for feature in self.cells.features:
            never_seen |= places[feature].low == self.features[feature].unseen_row
        few = seen.min(axis=1) < self.support_rule.least_in_cell
        rules = [propensity < least, propensity > 1.0 - least, one_way, never_seen, few]
        return np.select(rules, range(len(OUTSIDE)), -1).astype(np.int8)

    # One decision

    def check_values(self, values: Mapping[str, Value]) -> None:
        """Refuse unknown names and values of the wrong type.

        Raises
        ------
        BadValue
            Names the feature and what was expected; the value is not repeated.
        """
        for name, value in values.items():
            feature = self._by_name.get(name)
            if feature is None:
                raise BadValue(name, "a feature of this model")
            if value is None:
                continue
            if feature.kind == NUMBER:
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if not is_number or not abs(float(value)) < float("inf"):
                    raise BadValue(name, "a finite number, or null where it is not known")
            elif feature.kind == BOOLEAN:
                if not isinstance(value, bool):
                    raise BadValue(name, "true, false, or null where it is not known")
            elif not isinstance(value, str):
                raise BadValue(name, "a text, or null where it is not known")

    def evaluate_one(self, values: Mapping[str, Value]) -> Answer:
        """Answer one decision; features that `values` lacks are missing. Call `check_values` first."""
        columns: dict[str, Array | list[str | None]] = {}
        for feature in self.features:
            value = values.get(feature.name)
            if feature.kind == NUMBER:
                columns[feature.name] = np.array([np.nan if value is None else float(value)])
            elif feature.kind == BOOLEAN:
                columns[feature.name] = [None if value is None else str(bool(value)).lower()]
            else:
                columns[feature.name] = [None if value is None else str(value)]
        answer = self.evaluate(columns)
        return Answer(
            uplift=float(answer.uplift[0]),
            sd=float(answer.sd[0]),
            contributions=tuple(
                Contribution(name, features, float(points))
                for name, features, points in zip(
                    self.term_names, self.term_features, answer.terms[0], strict=True
                )
            ),
            win_if_step_back=float(answer.win[0, 0]),
            win_if_step_in=float(answer.win[0, 1]),
            propensity=float(answer.propensity[0]),
            supported=bool(answer.supported[0]),
            similar_decisions=int(answer.similar[0]),
            missing=tuple(f.name for f in self.features if values.get(f.name) is None),
            unseen=tuple(self._unseen(values)),
        )

    def _unseen(self, values: Mapping[str, Value]) -> Iterator[str]:
        for feature in self.features:
            value = values.get(feature.name)
            if feature.kind not in (NUMBER, BOOLEAN) and value is not None and value not in feature.levels:
                yield feature.name

    @cached_property
    def _by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    # Other forms

    def average_only(self, average: float, sd: float, enough: bool = True) -> "Scorecard":
        """Serve one effect for all: what remains when differing effects are not shown by the evidence.

        Where not even the average is known well `enough` to act on, no decision is supported.
        """
        n_draws = len(self.baseline) - 1
        spread = np.resize([sd, -sd], n_draws)
        return replace(
            self,
            heterogeneous=False,
            baseline=np.r_[np.clip(average, -1, 1) if self.binary else average, spread],
            effect=tuple(np.zeros((f.n_rows, n_draws + 1)) for f in self.features),
            low=tuple(np.zeros((f.n_rows, 0)) for f in self.features),
            pairs=(),
            doubt=tuple(np.zeros(f.n_rows) for f in self.features),
            misfit_variance=0.0,
            support_rule=self.support_rule if enough else NOWHERE,
            importance=tuple(0.0 for _ in self.features),
        )

    def write(self, folder: Path) -> None:
        """Write ``scorecard.json`` and ``scorecard.npz`` into an existing folder."""
        from training.scorecard_files import write_scorecard

        write_scorecard(self, folder)

    @classmethod
    def read(cls, folder: Path) -> "Scorecard":
        """Read a scorecard; arrays are data only, never pickles.

        Raises
        ------
        UserError
            A file is missing, damaged, or does not fit the others.
        """
        from training.scorecard_files import read_scorecard

        return read_scorecard(folder)


_ANSWER_FIELDS = ("uplift", "sd", "terms", "win", "propensity", "supported", "similar", "outside")


def _in_chunks(places: Sequence[Place], n: int) -> Iterator[list[Place]]:
    for start in range(0, max(n, 1), _CHUNK_ROWS):
        at = slice(start, start + _CHUNK_ROWS)
        yield [place.take(at) for place in places]


def _sum_of(places: Sequence[Place], tables: Sequence[Array], n: int) -> Array:
    return sum((place.read(table) for place, table in zip(places, tables, strict=True)), np.zeros(n))


def _sigmoid(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40)))
