"""What variables are, in words that JSON holds: for those who bring others of the same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from hpc_sweep.source.axes import holds_dates

Described = Mapping[str, Any]
"""``dtype``, ``dims``, and, where there are any, ``units`` and ``calendar``."""

_SAME_CALENDARS = frozenset({"gregorian", "standard", "proleptic_gregorian"})
"""They differ before 1582 only."""


def described(dataset: xr.Dataset, names: Iterable[str]) -> dict[str, Described]:
    """Return what those of some variables are that a data set has."""
    return {name: _of(dataset[name]) for name in names if name in dataset.variables}


def _of(array: xr.DataArray) -> Described:
    facts = {
        "dtype": str(array.dtype),
        "dims": [str(dim) for dim in array.dims],
        "units": str(array.attrs.get("units", "")).strip(),
        "calendar": array.dt.calendar if array.size and holds_dates(array.variable) else "",
    }
    if facts["calendar"] in _SAME_CALENDARS:
        facts["calendar"] = "standard"
    return {key: value for key, value in facts.items() if value or key == "dims"}


def in_words(facts: Described) -> str:
    """Return what a variable is in a few words."""
    along = f" along {', '.join(facts['dims'])}" if facts["dims"] else ""
    more = [f"{key} {facts[key]}" for key in ("units", "calendar") if key in facts]
    return ", ".join([f"{facts['dtype']}{along}", *more])
