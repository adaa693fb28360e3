"""Drivers one after the other: each link keeps a successor queued, until nothing is left to do."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.budget import shorter_walltime_s
from hpc_sweep.clusters import (
    Ending,
    NotNowError,
    Queue,
    QueueSilentError,
    has_ended,
    log_tail,
    make_queue,
    seconds,
)
from hpc_sweep.driverjobs import job_queue, other_drivers, submit_driver
from hpc_sweep.errors import ClusterError, DiskError, Interrupted, NoProgressError, NoWorkersError
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    Journal,
    Ledger,
    Outage,
    RunFolder,
    Store,
    count_answers,
    hold,
    probe,
    read_events,
    run_folder,
)

MAX_SUCCESSORS = 2
"""How many links of a chain wait in the queue at the most."""

WORKED_SHARE = 0.5
"""A link that had workers for this share of its time could have added something."""

KILLED_LINKS = 3
"""So many links that were killed, had workers and added nothing end the chain."""


@dataclass(frozen=True)
class Aim:
    """What the links of a chain work at.

    Attributes
    ----------
    what : str
        In a word.
    done : callable
        Returns counts of what is done, as the event log has them at the start of a run:
        ``cells_done``, ``chunks_folded`` and ``answers``.
    rest_s : callable
        Given a number of cores, returns what the rest needs where that is less than is asked for.
    """

    what: str
    done: Callable[[], tuple[int, ...]]
    rest_s: Callable[[int], float | None] = lambda cores: None


@contextlib.contextmanager
def chain_link(
    spec: SweepSpec,
    say: Callable[[str], None],
    now: Callable[[], float] = time.time,
    aim: Aim | None = None,
) -> Iterator[None]:
    """Run a driver as one link of a chain: keep a successor queued, or end the chain.

    The chain goes on after a link that was stopped, drained or killed, and after one that
    workers came to late or not at all. It ends when the sweep is complete, when an error would
    come again (spec, store, disk, a refusal of the queue), after a link that had workers for
    half of its time and added nothing to the store or its parts, and after `KILLED_LINKS` that
    were killed before they could judge themselves: the next one does it.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    say : callable
        Told what becomes of the chain.
    now : callable
        Seconds since 1970, as in the event log.
    aim : Aim, optional
        In place of the sweep.
    """
    run = run_folder(spec.output.store)
    if aim is None:
        aim = Aim("sweep", lambda: _done(spec), lambda cores: shorter_walltime_s(spec, cores))
    queue = make_queue(spec.cluster.kind)
    mine = queue.current_job()
    began, total_s = now(), _time_of_link(spec, queue if mine else None)
    try:
        _wait_for_disk(run, spec.cluster.disk_patience, say)
        before = aim.done()
        _look_at_killed_links(run, before, say)
        again = _queue_successor(spec, aim, queue, mine, say)
        try:
            yield
        except (Interrupted, NoWorkersError) as error:
            if aim.done() == before and _worked_s(run, began) >= WORKED_SHARE * total_s:
                raise NoProgressError(
                    f"{error}; a link that had workers and added nothing ends the chain: a fit may "
                    "need more time than a link has; raise cluster.driver.walltime and "
                    "cluster.walltime"
                ) from error
            if again:
                _queue_successor(spec, aim, queue, mine, say)
            raise
    except (Interrupted, NoWorkersError):
        raise
    except Exception as error:
        _end_chain(queue, run, mine, say, type(error).__name__, str(error))
        raise
    _end_chain(queue, run, mine, say, f"the {aim.what} is complete", "")


@dataclass
class _Run:
    """One run of the event log: its job, the ledger at its start as of `_done`, its fate."""

    job: str
    done: tuple[int | None, ...]
    worked: bool = False
    ended: bool = False


def _look_at_killed_links(
    run: RunFolder, done: tuple[int, ...], say: Callable[[str], None]
) -> None:
    """Raise where links were killed, had workers, and left the ledger as it is now."""
    killed = _killed_links(run, done)
    if len(killed) < KILLED_LINKS:
        return
    # held and released, so that the last one's lease tells nobody of a driver any more
    with hold(run.lease, rivals=run.rivals, has_ended=has_ended, say=say):
        raise NoProgressError(
            f"{len(killed)} links (jobs {', '.join(killed)}) were killed while they had workers, "
            f"and added nothing ({done[0]} cells done and {done[1]} result chunks folded, before "
            "and after), which ends the chain: the driver may need more memory or time, or its "
            "node fails; raise cluster.driver.memory or cluster.driver.walltime, or ask hpc-sweep "
            f"doctor; logs are in {run.logs}; job {killed[-1]}: {log_tail(run.logs, killed[-1])}"
        )


def _killed_links(run: RunFolder, done: tuple[int, ...]) -> list[str]:
    """Return the jobs of links that had workers and no end, since the ledger is as it is.

    Those before the last submission do not count: the user may have changed what killed them.
    """
    links: set[str] = set()
    runs: list[_Run] = []
    for event in read_events(run.events):
        kind = event["event"]
        if kind == "driver_submitted":
            if event["after"] is None:
                links, runs = set(), []
            links.add(event["job"])
        elif kind == "run_started":
            at_start = event.get("cells_done"), event.get("chunks_folded")
            runs.append(_Run(event["job"], (*at_start, event.get("answers", 0))))
        elif runs and kind in ("workers", "workers_ready"):
            runs[-1].worked |= event["workers"] > 0
        elif runs and kind == "run_ended":
            runs[-1].ended = True
    last = itertools.takewhile(lambda each: each.done == done, reversed(runs))
    killed = [r.job for r in last if r.job in links and r.worked and not r.ended]
    return killed[::-1]


def _wait_for_disk(run: RunFolder, patience_s: float, say: Callable[[str], None]) -> None:
    """Return when the run folder takes a file: a successor must leave its id there."""
    outage = Outage(lambda: probe(run.path), patience_s)
    try:
        outage.probe()
    except DiskError as error:
        outage.begin(error)
        say(f"waiting for {outage.note}")
        while outage.lasts():
            time.sleep(1.0)


def _queue_successor(
    spec: SweepSpec, aim: Aim, queue: Queue, mine: str, say: Callable[[str], None]
) -> bool:
    """Queue one more link unless `MAX_SUCCESSORS` wait already; return whether to ask again."""
    run = run_folder(spec.output.store)
    try:
        waiting = other_drivers(queue, run, mine)
        if len(waiting) < MAX_SUCCESSORS:
            after = waiting[-1] if waiting else mine
            walltime_s = aim.rest_s(job_queue(spec.cluster, run).workers)
            job = submit_driver(queue, run, after, walltime_s)
            say(f"queued job {job} to go on after this one")
    except (ClusterError, QueueSilentError) as error:
        say(f"no successor could be queued from here: {error}")
        return isinstance(error, (NotNowError, QueueSilentError))
    return False


def _end_chain(
    queue: Queue, run: RunFolder, mine: str, say: Callable[[str], None], why: str, reason: str
) -> None:
    if reason:
        Journal(run.events).write("chain_ended", reason=reason)
    try:
        waiting = other_drivers(queue, run, mine)
        if waiting:
            queue.cancel(waiting)
            say(f"cancelled the queued links {', '.join(waiting)}: {why}")
    except QueueSilentError as error:
        say(f"queued links stay, and end by themselves when all is done: {error}")


def _time_of_link(spec: SweepSpec, queue: Queue | None) -> float:
    """Return how long this link may take: as the queue says, else as it was asked for."""
    total_s = Ending(queue).total_s
    asked = seconds(spec.cluster.driver.walltime or spec.cluster.walltime or "")
    return asked if math.isinf(total_s) and asked is not None else total_s


def _done(spec: SweepSpec) -> tuple[int, ...]:
    """Return how many cells are done, by the store and the parts beside it, and chunks folded.

    Parts count that a worker left while it retired, and those that no driver heard of. The third
    number is of answers that searches have had which are not done.
    """
    if not Path(spec.output.store).exists():
        return 0, 0, 0
    store = Store.open(spec.output.store)
    ledger = Ledger.read(store)
    return ledger.cells_done(), len(ledger.folded), count_answers(store.run)


def _worked_s(run: RunFolder, began: float) -> float:
    """Return for how long there were workers since a moment, by the event log."""
    worked, since = 0.0, None
    for event in read_events(run.events):
        if event["event"] in ("workers", "run_ended"):
            now = datetime.datetime.fromisoformat(event["time"]).timestamp()
            worked += 0.0 if since is None else now - since
            since = now if now >= began and event.get("workers") else None
    return worked
