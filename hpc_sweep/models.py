"""Models after the search: given back on demand, by fitting the best candidate again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hpc_sweep.errors import StoreError, listed
from hpc_sweep.partitions import describe, plain_label
from hpc_sweep.search import refitted
from hpc_sweep.store import Store
from hpc_sweep.work import Bench, open_bench, train_again


def load_model(store: str | Path, **labels: Any) -> Any:
    """Return the best model of one partition, fitted on all its samples but those held out.

    After an incremental or Hyperband search it is trained on the blocks that it was trained on.

    Nothing of it is stored: parameters, seed and data give it back. It is what
    scikit-learn's ``GridSearchCV`` has as ``best_estimator_``.

    Parameters
    ----------
    store : path
        A store.
    **labels : object
        One label for each partition dimension, such as ``latitude=52.5, longitude=-1.25``.

    Returns
    -------
    estimator
        Fitted.

    Raises
    ------
    StoreError
        When there is no such partition, it has no best candidate, or the data has changed.
    """
    opened = Store.open(store)
    bench = open_bench(str(opened.path), opened.spec.model_dump_json(), opened.header.revision)
    partition = _find(bench, labels)
    place = dict(zip(opened.header.dims, partition.tolist(), strict=True))
    results = opened.dataset()
    best = int(results["best_index"].isel(place))
    if best < 0:
        name = describe(bench.labels(partition))
        raise StoreError(f"{name} has no best model (pending, failed or empty)")
    candidate = bench.strategy.candidate(lambda name: results[name].isel(place).values, best)
    model = bench.models[candidate.model]
    params = bench.params(candidate, bench.seed(partition))
    if bench.strategy.on_blocks and not bench.strategy.trains:
        raise StoreError(
            f"{candidate.model_name} is dask-ml's, which a whole cluster fits: fit it on a "
            f"collection of your own, with the parameters {dict(candidate.params)}"
        )
    if bench.strategy.trains:
        estimator = clone(model.estimator).set_params(**clone(params, safe=False))
        calls = int(results["partial_fit_calls"].isel(place)[best])
        return train_again(bench, partition, estimator, calls)
    (samples,) = bench.source.read(partition[np.newaxis])
    return refitted(model, params, samples.given)


def _find(bench: Bench, labels: dict[str, Any]) -> NDArray[np.intp]:
    """Return the index of the partition with these labels."""
    dims = bench.store.header.dims
    if set(labels) != set(dims):
        raise StoreError(
            f"give one label for each of {listed(dims)}; got {listed(labels) or 'none'}"
        )
    return np.array([_position(bench, dim, labels[dim]) for dim in dims], dtype=np.intp)


def _position(bench: Bench, dim: str, label: Any) -> int:
    length = bench.store.header.shape[bench.store.header.dims.index(dim)]
    known = bench.source.coordinates.get(dim, np.arange(length))
    if known.dtype.kind == "O":  # texts, and dates of other calendars
        named = {str(label), f"{label} 00:00:00"}
        found = np.flatnonzero([str(each) in named for each in known])
    else:
        found = np.flatnonzero(
            known == (np.datetime64(label) if known.dtype.kind == "M" else label)
        )
    if found.size > 1:
        raise StoreError(
            f"{found.size} partitions have {dim}={label}, so it names none of them; give the data "
            "coordinates that differ"
        )
    if not found.size:
        near = f"; it has {listed(map(plain_label, known))}"
        if known.dtype.kind in "iuf" and isinstance(label, (int, float)):
            near = f"; the nearest is {known[np.abs(known - label).argmin()].item()}"
        raise StoreError(f"0 partitions have {dim}={label}{near}")
    return int(found[0])
