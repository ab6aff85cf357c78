"""The target trial: the experiment that the decisions imitate, in its seven parts."""

from dataclasses import dataclass
from typing import Literal, get_args

from features.problems import UserError

Against = Literal["wait", "never"]
GRACE_DAYS = 14
HORIZON_DAYS = 180


@dataclass(frozen=True)
class TargetTrial:
    """Who could be stepped in on when, what counts as stepping in, and what it is compared with.

    Attributes
    ----------
    grace_days : vendor people who are active within so many days after the moment have stepped in
    horizon_days : the deal counts as won if it closes won within so many days after the moment
    every_days : a moment to decide every so many days since the deal's creation; None: at each stage entry
    against : stepping in now is compared with waiting, later choices left to nature (``wait``), or with
        nobody coming within the horizon (``never``)

    Raises
    ------
    UserError
        The window does not end before the horizon, or a value is none of those that can be.

    Notes
    -----
    Source: Hernán & Robins, "Using big data to emulate a target trial when a randomized trial is not
    available", American Journal of Epidemiology 183 (2016).
    """

    grace_days: int = GRACE_DAYS
    horizon_days: int = HORIZON_DAYS
    every_days: int | None = None
    against: Against = "wait"

    def __post_init__(self) -> None:
        if not 0 < self.grace_days < self.horizon_days:
            raise UserError(
                f"grace_days is {self.grace_days} and horizon_days {self.horizon_days}; "
                "the window should be longer than 0 days and end before the horizon."
            )
        if self.every_days is not None and self.every_days < 1:
            raise UserError(f"every_days is {self.every_days}; it should be 1 or more, or left out.")
        if self.against not in get_args(Against):
            raise UserError(f"against is {self.against!r}; it should be wait or never.")

    @property
    def moment(self) -> str:
        """When it is decided, in words that follow "within 14 days of"."""
        return "its entry into the stage" if self.every_days is None else "the moment"

    def question(self) -> str:
        """Return what the effect answers, as one question."""
        against = {
            "wait": "against their waiting, with later choices left to nature?",
            "never": f"against their not coming at all within these {self.horizon_days} days?",
        }
        return (
            f"By how much does it change the chance that the deal is won within {self.horizon_days} days "
            f"if vendor people are active on it within {self.grace_days} days of {self.moment}, "
            f"{against[self.against]}"
        )

    def protocol(self) -> list[tuple[str, str]]:
        """Return the seven parts of the trial and what each is here."""
        moments = (
            "enters a stage"
            if self.every_days is None
            else f"has been open for {self.every_days} days, or a multiple of that, in a stage on record"
        )
        other = {
            "wait": "wait: nobody is active within the window; whether they come later is left to nature",
            "never": "stay away: nobody is active within the window, nor later within the horizon",
        }
        estimand = {
            "wait": "The difference in the chance to win between stepping in now and waiting.",
            "never": "The difference in the chance to win between stepping in now and staying away; deals "
            "joined later are weighted away by the inverse probability of that.",
        }
        return [
            (
                "Eligibility",
                f"A deal of a partner at each moment at which it {moments}, if it is still open "
                f"{self.grace_days} days later and the moment lies {self.horizon_days} days or more before "
                "the export.",
            ),
            (
                "The two choices",
                f"Step in: vendor people are active on the deal within {self.grace_days} days. "
                f"Or {other[self.against]}.",
            ),
            (
                "Assignment",
                "By people, not by lot: comparable only among decisions alike in all that was on record "
                "before the moment.",
            ),
            ("Time zero", "The moment itself: eligibility, choice and follow-up start there."),
            (
                "Follow-up",
                f"{self.horizon_days} days from the moment, the same for both choices.",
            ),
            ("Outcome", f"Won within the {self.horizon_days} days; lost, or still open, is not won."),
            ("Estimand", estimand[self.against]),
        ]
