"""Looks at store, data and result before anything is written, and plans the predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, FAILED, STATUS_MEANINGS
from hpc_sweep.clusters import Cluster, make_cluster
from hpc_sweep.errors import Fault, SpecError, StoreError, listed
from hpc_sweep.models import Trust, check_models, open_models
from hpc_sweep.prediction.asked import Asked
from hpc_sweep.prediction.cutting import Cutting, make_cutting
from hpc_sweep.prediction.destination import Destination
from hpc_sweep.prediction.learned import Learned, data_error, open_data
from hpc_sweep.prediction.matching import Matching
from hpc_sweep.prediction.opening import sweep_source
from hpc_sweep.prediction.outputs import Outputs, make_outputs
from hpc_sweep.source import PairSource, Source, is_url, loaded
from hpc_sweep.spec import DataSpec, SweepSpec
from hpc_sweep.store import UNKNOWN, Job, Ledger, Store, real_place, run_folder


@dataclass(frozen=True)
class Prediction:
    """Predictions that are known to be possible.

    Attributes
    ----------
    store : Store
        Has the models.
    spec : SweepSpec
        Its spec, with the cluster of this run.
    data : DataSpec
        What is predicted.
    asked : Asked
        What it is.
    trust : Trust
        Types that stored models may have.
    matching : Matching
        Which partitions these are.
    outputs : Outputs
        What is written.
    cutting : Cutting
        In which chunks.
    status : xarray.DataArray
        Of the data's partitions.
    job : Job
        What tells it from others.
    cluster : Cluster
        Not started.
    destination : Destination or None
        Where it was begun already.
    """

    store: Store
    spec: SweepSpec
    data: DataSpec
    asked: Asked
    trust: Trust
    matching: Matching
    outputs: Outputs
    cutting: Cutting
    status: xr.DataArray
    job: Job
    cluster: Cluster
    destination: Destination | None

    @property
    def source(self) -> Source:
        """The data, opened."""
        return self.matching.source

    def coordinates(self) -> xr.Dataset:
        """Return the data's own coordinates, in memory."""
        dims, dataset = {*self.cutting.dims}, self.source.dataset
        kept = [name for name, array in dataset.coords.items() if {*array.dims} <= dims]
        chosen = dataset[kept]
        held = {name: loaded(array).variable for name, array in chosen.coords.items()}
        return xr.Dataset(coords=held)


def prepare(asked: Asked, say: Callable[[str], None] = lambda text: None) -> Prediction:
    """Check that a store's models can predict some data, and plan it.

    Raises
    ------
    SpecError
        With what is wrong with the data.
    StoreError
        When the store is not finished, or something else is where predictions go.
    PlanError
        When it does not fit into memory or files.
    """
    store = Store.open(asked.store)
    spec = asked.spec_for(store)
    status, best = _finished(store, partial=asked.partial)
    trust = Trust.of(store, asked.trust)
    _check_models(store, best, trust, say)
    place = _free_place(asked.out, store, asked.data)
    wanted = _data_spec(spec, asked)
    sweep = sweep_source(store.spec)
    learned = Learned.of(store, sweep)
    if not learned.variables:
        say("warning: the sweep's data cannot be opened, so units of features are not compared")
    source = open_data(wanted, asked.split, learned, ignore_units=asked.ignore_units, say=say)
    if isinstance(source, PairSource):
        raise StoreError(
            f"{store.path} is of the (X, y) of a loader, which has no coordinates to write "
            f'predictions with; hpc_sweep.load_model("{store.path}").predict(X) gives them'
        )
    try:
        matching = Matching(store, source, sweep)
    except SpecError as error:
        raise data_error(wanted, error.faults, asked.split, learned) from None
    outputs = make_outputs(spec, sweep, proba=asked.proba)
    models = _data_status(matching, outputs, spec.targets, status, best)
    unknown = int((models == UNKNOWN).sum())
    if unknown:
        say(
            f"warning: {unknown:,} of {models.size:,} partitions of the data are not the store's, "
            f"and get the fill value: {matching.unknown}"
        )
    cluster = make_cluster(spec.cluster, run_folder(place).path, lambda event, **facts: None)
    faults = cluster.faults()
    if faults:
        raise SpecError(faults, "the cluster")
    job = Job(
        store.header.id,
        _digest(status, best),
        matching.source.identity(),
        asked.split,
        asked.proba,
    )
    destination = Destination.there(place)
    if destination is None:
        _check_files(store, matching, best)
    else:
        destination.check(job)
    cutting = make_cutting(
        matching.source,
        len(outputs.arrays),
        len(outputs.arrays) * int(np.prod(outputs.more)),
        workers=cluster.workers,
        worker_memory_bytes=cluster.worker_memory_bytes(),
        max_files=spec.output.max_files,
    )
    if destination is not None:  # chunks stay as they were begun
        cutting = Cutting(cutting.dims, cutting.lengths, destination.header.steps, cutting.slow)
    return Prediction(
        store,
        spec,
        wanted,
        asked,
        trust,
        matching,
        outputs,
        cutting,
        models,
        job,
        cluster,
        destination,
    )


def _finished(store: Store, *, partial: bool) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return status and best candidate of all partitions of a store that is finished enough."""
    ledger = Ledger.read(store)
    if not (ledger.is_complete or partial):
        done = sum(map(store.n_partitions, ledger.folded))
        raise StoreError(
            f"{store.path} is not finished: {done:,} of {ledger.n_partitions:,} partitions are; go "
            "on with hpc-sweep run, or predict with those that are done: --partial"
        )
    results = store.dataset()
    status, best = results["partition_status"].values, results["best_index"].values
    status = np.where((status == DONE) & (best < 0), FAILED, status).astype(np.int8)
    return status, best


def _check_models(
    store: Store, best: NDArray[np.int64], trust: Trust, say: Callable[[str], None]
) -> None:
    """Load one of each kind, where they are stored, so that what is not trusted is known at once.

    Raises
    ------
    StoreError
        When the store was made without models, or these cannot be loaded.
    """
    there = best >= 0
    models = open_models(store, trust=trust, warn=lambda text: say(f"warning: {text}"))
    if store.spec.output.models != "on_demand":
        names = store.dataset()["best_model"].values[there]
        _, first = np.unique(names.astype(object), return_index=True)
        models.of(np.argwhere(there)[first])


def _check_files(store: Store, matching: Matching, best: NDArray[np.int64]) -> None:
    """Raise a `StoreError` where stored models of the data's partitions are damaged.

    Reading them takes a fraction of what loading them does.
    """
    wanted = np.zeros(best.shape, dtype=bool)
    lengths = zip(matching.dims, best.shape, strict=True)
    known = (matching.places.get(dim, np.arange(length)) for dim, length in lengths)
    wanted[np.ix_(*(places[places >= 0] for places in known))] = True
    faults = check_models(store, wanted & (best >= 0)).faults
    if faults:
        first, more = faults[0], len(faults) - 1
        also = f"; hpc-sweep verify {store.path} tells {more:,} more" if more else ""
        raise StoreError(f"{first.file} {first.fault}; {first.remedy}{also}")


def _free_place(out: str | Path, store: Store, data: str) -> Path:
    """Return where predictions go.

    Raises
    ------
    StoreError
        When it is a URL, the store, or the data.
    """
    if is_url(str(out)):
        raise StoreError(f"'{out}' is a URL; predictions need a file system with renames")
    place = real_place(out)
    folder = next(each for each in place.parents if each.exists())
    if place.exists() and not place.is_dir():
        raise StoreError(f"{place} is a file; name another place for the predictions")
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, so nothing can be made below it")
    if not is_url(data) and real_place(data) == store.path:
        message = f"is the sweep's store of results; name data such as {store.spec.data.origin}"
        raise SpecError([Fault("", message)], f"the data {data}")
    same = {"the sweep's store": store.path}
    if not is_url(data):
        same["the data itself"] = real_place(data)
    for words, other in same.items():
        if place == other or other in place.parents:
            raise StoreError(f"{place} is {words}, or inside; name another place")
    return place


def _data_spec(spec: SweepSpec, asked: Asked) -> DataSpec:
    """Return what the sweep says of its data, said of another data set, without a target."""
    data = asked.absolute().data
    changes: dict[str, Any] = {"target": None, "sample_weight": None, "outputs": "joint"}
    if asked.is_loader:
        changes |= {"loader": data, "store": None}
    else:
        changes |= {"loader": None, "loader_args": {}, "store": data}
    if asked.split == "all":
        changes["holdout"] = None
    elif spec.data.holdout is None:
        message = f"the sweep holds nothing out, so there is no {asked.split} part; leave it out"
        raise SpecError([Fault("--split", message)], "the command")
    return spec.data.model_copy(update=changes)


def _data_status(
    matching: Matching,
    outputs: Outputs,
    targets: tuple[str, ...],
    status: NDArray[np.int8],
    best: NDArray[np.int64],
) -> xr.DataArray:
    """Return the status of the data's partitions; refuse data of which none has a model."""
    axes = matching.source.axes
    names = [axis.name for axis in axes]
    places = [matching.places[name] for name in names]
    if outputs.separate:
        names, places = [*names, "target"], [*places, np.arange(len(targets))]
    ordered = status.transpose([matching.dims.index(name) for name in names])
    found = ordered[np.ix_(*(np.maximum(each, 0) for each in places))] if names else ordered
    for place, each in enumerate(places):
        spread = [1] * len(places)
        spread[place] = each.size
        found = np.where(each.reshape(spread) < 0, UNKNOWN, found)
    if not (found == DONE).any():
        origin = matching.source.data.origin
        why = (
            f"{matching.unknown}; labels are compared by value: give the data those of the sweep"
            if matching.unknown
            else "all its labels are known, and what the sweep came to there is: "
            + listed(f"{STATUS_MEANINGS[code]} {count}" for code, count in counted(found))
        )
        raise StoreError(
            f"none of the {found.size:,} partitions of {origin} has a model in the store: {why}"
        )
    dims, coordinates = [], {}
    for axis in axes:
        dim = axis.name if axis.is_dimension else f"{axis.name}_label"
        dims.append(dim)
        if axis.labels is not None:
            coordinates[dim] = axis.labels
    if outputs.separate:
        dims.append("target")
        coordinates["target"] = np.array(targets, dtype=object)
    return xr.DataArray(np.asarray(found, dtype=np.int8), coordinates, dims, "status")


def _digest(status: NDArray[np.int8], best: NDArray[np.int64]) -> str:
    content = np.ascontiguousarray(status).tobytes() + np.ascontiguousarray(best).tobytes()
    return hashlib.sha256(content).hexdigest()


def counted(status: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Yield each status that occurs, with how often it does."""
    return zip(*(each.tolist() for each in np.unique(status, return_counts=True)), strict=True)


def counts_of(status: xr.DataArray, meanings: tuple[str, ...]) -> Mapping[str, int]:
    """Return how many partitions have each status that any has."""
    found = np.bincount(status.values.ravel(), minlength=len(meanings)).tolist()
    return {name: count for name, count in zip(meanings, found, strict=True) if count}
