"""How the values of a variable follow each other in a copy: slab by slab, in these tile by tile.

A slab is a box of whole chunks of the source, so that each of them is read once. A tile is a box
of the copy, whose dimensions may be several of the data's in another order: labels that are
scattered over a grid lie side by side there. The values of a slab stand in the order of the tiles
that they belong to, so what a tile has of a slab is one run of values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Starts = Mapping[str, Sequence[int]]
"""By dimension of the data, the first index of each slab."""

Span = Callable[[int, int, int], NDArray[Any]]
"""Returns the values of a slab from one place in it to another."""


@dataclass(frozen=True)
class Line:
    """A dimension of a copy.

    Attributes
    ----------
    name : str
        What it is called.
    dims : tuple of str
        The dimensions of the data that it is made of.
    shape : tuple of int
        Their lengths.
    places : ndarray of intp, shape (n_positions,), or None
        Which element of these, flattened, stands where; None: all, as they are.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    places: NDArray[np.intp] | None = None

    @property
    def size(self) -> int:
        """How many positions it has."""
        return math.prod(self.shape) if self.places is None else self.places.size

    @cached_property
    def indices(self) -> tuple[NDArray[np.intp], ...]:
        """By dimension of the data, the index of each position."""
        places = np.arange(self.size) if self.places is None else self.places
        return (places,) if len(self.shape) == 1 else tuple(np.unravel_index(places, self.shape))


@dataclass(frozen=True)
class Stream:
    """The values of one variable in a copy.

    Attributes
    ----------
    lines : tuple of Line
        Its dimensions in the copy.
    starts : mapping of str to sequence of int
        Where its slabs begin.
    tiles : tuple of int
        How long a tile is along each line.
    dtype : numpy.dtype
        Of its values.
    """

    lines: tuple[Line, ...]
    starts: Starts
    tiles: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """How long its lines are."""
        return tuple(line.size for line in self.lines)

    @cached_property
    def n_slabs(self) -> tuple[int, ...]:
        """How many slabs there are along each line."""
        return tuple(math.prod(len(self.starts[d]) for d in line.dims) for line in self.lines)

    @cached_property
    def slab_of(self) -> tuple[NDArray[np.int32], ...]:
        """By line, the slab along it that each position belongs to."""
        found = []
        for line in self.lines:
            each = [
                np.searchsorted(self.starts[dim], index, side="right") - 1
                for dim, index in zip(line.dims, line.indices, strict=True)
            ]
            counts = [len(self.starts[dim]) for dim in line.dims]
            numbers = each[0] if len(each) == 1 else np.ravel_multi_index(each, counts)
            found.append(numbers.astype(np.int32))  # of tables there may be 10^8
        return tuple(found)

    @cached_property
    def counts(self) -> tuple[NDArray[np.intp], ...]:
        """By line, how many positions a slab has in a tile, shape (n_slabs, n_tiles)."""
        found = []
        for line, slabs, length, n_slabs in zip(
            self.lines, self.slab_of, self.tiles, self.n_slabs, strict=True
        ):
            n_tiles = -(-line.size // length)
            both = slabs * np.intp(n_tiles) + np.arange(line.size) // length
            found.append(np.bincount(both, minlength=n_slabs * n_tiles).reshape(n_slabs, n_tiles))
        return tuple(found)

    @cached_property
    def longest(self) -> int:
        """How many values a slab has at the most."""
        return math.prod(int(counts.sum(axis=1).max(initial=0)) for counts in self.counts)

    def row(self, slab: Sequence[int]) -> int:
        """Return the number of a slab, which is named by where it is along each line."""
        return int(np.ravel_multi_index(tuple(slab), self.n_slabs)) if slab else 0

    def slab(self, row: int) -> tuple[int, ...]:
        """Return where along each line the slab of a number is."""
        return tuple(int(i) for i in np.unravel_index(row, self.n_slabs))

    def box(self, slab: Sequence[int], sizes: Mapping[str, int]) -> dict[str, slice]:
        """Return which part of the data a slab is."""
        box = {}
        for line, number in zip(self.lines, slab, strict=True):
            counts = [len(self.starts[dim]) for dim in line.dims]
            for dim, index in zip(line.dims, np.unravel_index(number, counts), strict=True):
                ends = [*self.starts[dim], sizes[dim]]
                box[dim] = slice(int(ends[index]), int(ends[index + 1]))
        return box

    def is_empty(self, slab: Sequence[int]) -> bool:
        """Return whether a slab has no value that is wanted."""
        return any(not counts[s].any() for counts, s in zip(self.counts, slab, strict=True))

    def write(
        self,
        slab: Sequence[int],
        values: NDArray[Any],
        dims: Sequence[str],
        box: Mapping[str, slice],
        stream: NDArray[Any],
    ) -> None:
        """Put the values of a slab into the order of the copy.

        Parameters
        ----------
        slab : sequence of int
            Which one.
        values : ndarray
            As the data has them.
        dims : sequence of str
            Their dimensions.
        box : mapping of str to slice
            What of the data they are.
        stream : ndarray, shape (at least n_values,)
            Is written.
        """
        wanted = [dim for line in self.lines for dim in line.dims]
        lengths = [
            math.prod(box[dim].stop - box[dim].start for dim in line.dims) for line in self.lines
        ]
        ordered = np.transpose(values, [dims.index(dim) for dim in wanted]).reshape(lengths)
        for place, (line, slabs) in enumerate(zip(self.lines, self.slab_of, strict=True)):
            if line.places is None:
                continue
            here = np.flatnonzero(slabs == slab[place])
            inside = [
                index[here] - box[dim].start
                for dim, index in zip(line.dims, line.indices, strict=True)
            ]
            part = [box[dim].stop - box[dim].start for dim in line.dims]
            ordered = np.take(ordered, np.ravel_multi_index(inside, part), axis=place)
        borders = [
            np.concatenate([[0], np.cumsum(counts[s])])
            for counts, s in zip(self.counts, slab, strict=True)
        ]
        begin = 0
        for ends in itertools.product(*(itertools.pairwise(each.tolist()) for each in borders)):
            tile = ordered[tuple(slice(low, high) for low, high in ends)]
            stream[begin : begin + tile.size] = tile.ravel()
            begin += tile.size

    def read(self, wanted: Sequence[NDArray[np.intp]], span: Span) -> NDArray[Any]:
        """Return values of the copy; what each slab has of neighbouring tiles is read at once.

        Parameters
        ----------
        wanted : sequence of ndarray of intp
            Ascending positions along each line.
        span : callable
            Given a slab's number and two places in it, returns the values between.

        Returns
        -------
        ndarray, shape (len(wanted[0]), ...)
        """
        found = np.empty([each.size for each in wanted], dtype=self.dtype)
        met = [self._met(place, each) for place, each in enumerate(wanted)]
        for slab in itertools.product(*met):
            here = [each[s] for each, s in zip(met, slab, strict=True)]
            sizes = [counts[s] for counts, s in zip(self.counts, slab, strict=True)]
            ends = np.concatenate([[0], np.cumsum(_outer(sizes).ravel())])
            row, shape = self.row(slab), [each.size for each in sizes]
            for leading in itertools.product(*here[:-1]):
                base = int(np.ravel_multi_index((*leading, 0), shape))
                for run in _runs(here[-1]):
                    first = int(ends[base + run[0]])
                    values = span(row, first, int(ends[base + run[-1] + 1]))
                    for last in run:
                        tile = (*leading, last)
                        low, high = (int(ends[base + last + step]) - first for step in (0, 1))
                        counted = [size[t] for size, t in zip(sizes, tile, strict=True)]
                        both = [each[t] for each, t in zip(here, tile, strict=True)]
                        _put(found, values[low:high].reshape(counted), both)
        return found

    def _met(self, place: int, wanted: NDArray[np.intp]) -> dict[int, dict[int, _Both]]:
        """Return where values that are wanted along a line stand, by slab and tile.

        Both where in what is wanted, and where in what the slab has of the tile.
        """
        line, length, slabs = self.lines[place], self.tiles[place], self.slab_of[place]
        met: dict[int, dict[int, _Both]] = {}
        for tile in np.unique(wanted // length).tolist():
            positions = np.arange(tile * length, min((tile + 1) * length, line.size))
            there = slabs[positions]
            order = np.argsort(there, kind="stable")
            numbers, firsts = np.unique(there[order], return_index=True)
            for slab, some in zip(
                numbers.tolist(), np.split(positions[order], firsts[1:]), strict=True
            ):
                into = np.searchsorted(wanted, some)
                into[into == wanted.size] = 0
                (kept,) = np.nonzero(wanted[into] == some)
                if kept.size:
                    met.setdefault(slab, {})[tile] = into[kept], kept
        return met


_Both = tuple[NDArray[np.intp], NDArray[np.intp]]


def _put(found: NDArray[Any], values: NDArray[Any], both: Sequence[_Both]) -> None:
    """Write what is wanted of some values where it belongs."""
    into = [each[0] for each in both]
    out_of = [each[1] for each in both]
    if any(each.size < n for each, n in zip(out_of, values.shape, strict=True)):
        values = values[np.ix_(*out_of)]
    parts = [_as_slice(each) for each in into]
    if sum(not isinstance(part, slice) for part in parts) <= 1:
        found[tuple(parts)] = values
    else:
        found[np.ix_(*into)] = values


def _as_slice(indices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first == indices.size - 1 else indices


def _outer(sizes: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the products of all combinations."""
    found = np.ones((), dtype=np.intp)
    for each in sizes:
        found = np.multiply.outer(found, each)
    return found


def _runs(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield the runs of neighbours among ascending numbers."""
    for _, run in itertools.groupby(enumerate(numbers), lambda each: each[1] - each[0]):
        yield [number for _, number in run]
