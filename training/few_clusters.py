"""What few or unequal partners do to a standard error that sums by partner.

The residuals behind such a standard error have been drawn towards zero by what was fitted to them, most
within large partners; and few sums say little about a variance. Both are computed under a working model:
every two scores of one partner correlate alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Correction:
    """How to read the sum over partners of their squared influence."""

    factor: float
    """Times the plain variance it is unbiased under the working model; NaN where nothing is known."""
    df: float
    """Degrees of freedom of Student's t."""


def correction(
    codes: NDArray[np.int64], weight: Floats, design: Floats | None, residual: Floats
) -> Correction:
    """Small-sample correction of the estimate sum(weight * score), clustered by partner.

    Parameters
    ----------
    codes : partner of each decision as 0, 1, ..., shape (n,)
    weight : how each score enters the estimate, up to scale, shape (n,)
    design : columns fitted to the scores, `weight` among their combinations, shape (n, p); `weight` alone
        where None
    residual : scores less what the columns fit, shape (n,): they tell how alike a partner's decisions are

    Notes
    -----
    With a the weights, H the projection on the columns and Omega the working covariance, the partners' sums
    of a * residual have the covariance B = A'(I - H) Omega (I - H) A, where A holds a in a column for each
    partner. The factor is a'Omega a / tr B, which makes the variance unbiased, as the CR2 correction of Bell
    & McCaffrey (2002) does under independence. For a mean of equal partners it is C / (C - 1).

    (tr B)^2 / tr B^2 are Satterthwaite's degrees of freedom, taken under independence as Bell & McCaffrey do.
    Under the working model (Imbens & Kolesár 2016) they are far fewer where a few partners hold most
    decisions, and true nulls are then rejected in as few as 1% instead of 5%. ``benchmarks/size.py``
    measures the size.
    """
    size = math.sqrt(float(weight @ weight))
    counts = np.bincount(codes).astype(float)
    if size == 0:
        return Correction(1.0, max(len(counts) - 1.0, 1.0))
    columns = weight[:, None] / size if design is None else np.linalg.qr(design)[0]
    a = weight / size
    own = _Sums(
        square=_by_partner((a * a)[:, None], codes)[:, 0],
        total=_by_partner(a[:, None], codes)[:, 0],
        fitted=_by_partner(columns * a[:, None], codes),
        columns=_by_partner(columns, codes),
    )
    alike = intra_class_correlation(residual, codes)
    trace = own.trace(alike)
    if not trace > 1e-9:  # all that is known comes from one partner
        return Correction(math.nan, 1.0)
    variance = (1 - alike) * own.square.sum() + alike * float(own.total @ own.total)
    return Correction(variance / trace, max(own.degrees_of_freedom(), 1.0))


def intra_class_correlation(residual: Floats, codes: NDArray[np.int64]) -> float:
    """Mean product of two residuals of one partner over their mean square, within [0, 1]."""
    counts = np.bincount(codes).astype(float)
    squares = float(residual @ residual)
    pairs = float(counts @ counts) - len(residual)
    if pairs <= 0 or squares <= 0:
        return 0.0
    sums = np.bincount(codes, weights=residual)
    return float(np.clip((sums @ sums - squares) / pairs * len(residual) / squares, 0.0, 1.0))


@dataclass(frozen=True)
class _Sums:
    """Sums over each of C partners' decisions, of the weights a and of p orthonormal columns q."""

    square: Floats
    """Of a², shape (C,)."""
    total: Floats
    """Of a, shape (C,)."""
    fitted: Floats
    """Of a q, shape (C, p)."""
    columns: Floats
    """Of q, shape (C, p)."""

    def trace(self, alike: float) -> float:
        """Trace of B = A'(I - H) Omega (I - H) A, with Omega = (1 - alike) I + alike within partners."""
        apart = self.square.sum() - np.sum(self.fitted**2)
        cross = np.sum(self.columns * self.fitted, axis=1)
        shared = np.sum((self.fitted.T @ self.fitted) * (self.columns.T @ self.columns))
        together = self.total @ self.total - 2 * self.total @ cross + shared
        return float((1 - alike) * apart + alike * together)

    def degrees_of_freedom(self) -> float:
        """(Trace of B)² over the trace of B², where Omega is I."""
        lengths = np.sum(self.fitted**2, axis=1)
        shared = np.sum((self.fitted.T @ self.fitted) ** 2)
        squares = self.square @ self.square - 2 * self.square @ lengths + shared
        return self.trace(0.0) ** 2 / max(float(squares), 1e-300)


def _by_partner(columns: Floats, codes: NDArray[np.int64]) -> Floats:
    sums: Floats = np.column_stack([np.bincount(codes, weights=column) for column in columns.T])
    return sums
