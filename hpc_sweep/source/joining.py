"""Several stores as one data set, lazily: pieces along a dimension, variables side by side.

What `xarray.combine_by_coords` does with ``join="exact"``, without reading (and without Dask):
stores with the same variables are pieces along the one dimension whose coordinate differs;
what results has the variables of all, whose coordinates must agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
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


def join_stores(datasets: Mapping[str, xr.Dataset], named: Collection[str] = ()) -> xr.Dataset:
    """Join opened stores.

    Parameters
    ----------
    datasets : mapping of str to xarray.Dataset
        By path or URL.
    named : collection of str
        Variables that matter, or what is made of them (``time.hour``, ``t2m@-24h``). Of others,
        which stores may lack or have otherwise, the first store's are taken.

    Raises
    ------
    SpecError
        Where coordinates, variables or units of two stores are in conflict, naming both.
    """
    groups: dict[frozenset[Any], dict[str, xr.Dataset]] = {}
    for place, dataset in datasets.items():
        own = frozenset(dataset.data_vars)
        wanted = frozenset(name for name in own if _is_named(name, named))
        groups.setdefault(wanted or own, {})[place] = dataset
    wholes = {listed(group, 2): _concatenated(group, named) for group in groups.values()}
    joined = _side_by_side(wholes, named)
    joined.set_close(lambda: _close(datasets.values()))
    return joined


def _is_named(name: Any, named: Collection[str]) -> bool:
    return not named or any(
        each == name or each.startswith((f"{name}.", f"{name}@")) for each in named
    )


def _close(datasets: Iterable[xr.Dataset]) -> None:
    for dataset in datasets:
        dataset.close()


class _Pieces(BackendArray):
    """Variables that follow each other along an axis of the first, read where in demand."""

    def __init__(self, pieces: Sequence[xr.Variable], axis: int) -> None:
        self.pieces = pieces
        self.axis = axis
        self.dims = pieces[0].dims
        lengths = [piece.sizes[self.dims[axis]] for piece in pieces]
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
                found.append(self._values(piece, self._at(key, here)))
        if not found:
            found = [self._values(self.pieces[0], self._at(key, wanted))]
        # an integer key takes its axis away
        axis = sum(isinstance(part, slice) for part in key[: self.axis])
        if isinstance(along, slice):
            return np.concatenate(found, axis=axis).astype(self.dtype, copy=False)
        scalar: NDArray[Any] = found[0].take(0, axis=axis)
        return scalar

    def _values(self, piece: xr.Variable, key: tuple[Any, ...]) -> NDArray[Any]:
        found = piece.isel(dict(zip(self.dims, key, strict=True))).load()
        return found.transpose(*(dim for dim in self.dims if dim in found.dims)).values

    def _at(self, key: tuple[int | slice, ...], here: NDArray[np.intp]) -> tuple[Any, ...]:
        regular = here.size and here.size == abs(here[-1] - here[0]) + 1 and here[0] <= here[-1]
        part = slice(int(here[0]), int(here[-1]) + 1) if regular else here
        return (*key[: self.axis], part, *key[self.axis + 1 :])


def _concatenated(group: Mapping[str, xr.Dataset], named: Collection[str]) -> xr.Dataset:
    """Return pieces along the one dimension whose coordinate differs as one data set."""
    if len(group) == 1:
        return next(iter(group.values()))
    dim = _differing_dim(group)
    group = _in_order(group, dim)
    datasets = list(group.values())
    variables: dict[Any, xr.Variable] = {}
    for name in dict.fromkeys(name for dataset in datasets for name in dataset.variables):
        pieces = {place: d.variables[name] for place, d in group.items() if name in d.variables}
        along = any(dim in piece.dims for piece in pieces.values())
        wanted = name == dim or _is_named(name, named)
        faults = list(_piece_faults(name, dim, pieces) if along else ())
        faults += _unlike(name, pieces) if wanted and not along else ()
        if faults and wanted:
            raise SpecError(faults)
        if not along:
            variables[name] = next(iter(pieces.values()))
        elif len(pieces) == len(group) and not faults:
            variables[name] = _pieced(name, dim, list(pieces.values()))
    known = {name for dataset in datasets for name in dataset.coords}
    coords = {name: var for name, var in variables.items() if name in known}
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
        scalars = set().union(*(_different_scalars(first, other) for other in others))
        if scalars:
            message += f", and {listed(sorted(map(str, scalars)))} is none there: make it one"
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


def _piece_faults(name: Any, dim: str, pieces: Mapping[str, xr.Variable]) -> Iterable[Fault]:
    """Yield how pieces of a variable differ, in whatever order their dimensions are."""
    first, *others = pieces
    for place in others:
        one, other = pieces[first], pieces[place]
        for what, a, b in [
            ("dimensions", sorted(map(str, one.dims)), sorted(map(str, other.dims))),
            ("values", _sort_of(one.dtype), _sort_of(other.dtype)),
            *((key, one.attrs.get(key), other.attrs.get(key)) for key in _MEANING),
        ]:
            if a != b:
                message = f"the {what} of '{name}' are {a} in {first}, {b} in {place}"
                yield Fault("data.store", f"{message}; pieces along {dim} must agree")
                return


def _sort_of(dtype: np.dtype[Any]) -> str:
    return "numbers" if dtype.kind in "iuf" else f"of dtype {dtype}"


def _unlike(name: Any, pieces: Mapping[str, xr.Variable]) -> Iterable[Fault]:
    """Yield where a variable that all pieces have in common differs."""
    first, *others = pieces
    for place in others:
        words = _difference(pieces[first], pieces[place])
        if words:
            message = f"the variable '{name}' {words} {first} and {place}"
            yield Fault("data.store", f"{message}; name a store that has it, and take it out there")
            return


def _difference(one: xr.Variable, other: xr.Variable) -> str:
    if one.nbytes > COMPARED_BYTES:
        return "is too large to be compared between"
    return "" if one.dims == other.dims and _same(one, other) else "differs between"


def _side_by_side(datasets: Mapping[str, xr.Dataset], named: Collection[str]) -> xr.Dataset:
    """Return the variables of several data sets in one; what several have must agree."""
    pairs = list(itertools.combinations(datasets.items(), 2))
    faults = [fault for one, other in pairs for fault in _conflicts(*one, *other, named)]
    if faults:
        raise SpecError(faults)
    beside = {name for (_, one), (_, other) in pairs for name in _different_scalars(one, other)}
    whole = xr.Dataset()
    for dataset in datasets.values():
        new = [name for name in dataset.variables if name not in {*whole.variables, *beside}]
        known = [name for name in dataset.variables if name not in new]
        whole = whole.merge(dataset.drop_vars(known), join="exact", compat="override")
    return whole


def _conflicts(
    place: str, one: xr.Dataset, other_place: str, other: xr.Dataset, named: Collection[str]
) -> Iterable[Fault]:
    where = f"{place} and {other_place}"
    shared = sorted({*map(str, one.sizes)} & {*map(str, other.sizes)})
    unlike = [dim for dim in shared if not _agree(one, other, dim)]
    for dim in unlike:
        message = f"'{dim}' differs between {where} ({_how(one, other, dim)})"
        yield Fault(
            "data.store", f"{message}; stores with other variables must have the same coordinates"
        )
    scalars = _different_scalars(one, other)
    for name in one.variables:
        if name not in other.variables or name in one.indexes or name in scalars:
            continue
        first, second = one.variables[name], other.variables[name]
        if {*first.dims} & {*unlike} or (name in one.data_vars and not _is_named(name, named)):
            continue
        words = _difference(first, second)
        if words:
            message = f"the variable '{name}' {words} {where}; take it out of one of them"
            yield Fault("data.store", message)


def _how(one: xr.Dataset, other: xr.Dataset, dim: str) -> str:
    """Return in what a dimension of two stores differs."""
    if one.sizes[dim] != other.sizes[dim]:
        return f"{one.sizes[dim]} and {other.sizes[dim]} long"
    pairs = list(zip(one.indexes[dim], other.indexes[dim], strict=True))
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    return f"{pairs[place][0]} and {pairs[place][1]} at index {place}"


def _different_scalars(one: xr.Dataset, other: xr.Dataset) -> set[Any]:
    """Return coordinates without dimension that differ, such as the height of a sensor."""
    shared = {*one.coords} & {*other.coords}
    return {n for n in shared if not one[n].dims and not _same(one[n].variable, other[n].variable)}


def _same(one: xr.Variable, other: xr.Variable) -> bool:
    return bool(one.equals(other))  # type: ignore[no-untyped-call]
