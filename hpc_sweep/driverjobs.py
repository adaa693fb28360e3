"""Jobs of drivers: handed to the queue, and what became of those that never began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from hpc_sweep.clusters import (
    JobQueue,
    JobState,
    Queue,
    QueueSilentError,
    log_tail,
    make_cluster,
    make_queue,
    recorded_queue,
)
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.spec import ClusterSpec
from hpc_sweep.store import Journal, RunFolder, read_events


@dataclass(frozen=True)
class NotBegun:
    """A driver's job whose driver has not begun to run the sweep.

    Attributes
    ----------
    job : str
        Its id.
    shares : tuple of str
        Those of several drivers that have not begun, such as ``2/4``.
    state : str
        In the queue's words; ``""`` where no queue that knows it answers from here.
    ended : bool or None
        Whether it will never run; None where that is not known.
    log : str
        The end of its log.
    """

    job: str
    shares: tuple[str, ...]
    state: str
    ended: bool | None
    log: str

    def __str__(self) -> str:
        which = f", drivers {' '.join(self.shares)}" if self.shares else ""
        if self.ended:
            words = f"ended without beginning: {self.state}; {self.log}"
        elif self.ended is None:
            words = f"has not begun, and no queue here tells why; {self.log}"
        else:
            words = f"has not begun: {self.state}"
        return f"job {self.job}{which} {words}"


def job_queue(spec: ClusterSpec, run: RunFolder) -> JobQueue:
    """Return the cluster of a spec that has a queue, not started.

    Raises
    ------
    SpecError
        When that kind of cluster has none.
    """
    make_queue(spec.kind)
    return cast("JobQueue", make_cluster(spec, run.path, lambda event, **facts: None))


def submit_driver(
    queue: Queue,
    run: RunFolder,
    after: str | None = None,
    walltime_s: float | None = None,
    share: str | None = None,
) -> str:
    """Submit the script of the run folder, and return the job's id.

    Parameters
    ----------
    queue : Queue
        Where to.
    run : RunFolder
        Has the script, and is told of the job.
    after : str, optional
        Job that has to end before.
    walltime_s : float, optional
        In place of the script's.
    share : str, optional
        Which of several drivers it is: ``2/4``, or ``array/4`` for all of them.

    Raises
    ------
    ClusterError
        With the queue's own words when it refuses.
    """
    job = queue.submit(run.script, after, walltime_s)
    facts = {"kind": queue.kind, "queue": queue.known_name(), "after": after}
    facts |= {} if share is None else {"share": share}
    Journal(run.events).write("driver_submitted", job=job, **facts)
    return job


def not_begun(run: RunFolder) -> list[NotBegun]:
    """Return the driver jobs of the last submission whose drivers have not begun.

    Files tell which; the queue is asked once for their states, where it answers from here.
    """
    waiting: list[dict[str, Any]] = []
    for event in read_events(run.events):
        if event["event"] == "driver_submitted":
            first = event["after"] is None and str(event.get("share", "1/"))[:2] in ("1/", "ar")
            waiting = [event] if first else [*waiting, event]
        elif event["event"] in ("chain_ended", "cancelled"):
            waiting = []
        elif event["event"] == "run_started":  # and with it those before; or one by hand
            jobs = [each["job"] for each in waiting]
            waiting = waiting[jobs.index(event["job"]) + 1 :] if event["job"] in jobs else []
    left = [(event, _shares_left(run, event)) for event in waiting]
    left = [(event, shares) for event, shares in left if shares]
    states = _states([event for event, _ in left])
    return [_described(run, event, shares, states) for event, shares in left]


def _shares_left(run: RunFolder, event: Mapping[str, Any]) -> list[Share]:
    """Return the shares of a submission that no driver has begun since."""
    index, _, count = str(event.get("share", "1/1")).partition("/")
    if count == "1":
        return [WHOLE]
    indices = range(1, int(count) + 1) if index == "array" else [int(index)]
    shares = [Share(index, int(count)) for index in indices]
    return [share for share in shares if not _begun_since(replace(run, share=share), event)]


def _begun_since(run: RunFolder, event: Mapping[str, Any]) -> bool:
    runs = (each for each in read_events(run.events) if each["event"] == "run_started")
    return any(each["time"] >= event["time"] for each in runs)


def queue_name(event: Mapping[str, Any]) -> str:
    """Return which queue took a job, by the event of its submission."""
    return str(event.get("queue", event["kind"]))


def _states(events: Sequence[Mapping[str, Any]]) -> list[JobState] | None:
    """Ask the queue once; None where it does not answer from here, or is another one."""
    if not events:
        return None
    try:
        queue = recorded_queue(queue_name(events[-1]))
        return queue.states([event["job"] for event in events])
    except QueueSilentError:
        return None


def _described(
    run: RunFolder,
    event: Mapping[str, Any],
    shares: Sequence[Share],
    states: Sequence[JobState] | None,
) -> NotBegun:
    job = event["job"]
    array = str(event.get("share", "")).startswith("array") and shares != [WHOLE]
    # Slurm tells of each job of an array, PBS of the array
    mine = [s for s in states or () if s.job == job or s.job.startswith(f"{job}_")]
    counts = Counter(str(state) for state in mine)
    told = ", ".join(f"{n} × {words}" if n > 1 else words for words, n in counts.items())
    return NotBegun(
        job=job,
        shares=tuple(f"{share.index}/{share.count}" for share in shares if share != WHOLE),
        state=told or ("" if states is None else "not in the queue any more"),
        ended=None if states is None else all(state.ended for state in mine),
        log=log_tail(run.logs, job, shares[0].index if array else None),
    )


def other_drivers(queue: Queue, run: RunFolder, mine: str) -> list[str]:
    """Return the driver jobs of a run that have not ended, but this one.

    Raises
    ------
    QueueSilentError
        When the queue does not answer.
    """
    events = [e for e in read_events(run.events) if e["event"] == "driver_submitted"]
    names = {queue.kind, queue.name()}
    jobs = [e["job"] for e in events if e["job"] != mine and queue_name(e) in names]
    if not jobs:
        return []
    alive = {state.job for state in queue.states(jobs) if not state.ended}
    return [job for job in jobs if job in alive]
