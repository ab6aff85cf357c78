"""What partners and customers are, and how long they know each other: the export, and events since."""

from collections.abc import Iterable, Mapping, Set

import numpy as np
import pandas as pd

from features.base_tables import BaseTables
from features.deal_state import Row
from features.event_frames import OwnKinds, joined
from features.events import Event

KEYS: Mapping[str, str] = {"partners": "partner_id", "customers": "customer_id"}


class Traits:
    """Partners, customers and relationships. As in training, their traits have no history but the pair's."""

    def __init__(self, base: BaseTables, own: OwnKinds) -> None:
        self._base, self._own = base, own
        self._told: dict[str, dict[str, list[Event]]] = {name: {} for name in KEYS}
        self._pairs: dict[tuple[str, str], list[Event]] = {}

    def learn(self, event: Event) -> None:
        """Take in what an event says besides its deal."""
        for name, key in KEYS.items():
            if told := event.part(name.removesuffix("s")):
                self._told[name].setdefault(told[key], []).append(event)
        if pair := event.part("relationship"):
            self._pairs.setdefault((pair["partner_id"], pair["customer_id"]), []).append(event)

    def knows(self, name: str, an_id: str) -> bool:
        """Tell whether a partner or customer has a row."""
        return an_id in self._told[name] or self._base.place(name, an_id) is not None

    def ids(self, name: str) -> set[str]:
        """Return the ids of all partners, or customers, that the export or an event tells of."""
        place = list(KEYS).index(name)
        return set(self._base.ids[name]) | set(self._told[name]) | {pair[place] for pair in self._pairs}

    def table(self, name: str, ids: Set[str]) -> pd.DataFrame:
        """Return the rows of some partners or customers; one that nobody described has its id alone."""
        told = ids & self._told[name].keys()
        places = np.sort(self._base.places(name, ids - told))
        of_base = getattr(self._base.tables, name).iloc[places]
        bare = ids - told - set(of_base[KEYS[name]])
        rows: list[Row] = [{KEYS[name]: each} for each in sorted(bare)]
        rows += [self._row(name, each) for each in sorted(told)]
        return joined(of_base, rows, self._own.of(name))

    def relationships(self, owners: Mapping[str, Set[str]]) -> pd.DataFrame:
        """Return the pairs' rows, of some partners with some customers."""
        places = self._base.pairs_of.of(self._base.places("partners", owners["partners"]))
        of_base = self._base.tables.relationships.iloc[places]
        of_base = of_base[of_base["customer_id"].isin(owners["customers"])]
        rows = [
            {**event.part("relationship"), "recorded_at": event.recorded_at}
            for pair, events in sorted(self._pairs.items())
            if pair[0] in owners["partners"] and pair[1] in owners["customers"]
            for event in in_order(events)
        ]
        return joined(of_base, rows, self._own.of("relationships"))

    def _row(self, name: str, an_id: str) -> Row:
        row = self._base.row(name, an_id) or {}
        for event in in_order(self._told[name][an_id]):
            row.update(event.part(name.removesuffix("s")))
        return row


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events as they followed each other, whichever came in first."""
    return sorted(events, key=lambda event: event.order)
