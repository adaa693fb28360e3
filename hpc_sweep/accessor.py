"""``import hpc_sweep.accessor`` makes ``ds.sweep`` known to xarray.

>>> import xarray, hpc_sweep.accessor
>>> xarray.open_zarr("results.zarr").sweep.models()  # doctest: +SKIP
"""

from hpc_sweep.tables import SweepAccessor

__all__ = ["SweepAccessor"]
