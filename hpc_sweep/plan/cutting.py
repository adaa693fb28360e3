"""How result chunks are cut into units, at the borders of the source's chunks."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.plan.units import Chunk, Unit


def runs(grid: PartitionGrid, chunks: tuple[int, ...], chunk: Chunk) -> list[int]:
    """Return how many partitions of a result chunk lie in each source chunk, in reading order."""
    lengths: list[list[int]] = []
    for length, width, index, read in zip(grid.shape, chunks, chunk, grid.read_chunks, strict=True):
        low, high = index * width, min((index + 1) * width, length)
        edges = [low, *range(low - low % read + read, high, read), high]
        lengths.append([b - a for a, b in itertools.pairwise(edges)])
    return [math.prod(parts) for parts in itertools.product(*lengths)]


def pieces(lengths: Sequence[int], size: Callable[[], int]) -> Iterator[tuple[int, int]]:
    """Yield ranges that end with a source chunk, or within one that is longer than a range.

    Parameters
    ----------
    lengths : sequence of int
        How many partitions lie in each source chunk, in reading order.
    size : callable
        How many partitions the next range may have; asked before each.
    """
    borders = list(itertools.accumulate(lengths))
    start = 0
    while start < borders[-1]:
        limit = max(1, size())
        following = bisect.bisect_right(borders, start)
        last = bisect.bisect_right(borders, start + limit) - 1
        if last >= following:
            stop = borders[last]
        else:
            left = borders[following] - start
            stop = start + left // -(-left // limit)
        yield start, stop
        start = stop


def slices(
    first: int, last: int, borders: Sequence[int], size: Callable[[], int]
) -> Iterator[tuple[int, int]]:
    """Yield ranges of columns that end at borders.

    Parameters
    ----------
    first, last : int
        What is cut; `last` is a border too.
    borders : sequence of int
        Where ranges may end, ascending: columns between two of them share their work.
    size : callable
        How many columns the next range shall have, asked before each; where more share their
        work, it has these.
    """
    while first < last:
        following = bisect.bisect_right(borders, first)
        reached = bisect.bisect_right(borders, first + max(1, size())) - 1
        place = max(following, reached)
        stop = min(last, borders[place]) if place < len(borders) else last
        yield first, stop
        first = stop


def uncovered(unit: Unit, covered: NDArray[np.bool_]) -> Iterator[Unit]:
    """Yield the rectangles of a unit that are not covered."""
    open_cells = ~covered[unit.start : unit.stop, unit.first : unit.last]
    for start, stop in _equal_rows(open_cells):
        for first, last in true_runs(open_cells[start]):
            yield Unit(
                unit.chunk,
                unit.start + start,
                unit.start + stop,
                unit.first + first,
                unit.first + last,
            )


def _equal_rows(cells: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    changes = np.flatnonzero((cells[1:] != cells[:-1]).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(cells)]
    yield from itertools.pairwise(edges)


def true_runs(row: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield where runs of true values begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
