"""The CRM tables while they are put right: the ledger hears what leaves them, repairs are counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.crm.blocks import FILE, ROW
from features.crm.export import Export

Mask = NDArray[np.bool_]
MADE = ""  # the FILE of a row that no row of the export gave
_LOOKED_AT = 50  # rows of a table; several may come from one line, which is named once


def is_in(values: pd.Series, index: pd.Index) -> Mask:
    """Tell which values stand in an index of unique ones; isin of texts takes minutes on a million."""
    return index.get_indexer(pd.Index(values)) >= 0


def value_of(ids: pd.Series, table: pd.DataFrame, key: str, column: str) -> pd.Series:
    """Return a column of a table for each id, in the column's type, missing where the table lacks the id."""
    values = table[column].reset_index(drop=True)
    at = pd.Index(table[key]).get_indexer(pd.Index(ids))
    if not len(values):
        return pd.Series(index=ids.index, dtype=values.dtype)
    return values.take(np.maximum(at, 0)).set_axis(ids.index).mask(at < 0)


@dataclass
class Draft:
    """Tables under repair.

    Attributes
    ----------
    frames : by table; beside the table's columns each has ``FILE`` and ``ROW``
    export : their source; its ledger and repairs are told
    """

    frames: dict[str, pd.DataFrame]
    export: Export

    def refuse(self, table: str, mask: Mask | pd.Series, reasons: str | Sequence[str]) -> None:
        """Refuse rows of a table."""
        self._drop(table, mask, reasons, lambda ledger: ledger.refuse)

    def pass_over(self, table: str, mask: Mask | pd.Series, reasons: str | Sequence[str]) -> None:
        """Pass rows of a table over, by name."""
        self._drop(table, mask, reasons, lambda ledger: ledger.pass_over)

    def _drop(self, table: str, mask: Mask | pd.Series, reasons: str | Sequence[str], verb: Callable) -> None:
        gone = np.asarray(mask, dtype=bool)
        if not gone.any():
            return
        frame = self.frames[table]
        named = np.array(
            [reasons] * int(gone.sum()) if isinstance(reasons, str) else list(reasons), dtype=object
        )
        files, rows = frame[FILE].to_numpy()[gone], frame[ROW].to_numpy()[gone]
        for file in pd.unique(files):
            if file != MADE:
                own = files == file
                verb(self.export.files[file].ledger)(rows[own], named[own].tolist())
        self.frames[table] = frame[~gone].reset_index(drop=True)

    def repair(self, table: str, mask: Mask | pd.Series, rule: str) -> None:
        """Count a repair of rows of a table, by its rule."""
        hit = np.flatnonzero(np.asarray(mask, dtype=bool))
        self.export.repairs.add(rule, len(hit), [self.place(table, int(row)) for row in hit[:_LOOKED_AT]])

    def place(self, table: str, row: int) -> str:
        """Return where a row of a table came from, for people."""
        frame = self.frames[table]
        file, at = frame[FILE].iloc[row], int(frame[ROW].iloc[row])
        return f"{table} made" if file == MADE else self.export.files[file].ledger.place(at)

    def keep(self) -> None:
        """Tell the ledger that the rows that are left are kept."""
        for frame in self.frames.values():
            for file in frame[FILE].unique():
                if file != MADE:
                    rows = frame[ROW].to_numpy()[(frame[FILE] == file).to_numpy()]
                    self.export.files[file].ledger.kept[rows] = True
