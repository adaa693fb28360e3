"""When the job that a process is in ends: asked, not computed, since queues change limits.

The driver asks the queue. A worker gets the time from its job's script (`hpc_sweep.jobend`), and
loads this module as a Dask preload: it takes no new task shortly before that time, ends what it
does, and closes. A time of day that is set meanwhile changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpc_sweep import jobend
from hpc_sweep.clusters.queue import Queue, QueueSilentError

if TYPE_CHECKING:
    from distributed import Worker

RESERVE_S = 120.0
"""How long before the end nothing new is begun, in jobs that are long enough."""

ASK_EVERY_S = 600.0


def reserve(total_s: float) -> float:
    """Return how long before its end a process that has `total_s` begins nothing new."""
    return min(RESERVE_S, total_s / 4)


class Ending:
    """When a driver has to be done.

    Parameters
    ----------
    queue : Queue or None
        Whose job this process is in; None outside a job, which has no end.
    """

    def __init__(self, queue: Queue | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._clock = clock
        self._end = math.inf
        self._asked = -math.inf
        self.total_s = self.left_s()

    @property
    def reserve_s(self) -> float:
        """How long before the end nothing new is begun."""
        return reserve(self.total_s)

    def left_s(self) -> float:
        """Return the seconds left; asks the queue now and then, since limits are changed."""
        if self._queue is not None and self._clock() - self._asked > ASK_EVERY_S:
            self._asked = self._clock()
            with contextlib.suppress(QueueSilentError):
                for state in self._queue.states([self._queue.current_job()]):
                    if state.left_s is not None:
                        self._end = self._clock() + state.left_s
        return self._end - self._clock()

    def within(self, seconds: float) -> None:
        """Be done within that time: the process was told to end."""
        self._end = min(self._end, self._clock() + seconds)
        self._queue = None


_work_until = math.inf


def seconds_to_work() -> float:
    """Return how long a task of this worker may still go on."""
    return _work_until - time.monotonic()


async def dask_setup(worker: Worker) -> None:
    """Plan the worker's end; Dask calls this when the worker starts."""
    global _work_until
    left = jobend.seconds_left()
    if left == math.inf:
        return
    end = time.monotonic() + left
    _work_until = end - reserve(left)
    asyncio.get_running_loop().call_later(
        max(0.0, left - reserve(left)),
        lambda: asyncio.ensure_future(_retire(worker, end - reserve(left) / 3)),
    )


async def _retire(worker: Worker, until: float) -> None:
    """Take no more tasks, wait for those at work, and close, with the nanny."""
    while time.monotonic() < until:
        # repeated: the scheduler gives up where nobody else could take a result that nobody
        # has fetched yet
        with contextlib.suppress(OSError):
            await worker.scheduler.retire_workers(
                workers=[worker.address], close_workers=False, remove=False
            )
        if not worker.state.executing_count:
            break
        await asyncio.sleep(0.5)
    await worker.close(nanny=True, reason="its job ends soon")
