"""How result chunks are cut into units, at the borders of the source's chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

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


def pieces(grid: PartitionGrid, chunks: tuple[int, ...], chunk: Chunk, size: int) -> list[int]:
    """Return the borders of units in a result chunk, at source chunks where that can be."""
    borders, start, end = [0], 0, 0
    for run in runs(grid, chunks, chunk):
        if end > start and end + run - start > size:
            borders.append(end)
            start = end
        cuts = -(-run // size)
        if cuts > 1:
            borders.extend(end + run * i // cuts for i in range(1, cuts + 1))
            start = end + run
        end += run
    if borders[-1] != end:
        borders.append(end)
    return borders


def read_factor(grid: PartitionGrid, chunks: tuple[int, ...], size: int) -> float:
    """Return how often a chunk of the source is read on average."""
    aligned = all(
        width % read == 0 or width >= length
        for length, width, read in zip(grid.shape, chunks, grid.read_chunks, strict=True)
    )
    if aligned and size >= math.prod(map(min, grid.shape, grid.read_chunks)):
        return 1.0
    result_chunks = itertools.product(*map(range, grid.chunk_grid(chunks)))
    reads = sum(-(-run // size) for chunk in result_chunks for run in runs(grid, chunks, chunk))
    return reads / math.prod(grid.chunk_grid(grid.read_chunks))


def uncovered(unit: Unit, covered: NDArray[np.bool_]) -> Iterator[Unit]:
    """Yield the rectangles of a unit that are not covered."""
    open_cells = ~covered[unit.start : unit.stop, unit.first : unit.last]
    for start, stop in _equal_rows(open_cells):
        for first, last in _true_runs(open_cells[start]):
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


def _true_runs(row: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
