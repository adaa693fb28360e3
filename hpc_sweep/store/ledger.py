"""The ledger: ``status`` in the store together with the parts; the only truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, PENDING, STATUS_MEANINGS
from hpc_sweep.errors import StoreError
from hpc_sweep.plan import WHOLE, Chunk, Share, Unit
from hpc_sweep.store.fold import Folded
from hpc_sweep.store.lostfiles import blocks_begun, check_fixed_files, check_result_files
from hpc_sweep.store.modelfiles import has_models
from hpc_sweep.store.parts import PartName, delete_parts, is_whole, list_parts, read_part
from hpc_sweep.store.ranks import partition_status
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
    _unscored: dict[Chunk, set[int]] = field(default_factory=dict)
    _finishing: dict[Chunk, set[int]] = field(default_factory=dict)

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
        check_fixed_files(store)
        chunks = set(ledger.chunks)
        there = {}
        for index in sorted(chunks):
            status = store.read_status(index)
            if status is not None:
                there[index] = blocks_begun(store, status)
                ledger._note(index, status)
        check_result_files(store, there)
        for name in list_parts(store.run.parts, store.header.id):
            mine = name.unit.chunk in chunks and name.unit.chunk not in ledger.folded
            if mine and is_whole(store.run.parts, name):
                ledger.add(name)
        return ledger

    def _note(self, chunk: Chunk, status: NDArray[np.int8]) -> None:
        """Take note of what the store has of a result chunk."""
        settled = self.store.settled(status)
        current = settled.all() and self.store.read_revision(chunk) == self.store.header.revision
        if current and has_models(self.store, chunk):
            self.folded.add(chunk)
            self.count(partition_status(status[:, self.store.strategy.in_spec]))
        elif (settled == settled[0]).all():  # after a change that holds for all chunks
            self._cells[chunk] = np.broadcast_to(settled[0].copy(), settled.shape)
        else:
            self._cells[chunk] = settled

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
        return sum(map(self.store.n_partitions, self.chunks))

    @property
    def n_cells(self) -> int:
        """How many (partition, column) pairs the spec asks for."""
        return self.n_partitions * int(self.store.strategy.columns_in_spec.sum())

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
        """Return which cells of an unfolded chunk need no more work.

        Returns
        -------
        ndarray of bool, shape (n_partitions, n_columns), or None
            In reading order; None where all do.
        """
        nothing = self._nothing(chunk)
        return self._cells.get(chunk, nothing if nothing.any() else None)

    def _nothing(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Return the cells of a chunk of which there is nothing."""
        asked = self.store.strategy.columns_in_spec
        return np.broadcast_to(~asked, (self.store.n_partitions(chunk), len(asked)))

    def add(self, name: PartName) -> bool:
        """Add a part; return whether its chunk is complete now."""
        unit = name.unit
        cells = self._cells.get(unit.chunk, self._nothing(unit.chunk))
        if not cells.flags.writeable:  # the same for all partitions, until now
            cells = cells.copy()
        self._cells[unit.chunk] = cells
        self.parts.setdefault(unit.chunk, []).append(name)
        cells[unit.start : unit.stop, unit.first : unit.last] = True
        unscored = self._unscored.get(unit.chunk, set())
        if not unit.n_cells:
            unscored.difference_update(range(unit.start, unit.stop))
        return bool(cells.all()) and not unscored

    def finishing(self, unit: Unit) -> list[Unit]:
        """Return what may be done now that a unit is, while its partitions are still at hand.

        Those are units without candidates, one for each partition that lacks nothing else; their
        chunks are not complete without them.
        """
        if not unit.n_cells or unit.chunk in self.folded:
            return []
        known, last = self._finishing.setdefault(unit.chunk, set()), self.store.strategy.n_columns
        whole = np.flatnonzero(self._cells[unit.chunk][unit.start : unit.stop].all(axis=1))
        new = {*(whole + unit.start).tolist()} - known
        known |= new
        self._unscored.setdefault(unit.chunk, set()).update(new)
        return [Unit(unit.chunk, start, start + 1, last, last) for start in sorted(new)]

    def complete(self) -> Iterator[Chunk]:
        """Yield chunks that lack nothing but their fold."""
        for chunk, cells in sorted(self._cells.items()):
            if cells.all() and not self._unscored.get(chunk):
                yield chunk

    def fold(self, chunk: Chunk, folded: Folded, most: int = 1) -> list[Unit]:
        """Note that a chunk was folded, or what it lacks.

        Parameters
        ----------
        chunk : tuple of int
            Which.
        folded : Folded
            What came of it.
        most : int
            How many partitions a unit may have.

        Returns
        -------
        list of Unit
            Those without candidates that are to be done before it can be folded: they score the
            best candidates on the samples held out.
        """
        if folded.unscored:
            self._unscored[chunk] = {*folded.unscored}
            last = self.store.strategy.n_columns
            return [Unit(chunk, *rows, last, last) for rows in _runs(folded.unscored, most)]
        self.folded.add(chunk)
        for of_unfolded in (self.parts, self._cells, self._unscored, self._finishing):
            of_unfolded.pop(chunk, None)
        for kind, count in folded.counts.items():
            self.counts[int(kind)] += count
        return []

    def superfluous_parts(self) -> list[PartName]:
        """Return parts of folded chunks: late ones, or those of a fold that was killed."""
        names = list_parts(self.store.run.parts, self.store.header.id)
        return [name for name in names if name.unit.chunk in self.folded]

    def remove_superfluous_parts(self) -> None:
        """Delete parts of folded chunks."""
        delete_parts(self.store.run.parts, self.superfluous_parts())

    def is_tidy(self) -> bool:
        """Return whether nothing lies about that the next driver removes."""
        left = self.superfluous_parts() or self.store.leftovers()
        return not left and not self.store.run.lease.exists()

    def cells_done(self) -> int:
        """Return how many of the cells that the spec asks for need no more work."""
        asked = self.store.strategy.columns_in_spec
        beside = sum(int(cells[:, asked].sum()) for cells in self._cells.values())
        return sum(self.counts.values()) * int(asked.sum()) + beside

    def summary(self) -> dict[str, Any]:
        """Return partitions by state, with those in parts counted too."""
        counts = Counter(self.counts)
        for chunk in self._cells:
            counts.update(self._states(chunk))
        counts[PENDING] += self.n_partitions - sum(counts.values())
        return {meaning: counts[code] for code, meaning in enumerate(STATUS_MEANINGS)}

    def _states(self, chunk: Chunk) -> Counter[int]:
        """Count the states of an unfolded chunk's partitions that are not pending."""
        store, strategy = self.store, self.store.strategy
        status = store.read_status(chunk)
        if status is None:
            status = np.zeros((store.n_partitions(chunk), strategy.n_rows), dtype=np.int8)
        for name in self.parts.get(chunk, ()):
            unit = name.unit
            try:
                part = read_part(store.run.parts, name)
            except StoreError:  # folded and deleted meanwhile
                continue
            place = status[unit.start : unit.stop, strategy.rows(unit.first, unit.last)]
            place[place != DONE] = part.status[place != DONE]
        states = partition_status(status[:, strategy.in_spec])
        return Counter(int(state) for state in states if state != PENDING)


def _runs(positions: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of ascending positions that follow each other, so many at the most."""
    start = stop = positions[0]
    for position in positions:
        if position != stop or stop - start == most:
            yield start, stop
            start = position
        stop = position + 1
    yield start, stop
