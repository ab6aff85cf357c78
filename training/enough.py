"""How good the evidence is before anything is learned, and how much more would be enough."""

import numpy as np
from numpy.typing import NDArray

from features.decisions import DecisionTable
from training import clustered

LEAST_OUTCOMES, GOOD_OUTCOMES = 40, 200
LEAST_PARTNERS, GOOD_PARTNERS = 10, 40
GOOD_SUPPORT = 0.5
RESOLVED = 0.05
_LEHR = 16.0  # decisions an arm = 16 p (1 - p) / difference², 80% power at 5% (Lehr 1992)
_MONTH_DAYS = 365.25 / 12

Line = dict[str, str]


def look(
    decisions: DecisionTable,
    propensity: NDArray[np.float64] | None = None,
    least_propensity: float = 0.05,
    least_outcomes: int = LEAST_OUTCOMES,
) -> list[Line]:
    """Say how good the evidence is, and how much more would be enough; refuse nothing.

    Parameters
    ----------
    propensity : out-of-fold chance of stepping in of each decision, shape (n,), where it is known
    least_propensity : within this and 1 - this a decision is in the support
    least_outcomes : won, and lost, decisions that each choice needs

    Returns
    -------
    list of dicts
        ``level`` (ok, warn or stop), ``what`` was seen, and ``why`` it matters or what would be enough.
    """
    lines = [_outcomes(decisions, least_outcomes), _partners(decisions)]
    if _is_binary(decisions):
        lines.append(_resolution(decisions))
    if propensity is not None:
        lines.append(_support(propensity, least_propensity))
    return lines


def counts_of(decisions: DecisionTable) -> dict[str, int]:
    """Count each kind of outcome under each choice; for numeric outcomes each choice."""
    treated, won = decisions.treatment, decisions.outcome == 1
    if not _is_binary(decisions):
        return {"with the vendor": int(treated.sum()), "without": int((~treated).sum())}
    return {
        "won with the vendor": int(np.sum(treated & won)),
        "lost with the vendor": int(np.sum(treated & ~won)),
        "won without": int(np.sum(~treated & won)),
        "lost without": int(np.sum(~treated & ~won)),
    }


def more_like_these(decisions: DecisionTable, least: int) -> int | None:
    """How many more decisions of the same mix bring every count to `least`; None where one is 0."""
    fewest = min(counts_of(decisions).values())
    return None if fewest == 0 else max(_rounded(len(decisions) * (least / fewest - 1)), 0)


def design_effect(decisions: DecisionTable) -> float:
    """How many times as uncertain the difference between the choices is for deals of a partner being alike.

    The variance clustered by partner over the one of independent decisions; at least 1, and 1 where it
    cannot be estimated.
    """
    treated, won = decisions.treatment, decisions.outcome
    if min(treated.sum(), (~treated).sum()) < 2:
        return 1.0
    plain = sum(np.var(won[arm]) / arm.sum() for arm in (treated, ~treated))
    spread = clustered.difference(won, treated, decisions.groups).se ** 2
    return round(float(max(spread / plain, 1.0)), 2) if plain > 0 and np.isfinite(spread) else 1.0


def _outcomes(decisions: DecisionTable, least: int) -> Line:
    counts = counts_of(decisions)
    times = 1 if _is_binary(decisions) else 2
    fewest, good = min(counts.values()), max(GOOD_OUTCOMES, least)
    what = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    if fewest >= times * good:
        return _line("ok", what, f"{times * good:,} of each are a good start")
    wanted = times * (least if fewest < times * least else good)
    more = more_like_these(decisions, wanted)
    enough = f"; about {more:,} more decisions like these would be enough" if more else ""
    if fewest < times * least:
        return _line("stop", what, f"at least {wanted:,} of each are needed to learn at all{enough}")
    return _line("warn", what, f"under {wanted:,} of one kind every figure is rough{enough}")


def _partners(decisions: DecisionTable) -> Line:
    n = decisions.rows["partner_id"].nunique()
    what = f"{n:,} partner{'' if n == 1 else 's'}"
    if n == 0:
        return _line(
            "warn", "no partners on record", "deals of one partner are alike; intervals may be too narrow"
        )
    if n < LEAST_PARTNERS:
        why = "are needed to tell an effect from a partner's habits"
        return _line("stop", what, f"at least {LEAST_PARTNERS} {why}: {LEAST_PARTNERS - n} more")
    if n < GOOD_PARTNERS:
        why = f"under {GOOD_PARTNERS} a few partners can decide the result: {GOOD_PARTNERS - n} more"
        return _line("warn", what, f"{why} would be enough")
    return _line("ok", what, "no few of them decide the result")


def _resolution(decisions: DecisionTable) -> Line:
    """Whether a difference of five points would show."""
    rate, factor = float(np.mean(decisions.outcome == 1)), design_effect(decisions)
    wanted = int(np.ceil(_LEHR * rate * (1 - rate) / RESOLVED**2 * factor))
    treated = decisions.treatment
    arms = {"with the vendor": int(treated.sum()), "without": int((~treated).sum())}
    fewer = min(arms, key=lambda arm: arms[arm])
    what = (
        f"{RESOLVED * 100:.0f} points of difference at {rate:.0%} won show with {wanted:,} decisions on each "
        f"side; {factor:.1f} times what independent decisions would take"
    )
    short = wanted - arms[fewer]
    if short <= 0:
        return _line("ok", what, f"the smaller side, {fewer}, has {arms[fewer]:,}")
    months = _months(decisions, treated if fewer == "with the vendor" else ~treated, short)
    why = f"{arms[fewer]:,} are {fewer}: about {_rounded(short):,} more decisions {fewer} would be enough"
    return _line("warn", what, f"{why}{months}")


def _months(decisions: DecisionTable, arm: NDArray[np.bool_], short: int) -> str:
    """How long it takes at today's rate, that of the newest year; nothing where times are not known."""
    times = decisions.rows["decided_at"]
    if times.isna().any() or times.min() == times.max():
        return ""
    newest_year = (times > times.max() - np.timedelta64(365, "D")).to_numpy()
    days = (times[newest_year].max() - times[newest_year].min()).days
    n = int((arm & newest_year).sum())
    if n < 2 or days < _MONTH_DAYS:
        return ""
    months = short / n * days / _MONTH_DAYS
    return (
        f", about {months:,.0f} months at today's rate" if months >= 1 else ", within a month at today's rate"
    )


def _support(propensity: NDArray[np.float64], least: float) -> Line:
    share = float(np.mean((propensity >= least) & (propensity <= 1 - least)))
    what = f"{share:.0%} of the decisions could have gone either way"
    if share < GOOD_SUPPORT:
        why = "the others have no like with the other choice and get no advice: bring deals that went both"
        return _line("warn", what, why)
    return _line("ok", what, "the others get no advice")


def _is_binary(decisions: DecisionTable) -> bool:
    return bool(decisions.about.get("outcome", "binary") == "binary")


def _rounded(n: float) -> int:
    """Up to two digits that count: what is left to gather is never exact."""
    if n <= 0:
        return 0
    unit = 10 ** max(int(np.floor(np.log10(n))) - 1, 0)
    return int(np.ceil(n / unit) * unit)


def _line(level: str, what: str, why: str) -> Line:
    return {"level": level, "what": what, "why": why}
