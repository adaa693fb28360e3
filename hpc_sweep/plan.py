"""The plan: how a sweep is cut into result chunks and units. Pure arithmetic, pure data.

Result chunks are fixed when the store is created. Units are cut inside them and may have
another size in every run: a unit is a range of partitions (in the chunk's reading order)
times a range of candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import PlanError
from hpc_sweep.partitions import PartitionGrid

Chunk = tuple[int, ...]
"""Index of a result chunk along the partition dimensions."""

BATCH_BYTES = 8 * 2**20
"""So many bytes of features are evaluated together at the most, or one partition's."""

BASELINE_BYTES = 300_000_000
"""A worker with scikit-learn, xarray and zarr imported: 228 MB seen, and some air."""

UNIT_FITS = 4000
"""Fits of a unit made of several source chunks; a unit stops early at its time budget."""

UNITS_PER_WORKER = 4
"""Fewer units than this per worker would leave workers idle at the end."""

CHUNK_BYTES = 128_000_000
"""A fold holds all arrays of one result chunk in memory."""


@dataclass(frozen=True, order=True)
class Unit:
    """What one task evaluates: a block of partitions × candidates inside one result chunk.

    Attributes
    ----------
    chunk : tuple of int
        The result chunk.
    start, stop : int
        Partitions, as positions in the chunk's reading order.
    first, last : int
        Columns, `last` excluded: candidates, or the one column of a strategy that needs all
        candidates of a partition together.
    """

    chunk: Chunk
    start: int
    stop: int
    first: int
    last: int

    @property
    def n_cells(self) -> int:
        """How many (partition, column) pairs it holds."""
        return (self.stop - self.start) * (self.last - self.first)

    @property
    def key(self) -> str:
        """The unit as text: chunk, partitions, columns."""
        return f"{'.'.join(map(str, self.chunk))}_{self.start}-{self.stop}_{self.first}-{self.last}"


@dataclass(frozen=True)
class Workload:
    """The facts of a sweep that the plan is made from.

    Attributes
    ----------
    grid : PartitionGrid
        The partitions.
    n_candidates, n_columns, n_results, n_fits_each, n_splits, n_metrics : int
        For each: candidates, pieces that their evaluation may be cut into, results on each
        split, fits at the most, splits, metrics.
    n_samples, n_features, n_outputs : int
        Largest size of one partition's arrays.
    itemsize : int
        Bytes of one number as estimators see it.
    source_bytes : int
        Decoded bytes of all variables that are read.
    partition_bytes : int
        Decoded bytes of one partition in the source.
    chunk_bytes : int
        Decoded bytes of the largest single chunk of the source.
    n_chunked_arrays, n_other_files : int
        Arrays of the store with one file per result chunk, and files besides.
    """

    grid: PartitionGrid
    n_candidates: int
    n_columns: int
    n_results: int
    n_fits_each: int
    n_splits: int
    n_metrics: int
    n_samples: int
    n_features: int
    n_outputs: int
    itemsize: int
    source_bytes: int
    partition_bytes: int
    chunk_bytes: int
    n_chunked_arrays: int
    n_other_files: int

    @property
    def n_fits(self) -> int:
        """Fits of the whole sweep, at the most."""
        return self.grid.size * self.n_fits_each

    @property
    def n_cells(self) -> int:
        """(partition, column) pairs of the whole sweep."""
        return self.grid.size * self.n_columns

    @property
    def cell_bytes(self) -> int:
        """Bytes of the results of one partition (scores, two times, status, message)."""
        return self.n_results * (self.n_splits * 8 * (self.n_metrics + 1) + 8 * 8)

    @property
    def arrays_bytes(self) -> int:
        """Bytes of one partition's X and y."""
        return self.n_samples * (self.n_features + self.n_outputs) * self.itemsize


@dataclass(frozen=True)
class Share:
    """What one of several drivers of a store does: a range of its result chunks.

    Attributes
    ----------
    index, count : int
        The `index`-th of `count` ranges, from 1.
    """

    index: int = 1
    count: int = 1

    def of(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return the result chunks of this share; shares differ by one chunk at the most."""
        first, last = ((i * len(chunks)) // self.count for i in (self.index - 1, self.index))
        return chunks[first:last]

    def __str__(self) -> str:
        return "" if self == WHOLE else f"-{self.index}-of-{self.count}"


WHOLE = Share()


@dataclass(frozen=True)
class Plan:
    """How a workload is cut: result chunks, and the size of units in this run."""

    workload: Workload
    chunks: tuple[int, ...]
    unit_partitions: int
    unit_columns: int
    memory_bytes: int
    read_factor: float

    @property
    def grid(self) -> PartitionGrid:
        """The partitions."""
        return self.workload.grid

    @property
    def n_files(self) -> int:
        """Files that the finished store has at the most."""
        chunks = math.prod(self.grid.chunk_grid(self.chunks))
        return self.workload.n_chunked_arrays * chunks + self.workload.n_other_files

    @property
    def read_bytes(self) -> int:
        """Decoded bytes that a whole run reads from the source."""
        return round(self.workload.source_bytes * self.read_factor)

    def result_chunks(self) -> Iterator[Chunk]:
        """Yield the indices of all result chunks."""
        yield from itertools.product(*map(range, self.grid.chunk_grid(self.chunks)))

    def n_partitions(self, chunk: Chunk) -> int:
        """Return how many partitions a result chunk holds."""
        return math.prod(self.grid.chunk_shape(self.chunks, chunk))

    def units(self, chunk: Chunk, covered: NDArray[np.bool_] | None = None) -> Iterator[Unit]:
        """Yield the units of one result chunk, less what is covered already.

        Parameters
        ----------
        chunk : tuple of int
            The result chunk.
        covered : ndarray of bool, shape (n_partitions, n_columns), optional
            Cells that need no more work, in reading order.
        """
        pieces = _pieces(self.grid, self.chunks, chunk, self.unit_partitions)
        for start, stop in itertools.pairwise(pieces):
            for first in range(0, self.workload.n_columns, self.unit_columns):
                last = min(first + self.unit_columns, self.workload.n_columns)
                unit = Unit(chunk, start, stop, first, last)
                yield from [unit] if covered is None else _uncovered(unit, covered)

    def n_units(self) -> int:
        """Return how many units a whole run has."""
        slices = -(-self.workload.n_columns // self.unit_columns)
        cuts = (
            len(_pieces(self.grid, self.chunks, chunk, self.unit_partitions)) - 1
            for chunk in self.result_chunks()
        )
        return slices * sum(cuts)


def make_plan(
    workload: Workload,
    *,
    workers: int,
    worker_memory_bytes: int | None,
    max_files: int,
    chunks: tuple[int, ...] | None = None,
    least_chunks: int = 1,
) -> Plan:
    """Cut a workload.

    Parameters
    ----------
    workload : Workload
        The facts.
    workers : int
        Worker processes.
    worker_memory_bytes : int or None
        Memory of one of them; None when it is not known beforehand.
    max_files : int
        How many files the finished store may have.
    chunks : tuple of int, optional
        Shape of the result chunks of a store that exists.
    least_chunks : int
        How many result chunks a new store shall have at the least, for as many drivers.

    Raises
    ------
    PlanError
        When a unit of one partition needs more memory than a worker has, or the store
        more files than it may have.
    """
    if chunks is None:
        chunks = _result_chunks(workload, max_files, least_chunks)
    partitions, columns = _unit_size(workload, workers)
    memory = _memory(workload, partitions)
    if worker_memory_bytes is not None:
        while memory > worker_memory_bytes and partitions > 1:
            partitions = -(-partitions // 2)
            memory = _memory(workload, partitions)
        if memory > worker_memory_bytes:
            raise PlanError(_too_large(workload, memory, worker_memory_bytes))
    slices = -(-workload.n_columns // columns)
    return Plan(
        workload,
        chunks,
        partitions,
        columns,
        memory,
        slices * _read_factor(workload.grid, chunks, partitions),
    )


def _result_chunks(workload: Workload, max_files: int, least: int) -> tuple[int, ...]:
    """Start from the source's chunks; merge them for the file budget, cut what is too large."""
    grid = workload.grid
    chunks = [min(c, n) for c, n in zip(grid.read_chunks, grid.shape, strict=True)]

    def count() -> int:
        return math.prod(grid.chunk_grid(chunks))

    while (math.prod(chunks) * workload.cell_bytes > CHUNK_BYTES or count() < least) and math.prod(
        chunks
    ) > 1:
        widest = max(range(len(chunks)), key=lambda dim: chunks[dim])
        chunks[widest] = _about_half(chunks[widest])

    def files() -> int:
        return workload.n_chunked_arrays * count() + workload.n_other_files

    while files() > max_files and count() > least:
        counts = grid.chunk_grid(chunks)
        finest = max(range(len(chunks)), key=lambda dim: counts[dim])
        chunks[finest] = min(chunks[finest] * 2, grid.shape[finest])
    if files() > max_files:
        raise PlanError(
            f"the store would have {files():,} files, but output.max_files is {max_files:,}; "
            "raise it"
        )
    return tuple(chunks)


def _about_half(length: int) -> int:
    """Return a divisor between a quarter and a half of a length, or else half of it."""
    divisors = (d for d in range(length // 2, length // 4, -1) if length % d == 0)
    return next(divisors, -(-length // 2))


def _unit_size(workload: Workload, workers: int) -> tuple[int, int]:
    """Return partitions and columns of a unit: whole source chunks if these are enough."""
    grid = workload.grid
    block = math.prod(min(c, n) for c, n in zip(grid.read_chunks, grid.shape, strict=True))
    wanted = UNITS_PER_WORKER * workers
    partitions = UNIT_FITS // workload.n_fits_each
    partitions = max(block, partitions - partitions % block)
    share = max(1, grid.size // wanted)
    if share < partitions:
        partitions = share - share % block if share > block else share
    slices = min(workload.n_columns, -(-wanted // grid.size))
    return partitions, -(-workload.n_columns // slices)


def _memory(workload: Workload, partitions: int) -> int:
    """Project the memory of a worker: one source chunk's block, one batch at work."""
    grid = workload.grid
    block = math.prod(min(c, n) for c, n in zip(grid.read_chunks, grid.shape, strict=True))
    edge = 2 if partitions < block and len(grid.shape) > 1 else 1
    held = min(block, partitions * edge) * workload.partition_bytes
    results = partitions * workload.cell_bytes
    together = max(workload.arrays_bytes, min(BATCH_BYTES, partitions * workload.arrays_bytes))
    return BASELINE_BYTES + held + 2 * workload.chunk_bytes + 4 * together + results


def _too_large(workload: Workload, memory: int, limit: int) -> str:
    parts = {
        f"the interpreter and its libraries, {format_bytes(BASELINE_BYTES)}": BASELINE_BYTES,
        f"the source's chunks of {format_bytes(workload.chunk_bytes)}, decoded": (
            2 * workload.chunk_bytes
        ),
        f"one partition's arrays of {format_bytes(workload.arrays_bytes)}, copied by fits": (
            4 * workload.arrays_bytes
        ),
    }
    largest = max(parts, key=lambda part: parts[part])
    return (
        f"a unit of one partition is projected to need {format_bytes(memory)} of memory, but a "
        f"worker has {format_bytes(limit)}; the largest part is {largest}; raise cluster.memory "
        f"to at least {-(-memory // 1_000_000)}MB, or give the data smaller chunks"
    )


def _runs(grid: PartitionGrid, chunks: tuple[int, ...], chunk: Chunk) -> list[int]:
    """Return how many partitions of a result chunk lie in each source chunk, in reading order."""
    lengths: list[list[int]] = []
    for length, width, index, read in zip(grid.shape, chunks, chunk, grid.read_chunks, strict=True):
        low, high = index * width, min((index + 1) * width, length)
        edges = [low, *range(low - low % read + read, high, read), high]
        lengths.append([b - a for a, b in itertools.pairwise(edges)])
    return [math.prod(parts) for parts in itertools.product(*lengths)]


def _pieces(grid: PartitionGrid, chunks: tuple[int, ...], chunk: Chunk, size: int) -> list[int]:
    """Return the borders of units in a result chunk, at source chunks where that can be."""
    borders, start, end = [0], 0, 0
    for run in _runs(grid, chunks, chunk):
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


def _read_factor(grid: PartitionGrid, chunks: tuple[int, ...], size: int) -> float:
    """Return how often a chunk of the source is read on average."""
    aligned = all(
        width % read == 0 or width >= length
        for length, width, read in zip(grid.shape, chunks, grid.read_chunks, strict=True)
    )
    if aligned and size >= math.prod(map(min, grid.shape, grid.read_chunks)):
        return 1.0
    result_chunks = itertools.product(*map(range, grid.chunk_grid(chunks)))
    reads = sum(-(-run // size) for chunk in result_chunks for run in _runs(grid, chunks, chunk))
    return reads / math.prod(grid.chunk_grid(grid.read_chunks))


def _uncovered(unit: Unit, covered: NDArray[np.bool_]) -> Iterator[Unit]:
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


def format_bytes(count: int) -> str:
    """Return bytes as people read them (decimal units)."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return (
        f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"
    )
