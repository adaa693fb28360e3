"""A sweep from spec to results: prepare, create, drive."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hpc_sweep.budget import Budget, check_budget
from hpc_sweep.choices import RETRIED
from hpc_sweep.clusters import (
    QUEUES,
    Ending,
    current_queue,
    dashboard_lines,
    has_ended,
    make_cluster,
    settings,
)
from hpc_sweep.drive import Drive, Progress, Record, Tasks
from hpc_sweep.errors import (
    BudgetError,
    DiskError,
    Fault,
    Interrupted,
    SpecError,
    StoreError,
    SweepError,
    listed,
)
from hpc_sweep.plan import WHOLE, Pace, Plan, Share, Unit
from hpc_sweep.prepare import (
    Prepared,
    begin,
    check_versions,
    group_of,
    load,
    prepare,
    rank_anew,
    with_memory,
)
from hpc_sweep.source import Copy, Source
from hpc_sweep.spec import SweepSpec
from hpc_sweep.stops import Stops
from hpc_sweep.store import (
    Journal,
    Lease,
    Ledger,
    Outage,
    Receipt,
    RunFolder,
    Store,
    give_all,
    group_access,
    hold,
    probe,
    run_folder,
)
from hpc_sweep.versions import installed
from hpc_sweep.work import (
    CollectionTasks,
    Context,
    DaskMLTasks,
    SlabJournal,
    Slabs,
    SlabTasks,
)

UNIT_SECONDS = 60.0
"""A unit that takes longer leaves a part of what it has; the rest is handed out again."""


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
        Of this run; None when there was nothing to fit.
    ranked : int
        Partitions whose candidates were ranked anew without a fit.
    """

    store: Store
    counts: Mapping[str, int]
    progress: Progress | None
    ranked: int = 0

    @property
    def n_failed(self) -> int:
        """Partitions without a result although they have data."""
        return sum(self.counts[state] for state in ("failed", "timed_out", "out_of_memory"))


def execute(
    spec: SweepSpec,
    *,
    origin: str = "the spec",
    take_over: bool = False,
    mixed_versions: bool = False,
    share: Share = WHOLE,
    retry: Collection[str] = (),
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
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store, or the workers.
    share : Share
        What this driver does, where several work on one store.
    retry : collection of str
        Kinds of failure (``failed``, ``timed_out``, ``out_of_memory``) that are done again.
    on_start, on_progress, say : callable
        Told what is going to be done, how far it is, and what else happens.

    Raises
    ------
    SweepError
        Its kinds say what went wrong; see `hpc_sweep.errors`.
    """
    prepared = prepare(spec, origin, drivers=share.count)
    if prepared.store is not None:
        ledger = Ledger.read(prepared.store, share)
        if ledger.is_complete and prepared.change is None and not retry:
            return Outcome(prepared.store, ledger.summary(), None)
        if share != WHOLE and prepared.change is not None:
            raise StoreError(
                f"{spec.output.store} has other candidates than the spec; "
                f"hpc-sweep submit --drivers {share.count} changes it"
            )
        check_versions(prepared.store, mixed=mixed_versions)
        check_budget(spec, prepared.store, prepared.change)
    elif share != WHOLE:
        raise StoreError(
            f"{spec.output.store} does not exist; hpc-sweep submit --drivers {share.count} makes it"
        )
    _look_where_this_runs(spec, origin, say)
    run = run_folder(spec.output.store, share)
    group = group_of(spec)
    for_group = bool(group is not None or (prepared.store and prepared.store.spec.output.group))
    stops = Stops(Ending(current_queue()))
    with contextlib.ExitStack() as stack:
        # only while files are made: jobs and workers keep what the user's umask says
        with group_access(for_group):
            place = run.make(group).lease
            held = hold(place, take_over=take_over, rivals=run.rivals, has_ended=has_ended, say=say)
            lease = stack.enter_context(held)
            stack.enter_context(stops.signals())
            store = begin(prepared, share, retry, say)
            if group is not None:
                give_all(store.path, group)
            ledger = Ledger.read(store, share)
            ledger.remove_superfluous_parts()
            ranked = rank_anew(ledger, lease.check)
        if ledger.is_complete:
            return Outcome(store, ledger.summary(), None, ranked)
        on_start(prepared, ledger)
        required = ("hpc-sweep",) if mixed_versions else ("hpc-sweep", "scikit-learn")
        context = Context(
            str(store.path),
            spec.model_dump_json(),
            lease.holder.nonce,
            stops.unit_seconds(UNIT_SECONDS),
            {name: installed(name) for name in required},
            str(lease.path),
            for_group,
            spec.search.timeout,
            store.header.revision,
        )
        tasks: Tasks = context
        if prepared.strategy.on_blocks:
            tasks = stack.enter_context(CollectionTasks(context))
        elif spec.search.engine == "dask-ml":
            tasks = stack.enter_context(DaskMLTasks(context, prepared.cluster.workers))
        progress = _drive(prepared, run, ledger, lease, stops, context, tasks, on_progress, say)
        if share == WHOLE:
            store.remove_leftovers()
    return Outcome(store, ledger.summary(), progress, ranked)


def run(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
    take_over: bool = False,
    mixed_versions: bool = False,
    retry: Collection[str] = (),
    memory: str | None = None,
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
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store, or the workers.
    retry : collection of str
        Kinds of failure (``failed``, ``timed_out``, ``out_of_memory``) that are done again.
    memory : str, optional
        Of each worker in this run: ``8GB``, or ``2x`` as much as the spec gives it.

    Returns
    -------
    xarray.Dataset
        The results, lazily opened. What is done already is not done again.
    """
    unknown = [kind for kind in retry if kind not in RETRIED]
    if unknown:
        raise ValueError(f"retry has {listed(unknown)}; there are {listed(RETRIED)}")
    loaded = load(spec, settings, store=store)
    done = execute(
        loaded if memory is None else with_memory(loaded, memory),
        take_over=take_over,
        mixed_versions=mixed_versions,
        retry=retry,
        say=lambda text: warnings.warn(text, stacklevel=2),
    )
    return done.store.dataset()


def _look_where_this_runs(spec: SweepSpec, origin: str, say: Callable[[str], None]) -> None:
    """Warn of a driver outside a job of the queue that it uses, or refuse it."""
    if spec.cluster.kind not in QUEUES or current_queue() is not None:
        return
    if spec.cluster.place == "one_job":
        message = "one_job runs inside a job, and this is none; use hpc-sweep submit"
        raise SpecError([Fault("cluster.place", message)], origin)
    what = "login nodes usually end or forbid long processes; hpc-sweep submit gives it a job"
    if spec.cluster.outside_jobs == "refuse":
        message = f"refuses a driver outside a job here: {what}"
        raise SpecError([Fault("cluster.outside_jobs", message)], origin)
    say(f"the driver runs outside a job: {what}")


def _drive(
    prepared: Prepared,
    run: RunFolder,
    ledger: Ledger,
    lease: Lease,
    stops: Stops,
    context: Context,
    tasks: Tasks,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Progress:
    journal = Journal(run.events)
    spec, plan, store = prepared.spec, prepared.plan, ledger.store
    cells = ledger.n_cells
    progress = Progress(cells, ledger.cells_done())
    # the cores of one job for all are charged whether workers are there or not
    within = spec.cluster.kind == "local" or spec.cluster.place == "one_job"
    apart = not (lease.holder.job and within)
    own_cores = prepared.cluster.workers if not apart else int(bool(lease.holder.job))
    budget = Budget(journal, run, spec.cluster.max_core_hours, own_cores, apart)
    journal.write(
        "run_started",
        host=lease.holder.host,
        pid=lease.holder.pid,
        job=lease.holder.job,
        cluster=spec.cluster.kind,
        workers=prepared.cluster.workers,
        cells=cells,
        cells_done=progress.cells_done,
        chunks_folded=len(ledger.folded),
        own_cores=own_cores,
        workers_apart=apart,
        **prepared.cluster.charge_facts(),
    )

    def on_tick(progress: Progress) -> None:
        budget.update(progress.workers)
        on_progress(progress)

    pace = Pace(
        plan,
        cells - progress.cells_done,
        lambda: progress.workers,
        prepared.cluster.worker_memory_bytes(),
    )
    record = Record(store, journal, progress, pace, plan.memory_bytes, context.for_group)
    record_versions = _record_versions(store, journal, context.for_group)

    def on_receipt(receipt: Receipt) -> None:
        record.add(receipt)
        record_versions(receipt)

    cluster = make_cluster(spec.cluster, run.path, journal.write)
    result = "failed"
    try:
        for text in cluster.warnings():
            say(f"warning: {text}")
        with settings(spec.cluster.dashboard), contextlib.closing(cluster):
            client = cluster.start()
            port = cluster.dashboard_port()
            for text in dashboard_lines(port, current_queue()) if port is not None else ():
                say(text)
            drive = functools.partial(
                Drive,
                client=client,
                cluster=cluster,
                outage=Outage(lambda: probe(store.run.parts), spec.cluster.disk_patience),
                start_timeout_s=spec.cluster.start_timeout,
                stopped=stops.stopped,
                draining=lambda: stops.draining() or budget.is_used_up(),
                check_lease=lease.check,
            )
            with _rechunked(prepared, context, journal, drive, budget, say):
                drive(
                    ledger=ledger,
                    tasks=tasks,
                    journal=journal,
                    progress=progress,
                    fits_per_cell=plan.workload.n_fits
                    // int(store.strategy.columns_in_spec.sum() * plan.grid.size),
                    on_progress=on_tick,
                    on_receipt=on_receipt,
                ).run(_units(plan, ledger, pace))
        if not ledger.is_complete:
            left = ledger.n_chunks - len(ledger.folded)
            raise SweepError(f"all units are done, but {left} result chunks are not folded")
        result = "complete"
    except Interrupted as error:
        result = type(error).__name__
        if budget.is_used_up() and not stops.draining():
            result = BudgetError.__name__
            raise budget.error() from None
        raise
    except BaseException as error:
        result = type(error).__name__
        raise
    finally:
        record.end(result)
        journal.write(
            "run_ended",
            result=result,
            units=progress.units,
            fits=progress.fits,
            failed=progress.failed,
            seconds=round(progress.seconds, 3),
        )
    return progress


@contextlib.contextmanager
def _rechunked(
    prepared: Prepared,
    context: Context,
    journal: Journal,
    drive: Callable[..., Drive],
    budget: Budget,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Context in which the rechunked copy of a sweep is there, if it wants one; then deleted."""
    copy = prepared.copy
    if copy is None:
        yield
        return
    if not copy.is_whole:
        say(f"rechunking data into {copy.folder} first")
        _rechunk(copy, prepared.source, context, journal, drive, budget)
    yield
    copy.remove()


def _rechunk(
    copy: Copy,
    source: Source,
    context: Context,
    journal: Journal,
    drive: Callable[..., Drive],
    budget: Budget,
) -> None:
    """Copy what is missing of a rechunked copy."""
    with group_access(context.for_group):
        copy.begin(source.dataset)
    slabs = Slabs(copy)
    journal.write("rechunking", slabs=slabs.n_open)
    drive(
        ledger=slabs,
        tasks=SlabTasks(context, str(copy.folder)),
        journal=SlabJournal(journal.path),
        progress=Progress(slabs.n_open, 0),
        on_progress=lambda progress: budget.update(progress.workers),
    ).run(slabs.units())
    copy.end()
    journal.write("rechunked")


def _record_versions(store: Store, journal: Journal, for_group: bool) -> Callable[[Receipt], None]:
    """Return a function that records versions of scikit-learn that the store does not know."""
    header = store.header
    known = {header.versions.get("scikit-learn"), *header.mixed_versions}

    def record(receipt: Receipt) -> None:
        if receipt.scikit_learn not in known:
            # what the disk refuses is tried again at the next receipt
            with contextlib.suppress(DiskError), group_access(for_group):
                store.record_version(receipt.scikit_learn)
                journal.write("version_mixed", scikit_learn=receipt.scikit_learn)
                known.add(receipt.scikit_learn)

    return record


def _units(plan: Plan, ledger: Ledger, pace: Pace) -> Iterator[Unit]:
    """Yield what is left to do, chunk by chunk, cut when it is asked for."""
    for chunk in ledger.chunks:
        if chunk not in ledger.folded:
            for unit in plan.units(chunk, ledger.covered(chunk), pace.partitions):
                pace.hand_out(unit)
                yield unit
