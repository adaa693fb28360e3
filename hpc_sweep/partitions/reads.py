"""What reading partitions costs: whole chunks of the source, wherever a box touches them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.partitions.axes import Axis
from hpc_sweep.partitions.cut import Bounds, Cut
from hpc_sweep.partitions.grid import PartitionGrid

COMPACT = 1.05
"""Labels are read one by one where that reads so many times as much at the most."""

MOST_BOXES = 4_000_000
"""So many boxes are looked at to find that out."""


@dataclass(frozen=True)
class Layout:
    """How one variable lies in the source.

    Attributes
    ----------
    itemsize : int
        Bytes of one value, decoded.
    lengths : dict of str to int
        Its dimensions.
    chunks : dict of str to int
        Length of a chunk along each; 1 where any part can be read by itself.
    """

    itemsize: int
    lengths: Mapping[str, int]
    chunks: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """Decoded bytes of the whole variable."""
        return self.itemsize * math.prod(self.lengths.values())

    def touched(self, bounds: Bounds) -> NDArray[np.int64]:
        """Return the bytes of all chunks that boxes touch, one number for each box."""
        total = np.array(self.itemsize, dtype=np.int64)
        for dim, length in self.lengths.items():
            chunk = self.chunks[dim]
            low, high = bounds.get(dim, (np.array(0), np.array(length)))
            total = total * np.where(high > low, -(-high // chunk) - low // chunk, 0) * chunk
        return total

    def held(self, bounds: Bounds) -> NDArray[np.int64]:
        """Return the bytes of what is in boxes, one number for each box."""
        total = np.array(self.itemsize, dtype=np.int64)
        for dim, length in self.lengths.items():
            low, high = bounds.get(dim, (np.array(0), np.array(length)))
            total = total * (high - low)
        return total


@dataclass(frozen=True)
class Reads:
    """What reading the partitions of a cut costs.

    Attributes
    ----------
    cut : Cut
        How the data is cut.
    layouts : tuple of Layout
        The variables that differ between partitions; others are read once by a worker.
    """

    cut: Cut
    layouts: tuple[Layout, ...]

    @classmethod
    def of_grid(cls, grid: PartitionGrid, itemsize: int) -> Reads:
        """Return the reads of a grid whose every index is a partition of so many bytes."""
        lengths = dict(zip(grid.dims, grid.shape, strict=True))
        chunks = dict(zip(grid.dims, grid.read_chunks, strict=True))
        axes = (Axis(dim, size, (dim,), np.arange(size)) for dim, size in lengths.items())
        return cls(Cut(tuple(axes), lengths), (Layout(itemsize, lengths, chunks),))

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all chunks of the variables, at least 1."""
        return max(1, sum(int(layout.touched({})) for layout in self.layouts))

    def of(
        self, partitions: NDArray[np.intp], starts: NDArray[np.intp]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what reading runs of partitions costs, each run at once.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            In the order of reading.
        starts : ndarray of intp, shape (n_runs,)
            Where the runs begin.

        Returns
        -------
        touched, held : ndarray of int64, shape (n_runs,)
            Bytes of the chunks that are read, and of what is kept of them.
        """
        bounds = self.cut.boxes(partitions, starts)
        zero = np.zeros(len(starts), dtype=np.int64)
        touched = sum((layout.touched(bounds) for layout in self.layouts), zero)
        return touched, sum((layout.held(bounds) for layout in self.layouts), zero)

    def footprints(self, partitions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return numbers that are equal for partitions whose boxes touch the same chunks."""
        edges = [np.zeros(len(partitions), dtype=np.intp)]
        for dim, (low, high) in self.cut.bounds(partitions).items():
            for layout in self.layouts:
                if dim in layout.chunks:
                    edges += [low // layout.chunks[dim], -(-high // layout.chunks[dim])]
        return np.unique(np.stack(edges, axis=1), axis=0, return_inverse=True)[1].ravel()

    def of_blocks(self, blocks: Sequence[int]) -> float:
        """Return the bytes that are read when so many labels of each axis are read at once."""
        counts = [-(-axis.size // n) for axis, n in zip(self.cut.axes, blocks, strict=True)]
        if math.prod(counts) > MOST_BOXES:
            return math.inf
        bounds: dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
        for place, (axis, block) in enumerate(zip(self.cut.axes, blocks, strict=True)):
            starts = np.arange(0, axis.size, block)
            spread = [1] * len(counts)
            spread[place] = len(starts)
            for dim, (lows, highs) in axis.spans.items():
                low = np.minimum.reduceat(lows, starts).reshape(spread)
                high = np.maximum.reduceat(highs, starts).reshape(spread)
                if dim in bounds:
                    low, high = np.maximum(low, bounds[dim][0]), np.minimum(high, bounds[dim][1])
                bounds[dim] = low, high
        some = np.array(True)
        for low, high in bounds.values():
            some = some & (low < high)
        each = sum((layout.touched(bounds) for layout in self.layouts), np.zeros(counts))
        return float((each * some).sum())

    def blocks(self, known: Sequence[int | None]) -> tuple[int, ...]:
        """Return how many labels of each axis to read at once.

        Parameters
        ----------
        known : sequence of int or None
            Where that is known; None: either one label or all of them, whichever reads fewer
            labels at once and hardly more bytes.
        """
        sizes = [axis.size for axis in self.cut.axes]
        choices = itertools.product(
            *([1, size] if n is None else [n] for n, size in zip(known, sizes, strict=True))
        )
        *others, all_at_once = sorted(set(choices), key=math.prod)
        limit = COMPACT * self.of_blocks(all_at_once)
        return next((each for each in others if self.of_blocks(each) <= limit), all_at_once)

    def alone(self, blocks: Sequence[int], place: int) -> float:
        """Return how many times as much is read when an axis' labels are read one by one.

        Parameters
        ----------
        blocks : sequence of int
            How many labels of the other axes are read at once.
        place : int
            Which axis.
        """
        one, every = list(blocks), list(blocks)
        one[place], every[place] = 1, self.cut.axes[place].size
        return self.of_blocks(one) / max(1.0, self.of_blocks(every))
