"""How predictions are cut into boxes, each of which is one chunk of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpc_sweep.errors import PlanError
from hpc_sweep.plan import BASELINE_BYTES, UNITS_PER_WORKER, format_bytes
from hpc_sweep.source import Source, chunk_shape

BOX_BYTES = 32_000_000
"""Chunks of the data are put together until a box has so many bytes."""

WORKING_BYTES = 64_000_000
"""What estimators are given at once, and what they make of it."""


@dataclass(frozen=True)
class Cutting:
    """Boxes that cover a data set, in the order in which they are predicted.

    Those with the same partitions follow each other, as far as partitions are cut by place.

    Attributes
    ----------
    dims : tuple of str
        Of the result, in the order of the data.
    lengths : tuple of int
        Of these.
    steps : tuple of int
        Of a box.
    slow : tuple of bool
        Along which of them partitions differ.
    """

    dims: tuple[str, ...]
    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    slow: tuple[bool, ...]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many boxes there are along each dimension."""
        return tuple(-(-n // step) for n, step in zip(self.lengths, self.steps, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def n_alike(self) -> int:
        """How many boxes with the same partitions follow each other."""
        return math.prod(n for n, slow in zip(self.counts, self.slow, strict=True) if not slow)

    @cached_property
    def _order(self) -> list[int]:
        return sorted(range(len(self.dims)), key=lambda place: not self.slow[place])

    def index(self, number: int) -> tuple[int, ...]:
        """Return the chunk of the result that a box is."""
        found = np.unravel_index(number, [self.counts[place] for place in self._order])
        return tuple(int(found[self._order.index(place)]) for place in range(len(self.dims)))

    def numbers(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield each box's number with its index."""
        for number in range(len(self)):
            yield number, self.index(number)

    def window(self, number: int) -> dict[str, slice]:
        """Return where a box is."""
        return {
            dim: slice(i * step, min((i + 1) * step, n))
            for dim, i, step, n in zip(
                self.dims, self.index(number), self.steps, self.lengths, strict=True
            )
        }


def make_cutting(
    source: Source,
    n_arrays: int,
    n_numbers: int,
    *,
    workers: int,
    worker_memory_bytes: int | None,
    max_files: int,
) -> Cutting:
    """Cut a data set along its chunks.

    Parameters
    ----------
    source : Source
        The data.
    n_arrays : int
        How many arrays the result has, of one file for each box.
    n_numbers : int
        How many numbers the prediction of a sample has in all of them.
    workers : int
        There should be a few boxes for each.
    worker_memory_bytes : int or None
        What one has.
    max_files : int
        How many the result may have.

    Raises
    ------
    PlanError
        When a box does not fit into a worker's memory.
    """
    dims = tuple(
        dict.fromkeys(
            str(dim) for name in source.data.features for dim in source.dataset[name].dims
        )
    )
    growing = _Growing(source, dims, n_numbers)
    growing.grow(BOX_BYTES, lambda boxes: boxes >= UNITS_PER_WORKER * workers)
    limit = math.inf if worker_memory_bytes is None else worker_memory_bytes
    room = limit - BASELINE_BYTES - WORKING_BYTES
    growing.grow(room, lambda boxes: 2 * n_arrays * boxes > max_files)
    needed = BASELINE_BYTES + WORKING_BYTES + growing.held(growing.steps)
    steps, n_files = growing.steps, n_arrays * growing.count(growing.steps)
    if needed > limit:
        raise PlanError(
            f"predicting one chunk of {source.data.origin} ({_named(steps)}) needs "
            f"{format_bytes(needed)} of memory, but a worker has {format_bytes(int(limit))}; raise "
            "it (--set cluster.memory=…), or give the data smaller chunks"
        )
    if n_files > max_files:
        raise PlanError(
            f"the predictions would have {n_files:,} files, but output.max_files is {max_files:,}; "
            "raise it (--set output.max_files=…), or cluster.memory"
        )
    ordered = tuple(steps[dim] for dim in dims)
    return Cutting(
        dims, tuple(growing.lengths.values()), ordered, tuple(d in growing.cut for d in dims)
    )


class _Growing:
    """Boxes that grow from the data's chunks, first along what all partitions have."""

    def __init__(self, source: Source, dims: tuple[str, ...], n_numbers: int) -> None:
        self.source, self.n_numbers = source, n_numbers
        self.lengths = {dim: source.cut.lengths[dim] for dim in dims}
        self.cut = {dim for axis in source.axes for dim in axis.dims}
        self.steps = _chunks(source, self.lengths)
        self.order = sorted(dims, key=lambda dim: (dim in self.cut, -dims.index(dim)))

    def held(self, steps: Mapping[str, int]) -> int:
        """Return the bytes of a box."""
        return _box_bytes(self.source, steps, self.n_numbers)

    def count(self, steps: Mapping[str, int]) -> int:
        """Return how many boxes there are."""
        return math.prod(-(-n // steps[dim]) for dim, n in self.lengths.items())

    def grow(self, most_bytes: float, wanted: Callable[[int], bool]) -> None:
        """Double lengths while a box has room, and the number of boxes then is wanted."""
        while True:
            for dim in self.order:
                length = min(2 * self.steps[dim], self.lengths[dim])
                more = {**self.steps, dim: length}
                fits = self.held(more) <= most_bytes and wanted(self.count(more))
                if length > self.steps[dim] and fits:
                    self.steps = more
                    break
            else:
                return


def _chunks(source: Source, lengths: Mapping[str, int]) -> dict[str, int]:
    """Return the chunks of the largest variable; 1 where any part can be read by itself."""
    names = source.reading.sources(source.data.features)
    largest = source.dataset[max(names, key=lambda name: source.dataset[name].nbytes)]
    shape = chunk_shape(largest)
    chunks = {} if shape is None else dict(zip(map(str, largest.dims), shape, strict=True))
    return {dim: min(chunks.get(dim, 1), n) for dim, n in lengths.items()}


def _box_bytes(source: Source, steps: Mapping[str, int], n_numbers: int) -> int:
    """Return the bytes of a box: what is read, in and out of its order, and what is made of it."""
    read = 0
    for name in source.variables:
        variable = source.dataset[name]
        shape = [steps.get(str(dim), n) for dim, n in variable.sizes.items()]
        read += math.prod(shape) * variable.dtype.itemsize
    return 2 * read + 2 * 8 * n_numbers * math.prod(steps.values())


def _named(steps: Mapping[str, int]) -> str:
    return ", ".join(f"{dim}: {step:,}" for dim, step in steps.items())
