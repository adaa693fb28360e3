"""Before a sweep: check everything against everything, and plan it. Nothing is written."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_sweep import estimators, strategies
from hpc_sweep.candidates import parameter_names
from hpc_sweep.clusters import Cluster, make_cluster
from hpc_sweep.errors import Fault, PlanError, SpecError, StoreError, disk_errors
from hpc_sweep.plan import (
    BASELINE_BYTES,
    Plan,
    format_bytes,
    make_plan,
)
from hpc_sweep.prepare.blocks import block_faults
from hpc_sweep.prepare.rechunking import Rechunked, Room, rechunked
from hpc_sweep.prepare.weighing import weight_faults
from hpc_sweep.prepare.workloads import workload_of
from hpc_sweep.search import unsuited
from hpc_sweep.source import Copy, Source, open_source
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import (
    Change,
    Ledger,
    Store,
    existing_store,
    group_fault,
    refit_lengths,
    result_arrays,
    run_folder,
)
from hpc_sweep.strategies import Strategy


@dataclass(frozen=True)
class Prepared:
    """A sweep that is known to be good: nothing is written yet.

    Attributes
    ----------
    spec : SweepSpec
        The spec.
    source : Source
        The opened data.
    strategy : Strategy
        With its candidates.
    n_splits : int
        Length of ``split``.
    cluster : Cluster
        Not started.
    plan : Plan
        How it is cut.
    store : Store or None
        What exists already, under the same conditions.
    change : Change or None
        How its candidates differ from those of the spec.
    ways : Rechunked or None
        How data that is chunked the wrong way may be read.
    """

    spec: SweepSpec
    source: Source
    strategy: Strategy
    n_splits: int
    cluster: Cluster
    plan: Plan
    store: Store | None
    change: Change | None = None
    ways: Rechunked | None = None

    @property
    def memory_bytes(self) -> int:
        """Projected for a worker."""
        made = self.rechunked
        if made is None:
            return self.plan.memory_bytes
        return max(self.plan.memory_bytes + made.kept_bytes, made.memory_bytes)

    @property
    def rechunked(self) -> Rechunked | None:
        """What is made of data that is chunked the wrong way, before the first unit."""
        return None if self.ways is None or self.ways.way == "never" else self.ways

    @property
    def copy(self) -> Copy | None:
        """The copy that is read in place of the data."""
        return None if self.rechunked is None else self.rechunked.copy


def prepare(spec: SweepSpec, origin: str = "the spec", *, drivers: int = 1) -> Prepared:
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
    sections: dict[str, Any] = {"data": spec.data, "search": spec.search}
    sections.update({f"models.{index}": model for index, model in enumerate(spec.models)})
    source, faults = _check_sections(sections)
    folder = run_folder(spec.output.store)
    cluster = make_cluster(spec.cluster, folder.path, lambda event, **facts: None)
    faults += cluster.faults()
    with disk_errors(spec.output.store, "read"):
        faults += _output_faults(spec)
    undrawable = any(".param_distributions" in fault.path for fault in faults)
    strategy = None if undrawable else strategies.draw(spec)
    faults += strategy.repeats() if strategy is not None else ()
    if source is not None and strategy is not None and not faults:
        faults += _name_faults(strategy, source)
        faults += _fitting_faults(strategy, source)
        faults += _engine_faults(strategy)
        faults += weight_faults(strategy) if source.has_weights else ()
        faults += block_faults(strategy, source) if strategy.on_blocks else ()
    if faults or source is None or strategy is None:
        raise SpecError(faults, origin)
    n_splits = _n_splits(spec, source)
    store = existing_store(spec, source.identity())
    change = None
    if store is not None:
        wanted = strategies.draw(spec, store.strategy)
        change = Change.between(store.strategy, wanted)
        strategy = store.strategy if change is None else wanted
    memory = cluster.worker_memory_bytes()
    plan_of = functools.partial(
        make_plan,
        workers=cluster.workers,
        max_files=spec.output.max_files,
        chunks=None if store is None else store.header.chunks,
        least_chunks=drivers,
    )

    def planned(data: Source, kept_bytes: int = 0) -> Plan:
        left = None if memory is None else memory - kept_bytes
        workload = workload_of(strategy, data, n_splits, store, cluster.workers)
        return plan_of(workload, worker_memory_bytes=left)

    def factor_of(data: Source, kept_bytes: int) -> float:
        try:
            return planned(data, kept_bytes).read_factor
        except PlanError:
            return math.inf

    ways = None
    if spec.cluster.rechunk != "never" and drivers == 1 and not strategy.on_blocks:
        room = Room(cluster.workers, memory, cluster.lifetime_s(), _rest_s(store, cluster))
        shared = spec.search.engine == "shared"
        asked = spec.cluster.rechunk
        ways = rechunked(source, folder.copy, factor_of, room, asked, may_peer=shared)
    if ways is not None and ways.way != "never":
        source, plan = ways.source, planned(ways.source, ways.kept_bytes)
    else:
        plan = planned(source)
    if store is not None and change is not None:
        _check_change(store, change, plan, n_splits, memory)
    return Prepared(spec, source, strategy, n_splits, cluster, plan, store, change, ways)


def _rest_s(store: Store | None, cluster: Cluster) -> float | None:
    """Return how long all workers need for what is left, by the runs so far."""
    runs = [] if store is None else [run for run in store.header.runs if run["came"]]
    cells = sum(run["cells"] for run in runs)
    if store is None or not cells:
        return None
    ledger = Ledger.read(store)
    cell_s = sum(run["came"]["core_seconds"] for run in runs) / cells
    return float(cell_s * (ledger.n_cells - ledger.cells_done()) / cluster.workers)


def _check_change(
    store: Store, change: Change, plan: Plan, n_splits: int, worker_memory_bytes: int | None
) -> None:
    """Refuse candidates that the store has no room for."""
    if n_splits != store.header.n_splits:
        raise StoreError(
            f"{store.path} has {store.header.n_splits} splits, and the spec's models have "
            f"{n_splits}; name another output.store"
        )
    most = store.spec.output.max_files if not change.new else change.strategy.spec.output.max_files
    if change.new and plan.n_files > most:
        raise PlanError(
            f"with {change.new:,} more candidates the store would have {plan.n_files:,} files, but "
            f"output.max_files is {most:,}; raise it"
        )
    needed = BASELINE_BYTES + 2 * math.prod(plan.chunks) * plan.workload.cell_bytes
    if change.new and worker_memory_bytes is not None and needed > worker_memory_bytes:
        raise PlanError(
            f"with {change.new:,} more candidates the results of {math.prod(plan.chunks):,} "
            f"partitions, which lie in one chunk, need {format_bytes(needed)} of memory, but a "
            f"worker has {format_bytes(worker_memory_bytes)}; raise cluster.memory"
        )


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
            spaces = {
                name: getattr(section, name) for name in ("param_grid", "param_distributions")
            }
            faults += estimators.check_model(path, section.estimator, section.pipeline, spaces)
        elif path == "search":
            faults += estimators.check_search(
                section.splitter, section.scoring, grouped=section.groups is not None
            )
            models = {place: m for place, m in sections.items() if place.startswith("models.")}
            faults += strategies.faults(section, models)
        else:
            try:
                source = open_source(section, sections.get("search"))
            except SpecError as error:
                faults += error.faults
    return source, faults


def _output_faults(spec: SweepSpec) -> Iterable[Fault]:
    if "://" in spec.output.store:
        message = f"'{spec.output.store}' is a URL; results need a file system with renames"
        yield Fault("output.store", message)
        return
    words = group_fault(spec.output.group) if spec.output.group else ""
    if words:
        yield Fault("output.group", words)
    path = Path(spec.output.store)
    if str(path) in spec.data.places:
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


def _name_faults(strategy: Strategy, source: Source) -> Iterable[Fault]:
    """Yield dimensions and coordinates of the data that are named like arrays of the store."""
    taken = {array.name for array in result_arrays(strategy)} | {*strategy.lengths, "split"}
    taken |= {"candidate_id", "candidate_json", "in_spec", "model", *refit_lengths(strategy.spec)}
    taken |= {f"param_{name}" for name in parameter_names(strategy.candidates)}
    kept = {str(name): "coordinate" for name in source.kept_coordinates.variables}
    for name, what in (dict.fromkeys(source.dims, "dimension") | kept).items():
        if name in taken or (name == "target" and source.separate):
            message = f"its {what} '{name}' is named like an array of the results; rename it there"
            message += ", or in a data.loader"
            yield Fault("data.store", message)


def _fitting_faults(strategy: Strategy, source: Source) -> Iterable[Fault]:
    """Yield faults of models, splits and the hold-out that only the data shows."""
    spec = strategy.spec
    faults = [*source.holdout_faults()]
    yield from faults
    if faults:
        return
    groups = source.group_labels if spec.search.groups is not None else None
    n_samples = source.n_training if groups is None else len(groups)
    for index, model in enumerate(spec.models):
        estimator = estimators.build_estimator(model.estimator, model.pipeline)
        key = f"models.{index}"
        if not source.targets and estimators.needs_target(estimator):
            yield Fault("data.target", f"is missing, but {key} needs one")
        try:
            estimators.build_scorers(estimator, spec.search.scoring)
        except (TypeError, ValueError) as error:
            yield Fault("search.scoring", f"does not suit {key}: {error}")
        if strategy.on_blocks:  # indices would be as many as samples
            continue
        if spec.search.cv == 1:
            what = "one train/test split is for partitions on blocks"
            yield Fault("search.cv", f"must be greater than or equal to 2, got 1; {what}")
            return
        refusal = estimators.split_error(_splitter(spec, estimator), n_samples, groups)
        if refusal is not None:
            what = "samples" if groups is None else f"groups ({spec.search.groups})"
            text = f"a partition has {n_samples} {what} at the most, too few: {refusal}"
            yield Fault("search.cv", text)
            return


def _splitter(spec: SweepSpec, estimator: Any) -> Any:
    return estimators.build_splitter(spec.search.splitter, estimators.is_classifier(estimator))


def _engine_faults(strategy: Strategy) -> Iterable[Fault]:
    """Yield what dask-ml cannot do, where it is asked to."""
    search = strategy.spec.search
    if search.engine != "dask-ml" or strategy.on_blocks:
        return
    if search.strategy not in ("grid", "random"):
        message = f"dask-ml searches grid and random only, not {search.strategy}; shared does"
        yield Fault("search.engine", message)
    if search.timeout is not None:
        yield Fault("search.timeout", "fits of dask-ml cannot be ended; search.engine: shared can")
    for index, model in enumerate(strategy.spec.models):
        own = [each for each in strategy.candidates if each.model == index]
        estimator = estimators.build_estimator(model.estimator, model.pipeline)
        for name, why in unsuited(estimator, parameter_names(own)).items():
            message = f"dask-ml cannot set {why}; search.engine: shared can"
            yield Fault(f"models.{index}.{search.space}.{name}", message)


def _n_splits(spec: SweepSpec, source: Source) -> int:
    """Return the largest number of splits that any partition can have."""
    groups = source.group_labels if spec.search.groups is not None else None
    n_samples = source.n_training if groups is None else len(groups)
    counts = set()
    for model in spec.models:
        estimator = estimators.build_estimator(model.estimator, model.pipeline)
        counts.add(estimators.count_splits(_splitter(spec, estimator), n_samples, groups))
    return max(counts)
