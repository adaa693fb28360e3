"""The source: how it is cut, what is read of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import Fault
from hpc_sweep.partitions import Axis, Cut, PartitionGrid, Pick, Reads
from hpc_sweep.source.damage import loaded
from hpc_sweep.source.described import Described, described
from hpc_sweep.source.keys import Keys, group_labels, holdout_faults
from hpc_sweep.source.layout import held_shape, read_chunks, reads_of
from hpc_sweep.source.reading import Reading, as_estimators_take
from hpc_sweep.source.samples import Samples
from hpc_sweep.spec import DataSpec

TOGETHER_BYTES = 4 * 2**20
"""So many bytes of partitions are made into arrays together, or one partition's."""


@dataclass(frozen=True)
class Source:
    """An opened data set and how it is cut.

    Attributes
    ----------
    data : DataSpec
        What the spec says of it.
    dataset : xarray.Dataset
        The lazily opened data set.
    axes : tuple of Axis
        What it is cut along, without ``target``.
    sample_dims : tuple of str
        Dimensions along samples.
    reading : Reading
        How its variables come into memory.
    keys : Keys
        By what samples are held out, grouped and sorted.
    """

    data: DataSpec
    dataset: xr.Dataset
    axes: tuple[Axis, ...]
    sample_dims: tuple[str, ...]
    reading: Reading
    keys: Keys = field(default_factory=Keys)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the partition dimensions, without ``target``."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def cut(self) -> Cut:
        """Which elements of the data are the samples of a partition."""
        dims = [axis.name for axis in self.axes if axis.is_dimension]
        lengths = {dim: int(self.dataset.sizes[dim]) for dim in (*dims, *self.sample_dims)}
        return Cut(self.axes, lengths)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target variables, maybe none."""
        return tuple(self.data.target or ())

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return len(self.data.features)

    @property
    def separate(self) -> bool:
        """Whether each target is a search of its own, along dimension ``target``."""
        return self.data.outputs == "separate"

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables that are read."""
        more = [name for name in (self.mask, self.data.sample_weight) if name is not None]
        return tuple(dict.fromkeys([*self.data.features, *self.targets, *more, *self.keys.names]))

    @property
    def has_weights(self) -> bool:
        """Whether samples have weights."""
        return self.data.sample_weight is not None

    @property
    def mask(self) -> str | None:
        """The boolean variable that says which samples there are, or None."""
        return None if self.data.where is None else self.data.where.removeprefix("~")

    @cached_property
    def grid(self) -> PartitionGrid:
        """The partitions."""
        sizes = tuple(axis.size for axis in self.axes)
        grid = PartitionGrid(self.dims, sizes, self._read_chunks())
        if not self.separate:
            return grid
        count = len(self.targets)
        return PartitionGrid(
            (*grid.dims, "target"), (*grid.shape, count), (*grid.read_chunks, count)
        )

    def _read_chunks(self) -> tuple[int, ...]:
        """Return how many labels of each axis are read as a whole."""
        return read_chunks(self.reads, self.partition_bytes)

    @property
    def direct(self) -> Source:
        """The data as it is, where this is a copy of it."""
        return self

    @cached_property
    def reads(self) -> Reads:
        """What reading partitions costs."""
        stored = self.reading.sources(self.variables)
        return reads_of(self.cut, (self.dataset[name] for name in stored))

    @cached_property
    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Labels along the partition dimensions that have some."""
        coordinates = {a.name: a.labels for a in self.axes if a.labels is not None}
        if self.separate:
            coordinates["target"] = np.array(self.targets, dtype=object)
        return coordinates

    @property
    def kept_coordinates(self) -> xr.Dataset:
        """Coordinates that the results keep: labels, and those along partition dimensions only."""
        dims = {axis.name for axis in self.axes if axis.is_dimension}
        kept = [n for n, c in self.dataset.coords.items() if c.dims and set(c.dims) <= dims]
        chosen = self.dataset[kept]  # xarray adds coordinates without dimension
        chosen = chosen.drop_vars([name for name in chosen.variables if name not in kept])
        held = {name: loaded(coordinate).variable for name, coordinate in chosen.coords.items()}
        return chosen.assign_coords({**held, **self._group_labels()})

    def _group_labels(self) -> dict[str, xr.Variable]:
        """Return the coordinates of axes that are no dimensions of the data."""
        return {
            axis.name: xr.Variable((axis.name,), axis.labels, dict(axis.attributes))
            for axis in self.axes
            if axis.labels is not None and not axis.is_dimension
        }

    @property
    def n_samples(self) -> int:
        """Samples of a partition at the most, before any is dropped."""
        return self.cut.n_samples

    @property
    def n_training(self) -> int:
        """Training samples of a partition at the most, before any is dropped."""
        held_by = self.keys.held_by
        alike = all(axis.is_dimension for axis in self.axes)
        if held_by is None or not alike or {*self.dataset[held_by].dims} - {*self.sample_dims}:
            return self.n_samples
        held = int(self.keys.held({held_by: self.dataset[held_by].values}).sum())
        return self.n_samples - held * self.n_samples // self.dataset[held_by].size

    @cached_property
    def group_labels(self) -> NDArray[Any]:
        """Groups of training samples in any partition, sorted; reads all that says which."""
        return group_labels(self.dataset, self.keys)

    def holdout_faults(self) -> Iterator[Fault]:
        """Yield a fault where nothing is held out anywhere, or all is; reads what says so."""
        return holdout_faults(self.dataset, self.keys)

    @property
    def source_bytes(self) -> int:
        """Decoded bytes of all stored variables that are read."""
        return sum(int(self.dataset[name].nbytes) for name in self.reading.sources(self.variables))

    @property
    def partition_bytes(self) -> int:
        """Decoded bytes of the largest partition, in the source's own types."""
        elements = math.prod(self.cut.lengths.values())
        return -(-self.source_bytes * self.n_samples // max(1, elements))

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of the largest chunk of any variable."""
        return max(
            math.prod(held_shape(self.dataset[name]) or (0,)) * self.dataset[name].dtype.itemsize
            for name in self.variables
        )

    def described_features(self) -> dict[str, Described]:
        """Return what the stored variables are that features are made of."""
        return described(self.dataset, self.reading.sources(self.data.features))

    def identity(self) -> str:
        """Return a digest of the source's metadata and coordinates, not of path or times."""
        described = {
            name: [list(array.dims), list(array.shape), str(array.dtype), _text(array.attrs)]
            for name, array in sorted(self.dataset[list(self.variables)].variables.items())
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for dim in self.cut.lengths:
            if dim in self.dataset.coords:
                digest.update(dim.encode() + _content(self.dataset[dim].values))
        for axis in self.axes:
            if not axis.is_dimension:
                labels = b"" if axis.labels is None else _content(axis.labels)
                digest.update(axis.name.encode() + labels + _content(axis.codes))
        return digest.hexdigest()

    def read(
        self, partitions: NDArray[np.intp], reading: Reading | None = None
    ) -> Iterator[Samples]:
        """Read partitions that lie close together, and yield the samples of each.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            Indices into `grid`. Their bounding box is read once.
        reading : Reading, optional
            In place of the source's own.

        Yields
        ------
        Samples
            Features in `data.dtype`, targets too unless they are integers or texts, which
            stay so; samples that `data.where` leaves out are dropped, and those with a
            missing value if the spec says so. The held-out ones are apart.
        """
        box = self.cut.box(partitions)
        cut = [name for name in self.variables if not box or {*box} & {*self.dataset[name].dims}]
        own = self.reading if reading is None else reading
        found = {**own.read(cut, box), **(self._common if box else {})}
        block = {
            name: self.cut.arranged(variable.values, [str(dim) for dim in variable.dims], box)
            for name, variable in found.items()
        }
        each = len(self.variables) * np.dtype(self.data.dtype).itemsize
        target = partitions[:, -1] if self.separate else np.zeros(len(partitions), dtype=np.intp)
        for some, pick in self.cut.picks(partitions, box, TOGETHER_BYTES // each):
            yield from self._samples(block, pick, target[some])

    @cached_property
    def _common(self) -> Mapping[str, xr.Variable]:
        """Variables that are the same for all partitions, read once."""
        cut = {dim for axis in self.axes for dim in axis.dims}
        common = [n for n in self.variables if not cut & {*self.dataset[n].dims}]
        return self.reading.read(common, {})

    def _samples(
        self, block: dict[str, NDArray[Any]], pick: Pick, target: NDArray[np.intp]
    ) -> Iterator[Samples]:
        """Yield the samples of partitions that are picked together, and of which target."""
        X = stacked(block, self.data.features, pick, self.data.dtype)
        joint = [] if self.separate or not self.targets else [self.targets]
        ys = [
            as_estimators_take(stacked(block, names, pick), self.data.dtype)
            for names in joint or [(name,) for name in self.targets]
        ]
        known = {name: stacked(block, [name], pick)[:, :, 0] for name in self.keys.names}
        absent = self.absent(block, pick)
        weights = self._weights(block, pick)
        values = [each for each in (X, weights) if each is not None and self.data.dropna]
        lacking = np.logical_or.reduce([absent, *map(lacking_value, values)])
        lacks = [lacking | lacking_value(y) if self.data.dropna else lacking for y in ys] or [
            lacking
        ]
        for place, which in enumerate(target.tolist()):
            missing = lacks[which][place]
            kept = ~missing if missing.any() else slice(None)
            y = ys[which][place][kept] if ys else None
            if y is not None and y.shape[1] == 1:
                y = y[:, 0]
            keys = {name: values[place][kept] for name, values in known.items()}
            given = None if weights is None else weights[place][kept][:, 0]
            yield self.keys.applied(Samples(X[place][kept], y, weights=given), keys)

    def _weights(self, block: dict[str, NDArray[Any]], pick: Pick) -> NDArray[Any] | None:
        """Return sample weights, shape (n_partitions, n_samples, 1)."""
        name = self.data.sample_weight
        if name is None:
            return None
        return as_estimators_take(stacked(block, [name], pick), self.data.dtype)

    def absent(self, block: dict[str, NDArray[Any]], pick: Pick) -> NDArray[np.bool_]:
        """Return which samples the mask leaves out, shape (n_partitions, n_samples)."""
        if self.mask is None:
            return np.zeros((pick.shape[0], pick.n_samples), dtype=bool)
        values = stacked(block, [self.mask], pick)
        there = values[:, :, 0].astype(bool) & ~lacking_value(values)
        return there if str(self.data.where).startswith("~") else ~there


def stacked(
    block: Mapping[str, NDArray[Any]], names: Sequence[str], pick: Pick, dtype: str | None = None
) -> NDArray[Any]:
    """Return variables side by side, shape (n_partitions, n_samples, n_variables)."""
    of = np.result_type(*(block[name] for name in names)) if dtype is None else dtype
    stacked = np.empty((pick.shape[0], *pick.sample_shape, len(names)), of)
    for index, name in enumerate(names):
        stacked[..., index] = pick.of(block[name])
    return stacked.reshape(pick.shape[0], pick.n_samples, len(names))


def lacking_value(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which samples lack a value, shape (n_places, n_samples)."""
    lacking = np.zeros(array.shape[:2], dtype=bool)
    for column in range(array.shape[2]) if array.dtype.kind in "fO" else ():
        values = array[:, :, column]
        lacking |= pd.isnull(values) | (values == "" if array.dtype.kind == "O" else False)
    return lacking


def _content(values: NDArray[Any]) -> bytes:
    """Return the content of an array; texts of variable length hold pointers, not characters."""
    plain = values.astype(object).astype(str) if values.dtype.kind in "OT" else values
    return np.ascontiguousarray(plain).tobytes()


def _text(attributes: dict[Any, Any]) -> str:
    return json.dumps({str(k): str(v) for k, v in attributes.items()}, sort_keys=True)
