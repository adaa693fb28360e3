"""How variables lie in the source: which of them are cut, and in which chunks they are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import xarray as xr

from hpc_sweep.partitions import Axis, Cut, Layout, Reads

FREE_BLOCK_BYTES = 64_000_000
"""Size of a block where the source has no chunks of its own (contiguous netCDF)."""


def reads_of(cut: Cut, arrays: Iterable[xr.DataArray]) -> Reads:
    """Return what reading costs; variables that all partitions have alike cost nothing.

    Parameters
    ----------
    cut : Cut
        How the data is cut.
    arrays : iterable of xarray.DataArray
        The variables that are read, lazily opened.
    """
    dims = {dim for axis in cut.axes for dim in axis.dims}
    return Reads(cut, tuple(_layout(each) for each in arrays if not dims or dims & {*each.dims}))


def read_chunks(reads: Reads, partition_bytes: int) -> tuple[int, ...]:
    """Return how many labels of each axis are read as a whole.

    Parameters
    ----------
    reads : Reads
        What reading costs.
    partition_bytes : int
        Size of the largest partition.
    """
    axes = reads.cut.axes
    if not axes:
        return ()
    largest = max(reads.layouts, key=lambda layout: layout.nbytes)
    if any(length > 1 for length in largest.chunks.values()):
        return reads.blocks([_labels_in_chunks(axis, largest.chunks) for axis in axes])
    return reads.blocks(_free_labels(axes, max(1, FREE_BLOCK_BYTES // max(1, partition_bytes))))


def chunk_shape(array: xr.DataArray) -> tuple[int, ...] | None:
    """Return the shape of a variable's chunks on disk, or of a lazy array; None without any."""
    if array.chunks is not None:  # a loader's: its blocks are made anew for each part of them
        return tuple(map(max, array.chunks))
    preferred = array.encoding.get("preferred_chunks")
    if not preferred:
        return None
    return tuple(int(preferred.get(dim, array.sizes[dim])) for dim in array.dims)


def held_shape(array: xr.DataArray) -> tuple[int, ...] | None:
    """Return the shape of what is held in memory while a variable is read, or None."""
    held = array.encoding.get("held_chunks")
    return tuple(held[dim] for dim in array.dims) if held else chunk_shape(array)


def _layout(array: xr.DataArray) -> Layout:
    dims = [str(dim) for dim in array.dims]
    chunks = chunk_shape(array) or (1,) * len(dims)
    lengths = zip(dims, array.shape, strict=True)
    return Layout(array.dtype.itemsize, dict(lengths), dict(zip(dims, chunks, strict=True)))


def _labels_in_chunks(axis: Axis, chunks: Mapping[str, int]) -> int | None:
    """Return how many labels of an axis fill whole chunks; None where they follow no rule."""
    if axis.width is None:
        return None
    length = chunks.get(axis.dims[0])
    if length is None:
        return axis.size
    return min(axis.size, length // math.gcd(length, axis.width))


def _free_labels(axes: Sequence[Axis], room: int) -> list[int | None]:
    """Return how many labels to read at once where there are no chunks, so many partitions."""
    found: list[int | None] = []
    for axis in reversed(axes):
        found.insert(0, None if axis.width is None else max(1, min(axis.size, room)))
        room //= axis.size
    return found
