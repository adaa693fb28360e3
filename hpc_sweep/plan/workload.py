"""The facts of a sweep that a plan is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpc_sweep.partitions import PartitionGrid, Reads


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
    index_bytes : int
        What a worker holds to know whose samples are where.
    n_chunked_arrays, n_other_files : int
        Arrays of the store with one file per result chunk, and files besides.
    known_reads : Reads, optional
        What reading partitions costs, where not each index of the source is one.
    stays : bool
        Whether a partition, once read, stays on the workers for all its units.
    may_persist : bool
        Whether a partition of several units may be kept on the workers that need it.
    is_asked : bool
        Whether candidates are asked for one after the other, by results, and answered by all
        workers if partitions fit.
    known_borders : tuple of int, optional
        Columns at which a slice of a partition's may end, ascending; None: at any.
    refits : bool
        Whether the best candidates are fitted again.
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
    index_bytes: int = 0
    known_reads: Reads | None = None
    stays: bool = False
    may_persist: bool = False
    is_asked: bool = False
    known_borders: tuple[int, ...] | None = None
    refits: bool = False

    @cached_property
    def reads(self) -> Reads:
        """What reading partitions costs."""
        return self.known_reads or Reads.of_grid(self.grid, self.partition_bytes)

    @property
    def borders(self) -> Sequence[int]:
        """Columns at which a slice may end."""
        every = range(1, self.n_columns + 1)
        return every if self.known_borders is None else self.known_borders

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

    @property
    def splits_bytes(self) -> int:
        """Bytes of the indices that split one partition."""
        return self.n_samples * self.n_splits * 8
