"""What is read of a data set at once: some of its variables inside a box, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.errors import disk_cause
from hpc_sweep.partitions import texts_of
from hpc_sweep.source.damage import named_damage

Box = Mapping[str, slice | NDArray[np.intp]]
"""By dimension, which indices: a slice without step, or ascending indices; absent: all."""


class DamageError(RuntimeError):
    """A variable that cannot be read, although the disk gives its files."""


class Reading(Protocol):
    """How variables come into memory."""

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the stored variables that are read for some variables, each once."""
        ...

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read variables inside a box.

        Parameters
        ----------
        names : sequence of str
            Which ones; nothing of the source is read twice for them.
        box : mapping of str to slice or ndarray of intp
            Which indices along a dimension; dimensions that a variable lacks don't matter.

        Returns
        -------
        dict of str to xarray.Variable
            In memory, with the dimensions of the data set's own variables.
        """
        ...


@dataclass(frozen=True)
class PlainReading:
    """Variables as they are in a lazily opened data set."""

    dataset: xr.Dataset

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names: all are stored."""
        return tuple(names)

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read variables inside a box.

        Raises
        ------
        DamageError
            When a chunk cannot be decoded.
        """
        # a Dask array of a loader must not be computed by the cluster that the task runs on
        with dask.config.set(scheduler="synchronous"):
            return {name: self._read(name, box) for name in names}

    def _read(self, name: str, box: Box) -> xr.Variable:
        variable = self.dataset.variables[name]
        try:
            return variable.isel(box, missing_dims="ignore").load()
        except Exception as error:  # decoders of damaged chunks raise all kinds
            if disk_cause(error) is not None:
                raise
            raise DamageError(named_damage(name, variable, box, error)) from error


def as_estimators_take(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return values in a type that estimators take: floats in `dtype`, texts as objects."""
    if values.dtype.kind == "f":
        return values.astype(dtype, copy=False)
    if values.dtype.kind == "S":  # netCDF's character arrays
        return texts_of(values)
    return values.astype(object) if values.dtype.kind in "UT" else values
