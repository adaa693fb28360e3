"""What cannot be read: which chunk it was."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import xarray as xr

from hpc_sweep.errors import Fault, SpecError, disk_cause, disk_error

_WHOLE: Mapping[str, Any] = {}


def loaded(array: xr.DataArray, box: Mapping[str, slice] = _WHOLE) -> xr.DataArray:
    """Return what planning needs of a variable, such as labels, in memory.

    Raises
    ------
    SpecError
        When a chunk is damaged.
    DiskError
        When the disk fails.
    """
    try:
        # a Dask array of a loader must not be computed by the cluster that the task runs on
        with dask.config.set(scheduler="synchronous"):
            return array.isel(box, missing_dims="ignore").compute()
    except Exception as error:  # decoders of damaged chunks raise all kinds
        cause = disk_cause(error)
        if cause is not None:
            raise disk_error(cause, str(array.name), "read") from error
        text = named_damage(str(array.name), array.variable, box, error)
        raise SpecError([Fault("data.store", text)]) from error


def named_damage(name: str, variable: xr.Variable, box: Mapping[str, Any], error: Exception) -> str:
    """Return what went wrong with the name of the first chunk in a box that cannot be read.

    Parameters
    ----------
    name : str
        Of the variable.
    variable : xarray.Variable
        Lazily opened.
    box : mapping of str to slice or ndarray of intp
        What was read of it.
    error : Exception
        What came of it.
    """
    text = f"{type(error).__name__}: {error}"
    preferred: Mapping[Any, int] = variable.encoding.get("preferred_chunks", {})
    if not preferred:
        return f"'{name}' cannot be read: {text}"
    lengths = [int(preferred.get(dim, n)) for dim, n in variable.sizes.items()]
    touched = [
        np.unique(np.arange(variable.sizes[dim])[box.get(str(dim), slice(None))] // length)
        for dim, length in zip(variable.dims, lengths, strict=True)
    ]
    for index in itertools.product(*(each.tolist() for each in touched)):
        part = [slice(i * n, (i + 1) * n) for i, n in zip(index, lengths, strict=True)]
        try:
            variable[tuple(part)].load()
        except Exception as cause:  # decoders raise all kinds
            chunk = ".".join(map(str, index))
            return f"chunk {chunk} of '{name}' is damaged: {type(cause).__name__}: {cause}"
    return f"'{name}' cannot be read: {text}"
