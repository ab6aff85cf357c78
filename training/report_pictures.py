"""The report's pictures: PNG as data addresses, drawn without any global state.

Only our own words and numbers are drawn. A table's names stand in the page beside the picture, where they
are escaped and can be read aloud.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from training.clustered import Estimate

# Okabe & Ito's blue and vermilion: told apart by every kind of colour vision, and in grey.
BLUE, RED, GREY, INK = "#0072B2", "#D55E00", "#767676", "#1b1b1b"


def forest(
    names: Sequence[str], said: Sequence[str], estimates: Sequence[Estimate], unit: str, scale: float
) -> str:
    """Claims under each other with what they say and their 95% intervals, the last one emphasised."""
    figure, axes = _canvas(7.2, 0.6 * len(names) + 0.9)
    for place, estimate in enumerate(estimates):
        colour = BLUE if place == len(names) - 1 else RED
        low, high = _finite(estimate)
        axes.annotate(
            said[place],
            (scale * estimate.value, place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=9,
        )
        axes.plot([scale * low, scale * high], [place, place], color=colour, lw=2.5, solid_capstyle="butt")
        axes.plot([scale * estimate.value], [place], "o", color=colour, ms=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axvline(0, color=GREY, lw=1)
    axes.set_xlabel(f"Stepping in against stepping back, {unit}")
    return _address(figure)


def calibration(fifths: Sequence[dict[str, float]], unit: str, scale: float) -> str:
    """Observed on predicted uplift by fifths, with the line on which both agree."""
    figure, axes = _canvas(4.6, 3.7)
    x = scale * np.array([row["predicted"] for row in fifths])
    y, low, high = (scale * np.array([row[key] for row in fifths]) for key in ("observed", "lo", "hi"))
    low, high = (np.where(np.isfinite(end), end, y) for end in (low, high))
    ends = [float(x.min()), float(x.max())]
    margin = 0.1 * (ends[1] - ends[0]) + 1e-9
    axes.plot(
        [ends[0] - margin, ends[1] + margin], [ends[0] - margin, ends[1] + margin], "--", color=GREY, lw=1
    )
    axes.errorbar(x, y, yerr=[y - low, high - y], fmt="o", color=BLUE, ms=7, lw=2)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xlabel(f"Predicted uplift, {unit}")
    axes.set_ylabel(f"What happened, {unit}")
    return _address(figure)


def targeting(curve: Sequence[dict[str, float]], unit: str, scale: float) -> str:
    """The gain of the first share of decisions over the average, as the share grows."""
    figure, axes = _canvas(4.6, 3.7)
    share = 100 * np.array([point["q"] for point in curve])
    value, low, high = (scale * np.array([point[key] for point in curve]) for key in ("value", "lo", "hi"))
    known = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(share[known], low[known], high[known], color=BLUE, alpha=0.18, lw=0)
    axes.plot(share, value, color=BLUE, lw=2)
    axes.axhline(0, color=GREY, lw=1)
    _within(axes, value, low[share > 12], high[share > 12])
    axes.set_xlim(0, 100)
    axes.set_xlabel("Decisions with the highest predicted uplift, % of all")
    axes.set_ylabel(f"Their uplift above the average, {unit}")
    return _address(figure)


def curve(xs: Sequence[float], points: Sequence[float], unit: str, scale: float) -> str:
    """Contribution of a number to the uplift over its range."""
    figure, axes = _canvas(3.4, 1.9)
    x, y = np.asarray(xs, dtype=float), scale * np.asarray(points, dtype=float)
    axes.axhline(0, color=GREY, lw=1)
    axes.fill_between(x, 0, y, where=(y >= 0).tolist(), interpolate=True, color=BLUE, alpha=0.15, lw=0)
    axes.fill_between(x, 0, y, where=(y <= 0).tolist(), interpolate=True, color=RED, alpha=0.15, lw=0)
    axes.plot(x, y, color=INK, lw=2)
    _spread_out(axes, x)
    axes.set_ylabel(unit.capitalize(), fontsize=8)
    axes.tick_params(labelsize=8)
    return _address(figure)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Figure of `width` by `height` inches with plain axes."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.ticklabel_format(useOffset=False)
    return figure, axes


def _spread_out(axes: Axes, x: np.ndarray) -> None:
    """Amounts and counts lie close together and far out: a logarithmic axis for them, short tick labels."""
    middle = float(np.median(x)) if len(x) else 0.0
    if len(x) and x.min() > 0 and x.max() > 10 * middle:
        axes.set_xscale("log")
    elif len(x) and x.min() == 0 and x.max() > 10 * max(middle, 1.0):
        axes.set_xscale("symlog", linthresh=max(middle, 1.0))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _within(axes: Axes, *values: np.ndarray) -> None:
    """Limit the height to `values`, so that the first few decisions' wide band does not flatten the rest."""
    every = np.concatenate([part[np.isfinite(part)] for part in values] + [np.zeros(1)])
    pad = 0.08 * (every.max() - every.min()) + 1e-9
    axes.set_ylim(every.min() - pad, every.max() + pad)


def _finite(estimate: Estimate) -> tuple[float, float]:
    ends = (estimate.lo, estimate.hi)
    low, high = (end if np.isfinite(end) else estimate.value for end in ends)
    return low, high


def _address(figure: Figure) -> str:
    """PNG as a ``data:`` address, so that the page needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
