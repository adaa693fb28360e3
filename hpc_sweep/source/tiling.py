"""Another layout for data that is chunked the wrong way: many maps, each a chunk of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from hpc_sweep.source.source import Source

SLAB_BYTES = 128_000_000
"""So much of a variable is copied at once, or a chunk of it along its slabs."""

TILE_BYTES = (1_000_000, 16_000_000)
"""What all variables of a tile, with all its samples, have at the least and at the most."""

TILES = 64
"""So many tiles there are, where their size allows it."""

CHUNK_S = 0.0005
"""Time to fetch and decode a small chunk from a local disk; parallel file systems take longer."""

BYTES_PER_S = 200e6
"""Of reading and decoding, or encoding and writing, by one process."""


@dataclass(frozen=True)
class Slab:
    """A piece of a variable that is copied by one task.

    Attributes
    ----------
    variable : str
        Which one.
    index : int
        Which of its slabs.
    start, stop : int
        Indices along the dimension of slabs.
    """

    variable: str
    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Tiling:
    """How some variables are laid out anew: slabs of samples, cut into tiles of partitions.

    Attributes
    ----------
    dim : str
        Dimension along samples, which slabs are cut from.
    size : int
        Its length.
    lengths : mapping of str to int
        By variable: how long its slabs are; whole chunks of the source.
    tiles : mapping of str to int
        By dimension: how long a tile is.
    """

    dim: str
    size: int
    lengths: Mapping[str, int]
    tiles: Mapping[str, int]

    def slabs(self) -> Iterator[Slab]:
        """Yield what is copied, variable by variable, in an order that everybody agrees on."""
        for name, length in sorted(self.lengths.items()):
            starts = range(0, self.size, length)
            for index, start in enumerate(starts):
                yield Slab(name, index, start, min(start + length, self.size))

    def chunks(self, array: xr.DataArray) -> dict[str, int]:
        """Return the chunks of a variable's copy, by dimension."""
        own = {self.dim: self.lengths[str(array.name)], **self.tiles}
        return {str(d): min(n, own.get(str(d), n)) for d, n in array.sizes.items()}

    def announced(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a data set that says it has these chunks, though it is read as it is."""
        told = dataset.copy()
        for name in self.lengths:
            told[name].encoding = {
                **dataset[name].encoding,
                "preferred_chunks": self.chunks(dataset[name]),
            }
        return told


def reading_s(source: Source) -> float:
    """Return how long it takes one process to read all variables once, about."""
    dataset = source.dataset
    names = source.reading.sources(source.variables)
    chunks = sum(_n_chunks(dataset[name]) for name in names)
    return float(source.source_bytes / BYTES_PER_S + CHUNK_S * chunks)


def copying_s(source: Source, tiling: Tiling) -> float:
    """Return how long it takes one process to copy variables, and read the copy, about."""
    copied = sum(source.dataset[name].nbytes for name in tiling.lengths)
    return reading_s(source) + 2 * float(copied) / BYTES_PER_S


def tiling_for(source: Source, most_bytes: float) -> Tiling | None:
    """Return a layout in which partitions that lie together are read alone.

    Parameters
    ----------
    source : Source
        Whose variables are asked.
    most_bytes : float
        That a slab may have.

    Returns
    -------
    Tiling or None
        None where no variable has its chunks along samples, or a slab would be too large.
    """
    dataset = source.dataset
    cut = [axis for axis in source.axes if axis.width is not None]
    dims = {axis.dims[0] for axis in cut}
    wrong = [
        name
        for name in source.reading.sources(source.variables)
        if dims & {*dataset[name].dims}
        and dataset[name].dtype.kind in "biuf"
        and _cut_samples(source, name)
    ]
    if not wrong or not cut:
        return None
    dim = max(_cut_samples(source, wrong[0]), key=lambda each: _chunks_along(dataset, wrong, each))
    lengths = {}
    for name in wrong:
        array = dataset[name]
        if dim not in array.dims:
            continue
        chunk = _chunks(array)[dim]
        one = math.ceil(array.nbytes / array.sizes[dim]) * chunk
        if one > most_bytes:
            return None
        lengths[name] = min(array.sizes[dim], chunk * max(1, int(most_bytes // one)))
    return Tiling(dim, int(dataset.sizes[dim]), lengths, _tiles(source, cut))


def _tiles(source: Source, cut: Sequence[Any]) -> dict[str, int]:
    """Return a tile's length along each cut dimension: some labels of each axis, about as many."""
    least, most = TILE_BYTES
    wanted = min(most, max(least, source.source_bytes // TILES))
    labels = max(1, wanted // max(1, source.partition_bytes))
    tiles = {}
    for left, axis in zip(range(len(cut), 0, -1), sorted(cut, key=lambda a: a.size), strict=True):
        count = min(axis.size, math.ceil(labels ** (1 / left)))
        tiles[axis.dims[0]] = count * axis.width
        labels = max(1, labels // count)
    return tiles


def _cut_samples(source: Source, name: str) -> list[str]:
    """Return the dimensions along samples that chunks of a variable do not hold whole.

    Those of tiles are none: chunks cut them as partitions do.
    """
    array = source.dataset[name]
    chunks = _chunks(array)
    tiled = {axis.dims[0] for axis in source.axes if axis.width is not None}
    along = [dim for dim in source.sample_dims if dim in chunks and dim not in tiled]
    return [dim for dim in along if chunks[dim] < array.sizes[dim]]


def _chunks_along(dataset: xr.Dataset, names: Sequence[str], dim: str) -> int:
    having = [dataset[name] for name in names if dim in dataset[name].dims]
    return sum(-(-array.sizes[dim] // _chunks(array).get(dim, 1)) for array in having)


def _chunks(array: xr.DataArray) -> dict[str, int]:
    preferred = array.encoding.get("preferred_chunks") or {}
    return {str(d): int(n) for d, n in preferred.items()}


def _n_chunks(array: xr.DataArray) -> int:
    chunks = _chunks(array)
    return math.prod(-(-n // chunks.get(str(d), n)) for d, n in array.sizes.items())
