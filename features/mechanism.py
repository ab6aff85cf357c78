"""How a simulated deal advances, when the vendor joins it, and what joining is worth: exactly.

Each deal passes up to four stages. In each, the vendor joins soon (within the grace window), late,
or not at all; a deal is lost quickly for reasons nobody could influence, or reaches the stage's end
and advances or is lost there. The truth is a backward recursion over the stages with these same
functions, so it is computed, never estimated:

    V[k, s] = (1 - quick_loss) * (e * advance_1 * V[k+1, 2] + (1 - e) * (...))

where ``s`` is what the vendor did before: 0 nothing, 1 something earlier, 2 active in the last stage.
All arrays have shape (n_deals,) unless said otherwise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STAGES = ("qualify", "solution", "proposal", "negotiation")
GRACE_DAYS = 14
HORIZON_DAYS = 180
SHORTEST_STAGE_DAYS = 15
QUICK_LOSS = 0.05
PACE_EXTRA_DAYS = (4.0, 7.0, 11.0, 17.0, 26.0)
NEVER, EARLIER, LAST_STAGE = 0, 1, 2
BEFORE = (NEVER, EARLIER, LAST_STAGE)

_STAGE_ADVANCE = (0.1, 0.0, -0.1, 0.1)
_STAGE_JOIN = (0.0, 0.1, 0.3, 0.0)
_STAGE_HELP = (1.65, 1.65, 1.65, 1.5)
_STAGE_NEED = (0.0, 0.10, 0.15, -0.20)
_JOIN_AFTER = (0.0, 0.2, 0.7)
_LATE_HELP, _LASTING_HELP = 0.5, 0.25


@dataclass(frozen=True)
class Situation:
    """What drives a deal, fixed when it is created. Shapes (n_deals,)."""

    size: Array  # log amount, standardised
    complexity: Array  # centred and scaled: -1.7 to 1.7
    novel: Array  # 0 or 1: a product new to the market
    strategic: Array
    competitor: Array
    first_sale: Array  # no earlier win of this partner at this customer
    wins: Array  # earlier wins of the pair
    tenure_years: Array  # of the pair
    executive_contact: Array
    integrator: Array
    small_partner: Array  # 0 to 1
    big_customer: Array  # 0 to 1
    always_joined: Array  # region in which the vendor nearly always steps in
    skill: Array  # the partner's own, on the logit scale
    help_gain: Array  # what this partner makes of help, on the logit scale
    pace: NDArray[np.int64]  # row of PACE_EXTRA_DAYS

    @property
    def trust(self) -> Array:
        """0 to 1: grows with years together and with wins; contact to executives adds."""
        grown = self.tenure_years / 5.0 + self.wins / 2.5 + 0.4 * self.executive_contact
        return 1.0 - np.exp(-grown)


def join_probability(deal: Situation, stage: int, before: int | NDArray[np.int64]) -> Array:
    """P(the vendor joins within the grace window): more for big, complex, strategic first sales."""
    logit = (
        -1.60
        + 0.70 * deal.size
        + 0.25 * deal.complexity
        + 0.90 * deal.strategic
        + 0.35 * deal.first_sale
        + 0.20 * deal.novel
        + 1.00 * deal.competitor
        + _STAGE_JOIN[stage]
        + np.asarray(_JOIN_AFTER)[before]
        + 6.0 * deal.always_joined
    )
    return _sigmoid(logit)


def late_join_probability(deal: Situation) -> Array:
    """P(the vendor joins after the grace window | not within it): slow deals have more chances."""
    return 0.02 + 0.0045 * np.asarray(PACE_EXTRA_DAYS)[deal.pace]


def help_on_advance(deal: Situation, stage: int) -> Array:
    """What full involvement adds to the logit of advancing from this stage."""
    first_small_big = deal.first_sale * deal.small_partner * deal.big_customer
    help_needed = (
        0.70
        + _STAGE_NEED[stage]
        + 0.70 * deal.first_sale
        + 1.00 * first_small_big
        + 0.45 * deal.complexity
        + 0.60 * deal.novel
        - 1.60 * deal.trust
        + deal.help_gain
    )
    held_by_partner = deal.integrator * deal.executive_contact * (stage >= 2)
    return _STAGE_HELP[stage] * help_needed - 1.1 * held_by_partner


def advance_probability(
    deal: Situation, stage: int, share_of_help: float | Array, effect: float = 1.0
) -> Array:
    """P(the deal advances at the stage's end), given how much of the vendor's help it had (0 to 1)."""
    logit = (
        1.85
        - 0.64 * deal.size
        - 0.35 * deal.complexity
        - 0.90 * deal.strategic
        - 0.60 * deal.first_sale
        - 0.20 * deal.novel
        - 0.92 * deal.competitor
        + 0.30 * deal.trust
        + deal.skill
        + _STAGE_ADVANCE[stage]
    )
    return _sigmoid(logit + effect * share_of_help * help_on_advance(deal, stage))


def share_of_help(
    joined: NDArray[np.bool_], joined_late: NDArray[np.bool_], before: NDArray[np.int64]
) -> Array:
    """All of it when the vendor joined in time, half when late, a quarter lasts from earlier stages."""
    lasting = np.where(before > NEVER, _LASTING_HELP, 0.0)
    return np.where(joined, 1.0, np.where(joined_late, _LATE_HELP, lasting))


@dataclass(frozen=True)
class Truth:
    """What a decision is worth. Shapes (n_stages, 3, n_deals): stage, what the vendor did before, deal."""

    propensity: Array
    win_if_step_back: Array
    win_if_step_in: Array
    win_if_never: Array
    """Nobody comes any more, in this stage or a later one."""


def truth(deal: Situation, effect: float = 1.0) -> Truth:
    """P(win within the horizon) when the vendor steps in now, when it waits, and when it never comes.

    Later choices are left to nature in the first two. All among deals still open at the end of the grace
    window, which no choice of the vendor's changes. Whoever comes after the horizon changes no win within it.
    """
    n_stages, n_deals = len(STAGES), len(deal.size)
    propensity, step_back, step_in, never = (np.empty((n_stages, 3, n_deals)) for _ in range(4))
    in_time = within_horizon()[:, deal.pace]
    win_from, win_alone = np.ones((3, n_deals)), np.ones((3, n_deals))
    for stage in reversed(range(n_stages)):
        win_here = np.empty((3, n_deals))
        alone = np.stack([_alone(deal, stage, before, win_alone, effect) for before in BEFORE])
        never[stage] = alone * in_time[stage]
        win_alone = (1 - QUICK_LOSS) * alone
        for before in BEFORE:
            joins = join_probability(deal, stage, before)
            now, wait = _both_choices(deal, stage, before, win_from, effect)
            win_here[before] = (1 - QUICK_LOSS) * (joins * now + (1 - joins) * wait)
            propensity[stage, before] = joins
            step_in[stage, before], step_back[stage, before] = now * in_time[stage], wait * in_time[stage]
        win_from = win_here
    return Truth(propensity, step_back, step_in, never)


def _both_choices(
    deal: Situation, stage: int, before: int, win_from: Array, effect: float
) -> tuple[Array, Array]:
    """P(win at last | open at the window's end): vendor in now, and vendor waiting."""
    now = advance_probability(deal, stage, 1.0, effect) * win_from[LAST_STAGE]
    late = late_join_probability(deal)
    stays_out = _alone(deal, stage, before, win_from, effect)
    joins_late = advance_probability(deal, stage, _LATE_HELP, effect) * win_from[LAST_STAGE]
    return now, (1 - late) * stays_out + late * joins_late


def _alone(deal: Situation, stage: int, before: int, win_from: Array, effect: float) -> Array:
    """P(win at last | open at the window's end) when the vendor stays out of this stage."""
    lasting = _LASTING_HELP if before > NEVER else 0.0
    return advance_probability(deal, stage, lasting, effect) * win_from[min(before, EARLIER)]


def within_horizon() -> Array:
    """P(all stages from this one on end within the horizon), shape (n_stages, n_paces), by convolution."""
    days = np.arange(HORIZON_DAYS + 1)
    table = np.empty((len(STAGES), len(PACE_EXTRA_DAYS)))
    for pace in range(len(PACE_EXTRA_DAYS)):
        one_stage = np.where(
            days >= SHORTEST_STAGE_DAYS, _extra_days_pmf(pace, days - SHORTEST_STAGE_DAYS), 0.0
        )
        total = np.eye(1, len(days))[0]
        for stage in reversed(range(len(STAGES))):
            total = np.convolve(total, one_stage)[: len(days)]
            table[stage, pace] = total.sum()
    return table


def draw_stage_days(pace: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Length of a stage that is not lost quickly, whole days: the shortest plus two geometric waits."""
    stop = _stop_probability(pace)
    return SHORTEST_STAGE_DAYS + (rng.geometric(stop) - 1) + (rng.geometric(stop) - 1)


def _stop_probability(pace: NDArray[np.int64] | int) -> Array:
    half = np.asarray(PACE_EXTRA_DAYS)[pace] / 2.0
    return 1.0 / (1.0 + half)


def _extra_days_pmf(pace: int, extra: NDArray[np.int64]) -> Array:
    """P(extra days) of the sum of two geometric waits (negative binomial with two stops)."""
    stop = _stop_probability(pace)
    return (extra + 1) * stop**2 * (1 - stop) ** np.maximum(extra, 0)


def _sigmoid(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-logit))
