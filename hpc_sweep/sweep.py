"""A sweep from spec to results: check everything, then plan, create, drive."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hpc_sweep import estimators
from hpc_sweep.candidates import Candidate, expand, repeated
from hpc_sweep.clusters import Cluster, make_cluster, settings
from hpc_sweep.drive import Drive, Progress
from hpc_sweep.errors import Fault, SpecError, StoreError
from hpc_sweep.plan import Plan, Unit, Workload, make_plan
from hpc_sweep.source import Source, open_source
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import (
    Journal,
    Lease,
    Ledger,
    Store,
    create_store,
    hold,
    result_arrays,
    run_folder,
)
from hpc_sweep.work import Context

UNIT_SECONDS = 60.0
"""A unit that takes longer leaves a part of what it has; the rest is handed out again."""

FIXED_FILES = 12
"""Files of a store besides one per array and chunk: metadata and small arrays."""

LIBRARIES = ("hpc-sweep", "scikit-learn", "numpy", "scipy", "xarray", "zarr", "dask")


@dataclass(frozen=True)
class Prepared:
    """A sweep that is known to be good: nothing is written yet.

    Attributes
    ----------
    spec : SweepSpec
        The spec.
    source : Source
        The opened data.
    candidates : tuple of Candidate
        In order.
    n_splits : int
        Length of ``split``.
    cluster : Cluster
        Not started.
    plan : Plan
        How it is cut.
    store : Store or None
        What exists already, of the same spec.
    """

    spec: SweepSpec
    source: Source
    candidates: tuple[Candidate, ...]
    n_splits: int
    cluster: Cluster
    plan: Plan
    store: Store | None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    store : Store
        The finished store.
    counts : dict
        Partitions by state.
    progress : Progress or None
        Of this run; None when there was nothing to do.
    """

    store: Store
    counts: Mapping[str, int]
    progress: Progress | None

    @property
    def n_failed(self) -> int:
        """Partitions without a result although they have data."""
        return sum(self.counts[state] for state in ("failed", "timed_out", "out_of_memory"))


def prepare(spec: SweepSpec, origin: str = "the spec") -> Prepared:
    """Check a spec against estimators, data, cluster and store, and plan it.

    Raises
    ------
    SpecError
        With every fault at once.
    PlanError
        When it does not fit into memory or files.
    StoreError
        When the store is something else, or of another spec.
    """
    sections = {"data": spec.data, "search": spec.search}
    sections.update({f"models.{index}": model for index, model in enumerate(spec.models)})
    source, faults = _check_sections(sections)
    folder = run_folder(spec.output.store)
    cluster = make_cluster(spec.cluster, folder.path, lambda event, **facts: None)
    faults += cluster.faults()
    faults += _output_faults(spec)
    candidates = expand(spec.model_dump(mode="json")["models"])
    for first, second in repeated(candidates):
        text = f"candidates {first} and {second} are the same: {candidates[second].json}"
        faults.append(Fault(f"models.{candidates[second].model}.param_grid", text))
    if source is not None and not faults:
        faults += _name_faults(spec, source, candidates)
        faults += _fitting_faults(spec, source)
    if faults or source is None:
        raise SpecError(faults, origin)
    n_splits = _n_splits(spec, source)
    store = _existing(spec, source)
    plan = make_plan(
        _workload(spec, source, candidates, n_splits),
        workers=cluster.workers,
        worker_memory_bytes=cluster.worker_memory_bytes(),
        max_files=spec.output.max_files,
        chunks=None if store is None else store.header.chunks,
    )
    return Prepared(spec, source, candidates, n_splits, cluster, plan, store)


def load(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
) -> SweepSpec:
    """Load a spec as `load_spec` does; faults that libraries and data show are added.

    Raises
    ------
    SpecError
        With every fault that can be known at once.
    """
    try:
        return load_spec(spec, settings, store=store)
    except SpecError as error:
        _, more = _check_sections(error.sections)
        known = {fault.path for fault in error.faults}
        faults = [*error.faults, *(fault for fault in more if fault.path not in known)]
        raise SpecError(faults, error.origin) from None


def _check_sections(sections: Mapping[str, Any]) -> tuple[Source | None, list[Fault]]:
    """Open the source, and return the faults that estimators, scorers and data show."""
    faults: list[Fault] = []
    source = None
    for path, section in sections.items():
        if path.startswith("models."):
            faults += estimators.check_model(
                path, section.estimator, section.pipeline, section.param_grid
            )
        elif path == "search":
            faults += estimators.check_search(section.cv, section.scoring)
        else:
            try:
                source = open_source(section)
            except SpecError as error:
                faults += error.faults
    return source, faults


def execute(
    spec: SweepSpec,
    *,
    origin: str = "the spec",
    take_over: bool = False,
    on_start: Callable[[Prepared, Ledger], None] = lambda prepared, ledger: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run a sweep, or what is left of it.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    origin : str
        What messages call it.
    take_over : bool
        Take the store's lease from whoever has it.
    on_start, on_progress, say : callable
        Told what is going to be done, how far it is, and what else happens.

    Raises
    ------
    SweepError
        Its kinds say what went wrong; see `hpc_sweep.errors`.
    """
    prepared = prepare(spec, origin)
    if prepared.store is not None:
        ledger = Ledger.read(prepared.store)
        if len(ledger.folded) == _n_chunks(prepared.store):
            return Outcome(prepared.store, ledger.summary(), None)
    run = run_folder(spec.output.store)
    run.make()
    with hold(run.lease, take_over=take_over, say=say) as lease, _stop_signals() as stopped:
        store = prepared.store or _create(prepared)
        store.remove_leftovers()
        ledger = Ledger.read(store)
        on_start(prepared, ledger)
        progress = _drive(prepared, store, ledger, lease, stopped, on_progress)
    return Outcome(store, ledger.summary(), progress)


def run(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
    take_over: bool = False,
) -> xr.Dataset:
    """Run a sweep from Python or a notebook, and return the opened results.

    Parameters
    ----------
    spec : path, mapping or SweepSpec
        The spec, or the file that holds it.
    settings : iterable of str
        Overrides such as ``search.cv=3``.
    store : path, optional
        Override of ``output.store``.
    take_over : bool
        Take the store's lease from whoever has it.

    Returns
    -------
    xarray.Dataset
        The results, lazily opened. What is done already is not done again.
    """
    return execute(load(spec, settings, store=store), take_over=take_over).store.dataset()


def _drive(
    prepared: Prepared,
    store: Store,
    ledger: Ledger,
    lease: Lease,
    stopped: threading.Event,
    on_progress: Callable[[Progress], None],
) -> Progress:
    journal = Journal(store.run.events)
    spec, plan = prepared.spec, prepared.plan
    cells = store.grid.size * len(store.candidates)
    progress = Progress(cells, ledger.cells_done())
    journal.write(
        "run_started",
        host=lease.holder.host,
        pid=lease.holder.pid,
        job=lease.holder.job,
        cluster=spec.cluster.kind,
        workers=prepared.cluster.workers,
        cells=cells,
        cells_done=progress.cells_done,
    )
    context = Context(str(store.path), spec.model_dump_json(), lease.holder.nonce, UNIT_SECONDS)
    cluster = make_cluster(spec.cluster, store.run.path, journal.write)
    result = "failed"
    try:
        with settings(), contextlib.closing(cluster):
            drive = Drive(
                cluster.start(),
                cluster,
                ledger,
                context,
                journal,
                progress,
                spec.cluster.start_timeout,
                prepared.n_splits,
                on_progress,
                stopped.is_set,
                lease.check,
            )
            drive.run(_units(plan, ledger))
        result = "complete"
    except BaseException as error:
        result = type(error).__name__
        raise
    finally:
        journal.write(
            "run_ended",
            result=result,
            units=progress.units,
            fits=progress.fits,
            failed=progress.failed,
            seconds=round(progress.seconds, 3),
        )
    return progress


def _units(plan: Plan, ledger: Ledger) -> Iterator[Unit]:
    """Yield what is left to do, chunk by chunk."""
    for chunk in plan.result_chunks():
        if chunk not in ledger.folded:
            yield from plan.units(chunk, ledger.covered(chunk))


def _create(prepared: Prepared) -> Store:
    spec, source, plan = prepared.spec, prepared.source, prepared.plan
    return create_store(
        Path(spec.output.store),
        spec,
        plan.grid,
        plan.chunks,
        prepared.n_splits,
        source.kept_coordinates,
        source_identity=source.identity(),
        versions=versions(),
    )


def _existing(spec: SweepSpec, source: Source) -> Store | None:
    """Return the store if there is one of this very sweep, None if there is none."""
    path = Path(spec.output.store)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    store = Store.open(path)
    if store.header.digest != spec.digest():
        changes = "\n".join(f"  {change}" for change in _changes(store.spec, spec))
        raise StoreError(
            f"{path} holds results of another spec; changed:\n{changes}\n"
            "name another output.store, or delete this one"
        )
    if store.header.source != source.identity():
        raise StoreError(
            f"{path} holds results of other data: the variables' metadata or coordinates of "
            f"{spec.data.store} changed since; name another output.store"
        )
    return store


def _changes(old: SweepSpec, new: SweepSpec) -> list[str]:
    """Return what differs between two specs, a line each, by dotted key."""
    before, after = _flat(old.defining()), _flat(new.defining())
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} in the store, {after.get(key, absent)} in the spec"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, absent) != after.get(key, absent)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
        else None
    )
    if items is None:
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found.update(_flat(item, f"{path}.{key}" if path else str(key)))
    return found


def _output_faults(spec: SweepSpec) -> Iterable[Fault]:
    if "://" in spec.output.store:
        message = f"'{spec.output.store}' is a URL; results need a file system with renames"
        yield Fault("output.store", message)
        return
    path = Path(spec.output.store)
    if path == Path(spec.data.store):
        yield Fault("output.store", "is the data set itself; name another place")
    elif path.exists() and not path.is_dir():
        yield Fault("output.store", f"'{path}' is a file; name another place")
    place = path if path.exists() else path.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        yield Fault("output.store", f"'{place}' is a file, so nothing can be made below it")
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Fault("output.store", f"no permission to write in '{place}'; name another place")


def _name_faults(
    spec: SweepSpec, source: Source, candidates: tuple[Candidate, ...]
) -> Iterable[Fault]:
    """Yield coordinates of the data that are named like arrays of the store."""
    arrays = {a.name for a in result_arrays(spec.metric_labels, spec.refit_metric, candidates)}
    for name in map(str, source.kept_coordinates.variables):
        if name in arrays or name in {"candidate", "split", "candidate_id", "candidate_json"}:
            message = f"its coordinate '{name}' is named like an array of the results; rename it"
            yield Fault("data.store", message)


def _fitting_faults(spec: SweepSpec, source: Source) -> Iterable[Fault]:
    """Yield faults of models and splits that only the data shows."""
    n_samples = source.n_samples
    for index, model in enumerate(spec.models):
        estimator = estimators.build_estimator(model.estimator, model.pipeline)
        key = f"models.{index}"
        if not spec.targets and estimators.needs_target(estimator):
            yield Fault("data.target", f"is missing, but {key} needs one")
        try:
            estimators.build_scorers(estimator, spec.search.scoring)
        except (TypeError, ValueError) as error:
            yield Fault("search.scoring", f"does not suit {key}: {error}")
        splitter = estimators.build_splitter(spec.search.cv, estimators.is_classifier(estimator))
        try:
            next(iter(splitter.split(np.zeros((n_samples, 1)), np.zeros(n_samples, dtype=int))))
        except ValueError as error:
            text = f"a partition has {n_samples} samples at the most, too few: {error}"
            yield Fault("search.cv", text)
            return


def _n_splits(spec: SweepSpec, source: Source) -> int:
    """Return the largest number of splits that any partition can have."""
    counts = set()
    for model in spec.models:
        estimator = estimators.build_estimator(model.estimator, model.pipeline)
        splitter = estimators.build_splitter(spec.search.cv, estimators.is_classifier(estimator))
        counts.add(estimators.count_splits(splitter, source.n_samples))
    return max(counts)


def _workload(
    spec: SweepSpec, source: Source, candidates: tuple[Candidate, ...], n_splits: int
) -> Workload:
    arrays = result_arrays(spec.metric_labels, spec.refit_metric, candidates)
    fixed = len(source.kept_coordinates.variables) + len(candidates[0].params) * 2 + FIXED_FILES
    return Workload(
        grid=source.grid,
        n_candidates=len(candidates),
        n_splits=n_splits,
        n_metrics=len(spec.metrics),
        n_samples=source.n_samples,
        n_features=len(spec.data.features),
        n_outputs=1 if source.separate else len(spec.targets),
        itemsize=np.dtype(spec.data.dtype).itemsize,
        source_bytes=source.source_bytes,
        partition_bytes=source.partition_bytes,
        chunk_bytes=source.chunk_bytes,
        n_chunked_arrays=len(arrays),
        n_other_files=len(arrays) + 2 * fixed,
    )


def _n_chunks(store: Store) -> int:
    return int(np.prod(store.grid.chunk_grid(store.header.chunks)))


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; a second one acts as before."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        stopped.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def versions() -> dict[str, str]:
    """Return versions of Python and the libraries, and the CPU model."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **found, "cpu": _cpu_model()}


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
