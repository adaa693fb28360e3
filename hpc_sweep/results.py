"""What a store says: opened results, tables, and how far a sweep is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from hpc_sweep.budget import forecast
from hpc_sweep.clusters import has_ended
from hpc_sweep.driverjobs import not_begun
from hpc_sweep.errors import StoreError
from hpc_sweep.store import (
    Holder,
    Ledger,
    RunFolder,
    Store,
    check_files,
    is_known_alive,
    is_known_dead,
    read_events,
    read_holder,
    real_place,
    run_folder,
)


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
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{place} is no archive of a store: {error}") from error
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


def sweep_status(store: str | Path) -> dict[str, Any]:
    """Return how far a sweep is, from its files.

    Where a driver was submitted that has not begun, or began in a job on another host, the queue is
    asked too, if it answers from here.

    Returns
    -------
    dict
        ``store, name, complete, partitions`` (by state), ``fits, fits_done, result_chunks,
        result_chunks_folded, parts, driver`` (who holds the lease, or None; the dead do not
        count where this host or the queue can tell), ``not_begun`` (driver jobs), ``core_hours``
        used, ``core_hours_left`` as predicted, ``charges`` by unit, ``runs`` (what was predicted
        of each, and what came), ``last_event``. Of a sweep whose first driver has not begun,
        ``fits`` and ``result_chunks`` are None.

    Raises
    ------
    StoreError
        When there is no store and no driver was submitted to make it.
    """
    run = run_folder(store)
    if not real_place(store).exists() and run.spec.exists():
        return _unmade(real_place(store), run)
    opened = Store.open(store)
    ledger = Ledger.read(opened)
    run = opened.run
    holders = [read_holder(lease) for lease in (run.lease, *run.rivals())]
    drivers = [str(holder) for holder in holders if holder and _may_be_at_work(holder)]
    strategy, n_splits = opened.strategy, opened.header.n_splits
    fits = strategy.n_fits(n_splits)
    known = forecast(opened)
    return {
        "store": str(opened.path),
        "name": opened.spec.name,
        "complete": ledger.is_complete,
        "partitions": ledger.summary(),
        "fits": opened.grid.size * fits,
        "fits_done": ledger.cells_done() * fits // int(strategy.columns_in_spec.sum()),
        "result_chunks": ledger.n_chunks,
        "result_chunks_folded": len(ledger.folded),
        "parts": sum(len(names) for names in ledger.parts.values()),
        "driver": ", ".join(drivers) or None,
        "not_begun": [] if drivers or ledger.is_complete else not_begun(run),
        "core_hours": round(known.spent.core_hours, 6),
        "core_hours_left": known.remaining_core_hours,
        "charges": known.spent.charges,
        "runs": list(opened.header.runs),
        "last_event": _last_event(run),
    }


def _may_be_at_work(holder: Holder) -> bool:
    """Return whether neither its machine nor its queue knows of a driver's end."""
    if is_known_alive(holder):
        return True
    return not (is_known_dead(holder) or (holder.job and has_ended(holder.queue, holder.job)))


def _unmade(place: Path, run: RunFolder) -> dict[str, Any]:
    """Return what `sweep_status` does before a first driver has made the store."""
    return {
        "store": str(place),
        "name": json.loads(run.spec.read_text(encoding="utf-8"))["name"],
        "complete": False,
        "partitions": {},
        "fits": None,
        "fits_done": 0,
        "result_chunks": None,
        "result_chunks_folded": 0,
        "parts": 0,
        "driver": None,
        "not_begun": not_begun(run),
        "core_hours": 0.0,
        "core_hours_left": None,
        "charges": {},
        "runs": [],
        "last_event": _last_event(run),
    }


def _last_event(run: RunFolder) -> dict[str, Any] | None:
    logs = sorted(run.path.glob("events*.jsonl"))
    return max((event for log in logs for event in read_events(log)), key=_time, default=None)


def _time(event: dict[str, Any]) -> str:
    return str(event.get("time", ""))
