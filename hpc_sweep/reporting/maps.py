"""Maps of partitions, and tables of two kinds of labels as heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from hpc_sweep.reporting.drawing import (
    ABSENT,
    INK,
    Scale,
    legend_rows,
    put_bar,
    put_legend,
)
from hpc_sweep.reporting.lying import Axis, Lying, Side, side_of
from hpc_sweep.reporting.words import clean, number

MOST_WRITTEN = 80
"""A heat map of labels with at the most so many cells has its values written in them."""

MOST_NAMES = 24
"""So many texts label an axis at the most; of more, every second, third …"""

GAP, RIGHT, TOP, BAR = 0.14, 0.14, 0.12, 0.13


@dataclass(frozen=True)
class Layer:
    """What a map shows.

    Attributes
    ----------
    values : ndarray, shape (n_partitions,)
        Numbers, or codes of `names`; NaN: no value.
    title : str
        Of the scale.
    scale : Scale or None
        Of numbers.
    names, colours : sequence
        Of codes.
    written : sequence of str
        What stands in cells that have room for it.
    absent : ndarray of bool, shape (n_partitions,), or None
        Where partitions have a result to which this does not apply.
    absent_name : str
        What the legend calls these.
    """

    values: NDArray[np.float64]
    title: str
    scale: Scale | None = None
    names: Sequence[str] = ()
    colours: Sequence[Any] = ()
    written: Sequence[str] = ()
    absent: NDArray[np.bool_] | None = None
    absent_name: str = ""


@dataclass(frozen=True)
class _Frame:
    """Where the panels of a map stand, in inches."""

    width: float
    height: float
    columns: int
    rows: int
    left: float
    bottom: float
    panel: tuple[float, float]
    head: float
    ticks: float


def draw_map(lying: Lying, layer: Layer, width: float) -> Figure:
    """Draw one map, or one for each label of the further dimensions."""
    panels = list(lying.panels())
    first, second = lying.plane or (0, 0)
    kinds = not lying.is_map
    up = side_of(lying.axes[first], kinds, downward=True)
    right = side_of(lying.axes[second], kinds)
    entries = _entries(layer)
    frame = _frame(lying, (up, right), len(panels), width, [name for name, _ in entries], layer)
    figure = Figure((frame.width, frame.height))
    values = layer.values.reshape(lying.shape)
    absent = None if layer.absent is None else layer.absent.reshape(lying.shape)
    image = None
    for place, (title, where) in enumerate(panels):
        axes = _panel(figure, frame, place)
        flat = _plane(values[where], lying)
        image = _image(axes, layer, flat[np.ix_(up.order, right.order)], up, right)
        if absent is not None:
            hidden = _plane(absent[where], lying)[np.ix_(up.order, right.order)]
            _cover(axes, hidden, up, right)
        if title:
            axes.set_title(title, fontsize=8.5, loc="left", pad=3)
        lowest = place + frame.columns >= len(panels)
        _scales(axes, lying, (up, right), (frame.panel[0], lowest, place % frame.columns == 0))
        if (
            not lying.is_map
            and flat.size <= MOST_WRITTEN
            and frame.panel[0] / len(right.order) > 0.3
        ):
            room = int(frame.panel[0] / len(right.order) / 0.075)
            _write(axes, layer, flat[np.ix_(up.order, right.order)], (up, right), room)
    ticks = frame.ticks
    bottom = (frame.bottom - ticks) / frame.height
    if layer.scale is not None and image is not None:
        length = min(frame.width - frame.left - RIGHT, 4.0)
        box = (frame.left / frame.width, (frame.bottom - ticks - BAR) / frame.height)
        put_bar(
            figure,
            image,
            (*box, length / frame.width, BAR / frame.height),
            layer.scale,
            layer.title,
        )
        if entries:
            put_legend(figure, entries, (0.1 + 0.2) / frame.height)
    elif entries:
        put_legend(figure, entries, bottom)
    return figure


def _entries(layer: Layer) -> list[tuple[str, Any]]:
    entries = list(zip(layer.names, layer.colours, strict=True))
    if layer.absent is not None and layer.absent.any():
        entries.append((layer.absent_name, ABSENT))
    return entries


def _plane(values: NDArray[Any], lying: Lying) -> NDArray[Any]:
    """Return values of one panel with what runs up first."""
    up, right = lying.plane or (0, 1)
    return values if up < right else values.T


def _frame(
    lying: Lying,
    sides: tuple[Side, Side],
    n_panels: int,
    width: float,
    names: Sequence[str],
    layer: Layer,
) -> _Frame:
    up = sides[0]
    axes = [lying.axes[i] for i in lying.plane or (0, 1)]
    left = _label_width(axes[0], lying)
    columns = 1 if n_panels == 1 else 2 if n_panels <= 6 else 3
    panel = (width - left - RIGHT - (columns - 1) * GAP) / columns
    height = panel * _aspect(lying, sides)
    height = min(max(height, 0.35 * panel), max(1.25 * panel, 0.0))
    if not lying.is_map:
        height = min(max(0.28 * len(up.order), 0.6), 2.2 * width)
    rows = math.ceil(n_panels / columns)
    head = 0.2 if n_panels > 1 else 0.0
    texts = _texts_below(axes[1])
    legend = 0.19 * legend_rows(names, width) if names else 0.0
    below = _room_below(axes[1]) + texts + (0.62 if layer.scale is not None else 0.05) + legend
    whole = rows * (height + head) + (rows - 1) * 0.1 + below + TOP
    return _Frame(
        width,
        whole,
        columns,
        rows,
        left,
        below,
        (panel, height),
        head,
        _room_below(axes[1]) + texts,
    )


def _room_below(axis: Axis) -> float:
    """Return how much room ticks and the title of an axis take."""
    return 0.36 if axis.is_degrees else 0.52


def _label_width(axis: Axis, lying: Lying) -> float:
    if lying.is_map:
        return 0.68
    longest = max((len(axis.text(i)) for i in range(min(axis.size, 200))), default=1)
    return min(1.7, 0.35 + 0.075 * longest)


def _texts_below(axis: Axis) -> float:
    """Return how much room texts take that stand upright below an axis."""
    if not _upright(axis):
        return 0.0
    longest = max(len(axis.text(i)) for i in range(min(axis.size, 200)))
    return min(1.5, 0.07 * longest) - 0.1


def _upright(axis: Axis) -> bool:
    return (
        not axis.is_numeric
        and sum(len(axis.text(i)) + 2 for i in range(min(axis.size, MOST_NAMES))) > 42
    )


def _aspect(lying: Lying, sides: tuple[Side, Side]) -> float:
    """Return height over width: as on the ground where both sides are of the same kind."""
    up, right = sides
    axes = [lying.axes[i] for i in lying.plane or (0, 1)]
    tall, wide = (abs(side.edges[1] - side.edges[0]) for side in sides)
    if all(axis.is_degrees for axis in axes):
        middle = math.cos(math.radians(min(80.0, abs(sum(up.edges) / 2))))
        return tall / (wide * middle)
    if lying.is_map and axes[0].is_north and axes[1].is_east:
        return tall / wide
    return len(up.order) / len(right.order)


def _panel(figure: Figure, frame: _Frame, place: int) -> Axes:
    row, column = divmod(place, frame.columns)
    x = frame.left + column * (frame.panel[0] + GAP)
    step = frame.panel[1] + frame.head + 0.1
    y = frame.height - TOP - frame.head - frame.panel[1] - row * step
    size = (frame.panel[0] / frame.width, frame.panel[1] / frame.height)
    axes = figure.add_axes((x / frame.width, y / frame.height, *size))
    axes.spines[["right", "top"]].set_visible(True)
    return axes


def _image(axes: Axes, layer: Layer, values: NDArray[np.float64], up: Side, right: Side) -> Any:
    kinds: Colormap
    norm: Normalize
    if layer.scale is None:
        kinds = ListedColormap(list(layer.colours) or ["#ffffff"])
        norm = BoundaryNorm(np.arange(kinds.N + 1) - 0.5, kinds.N)
    else:
        kinds, norm = layer.scale.colormap, layer.scale.norm
        if layer.scale.ticks is not None:
            values = codes_of(values, layer.scale.ticks)
    return axes.imshow(
        np.ma.masked_invalid(values),
        cmap=kinds,
        norm=norm,
        origin="lower",
        extent=(*right.edges, *up.edges),
        aspect="auto",
        interpolation="none",
    )


def codes_of(values: NDArray[np.float64], ticks: Sequence[float]) -> NDArray[np.float64]:
    """Return the positions of values in a grid; NaN stays."""
    codes = np.searchsorted(np.array(ticks), np.nan_to_num(values, nan=ticks[0] if ticks else 0))
    return np.where(np.isnan(values), np.nan, codes)


def _cover(axes: Axes, hidden: NDArray[np.bool_], up: Side, right: Side) -> None:
    """Draw where there is a result to which the layer does not apply."""
    axes.imshow(
        np.ma.masked_equal(hidden.astype(float), 0),
        cmap=ListedColormap([ABSENT]),
        origin="lower",
        extent=(*right.edges, *up.edges),
        aspect="auto",
        interpolation="none",
    )


def _scales(
    axes: Axes, lying: Lying, sides: tuple[Side, Side], shown: tuple[float, bool, bool]
) -> None:
    """Label both sides; inner panels have ticks alone."""
    panel, lowest, leftmost = shown
    up, right = (lying.axes[i] for i in lying.plane or (0, 1))
    kind: Literal["x", "y"]
    for axis, side, scale, is_labelled, kind in (
        (right, sides[1], axes.xaxis, lowest, "x"),
        (up, sides[0], axes.yaxis, leftmost, "y"),
    ):
        if lying.is_map:
            most = max(2, int(panel / 0.75)) if kind == "x" else 5
            scale.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], min_n_ticks=2))
            if axis.is_degrees:
                scale.set_major_formatter(FuncFormatter(_east if kind == "x" else _north))
        else:
            every = _every(axis, side, panel if kind == "x" else 99.0)
            scale.set_major_locator(FixedLocator(list(range(0, len(side.order), every))))
            names = [clean(axis.text(int(i)), 22) for i in side.order[::every]]
            scale.set_ticklabels(names)
            if kind == "x" and _upright(axis):
                axes.tick_params("x", rotation=90)
        axes.tick_params(kind, labelbottom=lowest, labelleft=leftmost)
        if is_labelled and not axis.is_degrees:
            (axes.set_xlabel if kind == "x" else axes.set_ylabel)(clean(axis.title))
    if not lying.is_map:
        axes.tick_params(length=0)


def _every(axis: Axis, side: Side, room: float) -> int:
    """Return how many labels it is from one that has room to the next."""
    longest = max((len(axis.text(int(i))) for i in side.order[:200]), default=1)
    each = 0.17 if _upright(axis) else 0.075 * min(longest, 22) + 0.08
    most = max(1, min(MOST_NAMES, int(room / each)))
    return -(-len(side.order) // most)


def _east(degrees: float, _: object) -> str:
    turned = (degrees + 180) % 360 - 180
    return f"{abs(turned):g}°" + ("" if turned in (0, -180) else "E" if turned > 0 else "W")


def _north(degrees: float, _: object) -> str:
    return f"{abs(degrees):g}°" + ("" if degrees == 0 else "N" if degrees > 0 else "S")


def _write(
    axes: Axes, layer: Layer, values: NDArray[np.float64], sides: tuple[Side, Side], most: int
) -> None:
    """Write the values into the cells of a heat map, at the most so many letters."""
    for (row, column), cell in np.ndenumerate(values):
        if np.isnan(cell):
            continue
        if layer.scale is None:
            text, colour = clean(layer.written[int(cell)], most), layer.colours[int(cell)]
        else:
            code = float(cell)
            if layer.scale.ticks is not None:
                code = float(codes_of(np.array([cell]), layer.scale.ticks)[0])
            text, colour = number(cell), layer.scale.colormap(layer.scale.norm(code))
        ink = "white" if _luminance(colour) < 0.4 else INK
        x, y = float(sides[1].positions[column]), float(sides[0].positions[row])
        axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink)


def _luminance(colour: Any) -> float:
    red, green, blue = to_rgb(colour)
    return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)
