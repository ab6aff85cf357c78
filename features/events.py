"""What happens in a CRM after its tables were exported, one event each. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Kind = Literal["deal", "stage", "involvement", "outcome", "activity"]
KINDS: tuple[Kind, ...] = ("deal", "stage", "involvement", "outcome", "activity")


@dataclass(frozen=True)
class Event:
    """One thing that happened to one deal.

    Attributes
    ----------
    event_id : the same id is the same event
    happened_at, recorded_at, received_at : when it happened, when the CRM had it, when we had it; UTC. None
        of them lies in the future.
    content : by kind.
        ``deal``: ``deal`` (columns of deals), and where these are told too ``partner``, ``customer`` and
        ``relationship``, each with its ids.
        ``stage``: ``stage``, entered at ``happened_at``.
        ``involvement``: ``involvement_id``, ``started_at``, ``ended_at``, ``kind``, ``hours``; events of one
        id tell of one involvement. One that says neither when it started nor ended starts at ``happened_at``.
        ``outcome``: ``outcome`` (won, lost, or open again), ``closed_at`` (else ``happened_at``).
        ``activity``: ``by`` (vendor or partner), ``kind``.

        Values have the types of the columns: texts, floats, booleans, datetimes; None is blank.
    """

    event_id: str
    kind: Kind
    deal_id: str
    happened_at: datetime
    recorded_at: datetime
    received_at: datetime
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[datetime, datetime, str]:
        """Events of one deal follow each other so, whichever came in first."""
        return self.happened_at, self.recorded_at, self.event_id

    def part(self, name: str) -> Mapping[str, Any]:
        """Return an object of the content; empty where it is not told."""
        return self.content.get(name) or {}
