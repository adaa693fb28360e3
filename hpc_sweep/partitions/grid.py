"""The grid of partitions: which there are, how they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PartitionGrid:
    """All partitions of a sweep, on their natural dimensions.

    Attributes
    ----------
    dims : tuple of str
        Names of the partition dimensions, in the order of the results.
    shape : tuple of int
        How many labels each has.
    read_chunks : tuple of int
        Extent of one chunk of the source along each; what is read as a whole.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    read_chunks: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many partitions there are."""
        return math.prod(self.shape)

    @property
    def read_block(self) -> int:
        """How many partitions are read as a whole, at the most."""
        return math.prod(map(min, self.shape, self.read_chunks))

    def chunk_grid(self, chunks: Sequence[int]) -> tuple[int, ...]:
        """Return how many chunks of that shape cover the grid along each dimension."""
        return tuple(-(-n // c) for n, c in zip(self.shape, chunks, strict=True))

    def chunk_shape(self, chunks: Sequence[int], index: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of one chunk, cut at the end of the grid."""
        return tuple(min(c, n - i * c) for n, c, i in zip(self.shape, chunks, index, strict=True))

    def reading_order(self, chunks: Sequence[int], index: Sequence[int]) -> NDArray[np.intp]:
        """Return the partitions of one result chunk, source chunk by source chunk.

        Parameters
        ----------
        chunks : sequence of int
            Shape of the result chunks.
        index : sequence of int
            Which one.

        Returns
        -------
        ndarray of intp, shape (n_partitions, n_dims)
            Indices into the whole grid. Partitions that lie in one chunk of the source
            follow each other, so that a range of them reads few chunks.
        """
        shape = self.chunk_shape(chunks, index)
        start = np.array(index) * np.array(chunks)
        where = np.indices(shape).reshape(len(shape), math.prod(shape)).T + start
        keys = [*reversed(where.T), *reversed((where // np.array(self.read_chunks)).T)]
        return np.ascontiguousarray(where[np.lexsort(keys)] if keys else where)
