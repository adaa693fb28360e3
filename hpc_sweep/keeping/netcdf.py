"""A store as netCDF 4: the same arrays, attributes and chunks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError
from hpc_sweep.store import Store

Region = tuple[slice, ...]

CACHE = (1 << 20, 521, 0.0)
"""Bytes, slots and preemption: chunks are written once; else HDF5 keeps many MB of each array."""


def write_netcdf(store: Store, place: Path) -> None:
    """Write a store as netCDF 4, chunk by chunk, and compare what is read back.

    Numbers are compressed and have checksums (Fletcher-32) in the file; text is of variable
    length, which netCDF does not compress.

    Raises
    ------
    StoreError
        When netCDF cannot hold a value, or what was read back is not what was written.
    """
    import netCDF4

    # as the files have it: dates and booleans stay numbers with the attributes that say so
    source = xr.open_zarr(store.path, chunks=None, decode_cf=False, mask_and_scale=False)
    with netCDF4.Dataset(place, "w", format="NETCDF4") as target:
        for dim, length in source.sizes.items():
            target.createDimension(str(dim), length)
        target.setncatts({name: _attribute(value) for name, value in source.attrs.items()})
        for name, variable in source.variables.items():
            _write(target, str(name), variable)
    with netCDF4.Dataset(place) as written:
        for name, variable in source.variables.items():
            _compare(written, str(name), variable)


def _write(target: Any, name: str, variable: xr.Variable) -> None:
    attributes = {key: _attribute(value, variable) for key, value in variable.attrs.items()}
    dims = tuple(map(str, variable.dims))
    if _is_text(variable):
        made = target.createVariable(name, str, dims, chunksizes=_chunks(variable) or None)
    else:
        boolean = variable.dtype.kind == "b"
        attributes |= {"dtype": "bool"} if boolean else {}  # as xarray writes them
        made = target.createVariable(
            name,
            "i1" if boolean else variable.dtype.newbyteorder("="),
            dims,
            chunksizes=_chunks(variable) or None,
            fill_value=False,
            **({"zlib": True, "complevel": 1, "shuffle": True, "fletcher32": True} if dims else {}),
        )
    made.set_auto_maskandscale(False)
    made.set_var_chunk_cache(*CACHE)
    made.setncatts(attributes)
    for region in _regions(variable):
        made[region] = _values(variable, region)


def _compare(written: Any, name: str, variable: xr.Variable) -> None:
    found = written[name]
    found.set_auto_maskandscale(False)
    found.set_var_chunk_cache(*CACHE)
    for region in _regions(variable):
        right, has = _values(variable, region), np.asarray(found[region])
        same = (right == has) | ((right != right) & (has != has))
        if not np.all(same):
            raise StoreError(
                f"netCDF does not hold what {name} has (a NUL in its text?); archive it as .zip"
            )


def _values(variable: xr.Variable, region: Region) -> NDArray[Any]:
    values = np.asarray(variable[region].values)
    if _is_text(variable):
        return values.astype(object)
    return values.astype("i1") if values.dtype.kind == "b" else values


def _is_text(variable: xr.Variable) -> bool:
    return variable.dtype.kind in "OUT"


def _chunks(variable: xr.Variable) -> tuple[int, ...]:
    """Return the chunks that a variable has in the store."""
    known = variable.encoding.get("chunks") or variable.shape
    return tuple(max(1, min(c, n)) for c, n in zip(known, variable.shape, strict=True))


def _regions(variable: xr.Variable) -> Iterator[Region]:
    ranges = (
        [slice(first, min(first + width, size)) for first in range(0, size, width)]
        for size, width in zip(variable.shape, _chunks(variable), strict=True)
    )
    yield from itertools.product(*ranges)


def _attribute(value: Any, variable: xr.Variable | None = None) -> Any:
    """Return an attribute as netCDF has them: text, numbers, or arrays of numbers."""
    if isinstance(value, bool):
        return np.int8(value)
    if isinstance(value, Mapping) or value is None:
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        array = np.asarray(value)
        if array.dtype.kind in "iu" and variable is not None and variable.dtype.kind in "iu":
            return array.astype(variable.dtype)  # CF: flags are of the variable's type
        if array.dtype.kind in "iuf":
            return array
        return [each if isinstance(each, str) else json.dumps(each) for each in value]
    return value
