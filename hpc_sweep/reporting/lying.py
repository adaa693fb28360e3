"""How partitions lie: on a map, in a table of two kinds of labels, in a row, or one alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.partitions import Label, plain_label
from hpc_sweep.reporting.words import Noun, clean, label_text, noun_of, with_units

MOST_CELLS = 600
"""So many columns and rows a map has at the most; of more, every second, third … is drawn."""

MOST_PANELS = 12
"""So many maps stand beside each other at the most."""

MOST_LABELS = 24
"""Numbers are labels, if there are at most so many: hours, levels."""

NORTH = frozenset({"latitude", "lat", "y", "northing", "rlat", "projection_y_coordinate"})
EAST = frozenset({"longitude", "lon", "x", "easting", "rlon", "projection_x_coordinate"})


@dataclass(frozen=True)
class Axis:
    """One dimension of the partitions.

    Attributes
    ----------
    name : str
        Of the dimension.
    labels : ndarray, shape (n,)
        Its coordinate, or the index.
    units : str
        As the data has them.
    """

    name: str
    labels: NDArray[Any]
    units: str = ""

    @property
    def size(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    @property
    def is_numeric(self) -> bool:
        """Whether labels are numbers that can be drawn along a scale."""
        if self.labels.dtype.kind not in "iuf" or not self.size:
            return False
        return bool(np.isfinite(self.labels).all()) and len(np.unique(self.labels)) == self.size

    @property
    def is_degrees(self) -> bool:
        """Whether these are degrees on the globe."""
        return self.is_numeric and (
            self.units.startswith("degree") or self.name.lower() in ("latitude", "longitude")
        )

    @property
    def is_east(self) -> bool:
        """Whether it runs from west to east."""
        return self.units.startswith(("degrees_e", "degree_e")) or self.name.lower() in EAST

    @property
    def is_north(self) -> bool:
        """Whether it runs along a meridian."""
        return self.units.startswith(("degrees_n", "degree_n")) or self.name.lower() in NORTH

    @property
    def title(self) -> str:
        """Its name with units."""
        return clean(with_units(self.name, "" if self.is_degrees else self.units))

    def text(self, index: int) -> str:
        """Return a label as text."""
        return label_text(plain_label(self.labels[index]))


@dataclass(frozen=True)
class Lying:
    """How partitions lie.

    Attributes
    ----------
    axes : tuple of Axis
        All dimensions of the partitions, in the store's order.
    noun : Noun
        What a partition is called.
    """

    axes: tuple[Axis, ...]
    noun: Noun

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid of partitions."""
        return tuple(axis.size for axis in self.axes)

    @property
    def size(self) -> int:
        """How many partitions there are."""
        return math.prod(self.shape)

    @cached_property
    def plane(self) -> tuple[int, int] | None:
        """Which dimensions run up and to the right in figures; None where there is one or none."""
        if len(self.axes) < 2:
            return None
        ranks = range(len(self.axes))
        up = next((i for i in ranks if self.axes[i].is_north), None)
        right = next((i for i in ranks if self.axes[i].is_east and i != up), None)
        if up is not None and right is not None:
            return up, right
        by_size = sorted(ranks, key=lambda i: (-self.axes[i].is_numeric, -self.axes[i].size, i))
        first, second = sorted(by_size[:2])
        return first, second

    @property
    def is_map(self) -> bool:
        """Whether partitions lie on a plane with scales on both sides: by name, or so many."""
        if self.plane is None:
            return False
        up, right = (self.axes[i] for i in self.plane)
        known = up.is_north and right.is_east
        numeric = up.is_numeric and right.is_numeric
        return numeric and (known or min(up.size, right.size) > MOST_LABELS)

    def labels(self, flat: int) -> dict[str, Label]:
        """Return the labels of a partition by dimension."""
        index = np.unravel_index(flat, self.shape)
        return {a.name: plain_label(a.labels[i]) for a, i in zip(self.axes, index, strict=True)}

    def panels(self) -> Iterator[tuple[str, tuple[int | slice, ...]]]:
        """Yield the title and the place in the grid of each map that is drawn."""
        if self.plane is None:
            return
        others = [i for i in range(len(self.axes)) if i not in self.plane]
        indices = itertools.product(*(range(self.axes[i].size) for i in others))
        for index in itertools.islice(indices, MOST_PANELS):
            where: list[int | slice] = [slice(None)] * len(self.axes)
            names = []
            for i, position in zip(others, index, strict=True):
                where[i] = position
                names.append(f"{clean(self.axes[i].name)} {self.axes[i].text(position)}")
            yield ", ".join(names), tuple(where)

    @property
    def n_panels(self) -> int:
        """How many maps there would be if all were drawn."""
        return math.prod(a.size for i, a in enumerate(self.axes) if i not in (self.plane or ()))


def lying_of(dims: tuple[str, ...], results: xr.Dataset, how: Mapping[str, Any]) -> Lying:
    """Return how the partitions of opened results lie.

    Parameters
    ----------
    dims : tuple of str
        Of the partitions.
    results : xarray.Dataset
        The opened store.
    how : mapping
        Of dimensions that are not cut index by index: how they are.
    """
    axes = []
    for dim in dims:
        known = results[dim] if dim in results.coords else None
        labels = np.arange(results.sizes[dim]) if known is None else known.values
        units = "" if known is None else str(known.attrs.get("units", ""))
        axes.append(Axis(dim, labels, units))
    lying = Lying(tuple(axes), Noun("partition", "partitions"))
    return Lying(lying.axes, _noun(lying, how))


def _noun(lying: Lying, how: Mapping[str, Any]) -> Noun:
    if len(lying.axes) == 1:
        tiled = isinstance(how.get(lying.axes[0].name), int)
        return Noun("tile", "tiles") if tiled else noun_of(lying.axes[0].name)
    if len(lying.axes) == 2 and lying.is_map:
        tiled = any(isinstance(how.get(axis.name), int) for axis in lying.axes)
        return Noun("tile", "tiles") if tiled else Noun("pixel", "pixels")
    return lying.noun


@dataclass(frozen=True)
class Side:
    """One side of a map, as it is drawn.

    Attributes
    ----------
    order : ndarray of int
        Which indices of the axis are drawn, from the left or from below.
    edges : tuple of float
        Where the first cell begins and the last one ends, along the scale.
    positions : ndarray of float
        Along the scale, of `order`.
    every : int
        One in so many is drawn.
    """

    order: NDArray[np.intp]
    edges: tuple[float, float]
    positions: NDArray[np.float64]
    every: int


def side_of(axis: Axis, as_labels: bool = False, downward: bool = False) -> Side:
    """Return how an axis is drawn along a scale: ascending, regular, around the globe in one piece.

    Labels that are not regular are drawn with the nearest one at each place of a regular scale.
    Texts, and numbers taken `as_labels`, stand in their own order, `downward` if they label rows.
    """
    if as_labels or not axis.is_numeric:
        every = -(-axis.size // MOST_CELLS)
        order = np.arange(0, axis.size, every)[:: -1 if downward else 1]
        return Side(order, (-0.5, len(order) - 0.5), np.arange(len(order), dtype=float), every)
    labels = axis.labels.astype(float)
    if axis.is_degrees and axis.is_east:
        labels = _one_piece(labels)
    order = np.argsort(labels)
    ordered = labels[order]
    if axis.size == 1:
        return Side(order, (ordered[0] - 0.5, ordered[0] + 0.5), ordered, 1)
    steps = np.diff(ordered)
    step = float(np.median(steps))
    if np.allclose(steps, step, rtol=0.02, atol=0):
        every = -(-axis.size // MOST_CELLS)
        half = step / 2
        return Side(
            order[::every], (ordered[0] - half, ordered[-1] + half), ordered[::every], every
        )
    low, high = ordered[0] - steps[0] / 2, ordered[-1] + steps[-1] / 2
    cells = min(MOST_CELLS, max(axis.size, math.ceil((high - low) / steps.min())))
    middles = low + (np.arange(cells) + 0.5) * (high - low) / cells
    borders = ordered[:-1] + steps / 2
    return Side(order[np.searchsorted(borders, middles)], (low, high), middles, 1)


def _one_piece(longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes from −180 to 180, or as they are where that would tear the map."""
    turned = (longitudes + 180) % 360 - 180
    return longitudes if np.ptp(longitudes) < np.ptp(turned) else turned
