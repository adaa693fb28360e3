"""Open the data set of a spec, and say all that is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import xarray as xr

from hpc_sweep.errors import Fault, SpecError, listed, nearest
from hpc_sweep.partitions import Axis
from hpc_sweep.source.axes import make_axes
from hpc_sweep.source.copy import Copy
from hpc_sweep.source.features import with_made
from hpc_sweep.source.gathering import copied_source
from hpc_sweep.source.keys import key_names, make_keys, named_parts
from hpc_sweep.source.loader import as_stores_have_it, call_loader
from hpc_sweep.source.masks import mask_fault
from hpc_sweep.source.pairs import pair_source
from hpc_sweep.source.reading import PlainReading
from hpc_sweep.source.source import Source
from hpc_sweep.source.stores import expanded_places, open_stores
from hpc_sweep.source.tablefiles import file_table, frame_table, is_table
from hpc_sweep.source.tables import TableReading, open_table
from hpc_sweep.spec import NAME_OF_OURS, OWN_NAMES, DataSpec, SearchSpec, wanted_axes

LOADED = "an xarray.Dataset, a data frame, (X, y) or (X, y, sample_weight)"


def open_source(
    data: DataSpec,
    search: SearchSpec | None = None,
    copy: Copy | None = None,
    *,
    by_label: bool = True,
    check: Callable[[xr.Dataset], Iterable[Fault]] = lambda dataset: (),
) -> Source:
    """Open the data set of a spec and check that it is what the spec says.

    Parameters
    ----------
    data : DataSpec
        What the spec says of it.
    search : SearchSpec, optional
        Its splits may name what groups or sorts samples.
    copy : Copy, optional
        What is read in place of the data.
    by_label : bool
        Whether the rows of a table are put in the order of their labels.
    check : callable
        Says what else is wrong with the opened data set.

    Raises
    ------
    SpecError
        With every fault at once.
    DiskError
        When its disk fails.
    """
    found = None if data.loader is None else call_loader(data)
    if isinstance(found, tuple):
        return pair_source(data, search, found)
    stored = _opened(data, search, found, by_label=by_label)
    dataset = named_parts(stored.dataset, key_names(data, search))
    stored = dataclasses.replace(stored, dataset=dataset)
    dataset, reading, faults = with_made(data, dataset, stored)
    refused = {fault.path for fault in faults}
    faults += [fault for fault in _variable_faults(data, dataset) if fault.path not in refused]
    dims = _dims(data, dataset)
    axes, more = make_axes(list(wanted_axes(data.partition_by)), dataset, dims)
    faults += [*more, *_sample_faults(data, dataset), *check(dataset)]
    if faults:
        raise SpecError(faults)
    sample_dims = _sample_dims(data, axes, dims)
    keys, faults = make_keys(data, search, dataset, dims, sample_dims)
    source = Source(data, dataset, axes, sample_dims, reading, keys)
    faults += _shape_faults(source)
    if faults:
        raise SpecError(faults)
    return source if copy is None else copied_source(source, copy)


def _opened(
    data: DataSpec, search: SearchSpec | None, found: Any, *, by_label: bool
) -> PlainReading | TableReading:
    if data.loader is None:
        return _stored(data, _named(data, search), by_label=by_label)
    return _loaded(data, found, by_label=by_label)


def _stored(
    data: DataSpec, named: Collection[str], *, by_label: bool
) -> PlainReading | TableReading:
    places = expanded_places(data)
    if not places:
        raise SpecError([Fault("data.store", "is missing")])
    tables = [place for place in places if is_table(place)]
    if not tables:
        return PlainReading(open_stores(data, places, named))
    if len(tables) < len(places):
        (other, *_) = (place for place in places if place not in tables)
        message = f"'{tables[0]}' is a table and '{other}' is not; they cannot be joined"
        raise SpecError([Fault("data.store", message)])
    if data.group is not None:
        raise SpecError([Fault("data.group", f"'{tables[0]}' is a table, which has no groups")])
    return open_table(data, file_table(data, tables), by_label=by_label)


def _named(data: DataSpec, search: SearchSpec | None) -> list[str]:
    """Return what a spec names of the data: variables, or what is made of them."""
    more = (data.sample_weight, (data.where or "").removeprefix("~"))
    axes = (wanted.name for wanted in wanted_axes(data.partition_by))
    named = (*data.features, *(data.target or ()), *more, *axes, *key_names(data, search))
    return [name for name in named if name]


def _loaded(data: DataSpec, found: Any, *, by_label: bool) -> PlainReading | TableReading:
    if isinstance(found, xr.DataArray) and found.name is not None:
        found = found.to_dataset()
    if isinstance(found, xr.Dataset):
        if not found.variables:
            message = f"'{data.loader}' returned a Dataset that has no variables"
            raise SpecError([Fault("data.loader", message)])
        _check_features(data)
        return PlainReading(as_stores_have_it(found))
    try:
        table = frame_table(found)
    except (pa.ArrowException, ValueError) as error:  # columns of several kinds, or of one name
        message = f"the data frame of '{data.loader}' is no table: {error}"
        raise SpecError([Fault("data.loader", message)]) from error
    if table is not None:
        _check_features(data)
        return open_table(data, table, by_label=by_label)
    message = f"'{data.loader}' returned {type(found).__name__}; a loader returns {LOADED}"
    raise SpecError([Fault("data.loader", message)])


def _check_features(data: DataSpec) -> None:
    """Check that some of the variables of what a loader returned are named."""
    if not data.features:
        raise SpecError([Fault("data.features", "is missing")])


def _variable_faults(data: DataSpec, dataset: xr.Dataset) -> Iterator[Fault]:
    known = [str(key) for key in dataset.variables]
    for path, name, kinds, wanted in _wanted(data):
        if name not in dataset.variables:
            hint = nearest(name, known) or f"; it has {listed(known)}"
            yield Fault(path, f"the data set has no variable '{name}'{hint}")
        elif kinds and dataset[name].dtype.kind not in kinds:
            yield Fault(path, f"'{name}' is of dtype {dataset[name].dtype}; {wanted}")
        elif path == "data.where" and (words := mask_fault(dataset[name], wanted)):
            yield Fault(path, words)


def _wanted(data: DataSpec) -> Iterator[tuple[str, str, str, str]]:
    """Yield each variable with its key, the kinds of dtype it may have, and these in words.

    Of a mask, which has no kinds, the words are what it says.
    """
    for index, name in enumerate(data.features):
        yield f"data.features.{index}", name, "biuf", "estimators need numbers: make it some"
    for index, name in enumerate(data.target or ()):
        yield f"data.target.{index}", name, "biufOSUT", "a target has numbers or texts"
    if data.sample_weight is not None:
        yield "data.sample_weight", data.sample_weight, "biuf", "weights are numbers"
    if data.where is not None:
        yield "data.where", data.where.removeprefix("~"), "", "there are samples"


def _dims(data: DataSpec, dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the dimensions of target and features, in their order; all where one is lacking."""
    names = [*(data.target or ()), *data.features]
    if any(name not in dataset.variables for name in names):
        return tuple(map(str, dataset.sizes))
    return tuple(dict.fromkeys(str(dim) for name in names for dim in dataset[name].dims))


def _sample_faults(data: DataSpec, dataset: xr.Dataset) -> Iterator[Fault]:
    for dim in data.sample_dims or ():
        if dim not in dataset.sizes:
            hint = nearest(dim, map(str, dataset.sizes))
            message = f"'{dim}' is no dimension of the data set{hint}"
            yield Fault("data.sample_dims", message)
    named = {item for item in data.partition_by if isinstance(item, str)}
    for dim in sorted(named & set(data.sample_dims or ())):
        yield Fault("data.sample_dims", f"'{dim}' is also in data.partition_by")


def _sample_dims(data: DataSpec, axes: Sequence[Axis], dims: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dimensions along samples: all but those of which each index is a partition."""
    kept = {axis.name for axis in axes if axis.is_dimension}
    if data.sample_dims is None:
        return tuple(dim for dim in dims if dim not in kept)
    grouped = {dim for axis in axes for dim in axis.dims} - {*kept, *data.sample_dims}
    return (*(dim for dim in dims if dim in grouped), *data.sample_dims)


def _shape_faults(source: Source) -> Iterator[Fault]:
    data, dataset = source.data, source.dataset
    if not source.sample_dims:
        message = f"no dimension is left for samples; all of {listed(source.dims)} are partitions"
        yield Fault("data.partition_by", message)
        return
    for dim in source.cut.lengths:
        if dim in OWN_NAMES:
            yield Fault("data.store", f"the data's dimension '{dim}' {NAME_OF_OURS}")
        elif dataset.sizes.get(dim) == 0:
            yield Fault("data.store", f"the dimension '{dim}' has no elements")
    if data.sample_dims is not None:
        yield from _order_faults(source)
    yield from _dimension_faults(source)


def _order_faults(source: Source) -> Iterator[Fault]:
    """Yield dimensions that are cut together but do not follow each other."""
    order = list(source.cut.lengths)
    for joint in source.cut.joints:
        places = [order.index(dim) for dim in joint.dims if dim in source.sample_dims]
        if places and places[-1] - places[0] >= len(places):
            message = f"{listed(joint.dims)} are cut together; name one directly after the other"
            yield Fault("data.sample_dims", message)


def _dimension_faults(source: Source) -> Iterator[Fault]:
    """Yield variables whose dimensions are not those of partitions and samples."""
    data, dataset = source.data, source.dataset
    known = {*source.cut.lengths}
    for key, names in (("features", data.features), ("target", source.targets)):
        for index, name in enumerate(names):
            here, path = {str(dim) for dim in dataset[name].dims}, f"data.{key}.{index}"
            if not here & {*source.sample_dims}:
                wanted = listed(source.sample_dims)
                same = "it is the same for all samples of a partition"
                yield Fault(path, f"'{name}' lacks the sample dimension {wanted}: {same}")
            elif here - known:
                more = listed(sorted(here - known))
                yield Fault(
                    path, f"'{name}' has {more} besides; put it into partition_by or sample_dims"
                )
            elif key == "target" and known - here:
                lack = listed(sorted(known - here))
                yield Fault(path, f"the target '{name}' lacks the dimension {lack}")
    for path, other in (("where", source.mask), ("sample_weight", data.sample_weight)):
        beyond = {*map(str, dataset[other].dims)} - known if other is not None else ()
        if beyond:
            message = f"'{other}' has {listed(sorted(beyond))} besides; no sample has that"
            yield Fault(f"data.{path}", message)
