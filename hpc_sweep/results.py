"""What a store says: opened results, and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from hpc_sweep.errors import StoreError
from hpc_sweep.store import ATTRIBUTE, Store, check_files, check_schema


def open_results(store: str | Path) -> xr.Dataset:
    """Open a store with xarray, lazily, after checking that nothing is missing.

    Its tables are methods of ``.sweep``: ``open_results(store).sweep.models()``.

    Parameters
    ----------
    store : path
        A store, or what ``hpc-sweep archive`` made of one. It may be half finished: what is
        pending reads as NaN, −1 or ``""``.

    Raises
    ------
    StoreError
        When there is no store, or a file is missing although its status says done.
    """
    import hpc_sweep.tables  # noqa: F401, lets xarray know `.sweep`

    place = Path(store)
    if place.is_file():
        return _open_archive(place)
    opened = Store.open(store)
    check_files(opened)
    return opened.dataset()


def _open_archive(place: Path) -> xr.Dataset:
    """Open an archive, a zip of the zarr or netCDF."""
    import zipfile

    from zarr.storage import ZipStore

    try:
        if zipfile.is_zipfile(place):
            opened: xr.Dataset = xr.open_zarr(ZipStore(place, mode="r"), chunks=None)
        else:
            opened = xr.open_dataset(place, engine="netcdf4")
        header = json.loads(opened.attrs[ATTRIBUTE])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{place} is no archive of a sweep's store: {error}") from error
    check_schema(str(place), header)
    return opened


def best_rows(results: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield one row for each partition: labels, best model, parameters, score, state.

    Rows are ordered by score, best first; those without one come last.

    Parameters
    ----------
    results : xarray.Dataset
        What `open_results` returns.
    """
    from hpc_sweep.tables import Results, best_table, records

    for frame in best_table(Results(results), plain=True):
        kept = [name for name in frame.columns if not str(name).startswith("param_")]
        yield from records(frame[kept])


def wins(results: xr.Dataset) -> dict[str, int]:
    """Return for each model in how many partitions it is the best."""
    from hpc_sweep.tables import Results

    names = Results(results).strategy.model_names
    won = Counter(results["best_model"].values.ravel().tolist())
    return {name: won[name] for name in names}


def first_reasons(results: xr.Dataset, most: int = 3) -> list[str]:
    """Return the most frequent reasons of failed candidates, with their counts."""
    from hpc_sweep.tables import Results, failures_table

    table = failures_table(Results(results), with_empty=False).head(most)
    return [f"{row.candidates:,} × {row.reason}" for row in table.itertuples()]
