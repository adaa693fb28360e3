"""The driving of one run: what the loop is given, and what is written down of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc_sweep.budget import Budget, drivers_cores
from hpc_sweep.drive import Drive, Progress, Record, Tasks
from hpc_sweep.errors import DiskError, Interrupted, SweepError
from hpc_sweep.plan import Pace, Plan, Unit, format_bytes
from hpc_sweep.prepare import PeersWay, Prepared, Rechunked
from hpc_sweep.source import CopiedSource
from hpc_sweep.stops import Stops
from hpc_sweep.store import (
    Journal,
    Lease,
    Ledger,
    Receipt,
    RunFolder,
    count_answers,
    group_access,
)
from hpc_sweep.sweep.looping import loop_on_cluster, told_of_its_end
from hpc_sweep.sweep.performance import DaskReport
from hpc_sweep.work import (
    CollectionTasks,
    Context,
    DaskMLTasks,
    Exchange,
    Peers,
    PeersLostError,
    PeerTasks,
    PersistingTasks,
    RequestTasks,
    SlabJournal,
    Slabs,
    SlabTasks,
)


class Driving:
    """One run of a driver that has the store's lease.

    Parameters
    ----------
    prepared : Prepared
        The sweep.
    run : RunFolder
        Of this driver.
    ledger : Ledger
        What is done already, and what its share is.
    lease : Lease
        Of the store.
    stops : Stops
        Tells when to end.
    context : Context
        What workers are told.
    report : DaskReport
        Recorded before the cluster closes.
    on_progress, say : callable
        Told how far it is, and what else happens.
    """

    def __init__(
        self,
        prepared: Prepared,
        run: RunFolder,
        ledger: Ledger,
        lease: Lease,
        stops: Stops,
        context: Context,
        report: DaskReport,
        on_progress: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self._prepared = prepared
        self._run = run
        self._ledger = ledger
        self._lease = lease
        self._stops = stops
        self._context = context
        self._report = report
        self._on_progress = on_progress
        self._say = say
        spec, cores = prepared.spec, prepared.cluster.workers
        self._own_cores, self._apart = drivers_cores(spec.cluster, cores, lease.holder.job)
        self._journal = Journal(run.events)
        limit = spec.cluster.max_core_hours
        self._budget = Budget(self._journal, limit, self._own_cores, self._apart)
        workload, strategy = prepared.plan.workload, ledger.store.strategy
        self._progress = progress = Progress(
            ledger.n_cells,
            ledger.cells_done(),
            name=spec.name or Path(spec.output.store).stem,
            fits_per_cell=workload.n_fits
            // int(strategy.columns_in_spec.sum() * prepared.plan.grid.size),
            workers_asked=cores,
            chunks=ledger.n_chunks,
            chunks_folded=len(ledger.folded),
        )
        self._pace = Pace(
            prepared.plan,
            ledger.n_cells - progress.cells_done,
            lambda: progress.workers,
            prepared.cluster.worker_memory_bytes(),
        )
        memory, for_group = prepared.memory_bytes, context.for_group
        self._record = Record(ledger.store, self._journal, progress, self._pace, memory, for_group)

    def drive(self) -> Progress:
        """Do what is left, and write down how it went.

        Raises
        ------
        SweepError
            Its kinds say why the run ended before all was done.
        """
        progress = self._progress
        self._write_start()

        def end(told: dict[str, str]) -> None:
            self._record.end(told["result"])
            self._journal.write(
                "run_ended",
                **told,
                units=progress.units,
                fits=progress.fits,
                failed=progress.failed,
                seconds=round(progress.seconds, 3),
            )

        with told_of_its_end(progress, self._budget, self._stops, end):
            self._do_units()
        return progress

    def _write_start(self) -> None:
        holder, ledger, cluster = self._lease.holder, self._ledger, self._prepared.cluster
        self._journal.write(
            "run_started",
            host=holder.host,
            pid=holder.pid,
            job=holder.job,
            cluster=self._prepared.spec.cluster.kind,
            workers=cluster.workers,
            name=self._progress.name,
            share=f"{self._run.share.index}/{self._run.share.count}",
            cells=ledger.n_cells,
            cells_done=self._progress.cells_done,
            fits_per_cell=self._progress.fits_per_cell,
            chunks=ledger.n_chunks,
            chunks_folded=len(ledger.folded),
            answers=count_answers(self._run),
            own_cores=self._own_cores,
            workers_apart=self._apart,
            **cluster.charge_facts(),
        )

    def _do_units(self) -> None:
        """Have the rechunked copy made, and all units done."""
        ledger, plan = self._ledger, self._prepared.plan
        record_version = self._version_recorder()

        def on_receipt(receipt: Receipt) -> None:
            self._record.add(receipt)
            record_version(receipt)

        def search(tasks: Tasks, check: Callable[[], None] = lambda: None) -> None:
            def on_progress(progress: Progress) -> None:
                self._on_tick(progress)
                check()

            self._pace.cells = ledger.n_cells - self._progress.cells_done
            self._enter("fitting", self._progress)
            loop(
                ledger=ledger,
                tasks=tasks,
                journal=self._journal,
                progress=self._progress,
                on_progress=on_progress,
                on_receipt=on_receipt,
                halves=plan.halves,
                **({"finishing": ledger.finishing} if plan.finishes else {}),
            ).run(_units(plan, ledger, self._pace))

        with self._tasks() as tasks, self._loop() as loop:
            if not self._search_by_peers(loop, search):
                with self._rechunked(loop):
                    search(tasks)
        if not ledger.is_complete:
            left = ledger.n_chunks - len(ledger.folded)
            raise SweepError(f"all units are done, but {left} result chunks are not folded")

    def _loop(self) -> contextlib.AbstractContextManager[Callable[..., Drive]]:
        """Return the context with the cluster, which gives the driver's loop on it."""
        return loop_on_cluster(
            self._prepared.spec.cluster,
            self._run,
            self._journal,
            self._stops,
            self._lease,
            self._say,
            lambda phase: self._enter(phase, self._progress),
            lambda: self._stops.draining() or self._budget.is_used_up(),
            self._report,
        )

    def _enter(self, phase: str, progress: Progress) -> None:
        """Show that a phase begins, and write it down."""
        progress.phase = phase
        self._journal.write("phase", phase=phase)
        self._on_progress(progress)

    def _on_tick(self, progress: Progress) -> None:
        self._budget.update(progress.workers)
        self._on_progress(progress)

    def _tasks(self) -> contextlib.AbstractContextManager[Tasks]:
        """Return the context with what is done on workers."""
        if self._prepared.strategy.on_blocks:
            return CollectionTasks(self._context)
        if self._prepared.spec.search.engine == "dask-ml":
            return DaskMLTasks(self._context, self._prepared.cluster.workers)
        plan = self._prepared.plan
        if plan.is_asked:
            return RequestTasks(self._context, plan, self._prepared.cluster.workers)
        if plan.persisted:
            return contextlib.nullcontext(PersistingTasks(self._context, plan))
        return contextlib.nullcontext(self._context)

    def _search_by_peers(self, loop: Callable[..., Drive], search: Callable[..., None]) -> bool:
        """Search blocks that workers keep among themselves; return whether that was possible."""
        made = self._prepared.rechunked
        if made is None or made.by_peers is None:
            return False
        try:
            peers = self._exchange(made, made.by_peers, loop)
            with self._peer_tasks(peers) as tasks:
                search(tasks, peers.check)
        except PeersLostError as error:
            if self._stops.draining():
                raise Interrupted("drained; the same command goes on from here") from error
            self._progress.interrupt()
            self._journal.write("peers_lost", reason=str(error))
            self._say(f"{error}: going on with a copy")
            return False
        return True

    def _exchange(self, made: Rechunked, way: PeersWay, loop: Callable[..., Drive]) -> Peers:
        """Have workers rechunk data among themselves, and keep it."""
        self._say(f"rechunking {format_bytes(way.nbytes)} in the memory of the workers first")
        peers = Peers(made.source.cut, self._ledger.store, way.layouts)
        workers = self._prepared.cluster.workers
        seconds = way.seconds / workers
        with (
            self._copying(1, 1, way.nbytes, way="p2p") as progress,
            Exchange(self._context, peers, workers, way.least_workers, seconds) as exchange,
        ):

            def on_progress(progress: Progress) -> None:
                self._on_tick(progress)
                if self._stops.draining():
                    exchange.end()

            loop(
                ledger=exchange,
                tasks=exchange,
                journal=SlabJournal(self._journal.path),
                progress=progress,
                on_progress=on_progress,
                on_receipt=self._record.add_pass,
            ).run(exchange.units())
        return peers

    @contextlib.contextmanager
    def _copying(self, slabs: int, left: int, size_bytes: int, **facts: str) -> Iterator[Progress]:
        """Context with the progress of a copy of the data, which is whole at its end."""
        progress = self._progress.of_copy(slabs, slabs - left, size_bytes)
        self._journal.write("rechunking", slabs=left, of=slabs, bytes=size_bytes, **facts)
        self._enter("copying", progress)
        try:
            yield progress
        finally:
            self._progress.take_workers(progress)
        self._record.rechunk_s += progress.seconds
        self._journal.write("rechunked")

    def _peer_tasks(self, peers: Peers) -> contextlib.AbstractContextManager[Tasks]:
        plan = self._prepared.plan
        if plan.is_asked:
            return RequestTasks(self._context, plan, self._prepared.cluster.workers, peers)
        if plan.persisted:
            return contextlib.nullcontext(PersistingTasks(self._context, plan, peers))
        return contextlib.nullcontext(PeerTasks(self._context, peers))

    @contextlib.contextmanager
    def _rechunked(self, loop: Callable[..., Drive]) -> Iterator[None]:
        """Context in which the sweep's rechunked copy is there, if it wants one; then deleted."""
        made = self._prepared.rechunked
        if made is None:
            yield
            return
        if not made.is_whole:
            self._say(f"rechunking data into {made.copy.folder} first")
            self._rechunk(made.source, loop)
        yield
        made.copy.remove()

    def _rechunk(self, source: CopiedSource, loop: Callable[..., Drive]) -> None:
        """Copy what is missing of a rechunked copy."""
        copy = source.copy
        with group_access(self._context.for_group):
            copy.begin(source.streams)
        slabs = Slabs(copy)
        direct = source.direct.dataset
        size_bytes = sum(int(direct[name].nbytes) for name in copy.tiling.names)
        with self._copying(slabs.n_all, slabs.n_open, size_bytes) as progress:
            loop(
                ledger=slabs,
                tasks=SlabTasks(self._context, str(copy.folder)),
                journal=SlabJournal(self._journal.path),
                progress=progress,
                on_progress=self._on_tick,
                on_receipt=self._record.add_pass,
            ).run(slabs.units())
            copy.end()

    def _version_recorder(self) -> Callable[[Receipt], None]:
        """Return a function that records versions of scikit-learn that the store does not know."""
        store = self._ledger.store
        known = {store.header.versions.get("scikit-learn"), *store.header.mixed_versions}

        def record(receipt: Receipt) -> None:
            if receipt.scikit_learn not in known:
                # what the disk refuses is tried again at the next receipt
                with contextlib.suppress(DiskError), group_access(self._context.for_group):
                    store.record_version(receipt.scikit_learn)
                    self._journal.write("version_mixed", scikit_learn=receipt.scikit_learn)
                    known.add(receipt.scikit_learn)

        return record


def _units(plan: Plan, ledger: Ledger, pace: Pace) -> Iterator[Unit]:
    """Yield what is left to do, cut when it is asked for."""
    chunks = (chunk for chunk in ledger.chunks if chunk not in ledger.folded)
    if plan.is_sliced:
        units = plan.slices({chunk: ledger.covered(chunk) for chunk in chunks}, pace.columns)
    else:
        units = (
            unit
            for chunk in chunks
            for unit in plan.units(chunk, ledger.covered(chunk), pace.partitions)
        )
    for unit in units:
        pace.hand_out(unit)
        yield unit
