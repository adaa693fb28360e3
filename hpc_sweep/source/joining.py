"""Several stores as one data set, lazily: pieces along a dimension, variables side by side.

What `xarray.combine_by_coords` does with ``join="exact"``, without reading (and without Dask):
stores with the same variables are pieces along the one dimension whose coordinate differs;
what results has the variables of all, whose coordinates must agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from hpc_sweep.errors import Fault, SpecError, listed

COMPARED_BYTES = 64_000_000
"""A variable that several stores have is compared if it is not larger than this."""

_MEANING = ("units", "calendar")
"""Attributes without which numbers mean something else."""


def join_stores(datasets: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Join opened stores.

    Parameters
    ----------
    datasets : mapping of str to xarray.Dataset
        By path or URL.

    Raises
    ------
    SpecError
        Where coordinates, variables or units of two stores are in conflict, naming both.
    """
    groups: dict[frozenset[Any], dict[str, xr.Dataset]] = {}
    for place, dataset in datasets.items():
        groups.setdefault(frozenset(dataset.data_vars), {})[place] = dataset
    wholes = {listed(group, 2): _concatenated(group) for group in groups.values()}
    joined = _side_by_side(wholes)
    joined.set_close(lambda: _close(datasets.values()))
    return joined


def _close(datasets: Iterable[xr.Dataset]) -> None:
    for dataset in datasets:
        dataset.close()


class _Pieces(BackendArray):
    """Variables that follow each other along an axis; only those in demand are read."""

    def __init__(self, pieces: Sequence[xr.Variable], axis: int) -> None:
        self.pieces = pieces
        self.axis = axis
        lengths = [piece.shape[axis] for piece in pieces]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        shape = list(pieces[0].shape)
        shape[axis] = int(self.starts[-1])
        self.shape = tuple(shape)
        self.dtype = np.result_type(*(piece.dtype for piece in pieces))

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        along = key[self.axis]
        every = np.arange(self.shape[self.axis])[along]
        wanted = np.atleast_1d(every)
        found = []
        for piece, start, stop in zip(self.pieces, self.starts, self.starts[1:], strict=False):
            here = wanted[(wanted >= start) & (wanted < stop)] - start
            if here.size:
                found.append(piece[self._at(key, here)].values)
        if not found:
            found = [self.pieces[0][self._at(key, wanted)].values]
        # an integer key takes its axis away
        axis = sum(isinstance(part, slice) for part in key[: self.axis])
        if isinstance(along, slice):
            return np.concatenate(found, axis=axis).astype(self.dtype, copy=False)
        scalar: NDArray[Any] = found[0].take(0, axis=axis)
        return scalar

    def _at(self, key: tuple[int | slice, ...], here: NDArray[np.intp]) -> tuple[Any, ...]:
        regular = here.size and here.size == abs(here[-1] - here[0]) + 1 and here[0] <= here[-1]
        part = slice(int(here[0]), int(here[-1]) + 1) if regular else here
        return (*key[: self.axis], part, *key[self.axis + 1 :])


def _concatenated(group: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return pieces along the one dimension whose coordinate differs as one data set."""
    if len(group) == 1:
        return next(iter(group.values()))
    dim = _differing_dim(group)
    group = _in_order(group, dim)
    places, datasets = list(group), list(group.values())
    variables: dict[Any, xr.Variable] = {}
    for name, first in datasets[0].variables.items():
        pieces = [d.variables[name] for d in datasets if name in d.variables]
        if dim not in first.dims:
            variables[name] = first
        elif len(pieces) == len(places):
            _check_pieces(name, dim, dict(zip(places, pieces, strict=True)))
            variables[name] = _pieced(name, dim, pieces)
    coords = {name: var for name, var in variables.items() if name in datasets[0].coords}
    data = {name: var for name, var in variables.items() if name not in coords}
    return xr.Dataset(data, xr.Coordinates(coords), datasets[0].attrs)


def _pieced(name: Any, dim: str, pieces: Sequence[Any]) -> xr.Variable:
    first = pieces[0]
    axis = first.dims.index(dim)
    if name == dim:
        index = pieces[0].to_index().append([piece.to_index() for piece in pieces[1:]])
        return xr.Variable(dim, index, first.attrs).to_index_variable()
    data = indexing.LazilyIndexedArray(_Pieces(pieces, axis))
    encoding = {}
    chunks = [piece.encoding.get("preferred_chunks") for piece in pieces]
    if all(chunks):
        encoding["preferred_chunks"] = {d: max(each[d] for each in chunks) for d in chunks[0]}
    return xr.Variable(first.dims, data, first.attrs, encoding)


def _differing_dim(group: Mapping[str, xr.Dataset]) -> str:
    names, (first, *others) = listed(group, 2), list(group.values())
    differing = []
    for dim in map(str, first.sizes):
        if any(not _agree(first, other, dim) for other in others):
            differing.append(dim)
    if len(differing) != 1:
        where = f"differ along {listed(differing)}" if differing else "have the same coordinates"
        message = f"{names} have the same variables and {where}; pieces differ along one dimension"
        raise SpecError([Fault("data.store", message)])
    (dim,) = differing
    lacking = [place for place, dataset in group.items() if dim not in dataset.indexes]
    if lacking:
        message = f"{lacking[0]} has no coordinate '{dim}'; without it pieces have no order"
        raise SpecError([Fault("data.store", message)])
    return dim


def _agree(one: xr.Dataset, other: xr.Dataset, dim: str) -> bool:
    if one.sizes.get(dim) != other.sizes.get(dim):
        return False
    if dim in one.indexes and dim in other.indexes:
        return bool(one.indexes[dim].equals(other.indexes[dim]))
    return True


def _in_order(group: Mapping[str, xr.Dataset], dim: str) -> dict[str, xr.Dataset]:
    """Return pieces in the order of their coordinate; texts in the order of the spec."""
    indexes = {place: dataset.indexes[dim] for place, dataset in group.items() if len(dataset[dim])}
    first = next(iter(indexes.values()))
    texts = not pd.api.types.is_numeric_dtype(first) and isinstance(first[0], str)
    try:
        falling = any(index[0] > index[-1] for index in indexes.values())
        order = (
            list(indexes)
            if texts
            else sorted(indexes, key=lambda place: indexes[place][0], reverse=falling)
        )
        whole = indexes[order[0]].append([indexes[place] for place in order[1:]])
        ordered = texts or whole.is_monotonic_increasing or whole.is_monotonic_decreasing
    except TypeError as error:  # other calendars, numbers and texts
        message = f"coordinates '{dim}' of {listed(group, 2)} cannot be compared: {error}"
        raise SpecError([Fault("data.store", message)]) from error
    if not whole.is_unique or not ordered:
        spans = listed(f"{place}: {indexes[place][0]} to {indexes[place][-1]}" for place in order)
        message = f"pieces along '{dim}' overlap ({spans}); give each index to one store"
        raise SpecError([Fault("data.store", message)])
    return {place: group[place] for place in order}


def _check_pieces(name: Any, dim: str, pieces: Mapping[str, xr.Variable]) -> None:
    first, *others = pieces
    for place in others:
        one, other = pieces[first], pieces[place]
        for what, a, b in [
            ("dimensions", one.dims, other.dims),
            ("kind of numbers", one.dtype.kind, other.dtype.kind),
            *((key, one.attrs.get(key), other.attrs.get(key)) for key in _MEANING),
        ]:
            if a != b:
                message = f"the {what} of '{name}' are {a} in {first}, {b} in {place}"
                raise SpecError([Fault("data.store", f"{message}; pieces along {dim} must agree")])


def _side_by_side(datasets: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return the variables of several data sets in one; what several have must agree."""
    pairs = list(itertools.combinations(datasets.items(), 2))
    faults = [fault for one, other in pairs for fault in _conflicts(*one, *other)]
    if faults:
        raise SpecError(faults)
    beside = {name for (_, one), (_, other) in pairs for name in _different_scalars(one, other)}
    whole = xr.Dataset()
    for dataset in datasets.values():
        new = [name for name in dataset.variables if name not in {*whole.variables, *beside}]
        known = [name for name in dataset.variables if name not in new]
        whole = whole.merge(dataset.drop_vars(known), join="exact", compat="override")
    return whole


def _conflicts(place: str, one: xr.Dataset, other_place: str, other: xr.Dataset) -> Iterable[Fault]:
    where = f"{place} and {other_place}"
    for dim in sorted({*map(str, one.sizes)} & {*map(str, other.sizes)}):
        if not _agree(one, other, dim):
            lengths = f"{one.sizes[dim]} and {other.sizes[dim]} long"
            message = f"'{dim}' differs between {where} ({lengths}); stores with other variables"
            yield Fault("data.store", f"{message} must have the same coordinates")
    scalars = _different_scalars(one, other)
    for name in one.variables:
        if name not in other.variables or name in one.indexes or name in scalars:
            continue
        first, second = one.variables[name], other.variables[name]
        if first.nbytes > COMPARED_BYTES:
            what = f"is in both {where} and too large to compare"
        elif first.dims == second.dims and _same(first, second):
            continue
        else:
            what = f"differs between {where}"
        yield Fault("data.store", f"the variable '{name}' {what}; take it out of one of them")


def _different_scalars(one: xr.Dataset, other: xr.Dataset) -> set[Any]:
    """Return coordinates without dimension that differ, such as the height of a sensor."""
    shared = {*one.coords} & {*other.coords}
    return {n for n in shared if not one[n].dims and not _same(one[n].variable, other[n].variable)}


def _same(one: xr.Variable, other: xr.Variable) -> bool:
    return bool(one.equals(other))  # type: ignore[no-untyped-call]
