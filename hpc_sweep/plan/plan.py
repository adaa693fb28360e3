"""The plan: how a sweep is cut into result chunks and units. Pure arithmetic, pure data.

Result chunks are fixed when the store is created. Units are cut inside them and may have
another size in every run: a unit is a range of partitions (in the chunk's reading order)
times a range of candidates.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import PlanError
from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.plan.cutting import pieces, runs, slices, true_runs, uncovered
from hpc_sweep.plan.reading import Reading
from hpc_sweep.plan.sizes import format_bytes
from hpc_sweep.plan.units import Chunk, Unit
from hpc_sweep.plan.workload import Workload

BATCH_BYTES = 8 * 2**20
"""So many bytes of features are evaluated together at the most, or one partition's."""

BASELINE_BYTES = 300_000_000
"""A worker with scikit-learn, xarray and zarr imported: 228 MB seen, and some air."""

UNIT_FITS = 1000
"""Fits of a unit made of several source chunks, before any time is known."""

UNITS_PER_WORKER = 4
"""Fewer units than this per worker would leave workers idle at the end."""

KEPT_AT_ONCE = 3
"""Persisted partitions on a worker: one at work, one that others still work at, and one that it
has read for the next; one more waits for its refit where there are any."""

CHUNK_BYTES = 128_000_000
"""A fold holds all arrays of one result chunk in memory."""


@dataclass(frozen=True)
class Plan:
    """How a workload is cut: result chunks, and the size of units in this run.

    Attributes
    ----------
    workload : Workload
        What is cut.
    chunks : tuple of int
        Shape of a result chunk.
    unit_partitions, unit_columns : int
        Size of a unit before any time is known.
    least_partitions, most_partitions : int
        What its times may make of it: as many as read no chunk of the source more often, or
        as a worker has memory for.
    memory_bytes : int
        Projected for a worker.
    read_factor : float
        How often a chunk of the source is read on average.
    persisted : int
        How many partitions are read at once to be kept on workers, where their candidates are
        cut into slices; 0: each slice reads its own.
    is_asked : bool
        Whether searches are held by the driver, and workers answer their requests in slices.
    """

    workload: Workload
    chunks: tuple[int, ...]
    unit_partitions: int
    unit_columns: int
    least_partitions: int
    most_partitions: int
    memory_bytes: int
    read_factor: float
    persisted: int = 0
    is_asked: bool = False

    @property
    def grid(self) -> PartitionGrid:
        """The partitions."""
        return self.workload.grid

    @property
    def finishes(self) -> bool:
        """Whether best candidates are fitted again while their partitions are still kept."""
        return bool(self.persisted and self.workload.refits)

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

    def units(
        self,
        chunk: Chunk,
        covered: NDArray[np.bool_] | None = None,
        size: Callable[[], int] | None = None,
    ) -> Iterator[Unit]:
        """Yield the units of one result chunk, less what is covered already.

        Parameters
        ----------
        chunk : tuple of int
            The result chunk.
        covered : ndarray of bool, shape (n_partitions, n_columns), optional
            Cells that need no more work, in reading order.
        size : callable, optional
            How many partitions the next one may have; by default `unit_partitions`.
        """
        for start, stop in self._ranges(chunk, size or self._first_size):
            for first, last in self._slices():
                unit = Unit(chunk, start, stop, first, last)
                yield from [unit] if covered is None else uncovered(unit, covered)

    @property
    def is_sliced(self) -> bool:
        """Whether candidates are cut into slices, since partitions are fewer than units wanted."""
        return self.unit_columns < self.workload.n_columns

    def slices(
        self,
        covered: Mapping[Chunk, NDArray[np.bool_] | None],
        size: Callable[[float], int],
    ) -> Iterator[Unit]:
        """Yield slices of one partition after the other, the largest first.

        Those that are read together follow each other.

        Parameters
        ----------
        covered : mapping of tuple of int to ndarray of bool or None
            Result chunks, and which of their cells need no more work.
        size : callable
            How many columns the next slice shall have, of a partition of so many times the
            average samples; asked before each.
        """
        groups = [
            (float(self._shares[chunk][start:stop].max()), chunk, start, stop)
            for chunk in covered
            for start, stop in self._ranges(chunk, lambda: max(1, self.persisted))
        ]
        for _, chunk, start, stop in sorted(groups, key=lambda each: -each[0]):
            order = np.argsort(-self._shares[chunk][start:stop], kind="stable")
            for position in (start + order).tolist():
                cells = covered[chunk]
                done = np.zeros(self.workload.n_columns, bool) if cells is None else cells[position]
                of_this = functools.partial(size, float(self._shares[chunk][position]))
                for run in true_runs(~done):
                    for first, last in slices(*run, self.workload.borders, of_this):
                        yield Unit(chunk, position, position + 1, first, last)

    def weight(self, unit: Unit) -> float:
        """Return the work of a unit, in cells of a partition of average size."""
        if not self.is_sliced:
            return unit.n_cells
        shares = self._shares[unit.chunk][unit.start : unit.stop]
        return float(shares.sum()) * (unit.last - unit.first)

    def halves(self, unit: Unit) -> tuple[Unit, ...]:
        """Return a slice in two, as far as candidates do not share their work; else as it is."""
        inside = [each for each in self.workload.borders if unit.first < each < unit.last]
        if not (self.is_sliced and inside):
            return (unit,)
        middle = min(inside, key=lambda each: abs(2 * each - unit.first - unit.last))
        return replace(unit, last=middle), replace(unit, first=middle)

    def persisted_range(self, unit: Unit) -> tuple[int, int]:
        """Return which partitions are read together with the first one of a unit."""
        ranges = self._ranges(unit.chunk, lambda: self.persisted)
        return next(each for each in ranges if each[1] > unit.start)

    def n_units(self) -> int:
        """Return how many units a whole run has, if they keep their size."""
        ranges = (self._ranges(chunk, self._first_size) for chunk in self.result_chunks())
        return sum(1 for each in ranges for _ in each) * sum(1 for _ in self._slices())

    def _slices(self) -> Iterator[tuple[int, int]]:
        n_columns, borders = self.workload.n_columns, self.workload.borders
        return slices(0, n_columns, borders, lambda: self.unit_columns)

    @functools.cached_property
    def _shares(self) -> Mapping[Chunk, NDArray[np.float64]]:
        """Samples of partitions in reading order, by their average; of no work at least 1e-3."""
        counts = {
            chunk: self.workload.reads.cut.counts(self.grid.reading_order(self.chunks, chunk))
            for chunk in self.result_chunks()
        }
        average = max(1.0, sum(int(each.sum()) for each in counts.values()) / self.grid.size)
        return {chunk: np.maximum(each / average, 1e-3) for chunk, each in counts.items()}

    def _first_size(self) -> int:
        return self.unit_partitions

    def _ranges(self, chunk: Chunk, size: Callable[[], int]) -> Iterator[tuple[int, int]]:
        return pieces(runs(self.grid, self.chunks, chunk), size)


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
    reading = Reading(workload, chunks)
    limit = math.inf if worker_memory_bytes is None else worker_memory_bytes
    memory = _memory(reading, partitions)
    while memory > limit and partitions > 1:
        partitions = -(-partitions // 2)
        memory = _memory(reading, partitions)
    if worker_memory_bytes is not None and memory > limit:
        raise PlanError(_too_large(workload, memory, worker_memory_bytes))
    most = partitions
    while most < math.prod(chunks) and _memory(reading, 2 * most) <= limit:
        most *= 2
    persisted = 0
    if workload.may_persist and (columns < workload.n_columns or workload.is_asked):
        persisted = min(workload.grid.read_block, math.prod(chunks))
        while persisted and _memory(reading, 1, persisted) > limit:
            persisted //= 2
        memory = _memory(reading, partitions, persisted)
    is_asked = workload.is_asked and bool(persisted or not workload.may_persist)
    n_slices = sum(1 for _ in slices(0, workload.n_columns, workload.borders, lambda: columns))
    return Plan(
        workload=workload,
        chunks=chunks,
        unit_partitions=partitions,
        unit_columns=columns,
        least_partitions=min(partitions, workload.grid.read_block),
        most_partitions=1 if is_asked else most,
        memory_bytes=memory,
        read_factor=_read_factor(reading, partitions, n_slices, persisted),
        persisted=persisted,
        is_asked=is_asked,
    )


def _read_factor(reading: Reading, partitions: int, n_slices: int, persisted: int) -> float:
    """Return how often a chunk of the source is read, by units, and by refits in units apart."""
    workload = reading.workload
    refits = workload.refits and n_slices > 1  # else a unit has all candidates
    if workload.stays:
        return reading.factor(partitions)
    if persisted:  # until its best candidate is fitted again
        return reading.factor(persisted)
    return (n_slices + refits) * reading.factor(partitions)


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
    block = grid.read_block
    wanted = UNITS_PER_WORKER * workers
    partitions = UNIT_FITS // workload.n_fits_each
    partitions = max(block, partitions - partitions % block)
    share = max(1, grid.size // wanted)
    if share < partitions:
        partitions = share - share % block if share > block else share
    n_slices = min(len(workload.borders), -(-wanted // grid.size))
    return partitions, -(-workload.n_columns // n_slices)


def _memory(reading: Reading, partitions: int, persisted: int = 0) -> int:
    """Project the memory of a worker: what is read at once, and kept, and one batch at work."""
    workload = reading.workload
    held = workload.index_bytes + reading.held_bytes(max(partitions, persisted))
    if persisted:
        at_once = workload.grid.size if workload.is_asked else KEPT_AT_ONCE + workload.refits
        kept = min(workload.grid.size, max(persisted, at_once))
        held += (kept - 1) * workload.arrays_bytes
    results = partitions * workload.cell_bytes
    together = max(workload.arrays_bytes, min(BATCH_BYTES, partitions * workload.arrays_bytes))
    indices = together * workload.splits_bytes // max(1, workload.arrays_bytes)
    return BASELINE_BYTES + held + 2 * workload.chunk_bytes + 4 * (together + indices) + results


def _too_large(workload: Workload, memory: int, limit: int) -> str:
    smaller = "cut the data into smaller partitions"
    parts = [
        (
            BASELINE_BYTES,
            f"the interpreter and its libraries, {format_bytes(BASELINE_BYTES)}",
            "start fewer workers on a node",
        ),
        (
            2 * workload.chunk_bytes,
            f"the source's chunks of {format_bytes(workload.chunk_bytes)}, decoded",
            "give the data smaller chunks",
        ),
        (
            workload.index_bytes,
            f"{format_bytes(workload.index_bytes)} of labels and orders of samples, which every "
            "worker holds",
            "start fewer workers on a node, or cut the data into several files and sweeps",
        ),
        (
            4 * workload.arrays_bytes,
            f"one partition's arrays of {format_bytes(workload.arrays_bytes)}, copied by fits",
            f"{smaller}, or train it block by block (search.strategy: incremental or hyperband)",
        ),
        (
            4 * workload.splits_bytes,
            f"one partition's splits of {format_bytes(workload.splits_bytes)}, copied too",
            f"{smaller}, or make fewer splits (search.cv)",
        ),
    ]
    _, largest, remedy = max(parts)
    return (
        f"a unit of one partition is projected to need {format_bytes(memory)} of memory, but a "
        f"worker has {format_bytes(limit)}; the largest part is {largest}; raise cluster.memory "
        f"to at least {-(-memory // 1_000_000)}MB, or {remedy}"
    )
