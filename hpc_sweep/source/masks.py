"""Variables that say which samples there are, or which are held out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hpc_sweep.source.damage import loaded

LOOKED_AT_BYTES = 64_000_000
"""Whole numbers are looked at if they have no more: formats without truth values use 0 and 1."""


def mask_fault(array: xr.DataArray, true_where: str) -> str:
    """Return why a variable is no mask; empty where it is one.

    Parameters
    ----------
    array : xarray.DataArray
        Boolean, or of whole numbers that are all 0 or 1.
    true_where : str
        What it says, in words.

    Raises
    ------
    SpecError
        When a chunk of it is damaged.
    """
    kind = array.dtype.kind
    wanted = f"a mask is boolean, or 0 and 1: true where {true_where}"
    if kind == "b":
        return ""
    if kind not in "iu":
        return f"'{array.name}' is of dtype {array.dtype}; {wanted}"
    if array.nbytes > LOOKED_AT_BYTES:
        return f"'{array.name}' is too large to see whether all of it is 0 or 1; make it boolean"
    values = np.unique(loaded(array).values)
    others = values[~np.isin(values, (0, 1)) & ~np.isnan(values)]
    return f"'{array.name}' has the value {others[0]}; {wanted}" if others.size else ""
