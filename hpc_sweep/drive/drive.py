"""The driver's loop: a bounded window of units in flight, deaths, folds, waiting for workers.

It knows no search: what a task does is handed in.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError

from hpc_sweep.clusters import Cluster
from hpc_sweep.drive.progress import Progress, Speed
from hpc_sweep.drive.protocols import Done, Tasks
from hpc_sweep.drive.roster import Roster
from hpc_sweep.drive.workers import Workers
from hpc_sweep.errors import ClusterError, DiskError, Interrupted, SweepError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store import Folded, Journal, Outage, Receipt

WINDOW_PER_WORKER = 3
"""Units in flight per worker: one at work, and the next ones known to the scheduler."""

GUARDED_FROM = 2
"""Deaths of a unit's workers from which on its fits are done in a process of their own."""

MOST_DEATHS = 6
"""A unit whose worker died this often, guarded or not, ends the run."""

TICK_S = 0.5
STEP_EVERY_S = 10.0
"""How often at the most the event log is told of a step."""

RESULT_S = 30
"""How long to wait for a result whose worker may be gone."""


@dataclass
class Drive:
    """One run of the loop.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    cluster : Cluster
        Asked for rejections, reasons and replacements while workers are missing.
    ledger : Done
        What is done: the ledger.
    tasks : Tasks
        What to do.
    journal : Journal
        Where events go.
    progress : Progress
        Kept up to date.
    outage : Outage
        Of the disk: while it lasts, nothing is handed out.
    start_timeout_s : float
        How long to be without any worker.
    on_progress : callable
        Told about twice a second.
    stopped, draining : callable
        Whether to stop at once, and whether to hand out nothing more but wait for what flies.
    check_lease : callable
        Raises when the lease is lost.
    on_receipt, halves, finishing : callable
        Told of each unit that is done; cuts one whose worker died; gives what is to follow one.
    roster : Roster, optional
        Of a run of which this is not the first loop.
    """

    client: Client
    cluster: Cluster
    ledger: Done
    tasks: Tasks
    journal: Journal
    progress: Progress
    outage: Outage
    start_timeout_s: float
    on_progress: Callable[[Progress], None] = lambda progress: None
    stopped: Callable[[], bool] = lambda: False
    draining: Callable[[], bool] = lambda: False
    check_lease: Callable[[], None] = lambda: None
    on_receipt: Callable[[Receipt], None] = lambda receipt: None
    halves: Callable[[Unit], Sequence[Unit]] = lambda unit: (unit,)
    finishing: Callable[[Unit], Sequence[Unit]] = lambda unit: ()
    clock: Callable[[], float] = time.monotonic
    roster: Roster | None = None
    _speed: Speed = field(default_factory=Speed)
    _ready: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _flying: dict[Any, Unit | Chunk] = field(default_factory=dict)
    _again: deque[Unit] = field(default_factory=deque)
    _deaths: Counter[str] = field(default_factory=Counter)
    _drained: bool = False
    _told_step: tuple[float, str] = float("-inf"), ""

    def __post_init__(self) -> None:
        roster = self.roster or Roster(self.client, self.cluster, self.journal)
        self._workers = Workers(
            self.client,
            self.cluster,
            self.journal,
            self.progress,
            self.start_timeout_s,
            roster,
            self.clock,
        )

    def run(self, units: Iterable[Unit]) -> None:
        """Hand out all units, fold what is complete, and return when nothing is left.

        Raises
        ------
        ClusterError
            When there are no workers for `start_timeout_s`, or the queue refused them.
        DiskError
            When the disk refuses for longer than it is waited for.
        SweepError
            What a task raised for the whole run: the lease, the store.
        Interrupted
            When `stopped` said so.
        """
        waiting = iter(units)
        for chunk in list(self.ledger.complete()):
            self._fold(chunk)
        gc.freeze()  # else looked through again and again: half of the time with 256 workers
        try:
            while True:
                self._tick()
                self._workers.look()
                with self.journal.together():
                    self._hand_out(waiting)
                if self._flying:
                    self._collect()
                elif self.outage.error is not None:
                    if self.draining():
                        self.outage.probe()  # a disk that still refuses ends a chain
                        self.outage.error = None
                    time.sleep(TICK_S)
                elif self.draining() and not self.ledger.is_complete:
                    raise Interrupted("drained before its end; the same command goes on from here")
                elif self.progress.workers or self.ledger.is_complete:
                    return
        finally:
            gc.unfreeze()
            for future in self._flying:
                future.cancel()

    def _hand_out(self, waiting: Iterator[Unit]) -> None:
        if self.draining():
            self._drop_waiting()
            return
        if self._disk_refuses():
            return
        window = WINDOW_PER_WORKER * self.progress.workers
        while len(self._flying) < window:
            unit = self._again.popleft() if self._again else next(waiting, None)
            if unit is None:
                return
            self.journal.write("unit_started", unit=unit.key)
            self._speed.begin(self.clock())
            self._fly(self._submit(unit), unit)

    def _submit(self, unit: Unit) -> Any:
        guarded = self.tasks.guards and self._deaths[unit.key] >= GUARDED_FROM
        if unit.n_cells:
            return self.tasks.evaluate(self.client, unit, guarded=guarded)
        parts = self.ledger.parts.get(unit.chunk, [])
        return self.tasks.score(self.client, unit, parts, guarded=guarded)

    def _disk_refuses(self) -> bool:
        """Return whether the disk is waited for; folds that it refused are tried again after."""
        if self.outage.error is None:
            return False
        if self.outage.lasts():
            self.progress.note = self.outage.note
            return True
        self._fold_complete()
        return False

    def _fold_complete(self) -> None:
        """Fold what is complete and not at work: what the disk refused is tried again."""
        for chunk in list(self.ledger.complete()):
            if chunk not in self._flying.values():
                self._fold(chunk)

    def _drop_waiting(self) -> None:
        """Cancel units that no worker has begun, so that draining takes one unit's time."""
        if self._drained:
            return
        self._drained = self.progress.draining = True
        begun = self.tasks.begun(self.client)
        for future, what in list(self._flying.items()):
            if isinstance(what, Unit) and future.key not in begun:
                del self._flying[future]
                future.cancel()
        self.journal.write("draining", units=len(self._flying))

    def _fly(self, future: Any, what: Unit | Chunk) -> None:
        self._flying[future] = what
        future.add_done_callback(self._ready.put)

    def _collect(self) -> None:
        """Take the finished tasks, or nothing within a tick."""
        finished = [each for each in self._finished() if each in self._flying]
        together = self._gather([each for each in finished if isinstance(each, Future)])
        with self.journal.together():
            for future in finished:
                self._take(future, together)

    def _finished(self) -> Iterator[Any]:
        with contextlib.suppress(queue.Empty):
            yield self._ready.get(timeout=TICK_S)
            while True:
                yield self._ready.get_nowait()

    def _gather(self, finished: Sequence[Future]) -> dict[Future, Any]:
        """Fetch results at once: one by one they would be fetched at 80 a second."""
        good = [future for future in finished if future.status == "finished"]

        async def gather() -> Any:
            return await self.client.gather(good, asynchronous=True)

        try:
            results = self.client.sync(gather, callback_timeout=RESULT_S) if len(good) > 1 else []
        except Exception:  # of one of them, which is told when it is fetched alone
            return {}
        return dict(zip(good, results, strict=False))

    def _take(self, future: Any, together: Mapping[Future, Any]) -> None:
        """Deal with one finished task, whose result may have been fetched with others."""
        what = self._flying[future]
        if future.status == "error":
            del self._flying[future]
            self._failed(what, future.exception())
            return
        try:
            known = future in together
            result = together[future] if known else future.result(timeout=RESULT_S)
        except TimeoutError:  # its worker went with the receipt; it is computed again
            future.add_done_callback(self._ready.put)
            return
        except (FutureCancelledError, KilledWorker) as error:
            del self._flying[future]
            self._failed(what, error)
            return
        del self._flying[future]
        works_again = self.outage.worked()
        if works_again:
            self.journal.write("disk_works")
        if isinstance(what, Unit):
            self._unit_done(what, result)
        else:
            self._folded(what, result)
        if works_again:
            self._fold_complete()

    def _folded(self, chunk: Chunk, folded: Folded) -> None:
        """Note that a chunk was folded, or hand out what it lacks for that."""
        share = len(folded.unscored) // (WINDOW_PER_WORKER * max(1, self.progress.workers))
        lacking = self.ledger.fold(chunk, folded, max(1, share))
        self._again.extend(lacking)
        if not lacking:
            self.progress.chunks_folded += 1
            self.journal.write("chunk_folded", chunk=list(chunk))

    def _unit_done(self, unit: Unit, receipt: Receipt) -> None:
        done = receipt.part.unit
        self.journal.write(
            "unit_done",
            unit=done.key,
            worker=receipt.worker,
            seconds=round(receipt.seconds, 3),
            fits=round(done.n_cells * self.progress.fits_per_cell),
            failed=receipt.failed,
            **({"reasons": dict(receipt.reasons)} if receipt.reasons else {}),
            peak_bytes=receipt.peak_bytes,
        )
        self.on_receipt(receipt)
        self._workers.worked_s += receipt.seconds
        self.progress.unit_done(done.n_cells, receipt.failed, receipt.reasons)
        self._speed.add(self.clock(), done.n_cells, self.progress.workers)
        if done.stop < unit.stop:
            rest = replace(unit, start=done.stop)
            self._deaths[rest.key] = min(self._deaths[unit.key], GUARDED_FROM)
            self._again.append(rest)
        complete, following = self.ledger.add(receipt.part), self.finishing(done)
        self._again.extendleft(following)
        if complete and not following:
            self._fold(done.chunk)

    def _fold(self, chunk: Chunk) -> None:
        try:
            self.check_lease()
        except DiskError as error:
            self._refused(error)
            return
        self._fly(self.tasks.fold(self.client, chunk, self.ledger.parts.get(chunk, [])), chunk)

    def _failed(self, what: Unit | Chunk, error: BaseException | None) -> None:
        """Deal with a task that raised or whose worker died."""
        if isinstance(error, DiskError):
            self._refused(error)
            if isinstance(what, Unit):  # a chunk is complete and so not forgotten
                self._again.append(what)
            return
        if not isinstance(error, (KilledWorker, FutureCancelledError)):
            raise error if isinstance(error, SweepError) else _our_fault(what, error)
        if self.client.status != "running":
            raise ClusterError("the Dask scheduler went away; run the same command again")
        if not isinstance(what, Unit):
            self._fold(what)
            return
        self._deaths[what.key] += 1
        deaths = self._deaths[what.key]
        last = getattr(error, "last_worker", None)
        self.journal.write(
            "unit_lost", unit=what.key, deaths=deaths, worker=getattr(last, "address", "")
        )
        if deaths >= MOST_DEATHS:
            guarded = ", the last ones while its fits were in a process of their own"
            raise ClusterError(
                f"{deaths} workers died at unit {what.key}{guarded if self.tasks.guards else ''}: "
                "the nodes' own logs may say why; run the same command again"
            )
        for part in self.halves(what):
            self._deaths[part.key] = max(self._deaths[part.key], deaths)
            self._again.append(part)

    def _refused(self, error: DiskError) -> None:
        if self.outage.begin(error):
            self.journal.write("disk_refuses", error=error.strerror)

    def _tick(self) -> None:
        if self.stopped():
            raise Interrupted("stopped; what is done is kept, the same command goes on from here")
        self.progress.in_flight = len(self._flying)
        self.progress.seconds = self._workers.seconds
        self.progress.pace(self._speed, self.clock())
        self._note_step(self.tasks.step())
        self.on_progress(self.progress)

    def _note_step(self, step: str) -> None:
        """Show what the driver is at in a unit, and write it down now and then."""
        self.progress.step = step
        now = self.clock()
        if step and step != self._told_step[1] and now - self._told_step[0] >= STEP_EVERY_S:
            self._told_step = now, step
            self.journal.write("step", step=step)


def _our_fault(what: Unit | Chunk, error: BaseException | None) -> SweepError:
    place = f"unit {what.key}" if isinstance(what, Unit) else f"the fold of chunk {what}"
    failure = SweepError(f"{place} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
