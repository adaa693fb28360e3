"""The ledger: ``status`` in the store together with the parts; the only truth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import PENDING, STATUS_MEANINGS
from hpc_sweep.errors import StoreError
from hpc_sweep.plan import WHOLE, Chunk, Share
from hpc_sweep.store.fold import partition_status
from hpc_sweep.store.parts import PartName, delete_parts, is_whole, list_parts, read_part
from hpc_sweep.store.store import Store


@dataclass
class Ledger:
    """What is done: folded result chunks, and parts of those that are not.

    Attributes
    ----------
    store : Store
        The store.
    folded : set of tuple of int
        Result chunks whose every cell is in the store.
    counts : Counter
        Partitions in folded chunks by ``partition_status``.
    parts : dict of tuple of int to list of PartName
        Whole parts of result chunks that are not folded.
    share : Share
        What it is about; other result chunks are left out.
    """

    store: Store
    share: Share = WHOLE
    folded: set[Chunk] = field(default_factory=set)
    counts: Counter[int] = field(default_factory=Counter)
    parts: dict[Chunk, list[PartName]] = field(default_factory=dict)
    _cells: dict[Chunk, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, share: Share = WHOLE) -> Ledger:
        """Read the ledger from the disk.

        Raises
        ------
        StoreError
            When a file is missing that was made with the store, or although its status
            says done.
        """
        ledger = cls(store, share)
        lost = store.missing_fixed_files()
        if lost:
            raise StoreError(
                f"{lost[0]} is missing, which was made with the store ({len(lost)} such files); "
                f"bring it back, or delete {store.path} to compute all again"
            )
        chunks = set(ledger.chunks)
        for index in sorted(chunks):
            status = store.read_status(index)
            if status is not None:
                ledger.folded.add(index)
                states = partition_status(status.reshape(-1, status.shape[-1]))
                ledger.count(states)
        missing = store.missing_files(ledger.folded)
        if missing:
            chunk_key = missing[0].name.split(".")[1 : 1 + len(store.header.dims)]
            status_file = store.chunk_file(store.arrays[-1], tuple(map(int, chunk_key)))
            raise StoreError(
                f"{missing[0]} is missing although its status says done ({len(missing)} such "
                f"files); bring it back, or delete {status_file} to compute that chunk again"
            )
        for name in list_parts(store.run.parts, store.header.id):
            mine = name.unit.chunk in chunks and name.unit.chunk not in ledger.folded
            if mine and is_whole(store.run.parts, name):
                ledger.add(name)
        return ledger

    @cached_property
    def chunks(self) -> Sequence[Chunk]:
        """The result chunks that it is about, in order."""
        shape = self.store.grid.chunk_grid(self.store.header.chunks)
        return self.share.of(list(np.ndindex(*shape)))

    @property
    def n_chunks(self) -> int:
        """How many result chunks it is about."""
        return len(self.chunks)

    @property
    def n_partitions(self) -> int:
        """How many partitions these have."""
        grid, size = self.store.grid, self.store.header.chunks
        return sum(math.prod(grid.chunk_shape(size, chunk)) for chunk in self.chunks)

    @property
    def is_complete(self) -> bool:
        """Whether every result chunk is folded."""
        return len(self.folded) == self.n_chunks

    def count(self, states: NDArray[np.int8]) -> None:
        """Add partitions of a folded chunk, given as ``partition_status``."""
        kinds, counts = np.unique(states, return_counts=True)
        for kind, count in zip(kinds, counts, strict=True):
            self.counts[int(kind)] += int(count)

    def covered(self, chunk: Chunk) -> NDArray[np.bool_] | None:
        """Return which cells of an unfolded chunk the parts cover.

        Returns
        -------
        ndarray of bool, shape (n_partitions, n_candidates), or None
            In reading order; None where nothing is.
        """
        return self._cells.get(chunk)

    def add(self, name: PartName) -> bool:
        """Add a part; return whether its chunk is complete now."""
        unit = name.unit
        if unit.chunk not in self._cells:
            shape = self.store.grid.chunk_shape(self.store.header.chunks, unit.chunk)
            cells = np.zeros((math.prod(shape), self.store.strategy.n_columns), dtype=bool)
            self._cells[unit.chunk] = cells
        self.parts.setdefault(unit.chunk, []).append(name)
        self._cells[unit.chunk][unit.start : unit.stop, unit.first : unit.last] = True
        return bool(self._cells[unit.chunk].all())

    def complete(self) -> Iterator[Chunk]:
        """Yield chunks whose parts are complete, so that they can be folded."""
        for chunk, cells in sorted(self._cells.items()):
            if cells.all():
                yield chunk

    def fold(self, chunk: Chunk, counts: dict[str, int]) -> None:
        """Note that a chunk was folded."""
        self.folded.add(chunk)
        self.parts.pop(chunk, None)
        self._cells.pop(chunk, None)
        for kind, count in counts.items():
            self.counts[int(kind)] += count

    def remove_superfluous_parts(self) -> None:
        """Delete parts of folded chunks: late ones, or those of a fold that was killed."""
        names = list_parts(self.store.run.parts, self.store.header.id)
        delete_parts(
            self.store.run.parts, [name for name in names if name.unit.chunk in self.folded]
        )

    def cells_done(self) -> int:
        """Return how many (partition, candidate) cells need no more work."""
        partitions = sum(self.counts.values())
        in_parts = sum(int(cells.sum()) for cells in self._cells.values())
        return partitions * self.store.strategy.n_columns + in_parts

    def summary(self) -> dict[str, Any]:
        """Return partitions by state, with those in parts counted too."""
        counts = Counter(self.counts)
        for chunk in self.parts:
            counts.update(self._states_in_parts(chunk))
        counts[PENDING] += self.n_partitions - sum(counts.values())
        return {meaning: counts[code] for code, meaning in enumerate(STATUS_MEANINGS)}

    def _states_in_parts(self, chunk: Chunk) -> Counter[int]:
        strategy = self.store.strategy
        status = np.zeros((len(self._cells[chunk]), strategy.n_rows), dtype=np.int8)
        for name in self.parts[chunk]:
            unit = name.unit
            try:
                part = read_part(self.store.run.parts, name)
            except StoreError:  # folded and deleted meanwhile
                continue
            status[unit.start : unit.stop, strategy.rows(unit.first, unit.last)] = part.status
        states = partition_status(status)
        return Counter(int(state) for state in states if state != PENDING)
