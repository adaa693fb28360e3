"""What the queue's answers about worker jobs mean, over time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from hpc_sweep.clusters.queue import QUICK_S, JobState, log_tail
from hpc_sweep.errors import ClusterError

ABSENT_S = 180.0
"""A job that the queue leaves out for this long has ended; below it is a hiccup."""

MAX_QUICK_ENDS = 3
"""So many jobs in a row that end within `QUICK_S` of their start stop the run."""


class Watch:
    """Tells from one answer of the queue after the other which jobs have ended.

    Parameters
    ----------
    logs : Path
        Where the jobs' logs are.
    walltime_s : float or None
        The longest of a job: in jobs of a minute or two a quick end may be the planned one.
    """

    def __init__(
        self, logs: Path, walltime_s: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logs = logs
        self._quick_s = min(QUICK_S, (walltime_s or math.inf) / 2)
        self._clock = clock
        self._absent_since: dict[str, float] = {}
        self._counted: set[str] = set()
        self._quick_ends = 0

    def ended(self, jobs: Collection[str], found: Sequence[JobState]) -> set[str]:
        """Return which jobs have ended, by an answer of the queue.

        Parameters
        ----------
        jobs : collection of str
            Those that it was asked about. One that it leaves out has ended when it does so for
            `ABSENT_S`; while it does not answer at all, that time does not begin.
        found : sequence of JobState
            What it said.

        Raises
        ------
        ClusterError
            When jobs in a row have ended within their first minute.
        """
        self._count_quick_ends(found)
        now = self._clock()
        known = {state.job for state in found}
        self._absent_since = {
            job: self._absent_since.get(job, now) for job in jobs if job not in known
        }
        gone = {job for job, since in self._absent_since.items() if now - since > ABSENT_S}
        return gone | {state.job for state in found if state.ended}

    def _count_quick_ends(self, found: Sequence[JobState]) -> None:
        for state in found:
            if not state.ended or state.job in self._counted:
                continue
            self._counted.add(state.job)
            quick = state.ran_s is not None and state.ran_s < self._quick_s
            self._quick_ends = self._quick_ends + 1 if quick else 0
            if self._quick_ends >= MAX_QUICK_ENDS:
                raise ClusterError(
                    f"{self._quick_ends} worker jobs in a row ended within {self._quick_s:.0f} s "
                    f"of their start, the last one, {state.job}, {state}; "
                    f"{log_tail(self._logs, state.job)}"
                )


def described(found: Sequence[JobState], count: int) -> str:
    """Return how many of `count` jobs are in which state, with the queue's reasons."""
    states = Counter(str(state) for state in found)
    texts = [f"{number} job(s) {state}" for state, number in states.items()]
    gone = count - len(found)
    texts += [f"{gone} job(s) not in the queue"] if gone else []
    return ", ".join(texts) or "no job is in the queue"
