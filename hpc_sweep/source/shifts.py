"""Which other sample is meant by ``@-24h`` or ``@-1``: by date, or by steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import listed
from hpc_sweep.source.axes import Refusal, holds_dates
from hpc_sweep.spec import DataSpec, wanted_axes

UNITS = {"W": "weeks", "D": "days", "h": "hours", "min": "minutes", "s": "seconds"}
"""Units of a duration."""


@dataclass(frozen=True)
class Shift:
    """Which other element along a dimension an element takes its value from.

    Attributes
    ----------
    dim : str
        The dimension.
    partners : ndarray of intp, shape (length of the dimension,)
        The other element; −1: there is none.
    """

    dim: str
    partners: NDArray[np.intp]

    @cached_property
    def has_gaps(self) -> bool:
        """Whether some elements have no partner."""
        return bool((self.partners < 0).any())


def make_shift(name: str, amount: int, unit: str, data: DataSpec, dataset: xr.Dataset) -> Shift:
    """Find the partners of a variable's elements.

    A dimension with dates is shifted along these. On a dimension without coordinate (rows of a
    table) partners have the same labels of partitions, and the one variable with dates counts.

    Parameters
    ----------
    name : str
        Of the variable.
    amount : int
        How many units later; negative: earlier.
    unit : str
        Of `UNITS`, or nothing: steps.
    data : DataSpec
        Tells what partitions and samples are.
    dataset : xarray.Dataset
        Has the variable and its coordinates.

    Raises
    ------
    Refusal
        Where that means nothing or no element has a partner.
    """
    if unit and unit not in UNITS:
        known = ", ".join(f"{unit} ({words})" for unit, words in UNITS.items())
        raise Refusal(f"'{unit}' is no unit of a duration; known are {known}; none means steps")
    dims = tuple(map(str, dataset.variables[name].dims))
    dated = [dim for dim in dims if dim in dataset.indexes and holds_dates(dataset[dim].variable)]
    rows = [dim for dim in dims if dim not in dataset.indexes]
    asked = [wanted.name for wanted in wanted_axes(data.partition_by)]
    free = [dim for dim in data.sample_dims or dims if dim in dims and dim not in asked]
    for found in (dated, rows if unit else free):
        if len(found) == 1:
            partners = _partners(found[0], amount, unit, asked, dataset)
            return Shift(found[0], partners)
    what = "has the dates for it" if unit else "is the one whose steps are meant"
    raise Refusal(f"no dimension of '{name}' ({listed(dims)}) {what}")


def _partners(
    dim: str, amount: int, unit: str, asked: Sequence[str], dataset: xr.Dataset
) -> NDArray[np.intp]:
    if dim in dataset.indexes:
        groups = np.zeros(int(dataset.sizes[dim]), dtype=np.intp)
        of = dim if holds_dates(dataset[dim].variable) else None
    else:
        groups = _row_groups(dim, asked, dataset)
        of = _date_variable(dim, dataset, must=bool(unit))
    dates = None if of is None else dataset[of].to_index()
    if unit and dates is not None:
        partners = _by_date(dates, groups, pd.Timedelta(f"{amount}{unit}"), str(of))
    else:
        order = np.argsort(groups, kind="stable")
        same = groups[order][1:] == groups[order][:-1]
        sorted_dates = None if dates is None else dates[order]
        if sorted_dates is not None and ((sorted_dates[1:] < sorted_dates[:-1]) & same).any():
            raise Refusal(f"'{of}' is not sorted, so steps along it mean nothing; write a duration")
        partners = _by_step(groups, order, amount)
    if (partners < 0).all():
        what = f"{amount:+d}{unit or ' steps'}"
        raise Refusal(f"no sample has another one {what} from it along '{of or dim}'")
    return partners


def _row_groups(dim: str, asked: Sequence[str], dataset: xr.Dataset) -> NDArray[np.intp]:
    """Return which rows belong together: those that have the same labels of partitions."""
    groups = np.zeros(int(dataset.sizes[dim]), dtype=np.intp)
    for name in asked:
        labels = dataset.get(name)
        if labels is not None and labels.dims == (dim,) and not holds_dates(labels.variable):
            codes, found = pd.factorize(np.asarray(labels.values))
            groups = groups * (len(found) + 1) + codes
    return groups


def _date_variable(dim: str, dataset: xr.Dataset, *, must: bool) -> str | None:
    """Return the one variable with dates along a dimension that has no coordinate."""
    along = [name for name, variable in dataset.variables.items() if variable.dims == (dim,)]
    found = [str(name) for name in along if holds_dates(dataset[name].variable)]
    if len(found) == 1:
        return found[0]
    if must:
        raise Refusal(f"one variable with dates along '{dim}' is needed; there are {len(found)}")
    return None


def _by_step(groups: NDArray[np.intp], order: NDArray[np.intp], amount: int) -> NDArray[np.intp]:
    """Return the elements so many steps later in their groups; `order` sorts these."""
    partners = np.full(groups.size, -1, dtype=np.intp)
    count = max(0, groups.size - abs(amount))
    here, there = order[max(0, -amount) :][:count], order[max(0, amount) :][:count]
    same = groups[here] == groups[there]
    partners[here[same]] = there[same]
    return partners


def _by_date(
    dates: pd.Index[Any], groups: NDArray[np.intp], delta: pd.Timedelta, name: str
) -> NDArray[np.intp]:
    """Return the elements whose date is so much later, by value and not by position."""
    partners = np.full(groups.size, -1, dtype=np.intp)
    known = np.flatnonzero(~np.asarray(dates.isna()))
    dates, groups = dates[known], groups[known]
    if isinstance(dates, pd.DatetimeIndex):
        dates = dates.round("ms")  # dates made of decimal numbers are off by less
        others: Any = dates + delta
    else:
        others = dates + delta.to_pytimedelta()
    index: Any = pd.MultiIndex.from_arrays([groups, dates])
    if not index.is_unique:
        twice = index[index.duplicated()][0][1]
        raise Refusal(f"'{name}' has {twice} more than once, so what is before it is not known")
    found = index.get_indexer(pd.MultiIndex.from_arrays([groups, others]))
    partners[known] = np.append(known, -1)[found]
    return partners
