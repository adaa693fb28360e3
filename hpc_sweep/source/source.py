"""The source: how it is cut, what is read of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.source.reading import PlainReading, Reading, as_estimators_take
from hpc_sweep.source.samples import Samples
from hpc_sweep.spec import DataSpec

TOGETHER_BYTES = 4 * 2**20
"""So many bytes of partitions are made into arrays together, or one partition's."""

FREE_BLOCK_BYTES = 64_000_000
"""Size of a block where the source has no chunks of its own (contiguous netCDF)."""


@dataclass(frozen=True)
class Source:
    """An opened data set and how it is cut.

    Attributes
    ----------
    data : DataSpec
        What the spec says of it.
    dataset : xarray.Dataset
        The lazily opened data set.
    dims : tuple of str
        Partition dimensions in the data, without ``target``.
    sample_dims : tuple of str
        Dimensions along samples.
    reading : Reading, optional
        How its variables come into memory, where that is not what xarray does.
    """

    data: DataSpec
    dataset: xr.Dataset
    dims: tuple[str, ...]
    sample_dims: tuple[str, ...]
    reading: Reading | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target variables, maybe none."""
        return tuple(self.data.target or ())

    @property
    def separate(self) -> bool:
        """Whether each target is a search of its own, along dimension ``target``."""
        return self.data.outputs == "separate"

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables that are read."""
        mask = [] if self.mask is None else [self.mask]
        return tuple(dict.fromkeys([*self.data.features, *self.targets, *mask]))

    @property
    def mask(self) -> str | None:
        """The boolean variable that says which samples there are, or None."""
        return None if self.data.where is None else self.data.where.removeprefix("~")

    @cached_property
    def grid(self) -> PartitionGrid:
        """The partitions."""
        sizes = tuple(int(self.dataset.sizes[dim]) for dim in self.dims)
        grid = PartitionGrid(self.dims, sizes, self._read_chunks(sizes))
        if not self.separate:
            return grid
        count = len(self.targets)
        return PartitionGrid(
            (*grid.dims, "target"), (*grid.shape, count), (*grid.read_chunks, count)
        )

    @cached_property
    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Labels along the partition dimensions that have some."""
        coordinates = {d: self.dataset[d].values for d in self.dims if d in self.dataset.coords}
        if self.separate:
            coordinates["target"] = np.array(self.targets, dtype=object)
        return coordinates

    @property
    def kept_coordinates(self) -> xr.Dataset:
        """Coordinates that the results keep: those along partition dimensions only."""
        kept = [n for n, c in self.dataset.coords.items() if c.dims and set(c.dims) <= {*self.dims}]
        chosen = self.dataset[kept]  # xarray adds coordinates without dimension
        return chosen.drop_vars([name for name in chosen.variables if name not in kept]).load()

    @property
    def n_samples(self) -> int:
        """Samples of a partition before any is dropped."""
        return math.prod(int(self.dataset.sizes[dim]) for dim in self.sample_dims)

    @property
    def source_bytes(self) -> int:
        """Decoded bytes of all variables that are read."""
        return sum(int(self.dataset[name].nbytes) for name in self.variables)

    @property
    def partition_bytes(self) -> int:
        """Decoded bytes of one partition, in the source's own types."""
        count = math.prod(int(self.dataset.sizes[dim]) for dim in self.dims)
        return -(-self.source_bytes // max(1, count))

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of the largest chunk of any variable."""
        return max(
            math.prod(_chunk_shape(self.dataset[name]) or (0,)) * self.dataset[name].dtype.itemsize
            for name in self.variables
        )

    def identity(self) -> str:
        """Return a digest of the source's metadata and coordinates, not of path or times."""
        described = {
            name: [list(array.dims), list(array.shape), str(array.dtype), _text(array.attrs)]
            for name, array in sorted(self.dataset[list(self.variables)].variables.items())
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for dim in (*self.dims, *self.sample_dims):
            if dim in self.dataset.coords:
                values = self.dataset[dim].values
                # texts of variable length hold pointers, not characters
                texts = values.dtype.kind in "OT"
                plain = values.astype(object).astype(str) if texts else values
                digest.update(dim.encode() + np.ascontiguousarray(plain).tobytes())
        return digest.hexdigest()

    def read(self, partitions: NDArray[np.intp]) -> Iterator[Samples]:
        """Read partitions that lie close together, and yield the samples of each.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            Indices into `grid`. Their bounding box is read once.

        Yields
        ------
        Samples
            Features in `data.dtype`, targets too unless they are integers or texts, which
            stay so; samples that `data.where` leaves out are dropped, and those with a
            missing value if the spec says so.
        """
        where = partitions[:, : len(self.dims)]
        low, high = where.min(axis=0), where.max(axis=0) + 1
        box = {d: slice(int(a), int(b)) for d, a, b in zip(self.dims, low, high, strict=True)}
        reading = self.reading or PlainReading(self.dataset)
        found = reading.read(self.variables, box)
        block = {name: self._arranged(variable) for name, variable in found.items()}
        bytes_each = self.n_samples * len(self.variables) * np.dtype(self.data.dtype).itemsize
        step = max(1, TOGETHER_BYTES // bytes_each)
        for first in range(0, len(partitions), step):
            some = slice(first, first + step)
            yield from self._arrays(block, where[some] - low, partitions[some, -1])

    def _arranged(self, variable: xr.Variable) -> NDArray[Any]:
        """Return a variable's block, shape (partition dims or 1 …, n_samples)."""
        order = (*self.dims, *self.sample_dims)
        present = variable.transpose(*(dim for dim in order if dim in variable.dims))
        sizes = [present.sizes[dim] if dim in present.dims else 1 for dim in order]
        spread = present.values.reshape(sizes)
        kept = spread.shape[: len(self.dims)]
        samples = tuple(int(self.dataset.sizes[dim]) for dim in self.sample_dims)
        return np.broadcast_to(spread, kept + samples).reshape(*kept, -1)

    def _arrays(
        self, block: dict[str, NDArray[Any]], places: NDArray[np.intp], last: NDArray[np.intp]
    ) -> Iterator[Samples]:
        """Yield the samples of partitions by their places in a block, and their last index."""
        X = _stacked([_picked(block[name], places) for name in self.data.features])
        X = X.astype(self.data.dtype, copy=False)
        joint = [] if self.separate or not self.targets else [self.targets]
        found = [
            _stacked([_picked(block[name], places) for name in names])
            for names in joint or [(name,) for name in self.targets]
        ]
        ys = [as_estimators_take(y, self.data.dtype) for y in found]
        absent = self._absent(block, places)
        lacking = absent | _lacking(X) if self.data.dropna else absent
        lacks = [lacking | _lacking(y) if self.data.dropna else lacking for y in ys] or [lacking]
        for place in range(len(places)):
            which = int(last[place]) if self.separate else 0
            missing = lacks[which][place]
            kept = ~missing if missing.any() else slice(None)
            y = ys[which][place][kept] if ys else None
            if y is not None and y.shape[1] == 1:
                y = y[:, 0]
            yield Samples(X[place][kept], y)

    def _absent(
        self, block: dict[str, NDArray[Any]], places: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Return which samples the mask leaves out, shape (n_places, n_samples)."""
        if self.mask is None:
            return np.zeros((len(places), self.n_samples), dtype=bool)
        there = _picked(block[self.mask], places).astype(bool)
        return there if str(self.data.where).startswith("~") else ~there

    def _read_chunks(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the chunks of the largest variable along the partition dimensions."""
        names = [n for n in self.variables if set(self.dims) & set(self.dataset[n].dims)]
        largest = self.dataset[max(names, key=lambda name: self.dataset[name].nbytes)]
        shape = _chunk_shape(largest)
        if shape is not None:
            chunk = dict(zip(map(str, largest.dims), shape, strict=True))
            return tuple(min(n, chunk.get(d, n)) for d, n in zip(self.dims, sizes, strict=True))
        room = max(1, FREE_BLOCK_BYTES // max(1, self.partition_bytes))
        free: list[int] = []
        for size in reversed(sizes):
            free.insert(0, max(1, min(size, room)))
            room //= size
        return tuple(free)


def _picked(array: NDArray[Any], places: NDArray[np.intp]) -> NDArray[Any]:
    """Return a variable's values at some places, shape (n_places, n_samples)."""
    at = tuple(
        place if size > 1 else np.zeros_like(place)
        for place, size in zip(places.T, array.shape, strict=False)
    )
    picked: NDArray[Any] = array[at]
    return picked


def _stacked(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return columns side by side, shape (n_places, n_samples, n_columns)."""
    stacked = np.empty((*columns[0].shape, len(columns)), np.result_type(*columns))
    for index, column in enumerate(columns):
        stacked[:, :, index] = column
    return stacked


def _lacking(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which samples lack a value, shape (n_places, n_samples)."""
    lacking = np.zeros(array.shape[:2], dtype=bool)
    for column in range(array.shape[2]) if array.dtype.kind in "fO" else ():
        lacking |= pd.isnull(array[:, :, column])
    return lacking


def _chunk_shape(array: xr.DataArray) -> tuple[int, ...] | None:
    """Return the shape of a variable's chunks on disk, or None when it has none."""
    preferred = array.encoding.get("preferred_chunks")
    if not preferred:
        return None
    return tuple(int(preferred.get(dim, array.sizes[dim])) for dim in array.dims)


def _text(attributes: dict[Any, Any]) -> str:
    return json.dumps({str(k): str(v) for k, v in attributes.items()}, sort_keys=True)
