"""Another layout for data whose chunks are cut the wrong way, or whose labels are scattered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from hpc_sweep.partitions import Joint
from hpc_sweep.source.features import stored_reading
from hpc_sweep.source.source import Source
from hpc_sweep.source.tables import ROW, TableReading

SLAB_BYTES = 64_000_000
"""So much of a variable is copied at once, or a chunk of it."""

TILE_BYTES = (500_000, 64_000_000)
"""What all variables of a tile, with all its samples, have at the least and at the most."""

TILES = 1024
"""So many tiles there are, where their size allows it."""

CHUNK_S = 0.0005
"""Time to fetch and decode a small chunk from a local disk; parallel file systems take longer."""

READ_BYTES_PER_S = 400e6
"""Of reading and decoding whole chunks, by one process, about."""

COPY_BYTES_PER_S = 100e6
"""Of bringing values into another order and writing them, and of reading such a copy."""

PEERS_BYTES_PER_S = 100e6
"""Of cutting values up, sending them to other workers, and putting them together there."""

KINDS = "biufmM"
"""Kinds of dtype that are copied: what has a fixed size."""


@dataclass(frozen=True)
class Slab:
    """A piece of the data that is copied by one task.

    Attributes
    ----------
    names : tuple of str
        Of the variables.
    row : int
        Which of their slabs.
    box : dict of str to slice
        Which indices along each of their dimensions.
    sizes : tuple of int
        How long these are.
    """

    names: tuple[str, ...]
    row: int
    box: Mapping[str, slice]
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        parts = [
            f"{dim} {part.start} to {part.stop - 1}"
            for (dim, part), size in zip(self.box.items(), self.sizes, strict=True)
            if part.stop - part.start < size
        ]
        return f"{', '.join(parts) or 'all'} of '{', '.join(self.names)}'"


@dataclass(frozen=True)
class Slabs:
    """How variables that are copied together are cut into slabs.

    Attributes
    ----------
    names : tuple of str
        The variables.
    dims : tuple of str
        Their dimensions; those that are stacked in the copy follow each other.
    sizes : tuple of int
        How long these are.
    starts : tuple of tuple of int
        The first index of each slab along each of them.
    """

    names: tuple[str, ...]
    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @property
    def parts(self) -> list[list[slice]]:
        """By dimension, what its slabs have of it."""
        ends = [(*starts, size) for starts, size in zip(self.starts, self.sizes, strict=True)]
        return [[slice(*pair) for pair in itertools.pairwise(each)] for each in ends]

    def __iter__(self) -> Iterator[Slab]:
        for row, box in enumerate(itertools.product(*self.parts)):
            yield Slab(self.names, row, dict(zip(self.dims, box, strict=True)), self.sizes)


@dataclass(frozen=True)
class Tiling:
    """How some variables are laid out anew.

    Attributes
    ----------
    pieces : tuple of Slabs
        What is copied.
    tiles : mapping of str to int
        By dimension of the copy: how long a tile is; absent: as long as the dimension.
    """

    pieces: tuple[Slabs, ...]
    tiles: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all variables that are copied."""
        return tuple(name for piece in self.pieces for name in piece.names)

    def slabs(self) -> Iterator[Slab]:
        """Yield what is copied."""
        for piece in self.pieces:
            yield from piece

    @classmethod
    def described(cls, facts: Mapping[str, Any]) -> Tiling:
        """Return the tiling that ``dataclasses.asdict`` made these facts of."""
        pieces = tuple(
            Slabs(
                tuple(each["names"]),
                tuple(each["dims"]),
                tuple(each["sizes"]),
                tuple(map(tuple, each["starts"])),
            )
            for each in facts["pieces"]
        )
        return cls(pieces, facts["tiles"])


def slab_bytes(source: Source, tiling: Tiling) -> int:
    """Return the bytes of the largest slab."""
    largest = 0
    for piece in tiling.pieces:
        items = sum(source.dataset[name].dtype.itemsize for name in piece.names)
        longest = (max(part.stop - part.start for part in parts) for parts in piece.parts)
        largest = max(largest, items * math.prod(longest))
    return largest


def reading_s(source: Source) -> float:
    """Return how long it takes one process to read all variables once, about."""
    dataset = source.dataset
    names = source.reading.sources(source.variables)
    chunks = sum(_n_chunks(dataset[name]) for name in names)
    return float(source.source_bytes / READ_BYTES_PER_S + CHUNK_S * chunks)


def copying_s(source: Source, tiling: Tiling, read_factor: float) -> float:
    """Return how long it takes one process to copy variables, and read the copy, about.

    Parameters
    ----------
    source : Source
        The data as it is.
    tiling : Tiling
        Of the copy.
    read_factor : float
        How often the copy is read.
    """
    copied = sum(source.dataset[name].nbytes for name in tiling.names)
    return reading_s(source) + (1 + read_factor) * float(copied) / COPY_BYTES_PER_S


def peers_s(source: Source, tiling: Tiling) -> float:
    """Return how long it takes one process to read variables and bring them to others, about."""
    copied = sum(source.dataset[name].nbytes for name in tiling.names)
    return reading_s(source) + float(copied) / PEERS_BYTES_PER_S


def table_of(source: Source) -> TableReading | None:
    """Return what reads a table, if the data is one."""
    stored = stored_reading(source.reading)
    return stored if isinstance(stored, TableReading) else None


def gathered_joints(source: Source) -> list[Joint]:
    """Return what is cut by labels that follow no rule, so that these are brought together."""
    from_table = table_of(source) is not None
    return [
        joint
        for joint in source.cut.joints
        if joint.axes
        and (from_table or any(source.axes[axis].width is None for axis in joint.axes))
    ]


def tiling_for(source: Source, wanted_bytes: float, most_bytes: float) -> Tiling | None:
    """Return a layout in which partitions that lie together are read alone.

    Parameters
    ----------
    source : Source
        Whose variables are asked.
    wanted_bytes : float
        That a slab should have at the most.
    most_bytes : float
        That a slab may have if a chunk is so large.

    Returns
    -------
    Tiling or None
        None where no variable is chunked the wrong way and no label follows no rule, a slab would
        be too large, or texts would have to be copied.
    """
    table = table_of(source)
    if not any(axis.dims for axis in source.axes) or (table and source.data.loader is not None):
        return None
    gathered = gathered_joints(source)
    names = _copied(source, {dim for joint in gathered for dim in joint.dims})
    if not names or any(source.dataset[name].dtype.kind not in KINDS for name in names):
        return None
    if table is not None:
        width = sum(source.dataset[name].dtype.itemsize for name in names)
        starts = table.table.runs(max(1, int(wanted_bytes // width)))
        pieces = [Slabs(tuple(names), (ROW,), (table.table.n_rows,), (starts,))]
    else:
        pieces = []
        for name in names:
            found = _slabs(source, name, gathered, wanted_bytes, most_bytes)
            if found is None:
                return None
            pieces.append(found)
    return Tiling(tuple(pieces), _tiles(source, names, gathered))


def _copied(source: Source, scattered: set[str]) -> list[str]:
    """Return the stored variables that are copied."""
    cut = {dim for axis in source.axes for dim in axis.dims}
    table = table_of(source)
    held = frozenset() if table is None else table.held
    names = []
    for name in source.reading.sources(source.variables):
        variable = source.dataset.variables[name]
        dims = set(map(str, variable.dims))
        in_memory = variable._in_memory or name in held
        partly = not scattered or not dims & scattered or _whole(source, dims)
        if cut & dims and not in_memory and partly and (scattered or _cut_samples(source, name)):
            names.append(name)
    return names


def _whole(source: Source, dims: set[str]) -> bool:
    """Return whether a variable has all dimensions of each joint that it has any of."""
    return all({*joint.dims} <= dims for joint in gathered_joints(source) if {*joint.dims} & dims)


def _slabs(
    source: Source, name: str, gathered: Sequence[Joint], wanted_bytes: float, most_bytes: float
) -> Slabs | None:
    """Return boxes of whole chunks of a variable; None where one chunk is too large."""
    array = source.dataset[name]
    sizes = {str(dim): int(n) for dim, n in array.sizes.items()}
    chunks = _chunks(array)
    lengths = {dim: min(n, chunks.get(dim, n) if chunks else 1) for dim, n in sizes.items()}
    held = math.prod(lengths.values()) * array.dtype.itemsize
    if held > most_bytes:
        return None
    cut = {dim for axis in source.axes for dim in axis.dims}
    for dim in sorted(sizes, key=lambda each: each in cut):
        times = int(wanted_bytes // held)
        if times > 1:
            longer = min(sizes[dim], lengths[dim] * times)
            held = held // lengths[dim] * longer
            lengths[dim] = longer
    stacked = {dim: joint.dims for joint in gathered for dim in joint.dims}
    dims = tuple(dict.fromkeys(each for dim in sizes for each in stacked.get(dim, (dim,))))
    starts = tuple(tuple(range(0, sizes[dim], lengths[dim])) for dim in dims)
    return Slabs((name,), dims, tuple(sizes[dim] for dim in dims), starts)


def _tiles(source: Source, names: Sequence[str], gathered: Sequence[Joint]) -> dict[str, int]:
    """Return a tile's length along each dimension of the copy that is cut."""
    least, most = TILE_BYTES
    nbytes = sum(int(source.dataset[name].nbytes) for name in names)
    wanted = min(most, max(least, nbytes // TILES))
    labels = max(1, wanted // max(1, source.partition_bytes))
    joints = [joint for joint in source.cut.joints if joint.axes]
    tiles = {}
    for left, joint in zip(
        range(len(joints), 0, -1),
        sorted(joints, key=lambda each: math.prod(each.sizes)),
        strict=True,
    ):
        size = math.prod(joint.sizes)
        count = min(size, math.ceil(labels ** (1 / left)))
        labels = max(1, labels // count)
        name = line_name(joint.dims)
        if any(joint is each for each in gathered):
            tiles[name] = max(1, -(-joint.members.size * count // size))
        else:
            tiles[name] = count * max(int(source.axes[axis].width or 1) for axis in joint.axes)
    return tiles


def line_name(dims: Sequence[str]) -> str:
    """Return the name of the dimension that some dimensions are stacked to."""
    return "+".join(dims)


def _cut_samples(source: Source, name: str) -> list[str]:
    """Return the dimensions along samples that chunks of a variable do not hold whole.

    Those of tiles are none: chunks cut them as partitions do.
    """
    array = source.dataset[name]
    chunks = _chunks(array)
    tiled = {axis.dims[0] for axis in source.axes if axis.width is not None}
    along = [dim for dim in source.sample_dims if dim in chunks and dim not in tiled]
    return [dim for dim in along if chunks[dim] < array.sizes[dim]]


def _chunks(array: xr.DataArray) -> dict[str, int]:
    preferred = array.encoding.get("preferred_chunks") or {}
    return {str(d): int(n) for d, n in preferred.items()}


def _n_chunks(array: xr.DataArray) -> int:
    chunks = _chunks(array)
    return math.prod(-(-n // chunks.get(str(d), n)) for d, n in array.sizes.items())
