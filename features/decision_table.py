"""One row per decision: what was known, whether the vendor stepped in, what came of it."""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from features.problems import TableError, UserError

ROW_COLUMNS = ("deal_id", "partner_id", "stage", "decided_at", "stepped_in", "outcome", "amount")
HINDSIGHT = (
    "closed_at",
    "joined_later_at",
)  # of rows, and never features; tables of older versions lack them
_PREFIX = "feature."
_KEY = b"stepin"
_NO_DECISION_TABLE = (
    "is not a decision table; write one with 'stepin features', or say what its columns mean with --columns"
)
_DTYPES = {
    "deal_id": "str",
    "partner_id": "str",
    "stage": "str",
    "decided_at": "datetime64[us, UTC]",
    "stepped_in": "bool",
    "outcome": "float64",
    "amount": "float64",
    "closed_at": "datetime64[us, UTC]",
    "joined_later_at": "datetime64[us, UTC]",
}


@dataclass(frozen=True)
class FlowStep:
    """One line of the count: what, how many, of how many deals, and why they are in or out."""

    what: str
    n: int
    why: str
    deals: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class DecisionTable:
    """Decisions, their features, and where they come from.

    Attributes
    ----------
    rows : DataFrame of n decisions
        Index ``decision_id``, unique texts; columns ``deal_id``, ``partner_id`` and ``stage`` (texts, may be
        missing), ``decided_at`` (UTC, may be missing), ``stepped_in`` (bool), ``outcome`` (0 and 1, or a
        number in ``about["outcome_unit"]``), ``amount`` (in ``about["currency"]``, as known then). And, known
        with hindsight only: ``closed_at``, and ``joined_later_at``, when the vendor first came after the
        window of a decision to step back and before the close (UTC, missing otherwise).
    features : DataFrame of shape (n, n_features)
        The same index; what the model sees.
    about : where the decisions come from, as JSON can hold it: kind, outcome, outcome_unit, currency,
        amount_feature, stage_order, question, flow, left_out_columns; of CRM tables also grace_days,
        horizon_days, every_days, against, exported_at, protocol, final_values, ever_against_never,
        coordination.
    """

    rows: pd.DataFrame
    features: pd.DataFrame
    about: dict[str, Any]

    def __post_init__(self) -> None:
        assert self.rows.index.equals(self.features.index), "rows and features have different indices"
        if not self.rows.index.is_unique:
            twice = self.rows.index[self.rows.index.duplicated()]
            raise TableError("decisions", None, "would share an id; rename the deals or stages", twice)
        assert set(ROW_COLUMNS) <= set(self.rows.columns), "rows lack a column"
        rows = self.rows.reindex(columns=[*ROW_COLUMNS, *HINDSIGHT]).astype(_DTYPES)
        rows.index = rows.index.astype("str").rename("decision_id")
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "features", self.features.set_axis(rows.index))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def X(self) -> pd.DataFrame:  # noqa: N802  (scikit-learn's name for it)
        """What the model sees, shape (n, n_features)."""
        return self.features

    @property
    def treatment(self) -> NDArray[np.bool_]:
        """Whether the vendor stepped in, shape (n,)."""
        return self.rows["stepped_in"].to_numpy(dtype=bool)

    @property
    def outcome(self) -> NDArray[np.float64]:
        """What came of it, shape (n,)."""
        return self.rows["outcome"].to_numpy(dtype=np.float64)

    @property
    def groups(self) -> NDArray[np.object_]:
        """Whose decisions hang together: the partner, or the deal where no partner is known, shape (n,).

        Where the rows of one deal name several partners, these are one group: a deal is never torn apart.
        """
        deals = self.rows["deal_id"]
        groups = self.rows["partner_id"].where(self.rows["partner_id"].notna(), deals)
        if groups.groupby(deals.to_numpy()).nunique().max() > 1:
            groups = _joined(groups, deals)
        return groups.to_numpy(dtype=object)

    @property
    def flow(self) -> tuple[FlowStep, ...]:
        """How many rows of the source are decisions, and why the others are not."""
        return tuple(FlowStep(**step) for step in self.about["flow"])

    def take(self, chosen: NDArray[Any] | Sequence[bool] | pd.Series) -> "DecisionTable":
        """Return the decisions chosen by a mask of shape (n,), or those at positions, in their order.

        What they are about stays.
        """
        chosen = np.asarray(chosen)
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(self, rows=self.rows.iloc[positions], features=self.features.iloc[positions])

    def digest(self) -> str:
        """Return the SHA-256 of the content; the order of the rows does not matter."""
        whole = self._combined()
        hashes = np.sort(pd.util.hash_pandas_object(whole, index=True).to_numpy())
        types = [
            f"{name}:{dtype}" for name, dtype in zip(whole.columns, whole.dtypes.astype(str), strict=True)
        ]
        head = json.dumps([self.about, types], sort_keys=True)
        return hashlib.sha256(head.encode() + hashes.astype("<u8").tobytes()).hexdigest()

    def write(self, path: Path) -> None:
        """Write one Parquet file, whole or not at all: to a temporary name beside it, then renamed."""
        path = Path(path)
        levels = {
            name: self.features[name].cat.categories.tolist()
            for name in self.features.select_dtypes("category").columns
        }
        said = json.dumps({"format": 1, "about": self.about, "levels": levels})
        with warnings.catch_warnings():
            # pyarrow 25 reads a column's values in a way that pandas 3.1 warns of; nothing is lost.
            warnings.filterwarnings("ignore", "Series.values returning an ndarray that drops timezone")
            table = pa.Table.from_pandas(self._combined())
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: said.encode()})
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pq.write_table(table, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "DecisionTable":
        """Read what ``write`` wrote.

        Raises
        ------
        TableError
            The file is no decision table, or of a later format.
        """
        path = Path(path)
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise TableError(path.name, None, f"cannot be read as a decision table: {reason}") from None
        metadata = table.schema.metadata or {}
        if _KEY not in metadata:
            raise TableError(path.name, None, _NO_DECISION_TABLE)
        said = json.loads(metadata[_KEY])
        if said["format"] != 1:
            raise TableError(path.name, None, f"has format {said['format']}; this version reads format 1")
        whole = table.to_pandas()
        features = whole[[name for name in whole.columns if name.startswith(_PREFIX)]]
        features = features.rename(columns=lambda name: name.removeprefix(_PREFIX))
        for name, levels in said["levels"].items():
            features[name] = pd.Categorical(features[name], categories=pd.Index(levels, dtype="str"))
        rows = whole[[name for name in (*ROW_COLUMNS, *HINDSIGHT) if name in whole.columns]]
        return cls(rows, features, said["about"])

    def _combined(self) -> pd.DataFrame:
        return pd.concat([self.rows, self.features.add_prefix(_PREFIX)], axis=1)


def drop_columns_that_say_nothing(features: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Return the columns that can tell one decision from another, and which the others were, and why.

    Left out are columns that are all missing or constant, and texts of which no two are the same: names and
    notes, from which nothing can be learned about any other decision.
    """
    reasons = {str(name): _why_it_says_nothing(features[name]) for name in features.columns}
    left_out = [{"column": name, "why": why} for name, why in reasons.items() if why]
    return features.drop(columns=[line["column"] for line in left_out]), left_out


def _why_it_says_nothing(values: pd.Series) -> str | None:
    distinct, known = values.nunique(), int(values.count())
    if distinct == 0:
        return "all missing"
    if distinct == 1 and known == len(values):
        return "the same everywhere"
    is_text = not pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    return "another one in every row" if is_text and distinct == known > 1 else None


def refuse_one_valued(rows: pd.DataFrame, stepped_in: str, outcome: str) -> None:
    """Refuse decisions that all went the same way: there is nothing to compare.

    Parameters
    ----------
    rows : with ``stepped_in`` and ``outcome``
    stepped_in, outcome : what the two mean, in words or as the source's column
    """
    for column, what in (("stepped_in", stepped_in), ("outcome", outcome)):
        if rows[column].nunique() < 2:
            value = rows[column].iloc[0]
            all_or_none = "All" if value else "None"
            raise UserError(
                f"{all_or_none} of the {len(rows):,} decisions {what}; both kinds are needed to compare."
            )


def _joined(groups: pd.Series, deals: pd.Series) -> pd.Series:
    """Name each row's group by the first of those that deals connect, shape (n,)."""
    group, names = pd.factorize(groups, sort=True)
    deal = pd.factorize(deals)[0]
    n = len(names) + int(deal.max()) + 1
    edges = coo_array((np.ones(len(group)), (group, deal + len(names))), shape=(n, n))
    component = connected_components(edges, directed=False)[1]
    first = pd.Series(names).groupby(component[: len(names)]).first()
    return pd.Series(first.loc[component[group]].to_numpy(), index=groups.index)
