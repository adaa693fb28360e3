"""The axes that a spec asks for, made from the coordinates and labels of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from xarray.groupers import TimeResampler

from hpc_sweep.errors import Fault, listed, nearest
from hpc_sweep.partitions import Axis, plain_label, texts_of
from hpc_sweep.source.damage import loaded
from hpc_sweep.source.dates import SECONDS, date_of, to_seconds
from hpc_sweep.spec import NAME_OF_OURS, OWN_NAMES, BinsSpec, Wanted

DATE_PARTS = (
    *("season", "year", "quarter", "month", "week", "day", "date"),
    *("dayofyear", "dayofweek", "weekday", "hour", "minute", "second"),
)
"""What dates can be grouped by, as xarray's ``.dt`` has it."""

SEASONS = ("DJF", "MAM", "JJA", "SON")

MOST_DIMS = 2
"""So many dimensions labels may lie on: the codes are held in memory."""


class Refusal(Exception):
    """What is wrong with one axis or feature, or what is asked of dates."""


def make_axes(
    asked: Sequence[Wanted], dataset: xr.Dataset, dims: Sequence[str]
) -> tuple[tuple[Axis, ...], list[Fault]]:
    """Make axes, in the order of the dimensions that they cut.

    Parameters
    ----------
    asked : sequence of Wanted
        What the spec asks for.
    dataset : xarray.Dataset
        Has the coordinates and labels; they are read.
    dims : sequence of str
        Dimensions of features and targets, in their order.

    Returns
    -------
    axes : tuple of Axis
        None if there are faults.
    faults : list of Fault
        What is wrong.
    """
    axes: list[Axis] = []
    faults = []
    for each in asked:
        try:
            axis = _axis(each, dataset)
            _check(axis, axes)
        except Refusal as refusal:
            faults.append(Fault(each.path, str(refusal)))
            continue
        for dim in axis.dims:
            if dim not in dims:
                message = f"no feature or target has the dimension '{dim}'"
                faults.append(Fault("data.partition_by", message))
        axes.append(axis)
    if faults:
        return (), faults
    axes.sort(key=lambda axis: min(map(list(dims).index, axis.dims)))
    return tuple(axes), []


def _check(axis: Axis, others: Sequence[Axis]) -> None:
    if axis.name in OWN_NAMES:
        raise Refusal(f"'{axis.name}' {NAME_OF_OURS}")
    if any(other.name == axis.name for other in others):
        raise Refusal(f"two axes of the results would be named '{axis.name}'")
    if axis.size == 0 and axis.codes.size:
        raise Refusal("all its labels are missing, so there is no partition")


def _axis(wanted: Wanted, dataset: xr.Dataset) -> Axis:
    """Make one axis, or say what is wrong with it."""
    name, how = wanted.name, wanted.how
    if how is None and name in dataset.sizes:
        return _dimension(name, dataset)
    if isinstance(how, int):
        return _tiles(name, how, dataset)
    values = _values(name, dataset)
    if isinstance(how, str):
        values = _dates_grouped(values, how)
    if not 1 <= values.ndim <= MOST_DIMS:
        raise Refusal(f"'{name}' has {values.ndim} dimensions; labels lie on one or {MOST_DIMS}")
    if isinstance(how, BinsSpec):
        return _bins(values, how)
    return _groups(values)


def _values(name: str, dataset: xr.Dataset) -> xr.DataArray:
    """Return a coordinate or variable, or a part of a date such as ``time.hour``."""
    if name in dataset.variables:
        return loaded(dataset[name])
    base, dot, part = name.rpartition(".")
    if dot and base in dataset.variables:
        return date_part(loaded(dataset[base]), part)
    if name in dataset.sizes or (dot and base in dataset.sizes):
        raise Refusal(f"the dimension '{base or name}' has no coordinate to make groups of")
    known = [*map(str, dataset.sizes), *map(str, dataset.variables)]
    hint = nearest(name, known) or f"; its dimensions are {listed(dataset.sizes)}"
    raise Refusal(f"'{name}' is no dimension of the data set, and no variable with labels{hint}")


def _dimension(name: str, dataset: xr.Dataset) -> Axis:
    size = int(dataset.sizes[name])
    labels = dataset[name].values if name in dataset.coords else None
    if labels is not None and labels.dtype.kind == "S":  # netCDF's character arrays
        labels = texts_of(labels)
    return Axis(name, size, (name,), np.arange(size), labels)


def _tiles(name: str, length: int, dataset: xr.Dataset) -> Axis:
    if name not in dataset.sizes:
        hint = nearest(name, map(str, dataset.sizes)) or (
            f"; its dimensions are {listed(dataset.sizes)}"
        )
        raise Refusal(f"tiles are cut along dimensions, and '{name}' is none{hint}")
    size = int(dataset.sizes[name])
    codes = np.arange(size) // length
    labels, attributes = None, {}
    if name in dataset.coords and dataset[name].dtype.kind in "iufM":
        means = dataset[name].reset_coords(drop=True).coarsen({name: length}, boundary="pad").mean()
        labels, attributes = means.values, dict(dataset[name].attrs)
    return Axis(name, -(-size // length), (name,), codes, labels, attributes)


def _dates_grouped(values: xr.DataArray, how: str) -> xr.DataArray:
    """Return a part of dates, or the periods they lie in where a frequency is named."""
    if how in DATE_PARTS:
        return date_part(values, how)
    if not holds_dates(values.variable):
        raise Refusal(f"'{values.name}' has no {how}: its values are {values.dtype}, no dates")
    there = ~np.asarray(pd.isnull(values.values))
    dates = np.unique(values.values[there])
    along = xr.DataArray(dates, {"dates": dates}, "dates", "dates")
    try:
        periods = TimeResampler(freq=how).factorize(along)
    except (ArithmeticError, LookupError, ValueError):
        raise Refusal(f"{_no_part(how)}, nor is it a frequency such as 10D, 6h or MS") from None
    firsts = np.asarray(periods.full_index)[periods.codes.values]
    found = values.values.copy()
    found[there] = firsts[np.searchsorted(dates, values.values[there])]
    attributes = {"long_name": f"{how} periods of {values.name}"}
    return xr.DataArray(found, dims=values.dims, name=values.name, attrs=attributes)


def _no_part(part: str) -> str:
    hint = nearest(part, DATE_PARTS) or f"; known are {listed(DATE_PARTS)}"
    return f"'{part}' is no part of a date{hint}"


def date_part(values: xr.DataArray, part: str) -> xr.DataArray:
    """Return a part of dates, named by it.

    Raises
    ------
    Refusal
        When there is none such.
    """
    if part not in DATE_PARTS:
        raise Refusal(_no_part(part))
    try:
        dates = values.dt
        found = (
            dates.floor("D")
            if part == "date"
            else dates.isocalendar().week
            if part == "week"
            else getattr(dates, part)
        )
    except (AttributeError, TypeError) as error:
        why = error if holds_dates(values.variable) else "no dates"
        message = f"'{values.name}' has no {part}: its values are {values.dtype}, {why}"
        raise Refusal(message) from None
    named: xr.DataArray = found.rename(part)
    named.attrs = {"long_name": f"{part} of {values.name}"}
    return named


def holds_dates(variable: xr.Variable) -> bool:
    """Return whether a variable holds dates, of NumPy's or of another calendar."""
    if variable.dtype.kind != "O" or not variable.size:
        return bool(variable.dtype.kind == "M")
    return hasattr(first_of(variable), "calendar")


def first_of(variable: xr.Variable) -> Any:
    """Return the first value of a variable as a plain object."""
    return variable[(0,) * variable.ndim].values.item()


def _groups(values: xr.DataArray) -> Axis:
    """Make one label of each value."""
    flat = _plain(values)
    try:
        codes, found = pd.factorize(flat, sort=True)
    except TypeError as error:
        raise Refusal(f"labels of '{values.name}' cannot be told apart: {error}") from None
    labels = _of_one_type(np.asarray(found), values.name)
    if values.name == "season" and {*labels.tolist()} <= {*SEASONS}:
        order = np.argsort([SEASONS.index(label) for label in labels])
        labels, codes = labels[order], np.append(np.argsort(order), -1)[codes]
    return _made(str(values.name), values, labels, codes, dict(values.attrs))


def _of_one_type(labels: NDArray[Any], name: object) -> NDArray[Any]:
    """Return labels as the results can hold them: numbers, texts, booleans or dates."""
    if labels.dtype.kind != "O":
        return labels
    types = sorted({type(label).__name__ for label in labels})
    if len(types) > 1:
        raise Refusal(f"labels of '{name}' are of several types ({listed(types)}); make them one")
    if types in (["int"], ["float"], ["bool"]):
        return np.array(labels.tolist())
    texts = [label if isinstance(label, str) else str(label) for label in labels]
    return np.array(texts, dtype=object)


def _plain(values: xr.DataArray) -> NDArray[Any]:
    """Return labels, flat, such that pandas knows which are missing."""
    flat = np.asarray(values.values).ravel()
    if flat.dtype.kind == "S":  # netCDF's character arrays
        flat = texts_of(flat)
    if flat.dtype.kind in "OUT":
        flat = flat.astype(object)
        flat[flat == ""] = None
    whole = np.dtype(values.encoding.get("dtype", values.dtype)).kind in "iu" or (
        values.name in DATE_PARTS
    )
    if flat.dtype.kind == "f" and whole:  # fill values or dates that are missing made them floats
        some = np.isfinite(flat)
        if some.all():
            return flat.astype(np.int64)
        plain = flat.astype(object)
        plain[some] = flat[some].astype(np.int64)
        plain[~some] = None
        return plain
    return flat


def _bins(values: xr.DataArray, how: BinsSpec) -> Axis:
    """Make one label of each bin."""
    try:
        flat, bins, plain = _measured(values, how.bins)
        found = pd.cut(flat, bins, right=how.right)
    except (TypeError, ValueError) as error:
        raise Refusal(f"no bins of '{values.name}' can be made: {error}") from None
    codes = np.asarray(found.codes, dtype=np.intp)
    there = flat[~np.isnan(flat)]
    if there.size and (codes < 0).all():
        ends = " to ".join(str(plain_label(plain(end))) for end in (there.min(), there.max()))
        raise Refusal(f"no value of '{values.name}' is in any bin: they go from {ends}")
    texts = [
        _bin_text(plain(each.left), plain(each.right), right=how.right) for each in found.categories
    ]
    if how.labels is not None and len(how.labels) != len(texts):
        raise Refusal(f"there are {len(texts)} bins, but {len(how.labels)} labels")
    codes_of_bins, labels = pd.factorize(np.array(how.labels or texts, dtype=object))
    codes = np.append(codes_of_bins, -1)[codes]
    attributes = {"long_name": f"bins of {values.name}"}
    labels = np.array(labels.tolist())
    return _made(f"{values.name}_bins", values, labels, codes, attributes)


def _measured(
    values: xr.DataArray, edges: int | Sequence[Any]
) -> tuple[NDArray[Any], Any, Callable[[Any], Any]]:
    """Return values and edges such that pandas can compare them, and what makes one of them plain.

    Raises
    ------
    ValueError
        When edges are of another kind.
    """
    flat = np.asarray(values.values).ravel()
    given = None if isinstance(edges, int) else list(edges)
    if flat.dtype.kind in "iuf":
        return flat, edges if given is None else np.array(given, float), lambda number: number
    if flat.dtype.kind == "M":
        dates = edges if given is None else np.array(list(map(str, given)), "datetime64[ns]")
        return flat, dates, lambda date: pd.Timestamp(date).to_datetime64()
    if not holds_dates(values.variable):
        raise Refusal(f"'{values.name}' is of dtype {flat.dtype}; bins are of numbers or dates")
    like = first_of(values.variable)
    bins: Any = edges
    if given is not None:
        dates = np.array([date_of(str(edge), like) for edge in given])
        bins = to_seconds(dates, like.calendar)
    return (
        to_seconds(flat, like.calendar),
        bins,
        lambda seconds: cftime.num2date(seconds, SECONDS, like.calendar),
    )


def _bin_text(left: Any, right_edge: Any, *, right: bool) -> str:
    low, high = plain_label(left), plain_label(right_edge)
    return f"({low}, {high}]" if right else f"[{low}, {high})"


def _made(
    name: str,
    values: xr.DataArray,
    labels: NDArray[Any],
    codes: NDArray[Any],
    attributes: Mapping[str, Any],
) -> Axis:
    dims = tuple(map(str, values.dims))
    shaped = np.asarray(codes, dtype=np.intp).reshape(values.shape)
    return Axis(name, len(labels), dims, shaped, labels, attributes)
