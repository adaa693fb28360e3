"""Figures that are no maps: scores against parameters, models, hold-outs, samples; workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hpc_sweep.reporting.drawing import (
    GREY,
    INK,
    blank,
    is_logarithmic,
    plain_logarithmic,
)
from hpc_sweep.reporting.words import clean, number, value

MOST_POINTS = 3000
"""More points than these are drawn as a density."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Quantiles of scores for each value of a parameter, of one model."""

    name: str
    colour: Any
    values: Floats
    quantiles: Floats


def draw_response(
    lines: Sequence[Line], parameter: str, texts: Sequence[str] | None, score: str, width: float
) -> Figure:
    """Draw scores against a parameter: median, half and four fifths of the partitions."""
    figure, axes = blank(
        width, 2.75 if len(lines) > 1 else 2.5, top=0.3 if len(lines) > 1 else 0.12
    )
    values = np.unique(np.concatenate([line.values for line in lines]))
    logarithmic = texts is None and is_logarithmic(values)
    for place, line in enumerate(lines):
        shift = 0.0 if texts is None else (place - (len(lines) - 1) / 2) * 0.18
        _response(axes, line, shift, texts is None)
    axes.set_xlabel(parameter)
    axes.set_ylabel(score)
    if texts is not None:
        axes.set_xlim(values.min() - 0.5, values.max() + 0.5)
        axes.set_xticks(values, [clean(texts[int(v)], 14) for v in values])
        if sum(len(clean(texts[int(v)], 14)) + 2 for v in values) > 46:
            axes.tick_params("x", rotation=20)
    elif logarithmic:
        axes.set_xscale("log")
        _grid_ticks(axes, values, logarithmic)
    else:
        _grid_ticks(axes, values, logarithmic)
    _robust(axes, lines)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(lines) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(lines), borderaxespad=0.2)
    return figure


def _response(axes: Axes, line: Line, shift: float, is_numeric: bool) -> None:
    low, lower, middle, upper, high = line.quantiles
    if is_numeric and len(line.values) > 1:
        axes.fill_between(line.values, low, high, color=line.colour, alpha=0.13, linewidth=0)
        axes.fill_between(line.values, lower, upper, color=line.colour, alpha=0.25, linewidth=0)
        axes.plot(
            line.values,
            middle,
            "o-",
            color=line.colour,
            markersize=4,
            linewidth=1.6,
            label=line.name,
        )
        return
    places = line.values + shift
    axes.vlines(places, low, high, color=line.colour, linewidth=1.2)
    axes.vlines(places, lower, upper, color=line.colour, linewidth=4.5, alpha=0.55)
    axes.plot(places, middle, "o", color=line.colour, markersize=5, label=line.name)


def _grid_ticks(axes: Axes, values: Floats, logarithmic: bool) -> None:
    """Put ticks at the values of the grid, if they are few and far enough from each other."""
    scaled = np.log(values) if logarithmic else values
    room = np.diff(scaled).min() / np.ptp(scaled) if len(values) > 1 else 1.0
    longest = max(len(value(v)) for v in values)
    if room > 0.022 * longest:
        axes.xaxis.set_major_locator(FixedLocator(list(values)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: value(v)))
    elif logarithmic:
        plain_logarithmic(axes.xaxis, float(values[0]), float(values[-1]))


def _robust(axes: Axes, lines: Sequence[Line]) -> None:
    """Let a few candidates that are bad beyond measure not press the others together."""
    middles = np.concatenate([line.quantiles[2] for line in lines])
    ends = np.concatenate([line.quantiles.ravel() for line in lines])
    ends, middles = ends[np.isfinite(ends)], middles[np.isfinite(middles)]
    if not ends.size:
        return
    room = 4 * max(
        np.ptp(middles),
        float(np.median(np.ptp(np.stack([q for line in lines for q in line.quantiles.T]), axis=1))),
    )
    low, high = max(ends.min(), middles.min() - room), min(ends.max(), middles.max() + room)
    pad = 0.04 * (high - low) or max(abs(high), 1e-6) * 0.1
    axes.set_ylim(low - pad, high + pad)


def draw_wins(
    names: Sequence[str],
    wins: Sequence[int],
    close: Sequence[int],
    hues: Sequence[Any],
    what: str,
    width: float,
) -> Figure:
    """Draw in how many partitions each model is the best; paler where the next one is close."""
    figure, axes = blank(width, 0.62 + 0.34 * len(names), left=_room(names), bottom=0.5)
    places = np.arange(len(names))[::-1]
    sure = np.array(wins) - np.array(close)
    axes.barh(places, sure, color=list(hues), height=0.66)
    axes.barh(places, close, left=sure, color=list(hues), alpha=0.4, height=0.66)
    whole = sum(wins)
    for place, count in zip(places, wins, strict=True):
        axes.annotate(
            f"{count:,} ({100 * count / max(whole, 1):.0f} %)",
            (count, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(places, [clean(name, 22) for name in names])
    room = 0.08 * (len(f"{max(wins):,}") + 8) / (width - _room(names) - 0.15)
    axes.set_xlabel(what)
    axes.set_xlim(0, max(max(wins), 1) / (1 - room))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.tick_params("y", length=0)
    return figure


def draw_ranges(
    names: Sequence[str],
    ranges: Floats,
    hues: Sequence[Any],
    title: str,
    zero: bool,
    width: float,
    notes: Sequence[str] = (),
) -> Figure:
    """Draw quantiles as lines, a row for each name.

    Parameters
    ----------
    names : sequence of str
        Of the rows.
    ranges : ndarray, shape (n_rows, 5)
        At the levels of `findings`.
    hues : sequence
        Colours of the rows.
    title : str
        Of the scale.
    zero : bool
        Whether there is a line at zero.
    width : float
        In inches.
    notes : sequence of str
        What stands below the name of each row.
    """
    left = _room([*names, *notes])
    figure, axes = blank(width, 0.62 + 0.42 * len(names), left=left, bottom=0.5)
    places = np.arange(len(names))[::-1]
    for place, (low, lower, middle, upper, high), hue in zip(places, ranges, hues, strict=True):
        axes.hlines(place, low, high, color=hue, linewidth=1.3)
        axes.hlines(place, lower, upper, color=hue, linewidth=6, alpha=0.55)
        axes.plot(middle, place, "o", color=hue, markersize=5, markeredgecolor="white")
    if zero:
        axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, [clean(name, 22) for name in names], va="bottom" if notes else "center")
    for place, note in zip(places, notes, strict=False):
        axes.annotate(
            note,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-3.5, -1.5),  # as far from the axis as the names
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=7.5,
            color=GREY,
        )
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_xlabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params("y", length=0)
    return figure


def _room(names: Sequence[str]) -> float:
    longest = max((len(clean(name, 22)) for name in names), default=1)
    return min(1.9, 0.25 + 0.078 * longest)


def draw_pairs(
    right: Floats, up: Floats, titles: tuple[str, str], width: float, diagonal: bool = True
) -> Figure:
    """Draw two numbers of each partition against each other: points, or a density of many."""
    figure, axes = blank(width, 0.85 * width if diagonal else 2.6, bottom=0.5)
    known = np.isfinite(right) & np.isfinite(up)
    right, up = right[known], up[known]
    limits = [_limits(values) for values in (right, up)]
    if diagonal:
        both = min(low for low, _ in limits), max(high for _, high in limits)
        limits = [both, both]
    if len(right) <= MOST_POINTS:
        size = 22 if len(right) < 100 else 9 if len(right) < 800 else 5
        axes.scatter(
            right,
            up,
            s=size,
            color="#0072B2",
            alpha=0.6 if len(right) < 300 else 0.35,
            linewidths=0,
            rasterized=True,
        )
    else:
        counts, *_ = np.histogram2d(right, up, bins=90, range=limits)
        axes.imshow(
            np.ma.masked_equal(counts.T, 0),
            origin="lower",
            extent=(*limits[0], *limits[1]),
            aspect="auto",
            interpolation="none",
            cmap=mpl.colormaps["viridis"],
            norm=LogNorm(1, max(2.0, counts.max())),
        )
    if diagonal:
        axes.axline((limits[0][0], limits[0][0]), slope=1, color=INK, linewidth=0.8)
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(
            lambda v, _: (
                number(v, 4).rstrip("0").rstrip(".") if "." in number(v, 4) else number(v, 4)
            )
        )
    )
    return figure


def _limits(values: Floats) -> tuple[float, float]:
    """Return limits that leave out at the most one in a hundred at each end."""
    if not len(values):
        return 0.0, 1.0
    low, high = (
        np.quantile(values, (0.01, 0.99)) if len(values) > 200 else (values.min(), values.max())
    )
    pad = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.05
    return float(low - pad), float(high + pad)


def draw_row(
    names: Sequence[str],
    scores: Floats,
    spread: Floats,
    hues: Sequence[Any],
    winners: Mapping[str, Any],
    title: str,
    width: float,
) -> Figure:
    """Draw the scores of a row of partitions, one below the other, with their spread."""
    height = 0.85 + 0.225 * len(names)
    figure, axes = blank(width, height, left=_room(names), bottom=0.5, top=0.3)
    _legend(axes, winners)
    places = np.arange(len(names))[::-1]
    axes.hlines(
        places, scores - spread, scores + spread, color=list(hues), linewidth=1.6, alpha=0.6
    )
    axes.scatter(scores, places, color=list(hues), s=26, zorder=3)
    axes.set_yticks(places, [clean(name, 22) for name in names])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params("y", length=0)
    return figure


def _legend(axes: Axes, winners: Mapping[str, Any]) -> None:
    """Name the colours of models above the axes, if there are several."""
    if len(winners) < 2:
        return
    handles = [Patch(facecolor=hue, label=name) for name, hue in winners.items()]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.2,
    )


def draw_ranks(
    positions: Floats,
    scores: Floats,
    hues: Sequence[Any],
    winners: Mapping[str, Any],
    titles: tuple[str, str],
    width: float,
) -> Figure:
    """Draw the scores of many partitions along a line."""
    figure, axes = blank(width, 2.75, top=0.3)
    _legend(axes, winners)
    axes.scatter(positions, scores, c=list(hues), s=7, linewidths=0, rasterized=True)
    low, high = _limits(scores[np.isfinite(scores)])
    axes.set_ylim(low, high)
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def draw_workers(hours: Floats, busy: Floats, there: Floats, unit: str, width: float) -> Figure:
    """Draw how many workers there were, and how many worked."""
    figure, axes = blank(width, 2.3, top=0.3)
    axes.stairs(there, hours, color=GREY, linewidth=1.2, label="workers")
    axes.stairs(busy, hours, fill=True, color="#56B4E9", alpha=0.8, label="at work")
    axes.set_xlabel(f"time of running ({unit})")
    axes.set_ylabel("workers")
    axes.set_xlim(hours[0], hours[-1])
    axes.set_ylim(0, max(1.0, float(there.max()), float(busy.max())) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure
