"""Fits in a process of their own, which is ended when one takes too long or too much memory.

Whatever it dies of, what was going on is known; that alone is given up, and another process
goes on with the rest.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import RawArray
from typing import Any

import psutil

from hpc_sweep import strategies
from hpc_sweep.choices import FAILED, OUT_OF_MEMORY, TIMED_OUT
from hpc_sweep.errors import ClusterError
from hpc_sweep.plan import Unit, format_bytes
from hpc_sweep.processes import start_child
from hpc_sweep.store import Choice
from hpc_sweep.work.evaluation import BATCH_S, Partition
from hpc_sweep.work.guarded import Batch, Finished, Request, Saved, serve
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.place import FITS, READS, REFITS, SHARES, SIZE, SPLITS, STARTS, Board, Place
from hpc_sweep.work.remains import Loss, Remains

LOOK_S = 0.1
"""How often the process is looked at."""

STANDSTILL_S = 1.0
"""At most so much counts between two looks: who looks later was stopped, maybe with the fit."""

TRIES = 2
"""What the process dies of is tried so often, and so is shared work; a fit that was ended, once."""

WORDS = {READS: "reading", SPLITS: "splitting", SHARES: "work between fits"}

USABLE = 0.95
"""Of a worker's memory, as Dask's nannies have it."""


@dataclass(frozen=True)
class Limits:
    """What a fit may take.

    Attributes
    ----------
    seconds : float
        With its scoring.
    memory_bytes : float
        Of this process and its child together.
    """

    seconds: float = math.inf
    memory_bytes: float = math.inf


class Death(Exception):
    """The process is gone.

    Attributes
    ----------
    place : Place
        What it was doing.
    loss : Loss or None
        Why it is gone; None where what it was ended for was over just before.
    """

    def __init__(self, place: Place, loss: Loss | None) -> None:
        super().__init__(place, loss)
        self.place = place
        self.loss = loss


class Stopwatch:
    """Measures what goes on, without the time in which nobody could look.

    A queue that suspends a job, or a user a run, stops fits as well as who looks at them.
    """

    def __init__(self) -> None:
        self._since = math.inf
        self._looked = self._seconds = 0.0

    def seconds(self, since: float, most: float) -> float:
        """Return how long something has been going on, as far as it was looked at.

        Parameters
        ----------
        since : float
            When it began, by `time.monotonic`.
        most : float
            So much counts between two looks.
        """
        now = time.monotonic()
        if since != self._since:
            self._since, self._seconds = since, 0.0
        self._seconds += max(0.0, min(now - max(since, self._looked), most))
        self._looked = now
        return self._seconds


class Child:
    """The process in which fits are done: started when it is needed, and anew when it is gone."""

    def __init__(self) -> None:
        self._process: Any = None
        self._stopwatch = Stopwatch()

    def answers(self, request: Request, limits: Limits) -> Iterator[Batch | Saved]:
        """Have a request answered, and yield the answers.

        Raises
        ------
        Death
            When the process died, or was ended.
        """
        if self._process is None:
            self._start()
        idle = False
        try:
            with contextlib.suppress(BrokenPipeError):  # it is dead, as is going to be seen
                self._connection.send(request)
            while not isinstance(answer := self._next(limits), Finished):
                yield answer
            idle = True
            if answer.error is not None:
                raise answer.error
        finally:
            if not idle:
                self.end()

    def end(self) -> None:
        """End the process, if it runs, and what it has started."""
        if self._process is not None:
            self._kill()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        memory = RawArray("b", SIZE)
        self._board = Board(memory)
        self._board.write(STARTS)
        self._connection, theirs = multiprocessing.Pipe()
        self._process = start_child(serve, theirs, memory, dict(os.environ))
        theirs.close()
        # what both have in common is counted for the child
        self._own_bytes = psutil.Process().memory_full_info().uss

    def _kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._process.join()

    def _next(self, limits: Limits) -> Any:
        """Return what the process sends next, looking at it meanwhile."""
        excess, place = None, Place()
        while excess is None and not self._connection.poll(min(LOOK_S, limits.seconds / 4)):
            place = self._board.read()
            excess = self._excess(place, limits)
        if excess is not None:
            self._kill()
        try:
            return self._connection.recv()  # what was sent before counts
        except (EOFError, ConnectionError):
            self._process.join()
        last = self._board.read()
        if excess is None:
            raise Death(last, _died(self._process.exitcode))
        over = excess.status == TIMED_OUT and last.since != place.since
        raise Death(last, None if over else excess)

    def _excess(self, place: Place, limits: Limits) -> Loss | None:
        """Return which limit is exceeded, if any."""
        most = min(STANDSTILL_S, limits.seconds / 2)
        if self._stopwatch.seconds(place.since, most) > limits.seconds:
            reason = f"took longer than search.timeout, {limits.seconds:g} s, and was ended"
            return Loss(TIMED_OUT, reason)
        try:
            held = psutil.Process(self._process.pid).memory_info().rss + self._own_bytes
        except psutil.NoSuchProcess:
            return None
        if held > limits.memory_bytes:
            limit = format_bytes(round(limits.memory_bytes))
            reason = f"took more than the {limit} of memory that a worker has, and was ended"
            return Loss(OUT_OF_MEMORY, reason)
        return None


def _died(code: int) -> Loss:
    if code == -signal.SIGKILL:
        return Loss(OUT_OF_MEMORY, "was killed (SIGKILL), as systems do when memory runs out")
    if code < 0:
        return Loss(FAILED, f"crashed its process ({signal.Signals(-code).name})")
    return Loss(FAILED, f"ended its process (exit code {code})")


class Guard:
    """Evaluates one unit in a child, whatever happens to that.

    Parameters
    ----------
    child : Child
        Where fits are done.
    limits : Limits
        What each may take.
    """

    def __init__(self, child: Child, limits: Limits) -> None:
        self._child = child
        self._limits = limits
        self._remains = Remains()
        self._tries: Counter[tuple[int, ...]] = Counter()

    def evaluate(
        self,
        store: str,
        spec: str,
        unit: Unit,
        until: float,
        choices: Mapping[int, Choice] | None = None,
        revision: int = 0,
        kept: Sequence[Partition] = (),
        asked: strategies.Request | None = None,
    ) -> list[Outcome]:
        """Return the outcomes of partitions in order, until time is up.

        Raises
        ------
        Exception
            What the evaluation raises for all, such as a `DiskError`.
        ClusterError
            When no child comes up.
        """
        outcomes: list[Outcome] = []
        remains = self._remains
        batch_s = min(BATCH_S, self._limits.seconds / 4)
        while True:
            rest = replace(unit, start=unit.start + len(outcomes))
            seconds = until - time.perf_counter()
            if rest.start == rest.stop or (outcomes and seconds < 0 and not remains.one_by_one):
                return outcomes
            more = choices, revision, kept, asked
            request = Request(store, spec, rest, seconds, batch_s, remains, *more)
            try:
                for answer in self._child.answers(request, self._limits):
                    if isinstance(answer, Saved):
                        remains.found.update(answer.found)
                    else:
                        outcomes += answer.outcomes
                        remains.one_by_one, remains.alone = 0, False
                        remains.found.clear()
                return outcomes
            except Death as death:
                if death.loss is not None:
                    self._blame(death.place, death.loss)

    def _blame(self, place: Place, loss: Loss) -> None:
        """Note who is to blame, and that what was at work together is done one by one."""
        remains = self._remains
        if place.kind in (FITS, SHARES) or (place.kind == REFITS and remains.found):
            remains.one_by_one = place.batch
        what = (place.kind, place.position, place.number, place.candidate, remains.alone)
        self._tries[what] += 1
        tries = self._tries[what]
        if place.kind == SHARES and not remains.alone:
            remains.alone = tries == TRIES
            return
        if tries < TRIES and loss.status != TIMED_OUT:
            return
        times = "" if loss.status == TIMED_OUT else f", {tries} times"
        reason = f"{loss.reason}{times}"
        if place.kind == STARTS:
            raise ClusterError(f"the process for guarded fits does not start: it {reason}")
        if place.kind == FITS:
            loss = Loss(loss.status, reason, place.column)
            remains.candidates[place.position, place.number, place.candidate] = loss
        elif place.kind == REFITS:
            remains.refits[place.position] = Loss(loss.status, reason)
        else:
            loss = Loss(loss.status, f"{WORDS[place.kind]} {reason}")
            positions = range(place.position, place.position + place.count)
            remains.partitions.update(dict.fromkeys(positions, loss))
