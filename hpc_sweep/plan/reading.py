"""What units read from the source, and hold of it at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from hpc_sweep.plan.cutting import pieces, runs
from hpc_sweep.plan.units import Chunk
from hpc_sweep.plan.workload import Workload


@dataclass
class Reading:
    """What a whole run reads, by the size of its units.

    Attributes
    ----------
    workload : Workload
        What is cut.
    chunks : tuple of int
        Shape of the result chunks.
    """

    workload: Workload
    chunks: tuple[int, ...]
    _known: dict[int, tuple[float, int]] = field(default_factory=dict)

    def factor(self, size: int) -> float:
        """Return how often a chunk of the source is read on average by units of that size."""
        return self._of(size)[0]

    def held_bytes(self, size: int) -> int:
        """Return how much of the source such a unit holds at once, at the most."""
        return self._of(size)[1]

    def _of(self, size: int) -> tuple[float, int]:
        size = min(size, self.workload.grid.read_block)  # more is read one after the other
        if size not in self._known:
            grid = self.workload.grid
            touched = held = 0
            for chunk in itertools.product(*map(range, grid.chunk_grid(self.chunks))):
                of_chunk = self._of_chunk(chunk, size)
                touched, held = touched + of_chunk[0], max(held, of_chunk[1])
            self._known[size] = touched / self.workload.reads.total_bytes, held
        return self._known[size]

    def _of_chunk(self, chunk: Chunk, size: int) -> tuple[int, int]:
        """Return the bytes that are read for a result chunk, and held at once at the most."""
        grid = self.workload.grid
        lengths = runs(grid, self.chunks, chunk)
        borders = [start for start, _ in pieces(lengths, lambda: size)]
        starts = np.union1d(borders, [0, *itertools.accumulate(lengths[:-1])])
        partitions = grid.reading_order(self.chunks, chunk)
        touched, held = self.workload.reads.of(partitions, starts)
        return int(touched.sum()), int(held.max())
