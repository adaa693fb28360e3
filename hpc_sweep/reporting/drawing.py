"""What all figures have in common: sizes, colours, scales, and files of them.

Text stays text in SVG and PDF. Nothing of pyplot is used, so that no window or state is touched.
"""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from hpc_sweep.reporting.words import Metric, number, value

COLUMN_INCHES = 4.0
"""Width of a figure on the page: as wide as a phone, so that its letters are legible there."""

PAPER_INCHES = 3.5
"""Width of a column of a paper."""

DISCRETE = 10
"""A parameter of so many values has a colour for each; of more, a scale."""

Box = tuple[float, float, float, float]
"""Left, bottom, width and height, as parts of a figure."""

OKABE_ITO = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
"""Colours that people of any colour vision tell apart (Okabe and Ito, 2008)."""

INK, GREY, ABSENT = "#222222", "#767676", "#d9d9d9"

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "hpc_sweep",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
UNDATED = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}
"""What would differ between two files of the same figure."""


@dataclass(frozen=True)
class Picture:
    """One figure of a report.

    Attributes
    ----------
    key : str
        Name of its file.
    title : str
        In a few words.
    caption : str
        How to read it.
    alt : str
        What it shows, with numbers, for whom cannot see it.
    draw : callable
        Takes the width in inches, returns the figure.
    """

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[float], Figure]


def rendered(picture: Picture, kind: str, column: float = COLUMN_INCHES) -> bytes:
    """Return a picture as a file of that kind: ``svg``, ``pdf`` or ``png``."""
    content = io.BytesIO()
    with mpl.rc_context(STYLE), _quiet():
        figure = picture.draw(column)
        dpi = 300 if kind == "png" else 150
        figure.savefig(content, format=kind, dpi=dpi, metadata=UNDATED[kind])
    return content.getvalue()


def as_address(picture: Picture) -> str:
    """Return a picture as ``data:`` address; in an image nothing of SVG is ever executed."""
    return f"data:image/svg+xml;base64,{base64.b64encode(rendered(picture, 'svg')).decode()}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of signs that matplotlib's font lacks: readers have fonts of their own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        yield


def blank(
    width: float,
    height: float,
    left: float = 0.65,
    bottom: float = 0.5,
    right: float = 0.15,
    top: float = 0.12,
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; all in inches, so that figures line up."""
    figure = Figure((width, height))
    box = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - bottom - top) / height,
    )
    return figure, figure.add_axes(box)


def colours(count: int) -> list[Any]:
    """Return so many colours for kinds: models, texts."""
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    return [mpl.colormaps["viridis"](i / (count - 1)) for i in range(count)]


@dataclass(frozen=True)
class Scale:
    """How numbers become colours.

    Attributes
    ----------
    colormap : Colormap
        NaN is not drawn.
    norm : Normalize
        Of the values.
    ticks : tuple of float or None
        Where the bar has ticks; None: where it likes.
    extend : str
        Which ends of the bar go on.
    """

    colormap: Colormap
    norm: Normalize
    ticks: tuple[float, ...] | None = None
    extend: str = "neither"


def score_scale(shown: NDArray[np.float64], metric: Metric) -> Scale:
    """Return the scale of scores: bright is good; a few extreme values do not decide it."""
    known = shown[np.isfinite(shown)]
    low, high = np.quantile(known, (0.02, 0.98)) if known.size else (0.0, 1.0)
    least, most = (known.min(), known.max()) if known.size else (0.0, 1.0)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 1e-6), high + 0.5 * max(abs(high), 1e-6)
    extend = ("neither", "min", "max", "both")[int(least < low) + 2 * int(most > high)]
    colormap = mpl.colormaps["viridis_r" if metric.less_is_better else "viridis"]
    return Scale(colormap, Normalize(float(low), float(high)), None, extend)


def is_logarithmic(values: NDArray[np.float64]) -> bool:
    """Return whether the distinct values of a grid lie on a logarithmic scale."""
    known = np.unique(values[np.isfinite(values)])
    if known.size < 2 or known[0] <= 0:
        return False
    if known.size == 2:
        return bool(known[1] / known[0] >= 5)
    steps, ratios = np.diff(known), np.diff(np.log(known))
    return bool(known[-1] / known[0] >= 8 and np.std(ratios) / ratios.mean() < _evenness(steps))


def _evenness(steps: NDArray[np.float64]) -> float:
    return float(np.std(steps) / steps.mean())


def parameter_scale(values: NDArray[np.float64], tested: NDArray[np.float64]) -> Scale:
    """Return the scale of a parameter: a colour for each value of a grid, else a plain one."""
    known = np.unique(tested[np.isfinite(tested)])
    if known.size <= DISCRETE:
        edges = np.arange(known.size + 1) - 0.5
        kinds = mpl.colormaps["cividis"].resampled(max(2, known.size))
        picked = [kinds(i) for i in range(known.size)]
        steps = BoundaryNorm(edges, len(picked))
        return Scale(ListedColormap(picked), steps, tuple(float(v) for v in known))
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (known[0], known[-1])
    if low == high:
        low, high = float(known[0]), float(known[-1])
    norm: Normalize
    norm = LogNorm(low, high) if is_logarithmic(known) else Normalize(low, high)
    return Scale(mpl.colormaps["cividis"], norm)


def put_bar(figure: Figure, image: Any, box: Box, scale: Scale, title: str) -> None:
    """Draw the bar of a scale, labelled."""
    axes = figure.add_axes(box)
    bar = figure.colorbar(image, cax=axes, orientation="horizontal", extend=scale.extend)
    bar.outline.set_linewidth(0.5)
    bar.set_label(title)
    if scale.ticks is not None:
        every = -(-len(scale.ticks) // 7)
        bar.set_ticks(list(range(0, len(scale.ticks), every)))
        bar.set_ticklabels([value(tick) for tick in scale.ticks[::every]])
        bar.ax.xaxis.set_minor_locator(NullLocator())
    elif isinstance(scale.norm, LogNorm):
        plain_logarithmic(bar.ax.xaxis, float(scale.norm.vmin or 1), float(scale.norm.vmax or 1))


def put_legend(figure: Figure, entries: Sequence[tuple[str, Any]], bottom: float) -> None:
    """Draw swatches with names, in one row or as many as they take."""
    width = figure.get_size_inches()[0]
    longest = max((len(name) for name, _ in entries), default=1)
    columns = max(1, min(len(entries), int((width - 0.6) / (0.42 + 0.075 * longest))))
    handles = [
        Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=name)
        for name, colour in entries
    ]
    place = (0.6 / width, bottom)
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place,
        ncols=columns,
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
        borderaxespad=0,
    )


def legend_rows(names: Sequence[str], width: float) -> int:
    """Return how many rows a legend takes."""
    longest = max(map(len, names), default=1)
    columns = max(1, min(len(names), int((width - 0.6) / (0.42 + 0.075 * longest))))
    return -(-len(names) // columns)


def plain_logarithmic(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, few enough not to touch."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    powers = list(range(first, last + 1))
    ticks = [10.0**p for p in powers[:: -(-len(powers) // 6) if powers else 1]]
    if len(ticks) < 2:
        ticks = [low, (low * high) ** 0.5, high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: number(v, 1) if v < 1e-3 else value(v)))


def file_name(name: str) -> str:
    """Return a name as part of a figure's key, which names its file."""
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in name)
    return plain[:60] or "_"
