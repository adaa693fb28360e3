"""Variables in blocks that workers keep in memory, each with all samples of some partitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.source.features import MadeReading, stored_reading
from hpc_sweep.source.reading import Box, Reading
from hpc_sweep.source.source import Source
from hpc_sweep.source.tiling import Slabs, Tiling, gathered_joints, table_of


@dataclass(frozen=True)
class Block:
    """A part of a variable.

    Attributes
    ----------
    name : str
        Of the variable.
    index : tuple of int
        Which block along each dimension.
    starts : tuple of int
        Where it begins along each.
    """

    name: str
    index: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class BlockLayout:
    """How one variable is cut into blocks, and into boxes of whole chunks that are read at once.

    Attributes
    ----------
    name : str
        The variable.
    dims : tuple of str
        Its dimensions.
    sizes, lengths : tuple of int
        How long these are, and a block along each.
    read_starts : tuple of tuple of int
        Where along each the boxes begin that are read.
    dtype : numpy.dtype
        Of its values.
    """

    name: str
    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    read_starts: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]

    @property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where the blocks begin along each dimension."""
        pairs = zip(self.sizes, self.lengths, strict=True)
        return tuple(tuple(range(0, size, length)) for size, length in pairs)

    def chunks(self, starts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """Return the lengths between starts, as Dask names chunks."""
        pairs = zip(starts, self.sizes, strict=True)
        return tuple(tuple(np.diff([*each, size]).tolist()) for each, size in pairs)

    def read_box(self, index: Sequence[int]) -> dict[str, slice]:
        """Return the box that is read of a number along each dimension."""
        box = {}
        for dim, size, starts, i in zip(
            self.dims, self.sizes, self.read_starts, index, strict=True
        ):
            box[dim] = slice(starts[i], starts[i + 1] if i + 1 < len(starts) else size)
        return box

    def touched(self, box: Mapping[str, slice]) -> Iterator[Block]:
        """Yield the blocks that a box touches."""
        ranges = []
        for dim, size, length in zip(self.dims, self.sizes, self.lengths, strict=True):
            part = box.get(dim, slice(0, size))
            ranges.append(range(part.start // length, -(-part.stop // length)))
        for index in itertools.product(*ranges):
            pairs = zip(index, self.lengths, strict=True)
            yield Block(self.name, index, tuple(i * length for i, length in pairs))


def block_layouts(source: Source, tiling: Tiling, most: int) -> tuple[BlockLayout, ...] | None:
    """Return the blocks of variables that are laid out anew: whole tiles of a copy.

    Parameters
    ----------
    source : Source
        The data as it is.
    tiling : Tiling
        Of the copy.
    most : int
        How many blocks a variable shall have; each is a task, which takes some milliseconds.

    Returns
    -------
    tuple of BlockLayout or None
        None where that is no matter of chunks alone: labels are scattered, the data is a table,
        or values are made of others which lie in another block.
    """
    reading = source.reading
    made = reading.made.values() if isinstance(reading, MadeReading) else ()
    cut = {dim for axis in source.axes for dim in axis.dims}
    across = any(each.shift is not None and each.shift.dim in cut for each in made)
    if across or table_of(source) is not None or gathered_joints(source):
        return None
    return tuple(
        BlockLayout(
            name,
            piece.dims,
            piece.sizes,
            _lengths(piece, tiling.tiles, most),
            piece.starts,
            source.dataset[name].dtype.newbyteorder("="),
        )
        for piece in tiling.pieces
        for name in piece.names
    )


def _lengths(piece: Slabs, tiles: Mapping[str, int], most: int) -> tuple[int, ...]:
    """Return how long blocks are along each dimension."""
    pairs = zip(piece.dims, piece.sizes, strict=True)
    lengths = [min(size, tiles.get(dim, size)) for dim, size in pairs]

    def counts() -> list[int]:
        return [-(-size // n) for size, n in zip(piece.sizes, lengths, strict=True)]

    while math.prod(counts()) > most:
        finest = int(np.argmax(counts()))
        lengths[finest] = min(piece.sizes[finest], 2 * lengths[finest])
    return tuple(lengths)


@dataclass(frozen=True)
class BlockReading:
    """Some variables come from blocks in memory, others as they are stored.

    Attributes
    ----------
    stored : Reading
        Of the others.
    blocks : sequence of (Block, ndarray)
        What is in memory.
    sizes : mapping of str to int
        How long dimensions are.
    dims : mapping of str to tuple of str
        The dimensions of each variable that there are blocks of.
    """

    stored: Reading
    blocks: Sequence[tuple[Block, NDArray[Any]]]
    sizes: Mapping[str, int]
    dims: Mapping[str, tuple[str, ...]]

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the stored variables that are read for some variables."""
        return self.stored.sources(names)

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read variables inside a box.

        Raises
        ------
        LookupError
            When blocks do not hold all of it.
        """
        found = self.stored.read([name for name in names if name not in self.dims], box)
        return found | {name: self._put_together(name, box) for name in names if name in self.dims}

    def _put_together(self, name: str, box: Box) -> xr.Variable:
        dims = self.dims[name]
        wanted = [np.arange(self.sizes[dim])[box.get(dim, slice(None))] for dim in dims]
        shape = tuple(each.size for each in wanted)
        values, n_found = None, 0
        for block, there in self.blocks:
            if block.name != name:
                continue
            into, out_of = [], []
            for each, start, length in zip(wanted, block.starts, there.shape, strict=True):
                low, high = np.searchsorted(each, (start, start + length))
                into.append(slice(int(low), int(high)))
                out_of.append(each[low:high] - start)
            part = there[np.ix_(*out_of)] if any(map(_has_gaps, out_of)) else there[_slices(out_of)]
            if part.shape == shape:
                return xr.Variable(dims, part)
            if values is None:
                values = np.empty(shape, there.dtype)
            values[tuple(into)] = part
            n_found += part.size
        if values is None or n_found != values.size:
            raise LookupError(f"blocks of '{name}' hold {n_found:,} of {np.prod(shape):,} values")
        return xr.Variable(dims, values)


def _has_gaps(indices: NDArray[np.intp]) -> bool:
    return bool(indices.size and indices[-1] - indices[0] != indices.size - 1)


def _slices(indices: Sequence[NDArray[np.intp]]) -> tuple[slice, ...]:
    return tuple(slice(int(i[0]), int(i[-1]) + 1) if i.size else slice(0, 0) for i in indices)


def block_reading(source: Source, blocks: Sequence[tuple[Block, NDArray[Any]]]) -> Reading:
    """Return a source's reading, with some variables taken from blocks.

    Parameters
    ----------
    source : Source
        The data as it is.
    blocks : sequence of (Block, ndarray)
        What is in memory.
    """
    stored = stored_reading(source.reading)
    dims = {
        block.name: tuple(map(str, source.dataset.variables[block.name].dims))
        for block, _ in blocks
    }
    sizes = {str(dim): int(n) for dim, n in source.dataset.sizes.items()}
    plain = BlockReading(stored, blocks, sizes, dims)
    if isinstance(source.reading, MadeReading):
        return replace(source.reading, stored=plain)
    return plain
