"""A source that is read from a copy, in which the samples of a partition stand together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from hpc_sweep.errors import Fault
from hpc_sweep.partitions import Axis, Cut, Joint
from hpc_sweep.source.copy import Copy
from hpc_sweep.source.features import Made, MadeReading, stored_reading, with_recipes
from hpc_sweep.source.reading import PlainReading
from hpc_sweep.source.shifts import Shift
from hpc_sweep.source.source import Source
from hpc_sweep.source.streams import Line, Stream
from hpc_sweep.source.tiling import Slab, Tiling, gathered_joints, line_name, table_of

MOST_TILES = 8
"""So many tiles are read at once, where they have no more than `BLOCK_BYTES`."""

BLOCK_BYTES = 16_000_000


@dataclass(frozen=True)
class Gathered:
    """Dimensions that a copy has in the order of their labels, stacked where they are several.

    Attributes
    ----------
    joint : Joint
        How they are cut.
    elements : ndarray of intp, shape (n_positions,)
        Which element of them, flattened, stands where: in the order of labels, then of the data,
        which is that of xarray's ``shuffle_to_chunks``.
    """

    joint: Joint
    elements: NDArray[np.intp]

    @property
    def name(self) -> str:
        """What the dimension is called in the copy."""
        return line_name(self.joint.dims)

    @cached_property
    def indices(self) -> dict[str, NDArray[np.intp]]:
        """By dimension of the data, the index of each position."""
        shape = self.joint.shape
        where = (self.elements,) if len(shape) == 1 else np.unravel_index(self.elements, shape)
        return dict(zip(self.joint.dims, where, strict=True))

    def axis(self, axis: Axis) -> Axis:
        """Return one of its axes along the one dimension."""
        codes = axis.codes[tuple(self.indices[dim] for dim in axis.dims)]
        return replace(axis, dims=(self.name,), codes=codes)

    def variable(self, variable: xr.Variable) -> xr.Variable:
        """Return a variable, not read, with its elements in this order."""
        own = {dim: self.indices[dim] for dim in self.joint.dims if dim in variable.dims}
        return variable.isel({dim: xr.Variable((self.name,), i) for dim, i in own.items()})

    def shift(self, shift: Shift) -> Shift:
        """Return the same partners by their positions."""
        where = {**self.indices, shift.dim: shift.partners[self.indices[shift.dim]]}
        has = where[shift.dim] >= 0
        shape = self.joint.shape
        positions = np.full(math.prod(shape), -1, dtype=np.intp)
        positions[self.elements] = np.arange(self.elements.size)
        partners = np.full(self.elements.size, -1, dtype=np.intp)
        others = [where[dim][has] for dim in self.joint.dims]
        partners[has] = positions[np.ravel_multi_index(others, shape)]
        return Shift(self.name, partners)


@dataclass(frozen=True, kw_only=True)
class CopiedSource(Source):
    """A source whose samples come from a copy.

    Attributes
    ----------
    origin : Source
        The data itself, which says what the results are called and whose they are.
    streams : mapping of str to Stream
        The variables that are copied.
    gathered : tuple of Gathered
        Dimensions that have another order there.
    copy : Copy
        Perhaps not made yet.
    """

    origin: Source
    streams: Mapping[str, Stream]
    gathered: tuple[Gathered, ...]
    copy: Copy

    @property
    def direct(self) -> Source:
        """The data as it is."""
        return self.origin

    def copy_slab(self, slab: Slab) -> None:
        """Copy a slab; its chunks of the data are read once.

        Raises
        ------
        DamageError
            When a chunk cannot be decoded.
        DiskError
            When a disk refuses.
        """
        table = table_of(self.origin)
        stored = stored_reading(self.origin.reading) if table is None else table.as_it_is()
        self.copy.write(slab, self.streams, stored)

    @cached_property
    def cut(self) -> Cut:
        """Which elements of the copy are the samples of a partition."""
        lengths: dict[str, int] = {}
        for dim, length in self.origin.cut.lengths.items():
            found = next((each for each in self.gathered if dim in each.joint.dims), None)
            if found is None:
                lengths[dim] = length
            else:
                lengths[found.name] = found.elements.size
        return Cut(self.axes, lengths)

    def _read_chunks(self) -> tuple[int, ...]:
        """Return how many labels of each axis some tiles have, which are shared at their ends."""
        found = list(super()._read_chunks())
        for each in self.gathered:
            size = max(1, each.elements.size)
            tile = min(size, self.copy.tiling.tiles[each.name])
            tiles = 1 + int(BLOCK_BYTES * size // max(1, self.source_bytes * tile))
            labels = math.prod(each.joint.sizes) * min(tiles, MOST_TILES) * tile // size
            for axis in reversed(each.joint.axes):
                found[axis] = max(1, min(self.axes[axis].size, labels))
                labels //= self.axes[axis].size
        return tuple(found)

    def identity(self) -> str:
        """Return the digest of the data itself."""
        return self.origin.identity()

    @property
    def kept_coordinates(self) -> xr.Dataset:
        """Coordinates that the results keep."""
        return self.origin.kept_coordinates

    @property
    def n_training(self) -> int:
        """Training samples of a partition at the most."""
        return self.origin.n_training

    @cached_property
    def group_labels(self) -> NDArray[Any]:
        """Groups of training samples in any partition, sorted."""
        return self.origin.group_labels

    def holdout_faults(self) -> Iterator[Fault]:
        """Yield a fault where nothing is held out anywhere, or all is."""
        yield from self.origin.holdout_faults()


def copied_source(source: Source, copy: Copy) -> CopiedSource:
    """Return a source that reads a copy of itself.

    Parameters
    ----------
    source : Source
        The data as it is.
    copy : Copy
        Not opened before something is read.
    """
    gathered = tuple(Gathered(joint, _elements(source, joint)) for joint in gathered_joints(source))
    streams = streams_of(source, copy.tiling, gathered)
    names = source.reading.sources(source.variables)
    dataset = xr.Dataset(
        {
            name: _opened(source, name, copy, streams[name])
            if name in streams
            else _reordered(source.dataset.variables[name], gathered)
            for name in names
        }
    )
    reading: Any = PlainReading(dataset)
    if isinstance(source.reading, MadeReading):
        recipes = {
            name: (_remade(made, gathered), source.dataset[name].dtype)
            for name, made in source.reading.made.items()
        }
        dataset, reading = with_recipes(dataset, reading, recipes)
    axes = tuple(_axis(place, axis, gathered) for place, axis in enumerate(source.axes))
    dims = dict.fromkeys(_line_of(dim, gathered) for dim in source.sample_dims)
    return CopiedSource(
        source.data,
        dataset,
        axes,
        tuple(dims),
        reading,
        source.keys,
        origin=source,
        streams=streams,
        gathered=gathered,
        copy=copy,
    )


def streams_of(source: Source, tiling: Tiling, gathered: tuple[Gathered, ...]) -> dict[str, Stream]:
    """Return how the values of each variable of a copy follow each other."""
    table = table_of(source)
    lines: dict[str, Line] = {}
    for each in gathered:
        # a table is copied as it lies in its files, and has been put in order here
        places = each.elements if table is None else table.order[each.elements]
        line = Line(each.name, each.joint.dims, each.joint.shape, places)
        lines |= dict.fromkeys(each.joint.dims, line)
    streams = {}
    for piece in tiling.pieces:
        for dim, size in zip(piece.dims, piece.sizes, strict=True):
            lines.setdefault(dim, Line(dim, (dim,), (size,)))
        own = tuple({lines[dim].name: lines[dim] for dim in piece.dims}.values())
        tiles = tuple(max(1, tiling.tiles.get(line.name, line.size)) for line in own)
        starts = dict(zip(piece.dims, piece.starts, strict=True))
        alike: dict[np.dtype[Any], Stream] = {}  # each knows the slab of every element
        for name in piece.names:
            dtype = source.dataset[name].dtype.newbyteorder("=")
            if table is not None and dtype.kind in "iub":
                dtype = np.dtype("float64")  # a column's gaps are known when it is read
            streams[name] = alike.setdefault(dtype, Stream(own, starts, tiles, dtype))
    return streams


def _elements(source: Source, joint: Joint) -> NDArray[np.intp]:
    """Return elements in the order of labels.

    Those without a label come last where others may be made of them, else not at all.
    """
    reading = source.reading
    made = reading.made.values() if isinstance(reading, MadeReading) else ()
    if not any(each.shift is not None and each.shift.dim in joint.dims for each in made):
        return joint.members
    absent = np.ones(math.prod(joint.shape), dtype=bool)
    absent[joint.members] = False
    return np.concatenate([joint.members, np.flatnonzero(absent)])


def _line_of(dim: str, gathered: tuple[Gathered, ...]) -> str:
    return next((each.name for each in gathered if dim in each.joint.dims), dim)


def _axis(place: int, axis: Axis, gathered: tuple[Gathered, ...]) -> Axis:
    found = next((each for each in gathered if place in each.joint.axes), None)
    return axis if found is None else found.axis(axis)


def _reordered(variable: xr.Variable, gathered: tuple[Gathered, ...]) -> xr.Variable:
    for each in gathered:
        if {*each.joint.dims} & {*variable.dims}:
            variable = each.variable(variable)
    return variable


def _remade(made: Made, gathered: tuple[Gathered, ...]) -> Made:
    if made.shift is None:
        return made
    for each in gathered:
        if made.shift.dim in each.joint.dims:
            return replace(made, shift=each.shift(made.shift))
    return made


def _opened(source: Source, name: str, copy: Copy, stream: Stream) -> xr.Variable:
    """Return a variable of a copy, not read."""
    tiles = {line.name: n for line, n in zip(stream.lines, stream.tiles, strict=True)}
    dims = tuple(tiles)
    dtype = source.dataset[name].dtype
    values = indexing.LazilyIndexedArray(_Copied(stream, dtype, lambda: copy.array(name)))
    return xr.Variable(dims, values, source.dataset[name].attrs, {"preferred_chunks": tiles})


class _Copied(BackendArray):
    """A variable of a copy, read when it is indexed."""

    def __init__(
        self, stream: Stream, dtype: np.dtype[Any], array: Callable[[], zarr.Array[Any]]
    ) -> None:
        self.stream = stream
        self.open = array
        self.shape = stream.shape
        self.dtype = dtype.newbyteorder("=")

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The copy's own array."""
        return self.open()

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        parts = [np.arange(n)[part] for n, part in zip(self.shape, key, strict=True)]
        unique = [np.unique(part, return_inverse=True) for part in parts]
        found = self.stream.read([ascending for ascending, _ in unique], self._span)
        for axis, (_, back) in enumerate(unique):
            if not np.array_equal(back.ravel(), np.arange(found.shape[axis])):
                found = np.take(found, back.ravel(), axis=axis)
        found = found.reshape([n for part in parts for n in part.shape])
        return found if found.dtype == self.dtype else _without_gaps(found, self.dtype)

    def _span(self, row: int, first: int, last: int) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(self.array[row, first:last])
        return values.view(self.stream.dtype)


def _without_gaps(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as the column of a table would have been read: as floats if some lack."""
    lacking = np.isnan(values)
    if not lacking.any():
        return values.astype(dtype)
    if dtype.kind != "b":
        return values
    truths = values.astype(bool).astype(object)
    truths[lacking] = None
    return truths
