"""What samples are held out, grouped and sorted by: values of the data, one a sample."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import Fault, listed, nearest
from hpc_sweep.partitions import texts_of
from hpc_sweep.source.axes import Refusal, date_part, first_of, holds_dates
from hpc_sweep.source.damage import loaded
from hpc_sweep.source.dates import date_of
from hpc_sweep.source.masks import mask_fault
from hpc_sweep.source.samples import Samples
from hpc_sweep.spec import DataSpec, SearchSpec
from hpc_sweep.spec.search import ONE_GROUP_OUT

Values = Mapping[str, NDArray[Any]]
"""By name, one value a sample."""


@dataclass(frozen=True)
class Keys:
    """By what samples are held out, grouped and sorted.

    Attributes
    ----------
    held_by, groups, order : str or None
        Variables of the data set.
    start : object
        First value that is held out, as `held_by` has it; None where there are `values`, or where
        that is a mask.
    reverse : bool
        Whether the other samples are held out.
    values : tuple
        What is held out, as `held_by` has it.
    """

    held_by: str | None = None
    groups: str | None = None
    order: str | None = None
    start: Any = None
    reverse: bool = False
    values: tuple[Any, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Variables that are read for it."""
        named = (self.held_by, self.groups, self.order)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def held(self, values: Values) -> NDArray[np.bool_]:
        """Return which samples are held out, of those that have a value."""
        if self.held_by is None:
            return np.zeros(next(iter(values.values())).shape, dtype=bool)
        found = values[self.held_by]
        if self.values:
            there = np.asarray(pd.Series(_labels(found).ravel()).isin(self.values))
            return there.reshape(found.shape) ^ self.reverse
        there = np.asarray(found if self.start is None else found >= self.start, dtype=bool)
        return there ^ self.reverse

    def applied(self, samples: Samples, values: Values) -> Samples:
        """Return the samples sorted, with their groups, the held-out ones apart.

        A sample that lacks any of the values belongs nowhere, and is left out.
        """
        if not self.names:
            return samples
        order = np.flatnonzero(~lacking(values))
        if self.order is not None:
            order = order[np.argsort(values[self.order][order], kind="stable")]
        groups = None if self.groups is None else _labels(values[self.groups])
        whole = dataclasses.replace(samples, groups=groups)
        if self.held_by is None:
            return whole.take(order)
        held = self.held({self.held_by: values[self.held_by][order]})
        return dataclasses.replace(whole.take(order[~held]), held_out=whole.take(order[held]))


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    """Return texts as Python's, all else as it is: NumPy's kinds of text don't compare."""
    if values.dtype.kind == "S":  # netCDF's character arrays
        return texts_of(values)
    return values.astype(object) if values.dtype.kind in "UT" else values


def lacking(values: Values) -> NDArray[np.bool_]:
    """Return which samples lack any of the values."""
    found: NDArray[np.bool_] = np.logical_or.reduce([_absent(each) for each in values.values()])
    return found


def _absent(values: NDArray[Any]) -> NDArray[np.bool_]:
    absent = np.asarray(pd.isnull(values))
    return absent | (values == "") if values.dtype.kind in "OUTS" else absent


def named_parts(dataset: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return a data set that has parts of dates (``time.year``) as variables where named."""
    parts = {}
    for name in names:
        date, _, part = name.rpartition(".")
        if name not in dataset.variables and _has_dates(dataset, date):
            with contextlib.suppress(Refusal):  # told with all else that is wrong
                parts[name] = date_part(dataset[date], part).variable
    return dataset.assign(parts)


def _has_dates(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset.variables and holds_dates(dataset.variables[name])


def key_names(data: DataSpec, search: SearchSpec | None) -> list[str]:
    """Return the names in a spec by which samples are held out, grouped and sorted."""
    held = data.held_out
    named = [held.name if held else None]
    named += [search.groups, search.sorted_by] if search is not None else []
    return [name for name in named if name]


def make_keys(
    data: DataSpec,
    search: SearchSpec | None,
    dataset: xr.Dataset,
    dims: Sequence[str],
    sample_dims: Sequence[str],
) -> tuple[Keys, list[Fault]]:
    """Return by what samples are held out, grouped and sorted, and what is wrong with it."""
    faults: list[Fault] = []
    held, held_by, start, wanted = data.held_out, None, None, ()
    if held is not None:
        faults += _name_faults("data.holdout", held.name, dataset, dims, sample_dims)
        if not faults:
            held_by = held.name
            try:
                variable = dataset.variables[held_by]
                if held.start is None and not held.values:
                    faults += _mask_faults(dataset[held_by])
                wanted = tuple(_like(value, held_by, variable) for value in held.values)
                start = None if wanted else _start(held.start, held_by, variable)
            except ValueError as error:
                faults.append(Fault("data.holdout", str(error)))
    groups = search.groups if search is not None else None
    if groups is not None and search is not None:
        known = isinstance(search.cv, dict) and ONE_GROUP_OUT in search.cv
        place = f"search.cv.{ONE_GROUP_OUT if known else 'groups'}"
        faults += _name_faults(place, groups, dataset, dims, sample_dims)
    order = search.sorted_by if search is not None else None
    if order == "":
        order, more = _own_order(dataset, sample_dims)
        faults += more
    elif order is not None:
        faults += _name_faults("search.cv.sorted_by", order, dataset, dims, sample_dims)
    if faults:
        return Keys(), faults
    reverse = held is not None and held.reverse
    return Keys(held_by, groups, order, start, reverse, wanted), faults


def _name_faults(
    place: str, name: str, dataset: xr.Dataset, dims: Sequence[str], sample_dims: Sequence[str]
) -> Iterator[Fault]:
    if name not in dataset.variables:
        date, _, part = name.rpartition(".")
        known = [str(each) for each in dataset.variables]
        hint = nearest(name, known) or f"; it has {listed(known)}"
        message = f"the data set has no coordinate or variable '{name}'{hint}"
        if date in dataset.variables:
            try:
                date_part(dataset[date], part)
            except Refusal as refusal:
                message = str(refusal)
        yield Fault(place, message)
        return
    own = {*map(str, dataset.variables[name].dims)}
    beyond = own - {*dims, *sample_dims}
    if beyond:
        message = f"'{name}' has {listed(sorted(beyond))} besides; no sample has that"
        yield Fault(place, message)
    elif not own & {*sample_dims}:
        message = f"'{name}' is the same for all samples of a partition: it lacks the dimension"
        yield Fault(place, f"{message} {listed(sample_dims)}")


def _own_order(dataset: xr.Dataset, sample_dims: Sequence[str]) -> tuple[str | None, list[Fault]]:
    """Return the coordinate that samples of a time series are sorted by, if they have one."""
    own = [dim for dim in sample_dims if dim in dataset.coords]
    dates = [dim for dim in own if _has_dates(dataset, dim)]
    if len(dates) == 1 or (len(sample_dims) == 1 and own):
        return (dates or own)[0], []
    if len(sample_dims) == 1:
        return None, []
    message = f"samples run along {listed(sample_dims)}; name what they are sorted by: sorted_by"
    return None, [Fault("search.cv", message)]


def _mask_faults(mask: xr.DataArray) -> Iterator[Fault]:
    words = mask_fault(mask, "samples are held out")
    if words:
        yield Fault("data.holdout", words)


def _start(start: Any, name: str, variable: xr.Variable) -> Any:
    """Return the first value that is held out in the variable's own type; None of a mask.

    Raises
    ------
    ValueError
        When it is of another kind.
    """
    if start is None:
        return None
    if variable.dtype.kind in "iuf" or holds_dates(variable):
        return _like(start, name, variable)
    raise ValueError(
        f"'{name}' is of dtype {variable.dtype}; samples are held out by a mask, from a number or "
        f"a date on, or by a list of values: {{{name}: [{start}]}}"
    )


def _like(value: Any, name: str, variable: xr.Variable) -> Any:
    """Return a value of a spec in a variable's own type, or raise a `ValueError`."""
    kind = variable.dtype.kind
    if kind in "iuf":
        if isinstance(value, str):
            raise ValueError(f"'{name}' holds numbers, but {value!r} is none")
        return variable.dtype.type(value) if kind == "f" else value
    if holds_dates(variable):
        try:
            return date_of(value, np.datetime64(0, "s") if kind == "M" else first_of(variable))
        except ValueError:
            message = f"'{name}' holds dates, but {value!r} is none such as 2019-03-25"
            raise ValueError(message) from None
    if kind in "OSUT" and isinstance(value, str):
        return value
    raise ValueError(f"'{name}' is of dtype {variable.dtype}, and {value!r} is not")


# what they hold, looked at once, when a sweep is planned


def blocks(dataset: xr.Dataset, names: Sequence[str]) -> Iterator[Values]:
    """Yield the values of variables, made to run along the same dimensions, chunk by chunk."""
    arrays = sorted((dataset[name] for name in names), key=lambda array: -array.size)
    steps: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for array in arrays:
        preferred = array.encoding.get("preferred_chunks") or {}
        for dim, size in array.sizes.items():
            steps.setdefault(str(dim), int(preferred.get(dim, size)))
            sizes[str(dim)] = size
    ranges = [range(0, size, steps[dim]) for dim, size in sizes.items()]
    for corner in itertools.product(*ranges):
        box = {d: slice(at, at + steps[d]) for d, at in zip(sizes, corner, strict=True)}
        parts = xr.broadcast(*(loaded(array, box) for array in arrays))
        found = {str(part.name): part.values.ravel() for part in parts}
        there = ~lacking(found)
        yield {name: values[there] for name, values in found.items()}


def group_labels(dataset: xr.Dataset, keys: Keys) -> NDArray[Any]:
    """Return the groups that training samples of any partition belong to, sorted."""
    groups = str(keys.groups)
    names = dataclasses.replace(keys, order=None).names
    found = [
        np.unique(_labels(values[groups][~keys.held(values)])) for values in blocks(dataset, names)
    ]
    labels = np.unique(np.concatenate(found))
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():  # gaps made them floats
        return labels.astype(np.int64)
    return labels


def holdout_faults(dataset: xr.Dataset, keys: Keys) -> Iterator[Fault]:
    """Yield a fault where nothing is held out, or all is."""
    if keys.held_by is None:
        return
    seen: set[bool] = set()
    lows, highs = [], []
    for values in blocks(dataset, [keys.held_by]):
        seen |= set(np.unique(keys.held(values)).tolist())
        if seen == {True, False}:
            return
        if keys.start is not None and values[keys.held_by].size:
            lows.append(values[keys.held_by].min())
            highs.append(values[keys.held_by].max())
    what = "leaves no training samples" if True in seen else "holds nothing out"
    if not seen:
        why = f"'{keys.held_by}' has no values"
    elif keys.values:
        alike = "no value but" if (True in seen) ^ keys.reverse else "none of the values"
        why = f"'{keys.held_by}' has {alike} {listed(map(_text, keys.values))}"
    elif keys.start is None:
        alike = "true" if (True in seen) ^ keys.reverse else "false"
        why = f"'{keys.held_by}' is {alike} everywhere"
    else:
        ends = " to ".join(_text(each) for each in (min(lows), max(highs)))
        why = f"'{keys.held_by}' goes from {ends}, and {_text(keys.start)} is where the cut is"
    yield Fault("data.holdout", f"{what}: {why}")


def _text(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value, unit="auto"))
    return str(value)
