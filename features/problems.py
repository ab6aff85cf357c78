"""What a user can mend: the errors whose text is meant for people."""

from collections.abc import Iterable


class UserError(ValueError):
    """A user's mistake in one sentence: what came, what was expected, what to do."""


class TableError(UserError):
    """A table that cannot be used as it is.

    Parameters
    ----------
    table : file or table name, for example ``deals.csv``
    column : the column at fault, or ``None`` where the table as a whole is
    expected : what was expected and what came instead
    ids : ids of the rows at fault; the first five are named
    """

    def __init__(self, table: str, column: str | None, expected: str, ids: Iterable[object] = ()) -> None:
        rows = [str(row) for row in ids]
        where = f"{table}: column '{column}'" if column else table
        shown = ", ".join(rows[:5]) + (", ..." if len(rows) > 5 else "")
        named = f" ({len(rows)} {'row' if len(rows) == 1 else 'rows'}: {shown})" if rows else ""
        super().__init__(f"{where} {expected}{named}.")
        self.table, self.column, self.ids = table, column, rows
