"""From an uplift and its uncertainty to advice: pure functions that training judges and serving calls.

Nothing but the standard library and numpy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.problems import UserError

STEP_IN = "step_in"
STEP_BACK = "step_back"
TOO_CLOSE = "too_close_to_call"
NOT_ENOUGH = "not_enough_evidence"
ADVICE = (STEP_IN, STEP_BACK, TOO_CLOSE, NOT_ENOUGH)
# Normal quantile of the 90% interval that is shown with every answer.
Z_90 = 1.6448536269514722


@dataclass(frozen=True)
class Advice:
    """What to do with each deal. Every array has shape (n,)."""

    advice: NDArray[np.str_]
    """One of ``ADVICE``."""
    score: NDArray[np.float64]
    """0 to 100: the probability in percent that stepping in gains more than it costs."""
    break_even: NDArray[np.float64]
    """The uplift that pays for stepping in: a fraction, or the outcome's unit where that is numeric."""
    default_action_applied: NDArray[np.bool_]
    """True where the model does not decide, so that the default (step back) holds."""
    expected_value: NDArray[np.float64]
    """Money gained by stepping in rather than back, after its cost; NaN where the amount is unknown."""


class Decided(NamedTuple):
    """`Advice` on one deal."""

    advice: str
    score: float
    break_even: float
    default_action_applied: bool
    expected_value: float


@dataclass(frozen=True)
class Policy:
    """What stepping in costs, and how sure one must be to advise it.

    With ``hours``, ``cost_per_hour`` and ``margin`` the break-even is computed for each deal whose amount
    is known: cost / (margin * amount). Elsewhere ``break_even_points`` holds.

    Raises
    ------
    UserError
        A number outside its range, or costs without a margin.

    Notes
    -----
    The score treats the uplift as normal with the given mean and standard deviation. Where the deviation
    is too small (the model's form is wrong for a kind of deal), the score is too sure of itself.
    """

    break_even_points: float = 3.0
    """Uplift in percentage points that pays for stepping in, where costs are not given."""
    hours: float | None = None
    """Vendor hours that stepping in takes."""
    cost_per_hour: float | None = None
    """In the currency of the amounts."""
    margin: float | None = None
    """Share of a deal's amount that is earned when it is won: above 0, at most 1."""
    sure: float = 0.6
    """Probability needed to say step_in; one minus it is the most that still says step_back."""
    widest_points: float = 20.0
    """Half width of the 90% interval, in points, beyond which an undecided answer is not_enough_evidence."""
    vendor_leads_points: float = 10.0
    """The vendor leads, rather than joins, where the interval's low end beats the break-even by this."""
    outcome: str = "binary"
    """``binary`` (uplift is a fraction) or ``numeric`` (uplift is in the outcome's own unit)."""
    break_even_amount: float = 0.0
    """For a numeric outcome: the gain, in its unit, that pays for stepping in, where costs are not given."""

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and low <= value <= high):
                raise UserError(f"{name} should be between {low:g} and {high:g}; came {value!r}.")
        if self.margin == 0:
            raise UserError("margin should be above 0: with no margin no deal pays for stepping in.")
        if (self.hours is None) != (self.cost_per_hour is None):
            raise UserError("hours and cost_per_hour belong together: give both, or neither.")
        if self.hours is not None and self.margin is None:
            raise UserError("hours and cost_per_hour need a margin as well (for example 0.3).")
        if self.outcome not in ("binary", "numeric"):
            raise UserError(f"outcome should be binary or numeric; came {self.outcome!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Policy:
        """Read what `to_dict` wrote; missing keys take their defaults, unknown ones are refused."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            shown = ", ".join(name[:25] for name in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UserError(f"Unknown policy setting {shown}{more}. Known: {', '.join(known)}.")
        return cls(**values)

    @property
    def cost(self) -> float | None:
        """Money that stepping in costs, or None where costs are not given."""
        if self.hours is None or self.cost_per_hour is None:
            return None
        return self.hours * self.cost_per_hour

    def break_even(self, amount: ArrayLike | None, n: int | None = None) -> NDArray[np.float64]:
        """Uplift that pays for stepping in, of shape (n,).

        Parameters
        ----------
        amount : deal amounts of shape (n,), NaN where unknown; None where no amounts exist (then give `n`)
        n : number of deals where `amount` is None; 1 by default

        Returns
        -------
        ndarray (n,)
            Fractions, at most 1; with a numeric outcome, the outcome's unit. An amount of zero counts as
            unknown.
        """
        worth = np.full(n or 1, np.nan) if amount is None else np.atleast_1d(np.asarray(amount, dtype=float))
        if self.outcome == "numeric":
            gain = self.break_even_amount if self.cost is None else self.cost / (self.margin or 1.0)
            return np.full(worth.shape, gain)
        usual = np.full(worth.shape, self.break_even_points / 100)
        if self.cost is None or self.margin is None:
            return usual
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(worth > 0, np.minimum(self.cost / (self.margin * worth), 1.0), usual)

    def advise(
        self, uplift: ArrayLike, sd: ArrayLike, amount: ArrayLike | None = None, supported: ArrayLike = True
    ) -> Advice:
        """Advice for each deal.

        Parameters
        ----------
        uplift, sd : mean and standard deviation of what is believed of the uplift; shape (n,) or scalars
        amount : deal amounts, NaN where unknown; None where there are none
        supported : were deals like this one seen both ways?

        Returns
        -------
        Advice
            Arrays of shape (n,). An unsupported deal, or one whose uplift is NaN, is not_enough_evidence
            whatever its score.
        """
        mean = np.atleast_1d(np.asarray(uplift, dtype=float))
        spread = np.broadcast_to(np.asarray(sd, dtype=float), mean.shape)
        known = np.broadcast_to(np.asarray(supported, dtype=bool), mean.shape) & np.isfinite(mean + spread)
        worth = None if amount is None else np.broadcast_to(np.asarray(amount, dtype=float), mean.shape)
        needed = self.break_even(worth, len(mean))
        score = _chance_above(mean, spread, needed)
        advice = self._name(score, spread, known)
        return Advice(
            advice=advice,
            score=score,
            break_even=needed,
            default_action_applied=np.isin(advice, (TOO_CLOSE, NOT_ENOUGH)),
            expected_value=self._value(mean - needed, worth),
        )

    def decide(self, uplift: float, sd: float, amount: float, supported: bool) -> Decided:
        """Advise on one deal whose uplift is known: as `advise`, without an array's cost."""
        needed = self._break_even_of(amount)
        gain = uplift - needed
        z = gain / sd if sd > 0 else (math.copysign(math.inf, gain) if gain else 0.0)
        score = 50 * (1 + math.erf(z / math.sqrt(2)))
        advice = self._name_one(score, sd) if supported else NOT_ENOUGH
        share = 1.0 if self.margin is None else self.margin
        value = share * gain if self.outcome == "numeric" else share * amount * gain
        return Decided(advice, score, needed, advice in (TOO_CLOSE, NOT_ENOUGH), value)

    def _break_even_of(self, amount: float) -> float:
        if self.outcome == "numeric":
            return self.break_even_amount if self.cost is None else self.cost / (self.margin or 1.0)
        if self.cost is None or self.margin is None or not amount > 0:
            return self.break_even_points / 100
        return min(self.cost / (self.margin * amount), 1.0)

    def _name_one(self, score: float, sd: float) -> str:
        if score >= 100 * self.sure:
            return STEP_IN
        if score <= 100 * (1 - self.sure):
            return STEP_BACK
        too_wide = self.outcome == "binary" and 100 * Z_90 * sd > self.widest_points
        return NOT_ENOUGH if too_wide else TOO_CLOSE

    def lead(self, advice: str, lo: float, break_even: float) -> str:
        """Who should lead at a stage: ``partner``, ``joint`` or ``vendor``.

        Parameters
        ----------
        advice : one of ``ADVICE``
        lo : low end of the 90% interval, a fraction
        break_even : a fraction
        """
        if advice != STEP_IN:
            return "partner"
        return "vendor" if self._is_clear(lo, break_even) else "joint"

    def leads(self, advised: Advice, lo: NDArray[np.float64]) -> NDArray[np.str_]:
        """Who should lead each of n deals: see `lead`; `lo` of shape (n,)."""
        clear = self._is_clear(lo, advised.break_even)
        return np.where(advised.advice != STEP_IN, "partner", np.where(clear, "vendor", "joint"))

    def _is_clear(self, lo: Any, break_even: Any) -> Any:
        return (lo >= break_even + self.vendor_leads_points / 100) & (self.outcome == "binary")

    def _name(
        self, score: NDArray[np.float64], sd: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.str_]:
        wide = (100 * Z_90 * sd > self.widest_points) & (self.outcome == "binary")
        cases = [~known, score >= 100 * self.sure, score <= 100 * (1 - self.sure), wide]
        return np.select(cases, [NOT_ENOUGH, STEP_IN, STEP_BACK, NOT_ENOUGH], default=TOO_CLOSE)

    def _value(self, net: NDArray[np.float64], worth: NDArray[np.float64] | None) -> NDArray[np.float64]:
        share = 1.0 if self.margin is None else self.margin
        if self.outcome == "numeric":
            return share * net
        return np.full(net.shape, np.nan) if worth is None else share * worth * net


_OPTIONAL = ("hours", "cost_per_hour", "margin")
_RANGES = (
    ("break_even_points", -100, 100),
    ("hours", 0, 1e6),
    ("cost_per_hour", 0, 1e9),
    ("margin", 0, 1),
    ("sure", 0.5, 1),
    ("widest_points", 0, 200),
    ("vendor_leads_points", 0, 100),
    ("break_even_amount", -1e15, 1e15),
)


def _chance_above(
    mean: NDArray[np.float64], sd: NDArray[np.float64], needed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Percent probability that a normal(mean, sd) exceeds `needed`; a certain answer gives 0, 50 or 100."""
    gain = mean - needed
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0, gain / sd, np.where(gain == 0, 0.0, np.copysign(np.inf, gain)))
    return 50 * (1 + np.fromiter(map(math.erf, z / math.sqrt(2)), dtype=float, count=len(z)))
