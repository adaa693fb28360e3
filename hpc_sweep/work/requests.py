"""A search that asks from the driver: each request is answered in slices, by all workers.

Threads of the driver hold the searches of a few large partitions. They know of a partition how
many samples it and its splits have; the samples stay on the workers that read them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from distributed import Client, Future, KilledWorker

from hpc_sweep.errors import Interrupted
from hpc_sweep.partitions import describe
from hpc_sweep.plan import UNITS_PER_WORKER, Plan, Unit
from hpc_sweep.search import Evaluation, Evaluations, Slice, left_of, slices_of
from hpc_sweep.store import Answers, PartName, Receipt, group_access
from hpc_sweep.strategies import Found, Request
from hpc_sweep.work.asking import Searching
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.evaluation import outcome_of
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.peers import Peers
from hpc_sweep.work.persisting import PersistingTasks
from hpc_sweep.work.slices import Answered, Outline, digest_of, evaluate_request, outline_of, sliced
from hpc_sweep.work.tasks import Context, key_of
from hpc_sweep.work.threads import Handle, ThreadTasks

LEAST_S = 0.1
"""A slice that takes less would not be worth its task."""

TICK_S = 0.5
RESULT_S = 30


@dataclass
class Record:
    """What the requests of a partition have been answered so far; it outlives a worker's death.

    Attributes
    ----------
    answers : list of dict of Slice to Answered or None
        By request: its slices.
    stored : dict of (int, str) to dict of Slice to Answered
        By number and digest of a request: what an earlier driver was answered.
    was_lost : bool
        Whether a worker died of it.
    """

    answers: list[dict[Slice, Answered | None]] = field(default_factory=list)
    stored: dict[tuple[int, str], dict[Slice, Answered]] = field(default_factory=dict)
    was_lost: bool = False

    def take(self, known: Iterable[Mapping[str, Any]]) -> None:
        """Take what the disk has."""
        for each in known:
            part = Slice(tuple(each["rows"]), tuple(each["columns"]))
            of_request = self.stored.setdefault((each["request"], each["digest"]), {})
            of_request[part] = Answered.of(each)

    @property
    def answered(self) -> list[Answered]:
        """What has been answered, of all requests."""
        return [each for slices in self.answers for each in slices.values() if each is not None]

    def fit_seconds(self) -> float:
        """Return how long a fit of the last request took; 0 before there is any."""
        for slices in reversed(self.answers):
            fits = sum(len(each.rows) * len(each.columns) for each, a in slices.items() if a)
            if fits:
                return sum(each.seconds for each in slices.values() if each) / fits
        return 0.0


class RequestTasks(ThreadTasks):
    """Units are searches of one partition each, which threads of the driver hold.

    After a worker's death the same search is asked again and told what had been answered; what
    is left is done by guarded processes. A unit whose workers died twice is left to one worker
    and the guard, as if there were no slices: it may be the reading that they died of.

    Parameters
    ----------
    context : Context
        What every task is told.
    plan : Plan
        How many partitions are searched at a time, and which are read together.
    workers : int
        How many workers there are to be.
    peers : Peers, optional
        The blocks that partitions are made of, where workers keep these.
    """

    def __init__(
        self, context: Context, plan: Plan, workers: int, peers: Peers | None = None
    ) -> None:
        super().__init__(context, plan.grid.size)
        self._workers = workers
        self._persisting = PersistingTasks(context, plan, peers)
        self.versions, self.for_group = context.versions, context.for_group
        self._is_kept = plan.persisted > 0
        self._kept: dict[str, Future | None] = {}
        self._records: dict[str, Record] = defaultdict(Record)
        # a strategy at its draws changes what is the process's: warnings, Optuna's log
        self._drawing = threading.Lock()

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future | Handle:
        """Search a partition in a thread."""
        if guarded:
            return self._persisting.evaluate(client, unit, guarded=True)
        self._kept[unit.key] = self._persisting.keep(client, unit) if self._is_kept else None
        return super().evaluate(client, unit, guarded=False)

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Future:
        """Submit scoring of the best candidate, on the partition that is still kept."""
        return self._persisting.score(client, unit, parts, guarded=guarded)

    def _search(self, client: Client, unit: Unit, *, guarded: bool) -> Receipt:
        answers = self.stored(unit)
        if unit.key not in self._records:
            self._records[unit.key].take(answers.read())
        record = self._records[unit.key]
        try:
            receipt = super()._search(client, unit, guarded=guarded)
        except KilledWorker:
            record.was_lost = True
            raise
        finally:
            self._kept.pop(unit.key, None)
        answers.remove()
        answered = self._records.pop(unit.key).answered
        return replace(
            receipt,
            seconds=sum(each.seconds for each in answered) or receipt.seconds,
            peak_bytes=max((each.peak_bytes for each in answered), default=receipt.peak_bytes),
        )

    def stored(self, unit: Unit) -> Answers:
        """Return what the disk has of the answers to a search."""
        context = self._context
        store = open_bench(context.store, context.spec, context.revision).store
        return Answers(store.run, store.header.id, unit)

    def _outcomes(
        self, client: Client, bench: Bench, unit: Unit, *, guarded: bool
    ) -> Iterator[Outcome]:
        about = self._context, unit, self._kept[unit.key]
        key = key_of("outline", unit.key)
        asked = client.submit(outline_of, *about, key=key, priority=1, pure=False)
        ((_, outline),) = self._finished([asked])
        if outline.outcome is not None:
            yield replace(outline.outcome, refit=outline.refit)
            return
        answering = _Answering(self, client, bench, unit, outline)
        searching = Searching(
            bench,
            unit,
            {unit.start: outline},
            {unit.start: outline.refused},
            engine=answering.to,
        )
        with self._drawing:
            found = searching.run()[unit.start]
        yield replace(outcome_of(outline.n_samples, outline, found), refit=outline.refit)

    def _finished(self, futures: Sequence[Future]) -> Iterator[tuple[Future, Any]]:
        """Yield each future with its result; what one raised comes after all others.

        Raises
        ------
        Interrupted
            When the run ends.
        """
        ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for future in futures:
            future.add_done_callback(ready.put)
        left, error = {*futures}, None
        try:
            while left:
                if self._ends.is_set():
                    raise Interrupted("the run ends")
                with contextlib.suppress(queue.Empty):
                    future = ready.get(timeout=TICK_S)
                    try:
                        result = future.result(timeout=RESULT_S)
                    except TimeoutError:  # its worker went with it; it is computed again
                        future.add_done_callback(ready.put)
                        continue
                    except Exception as raised:
                        left.discard(future)
                        error = raised
                        continue
                    left.discard(future)
                    yield future, result
        finally:
            for future in left:
                future.cancel()
        if error is not None:
            raise error

    def answers(
        self, client: Client, bench: Bench, unit: Unit, request: Request, slices: Sequence[Slice]
    ) -> Iterator[tuple[Slice, Answered]]:
        """Have slices of a request evaluated, and yield what came of each."""
        guarded = self._records[unit.key].was_lost or self._context.timeout is not None
        kept = self._kept[unit.key]
        tasks = {}
        for each in slices:
            about = unit, sliced(request, each), guarded, kept
            key = key_of("slice", unit.key)
            tasks[self._context.submit(client, key, 0, evaluate_request, *about)] = each
        index = bench.store.grid.reading_order(bench.store.header.chunks, unit.chunk)[unit.start]
        place = describe(bench.labels(index)) or "the data"
        what = f"{len(request.candidates)} {bench.strategy.dim}s on {place}"
        self._step = f"evaluating {what}, {len(tasks)} slices"
        for done, (future, answered) in enumerate(self._finished(list(tasks)), 1):
            self._step = f"evaluating {what}, {done} of {len(tasks)} slices done"
            yield tasks[future], answered


class _Answering:
    """Answers the requests of one search, in the order of its requests."""

    def __init__(
        self, tasks: RequestTasks, client: Client, bench: Bench, unit: Unit, outline: Outline
    ) -> None:
        self._tasks = tasks
        self._about = client, bench, unit
        self._bench = bench
        self._outline = outline
        self._record = tasks._records[unit.key]
        self._stored = tasks.stored(unit)
        self._versions = tasks.versions
        self._count = 0
        self._request = Request((), ())

    def to(self, request: Request) -> _Answering:
        """Return what answers a request."""
        self._request = request
        return self

    def evaluate(self, tasks: Any, watch: Any) -> list[Evaluation]:
        """Have the request evaluated, less what has been already."""
        number, digest = self._count, digest_of(self._request, self._versions)
        if number == len(self._record.answers):
            stored = self._record.stored.pop((number, digest), {})
            self._record.answers.append({**stored, **dict.fromkeys(self._slices(stored))})
        known = self._record.answers[number]
        self._count += 1
        left = [each for each, answered in known.items() if answered is None]
        self._tasks._drawing.release()
        try:
            for each, answered in self._tasks.answers(*self._about, self._request, left):
                known[each] = answered
                about = {"request": number, "digest": digest, **asdict(each)}
                with group_access(self._tasks.for_group):
                    self._stored.add({**about, **answered.facts()})
        finally:
            self._tasks._drawing.acquire()
        found = {each: answered.found for each, answered in known.items() if answered is not None}
        return [self._joined(found)]

    def _slices(self, known: Iterable[Slice]) -> list[Slice]:
        outline, request = self._outline, self._request
        n_splits = max(map(len, outline.counts.values()), default=0)
        seconds = self._record.fit_seconds() * len(request.candidates) * n_splits
        wanted = UNITS_PER_WORKER * self._tasks._workers
        if self._count:
            wanted = min(wanted, int(seconds / LEAST_S))
        return list(left_of(slices_of(self._bench.evaluator(request), n_splits, wanted), known))

    def _joined(self, found: Mapping[Slice, Found]) -> Evaluation:
        """Return what one evaluation of all would have found."""
        n_splits = max(map(len, self._outline.counts.values()), default=0)
        metrics = self._bench.store.spec.metrics
        count = len(self._request.candidates)
        whole = Evaluations(count, [n_splits], metrics, names=[self._outline.names])[0]
        ordered = sorted(found, key=lambda each: each.columns)
        for each in ordered:
            part, place = found[each], np.ix_(each.rows, each.columns)
            for metric, scores in part.scores.items():
                whole.scores[metric][place] = scores
            whole.fit_time[place], whole.score_time[place] = part.fit_time, part.score_time
            for number, row in enumerate(each.rows):
                message, failed = part.messages[number], bool(part.failed[number])
                if message and not whole.failed[row] and (failed or not whole.messages[row]):
                    whole.messages[row] = message
                whole.failed[row] |= failed
        for each in ordered:
            for number, state in found[each].states.items():
                row = each.rows[number]
                whole.states.setdefault(row, state)
                if row not in whole.ended and np.isnan(found[each].fit_time[number]).all():
                    whole.ended.add(row)
                    whole.messages[row] = found[each].messages[number]
        for row in whole.ended:
            whole.forget(row)
        return whole
