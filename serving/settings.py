"""What the server is told: read once, at the top, from STEPIN_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from features.problems import UserError
from serving import variables
from serving.variables import choice, flag, is_address, number, place, text, words

_POLICY = ("break_even_points", "hours", "cost_per_hour", "margin")


@dataclass(frozen=True)
class Settings:
    """Settings of one server. What is not given is taken from the model's own facts.

    The model

    ``STEPIN_MODEL``
        The model folder that `stepin train` wrote, or ``models:/NAME@ALIAS``. Needed.
    ``STEPIN_MODEL_NAME``, ``STEPIN_MODEL_VERSION``
        What the registry calls the model; each answer says it.
    ``STEPIN_SHADOW``
        A second model, a folder or ``models:/NAME@ALIAS``, that scores beside: journaled, never answered.
    ``STEPIN_POLL_SECONDS``
        How long a moved alias may take to be served: 0.05 to 3600, 2 by default.
    ``STEPIN_MODEL_POINTER``, ``STEPIN_SHADOW_POINTER``
        Files that say which folder to serve now; `stepin serve` makes and keeps them (`serving.pointer`).

    What stepping in costs

    ``STEPIN_BREAK_EVEN_POINTS``
        Uplift in percentage points that pays for stepping in, where costs are not given.
    ``STEPIN_HOURS``
        Vendor hours that stepping in takes.
    ``STEPIN_COST_PER_HOUR``
        What such an hour costs, in the currency of the amounts.
    ``STEPIN_MARGIN``
        Share of a deal's amount that is earned when it is won: above 0, at most 1.

    With hours, cost per hour and margin the break-even is computed for each deal whose amount is known.

    The journal

    ``STEPIN_DATABASE``
        Where answers, outcomes, events and keys are kept: a URL such as ``sqlite:///stepin.db`` (the default,
        in the working folder) or ``postgresql+psycopg://user:password@host/name``.
    ``STEPIN_JOURNAL``
        ``background`` (the default) records a moment after the reply, ``strict`` before it, ``off`` never.
    ``STEPIN_JOURNAL_LOST``
        While the journal cannot be written: ``refuse`` to answer (the default), or ``answer`` all the same.

    What the service knows

    ``STEPIN_DATA``
        A folder of CRM tables, or the URL of a database that holds them: known deals are answered from it.
    ``STEPIN_REFRESH_MINUTES``
        How old the facts of a known deal may grow before they are built anew: 60 by default.
    ``STEPIN_CAPACITY_HOURS``
        The vendor's hours: the to-do list is cut where they run out.
    ``STEPIN_BUILDER_SOCKET``
        Where the process that builds features listens; `stepin serve` sets it.

    Who may ask, and how much

    ``STEPIN_KEYS_REQUIRED``
        1: every request needs an API key, on the loopback too. Elsewhere they are always needed.
    ``STEPIN_RATE_PER_MINUTE``
        Requests that a key (or, without keys, an address) may send in a minute; no limit if left out.
    ``STEPIN_MOST_BODY_KIB``
        Largest body of a batch in KiB, 8192 by default; other bodies may be an eighth of it.
    ``STEPIN_BODY_SECONDS``
        Time in which a request must arrive, 0.8 by default; each 100 kB of its body add a second.
    ``STEPIN_MOST_IN_FLIGHT``
        Requests that one worker answers at the same time, 256 by default; more are told to come back.
    ``STEPIN_CORS_ORIGINS``
        Web pages of other origins that may ask, separated by commas; none if left out.
    ``STEPIN_HOSTS``
        Names of this server, separated by commas, by which it may be asked without keys; localhost and
        addresses always are.
    ``STEPIN_LOG``
        ``json`` (the default): a line for each request on stderr; ``off``: none.
    ``STEPIN_METRICS_FOLDER``
        Where workers leave their counts for each other; `stepin serve` sets it.
    """

    model: Path
    break_even_points: float | None = number(-100.0, 100.0, "percentage points")
    hours: float | None = number(0.0, 1e6, "vendor hours")
    cost_per_hour: float | None = number(0.0, 1e9, "money, in the currency of the amounts")
    margin: float | None = number(1e-6, 1.0, "a share of the deal's amount")
    model_name: str | None = text()
    model_version: str | None = text()
    shadow: Path | None = place()
    poll_seconds: float = number(0.05, 3600.0, "seconds", 2.0)
    model_pointer: Path | None = place()
    shadow_pointer: Path | None = place()
    database: str = text("sqlite:///stepin.db")
    journal: Literal["background", "strict", "off"] = choice(("background", "strict", "off"), "background")
    journal_lost: Literal["refuse", "answer"] = choice(("refuse", "answer"), "refuse")
    data: str | None = text()
    refresh_minutes: float = number(0.01, 1e5, "minutes", 60.0)
    capacity_hours: float | None = number(0.0, 1e7, "vendor hours")
    builder_socket: Path | None = place()
    keys_required: bool = flag()
    rate_per_minute: float | None = number(1.0, 1e7, "requests a minute")
    most_body_kib: float = number(8.0, 1e6, "KiB", 8192.0)
    body_seconds: float = number(0.05, 3600.0, "seconds", 0.8)
    most_in_flight: float = number(1.0, 1e5, "requests", 256.0)
    cors_origins: tuple[str, ...] = words()
    hosts: tuple[str, ...] = words()
    log: str = choice(("json", "off"), "json")
    metrics_folder: Path | None = place()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables above from `environ`; an empty one counts as not given.

        Raises
        ------
        UserError
            A variable that cannot be used, by name.
        """
        model = environ.get("STEPIN_MODEL", "").strip()
        if not model:
            raise UserError("STEPIN_MODEL is not set: name the model folder that stepin train wrote.")
        return cls(Path(model), **variables.read_all(cls, environ))

    def to_environ(self) -> dict[str, str]:
        """Write the variables that `from_environ` reads back to the same settings."""
        model = self.model if is_address(self.model) else self.model.absolute()
        return {"STEPIN_MODEL": str(model), **variables.write_all(self)}

    def policy_changes(self) -> dict[str, float]:
        """Return the numbers that override the policy of the model's facts."""
        return {name: getattr(self, name) for name in _POLICY if getattr(self, name) is not None}
