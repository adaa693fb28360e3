"""Units that threads of the driver work at: what asks the cluster itself must not be in a task."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any, ClassVar

from distributed import Client, Future

from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store import PartName, Receipt
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.outcomes import Outcome, part_of
from hpc_sweep.work.tasks import Context, key_of, leave


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


class ThreadTasks(abc.ABC):
    """Units are worked at by threads of the driver, all else is done as in any run.

    Parameters
    ----------
    context : Context
        What every task is told.
    threads : int
        How many units are worked at at a time.
    """

    guards: ClassVar[bool] = True

    def __init__(self, context: Context, threads: int) -> None:
        self._context = context
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="units")
        self._handles: list[Handle] = []
        self._ends = threading.Event()
        self._step = ""

    def __enter__(self) -> ThreadTasks:
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._pool.shutdown(cancel_futures=True)

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future | Handle:
        """Have a unit worked at; `guarded` when its workers have died twice."""
        work = self._pool.submit(self._search, client, unit, guarded=guarded)
        handle = Handle(work, key_of("driver", unit.key))
        self._handles = [each for each in self._handles if each.status == "pending"]
        self._handles.append(handle)
        return handle

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Future:
        """Submit scoring of the best candidates on the samples held out."""
        return self._context.score(client, unit, parts, guarded=guarded)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold."""
        return self._context.fold(client, chunk, parts)

    def begun(self, client: Client) -> set[str]:
        """Return the keys of what is at work."""
        return self._context.begun(client) | {each.key for each in self._handles if each.begun}

    def step(self) -> str:
        """Return what the driver is at in a unit, where it is known, or ``""``."""
        return self._step

    def _search(self, client: Client, unit: Unit, *, guarded: bool) -> Receipt:
        begin = time.perf_counter()
        context = self._context
        bench = open_bench(context.store, context.spec, context.revision)
        outcomes: list[Outcome] = []
        for outcome in self._outcomes(client, bench, unit, guarded=guarded):
            outcomes.append(outcome)
            if self._ends.is_set() or time.perf_counter() - begin > context.unit_seconds:
                break
        unit = replace(unit, stop=unit.start + len(outcomes))
        return leave(context, bench, unit, part_of(bench, outcomes), begin, "driver")

    @abc.abstractmethod
    def _outcomes(
        self, client: Client, bench: Bench, unit: Unit, *, guarded: bool
    ) -> Iterator[Outcome]:
        """Search the partitions of a unit in order, and yield what came out."""
