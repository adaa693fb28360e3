"""A run by dask-ml: the driver searches partition by partition on the cluster.

Units, parts, folds, and so stops and restarts, are those of any run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import Any

from dask import delayed
from distributed import Client, Future

from hpc_sweep.candidates import Candidate
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.search import DaskML, Evaluation, Split, Task
from hpc_sweep.store import PartName, Receipt
from hpc_sweep.strategies import Request
from hpc_sweep.work.asking import Searching
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.evaluation import (
    Outcome,
    groups_of,
    outcome_of,
    part_of,
    partitions_of,
    task_of,
    without_samples,
)
from hpc_sweep.work.refits import HeldOut, held_out_of
from hpc_sweep.work.tasks import Context, bench_of, check_versions, key_of, leave


@dataclass(frozen=True)
class Loaded:
    """One partition on a worker; the driver has it without its arrays.

    Attributes
    ----------
    outcome : Outcome or None
        Where there is nothing to search.
    task : Task or None
        Its samples and splits.
    n_samples : int
        How many.
    refused : mapping of int to str
        By model, why there are no splits.
    held_out : HeldOut
        How many samples are held out; by dask-ml none is scored on them.
    """

    outcome: Outcome | None
    task: Task | None = None
    n_samples: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)
    held_out: HeldOut = field(default_factory=HeldOut)


class Handle:
    """A thread's work, as the driver's loop sees a task.

    Parameters
    ----------
    work : concurrent.futures.Future
        The thread's.
    key : str
        Its name.
    """

    def __init__(self, work: futures.Future[Any], key: str) -> None:
        self._work = work
        self.key = key

    @property
    def status(self) -> str:
        """``pending``, ``finished``, ``error`` or ``cancelled``."""
        if not self._work.done():
            return "pending"
        if self._work.cancelled():
            return "cancelled"
        return "finished" if self._work.exception() is None else "error"

    @property
    def begun(self) -> bool:
        """Whether it is at work, or has been."""
        return self._work.running() or self._work.done()

    def add_done_callback(self, tell: Callable[[Handle], None]) -> None:
        """Have somebody told when it is done."""
        self._work.add_done_callback(lambda work: tell(self))

    def exception(self) -> BaseException | None:
        """Return what it raised."""
        return self._work.exception()

    def result(self, timeout: float | None = None) -> Any:
        """Return what it returned."""
        return self._work.result(timeout)

    def cancel(self) -> None:
        """Do not begin it."""
        self._work.cancel()


class DaskMLTasks:
    """Units are searched by dask-ml, all else is done as in any run.

    A unit whose workers died twice is left to the guard, which dask-ml does not have.

    Parameters
    ----------
    context : Context
        What every task is told.
    threads : int
        How many units are searched at a time.
    """

    def __init__(self, context: Context, threads: int) -> None:
        self._context = context
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="dask-ml")
        self._handles: list[Handle] = []
        self._ends = threading.Event()

    def __enter__(self) -> DaskMLTasks:
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._pool.shutdown(cancel_futures=True)

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future | Handle:
        """Search a unit in a thread."""
        if guarded:
            return self._context.evaluate(client, unit, guarded=True)
        work = self._pool.submit(self._search, client, unit)
        handle = Handle(work, key_of("dask-ml", unit.key))
        self._handles = [each for each in self._handles if each.status == "pending"]
        self._handles.append(handle)
        return handle

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Future:
        """Score the best candidates without dask-ml."""
        return self._context.score(client, unit, parts, guarded=guarded)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold."""
        return self._context.fold(client, chunk, parts)

    def begun(self, client: Client) -> set[str]:
        """Return the keys of what is at work."""
        return self._context.begun(client) | {each.key for each in self._handles if each.begun}

    def _search(self, client: Client, unit: Unit) -> Receipt:
        begin = time.perf_counter()
        context = self._context
        bench = open_bench(context.store, context.spec)
        outcomes: list[Outcome] = []
        for group in groups_of(bench, unit):
            part = replace(unit, start=group[0], stop=group[-1] + 1)
            for outcome in self._group(client, bench, part):
                outcomes.append(outcome)
                if self._ends.is_set() or time.perf_counter() - begin > context.unit_seconds:
                    break
            else:
                continue
            break
        unit = replace(unit, stop=unit.start + len(outcomes))
        return leave(context, bench, unit, part_of(bench, outcomes), begin, "driver")

    def _group(self, client: Client, bench: Bench, unit: Unit) -> Iterator[Outcome]:
        """Load partitions that lie together, and search one after the other."""
        key = key_of("load", unit.key)
        loaded = client.submit(load, self._context, unit, key=key, pure=False)
        known = client.submit(facts, loaded, key=f"{key}-facts", pure=False).result()
        for number, each in enumerate(known):
            if each.task is None:
                yield replace(each.outcome, held_out=each.held_out)
                continue
            X, y = (
                delayed(client.submit(array, loaded, number, name, key=f"{key}-{number}-{name}"))
                for name in ("X", "y")
            )
            task = replace(each.task, X=X, y=y if bench.store.spec.targets else None)
            searching = Searching(
                bench,
                unit,
                {number: task},
                {number: each.refused},
                engine=lambda request: self._engine(client, bench, request),
            )
            outcome = outcome_of(each.n_samples, task, searching.run()[number])
            yield replace(outcome, held_out=each.held_out)

    def _engine(self, client: Client, bench: Bench, request: Request) -> DaskML:
        def explain(task: Task, rows: Sequence[int]) -> Evaluation:
            candidates = [request.candidates[row] for row in rows]
            arguments = (self._context, candidates, task.X, task.y, task.splits, task.seed)
            call = delayed(evaluate_alone, pure=False)(*arguments)
            found: Evaluation = client.compute(call).result()
            return found

        def compute(graph: Any, keys: Any) -> Any:
            return client.get(graph, keys, sync=True)

        return DaskML(bench.evaluator(request), compute, explain)


# on workers


def load(context: Context, unit: Unit) -> list[Loaded]:
    """Read the partitions of a unit, to be kept."""
    check_versions(context)
    bench = bench_of(context)
    found = []
    for each in partitions_of(bench, unit):
        outcome = without_samples(bench, unit, each)
        held_out = held_out_of(each.samples)
        if outcome is None:
            task, refused = task_of(bench, unit, each)
            found.append(Loaded(None, task, len(task.X), refused, held_out))
        else:
            found.append(Loaded(outcome, held_out=held_out))
    return found


def facts(loaded: Sequence[Loaded]) -> list[Loaded]:
    """Return all that is known of partitions but their arrays."""
    return [
        each if each.task is None else replace(each, task=replace(each.task, X=None, y=None))
        for each in loaded
    ]


def array(loaded: Sequence[Loaded], number: int, name: str) -> Any:
    """Return X or y of a partition."""
    return getattr(loaded[number].task, name)


def evaluate_alone(
    context: Context,
    candidates: Sequence[Candidate],
    X: Any,
    y: Any,
    splits: Mapping[int, Sequence[Split]],
    seed: int,
) -> Evaluation:
    """Evaluate candidates of one partition without dask-ml."""
    key = tuple(candidate.id for candidate in candidates)
    evaluator = open_bench(context.store, context.spec).evaluator(Request(key, candidates))
    return evaluator.evaluate([Task(X, y, splits, seed)])[0]
