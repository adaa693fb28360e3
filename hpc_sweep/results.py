"""What a store says: opened results, tables, and how far a sweep is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.budget import forecast
from hpc_sweep.candidates import restored
from hpc_sweep.choices import DONE, STATUS_MEANINGS
from hpc_sweep.driverjobs import not_begun
from hpc_sweep.partitions import partition_labels
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    ATTRIBUTE,
    Ledger,
    RunFolder,
    Store,
    is_known_dead,
    read_events,
    read_holder,
    real_place,
    run_folder,
)
from hpc_sweep.strategies import Strategy, restore


def open_results(store: str | Path) -> xr.Dataset:
    """Open a store with xarray, lazily, after checking that nothing is missing.

    Parameters
    ----------
    store : path
        A store; it may be half finished: what is pending reads as NaN, −1 or ``""``.

    Raises
    ------
    StoreError
        When there is no store, or a file is missing although its status says done.
    """
    opened = Store.open(store)
    Ledger.read(opened)
    return opened.dataset()


def best_rows(results: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield one row for each partition: labels, best model, parameters, score, state.

    Rows are ordered by score, best first; those without one come last.

    Parameters
    ----------
    results : xarray.Dataset
        What `open_results` returns.
    """
    metrics = SweepSpec.model_validate(json.loads(results.attrs[ATTRIBUTE])["spec"]).metrics
    held_out = [f"holdout_{m}" for m in metrics if f"holdout_{m}" in results]
    names = ["best_index", "best_score", *held_out, "n_samples", "partition_status"]
    loaded = {name: results[name].values.ravel() for name in names}
    dims = [str(dim) for dim in results["best_score"].dims]
    shape = results["best_score"].shape
    coordinates = {dim: results[dim].values for dim in dims if dim in results.coords}
    strategy, sizes = _strategy(results), results["best_score"].size
    further: dict[str, NDArray[Any]] = {}

    def at(name: str) -> Any:
        if name not in further:
            values = results[name].values
            further[name] = values.reshape(sizes, *values.shape[len(dims) :])
        return further[name][flat]

    scores = loaded["best_score"]
    for flat in np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable"):
        best = int(loaded["best_index"][flat])
        score = float(scores[flat])
        candidate = strategy.candidate(at, best) if best >= 0 else None
        yield {
            **partition_labels(coordinates, dims, np.unravel_index(flat, shape)),
            "model": candidate.model_name if candidate else None,
            "params": dict(candidate.params) if candidate else {},
            "score": _number(score),
            **{name: _number(loaded[name][flat]) for name in held_out},
            "n_samples": max(0, int(loaded["n_samples"][flat])),
            "status": STATUS_MEANINGS[int(loaded["partition_status"][flat])],
        }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def wins(results: xr.Dataset) -> dict[str, int]:
    """Return for each model in how many partitions it is the best."""
    won = Counter(results["best_model"].values.ravel().tolist())
    return {name: won[name] for name in _strategy(results).model_names}


def _strategy(results: xr.Dataset) -> Strategy:
    """Return the strategy that opened results were made by."""
    header = json.loads(results.attrs[ATTRIBUTE])
    spec, dropped = SweepSpec.model_validate(header["spec"]), header["dropped"]
    models = spec.model_dump(mode="json")["models"]
    if "candidate" not in results.dims:
        return restore(spec, ())
    texts, ids = (results[name].values.tolist() for name in ("candidate_json", "candidate_id"))
    return restore(spec, restored(models, texts, ids), dropped)


def first_reasons(results: xr.Dataset, most: int = 3) -> list[str]:
    """Return the most frequent reasons of failed candidates, with their counts."""
    failed = results["status"].values > DONE
    if "in_spec" in results:
        failed &= results["in_spec"].values
    messages = np.array(results["message"].values[failed].tolist(), dtype=str)
    texts, counts = np.unique(messages[messages != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [f"{counts[i]:,} × {texts[i]}" for i in order]


def sweep_status(store: str | Path) -> dict[str, Any]:
    """Return how far a sweep is, from its files.

    Where a driver was submitted that has not begun, the queue is asked for its words too, if it
    answers from here.

    Returns
    -------
    dict
        ``store, name, complete, partitions`` (by state), ``fits, fits_done, result_chunks,
        result_chunks_folded, parts, driver`` (who holds the lease, or None; the dead do not
        count where this host can tell), ``not_begun`` (driver jobs), ``core_hours`` used,
        ``core_hours_left`` as predicted, ``charges`` by unit, ``runs`` (what was predicted of
        each, and what came), ``last_event``. Of a sweep whose
        first driver has not begun, ``fits`` and ``result_chunks`` are None.

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
    drivers = [str(holder) for holder in holders if holder and not is_known_dead(holder)]
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
