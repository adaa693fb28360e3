"""The driver in a job of its own, and the end of a run's jobs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from hpc_sweep.clusters import (
    ENDING,
    JobQueue,
    Queue,
    QueueSilentError,
    clock,
    make_cluster,
    make_queue,
    seconds,
)
from hpc_sweep.errors import (
    ClusterError,
    DiskError,
    Interrupted,
    NoWorkersError,
    StoreError,
    SweepError,
)
from hpc_sweep.jobscripts import driver_job, driver_script
from hpc_sweep.prepare import check_versions, prepare
from hpc_sweep.spec import ClusterSpec, SweepSpec
from hpc_sweep.store import Journal, Outage, RunFolder, probe, read_events, run_folder
from hpc_sweep.store.durable import write_durably

MAX_SUCCESSORS = 2
"""How many links of a chain wait in the queue at the most."""


@dataclass(frozen=True)
class Scripts:
    """What ``submit`` hands to the queue.

    Attributes
    ----------
    driver, worker : str
        Scripts of the driver's job, and of the worker jobs that it submits or of what it starts
        on each node of its own.
    """

    driver: str
    worker: str


def driver_spec(spec: SweepSpec, *, chain: bool = False) -> SweepSpec:
    """Return the spec as the driver's job needs it: on a node, with nobody who waits for it."""
    # the profile lies under the section already, and may not be seen from a node
    changed: dict[str, object] = {"scheduler_interface": None, "machine": None}
    if chain:
        changed["start_timeout"] = spec.cluster.idle_limit
    return spec.model_copy(update={"cluster": spec.cluster.model_copy(update=changed)})


def make_scripts(
    spec: SweepSpec,
    origin: str = "the spec",
    *,
    chain: bool = False,
    mixed_versions: bool = False,
) -> Scripts:
    """Check a spec and return the scripts; nothing is written. Parameters as of `submit`.

    Raises
    ------
    SpecError, PlanError, StoreError
        As `hpc_sweep.prepare` does, and where there is no queue to submit to.
    """
    run = run_folder(spec.output.store)
    cluster = _job_queue(spec.cluster, run)
    store = prepare(driver_spec(spec), origin).store
    if store is not None:
        check_versions(store, mixed=mixed_versions)
    command = [
        *(sys.executable, "-m", "hpc_sweep", "run", str(run.spec)),
        *(["--chain"] if chain else []),
        *(["--mixed-versions"] if mixed_versions else []),
    ]
    job = driver_job(spec.cluster, command, str(run.logs))
    walltime = seconds(job.walltime or "")
    job = replace(
        job,
        walltime=None if walltime is None else clock(walltime),
        # without a successor nobody would go on with what a shortened job leaves
        time_min=cluster.queue.time_min(walltime, spec.cluster.time_min) if chain else None,
    )
    if spec.cluster.place == "one_job":
        workers = cluster.workers_per_job * (cluster.worker_memory_bytes() or 0)
        job = replace(
            job,
            name="sweep",
            size=replace(
                job.size,
                nodes=cluster.jobs,
                cores=cluster.workers_per_job,
                memory_bytes=job.size.memory_bytes + workers,
            ),
        )
    return Scripts(driver_script(spec.cluster.kind, job), cluster.job_script())


def submit(
    spec: SweepSpec,
    origin: str = "the spec",
    *,
    chain: bool = False,
    mixed_versions: bool = False,
) -> list[str]:
    """Submit the driver as a job of its own.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    origin : str
        What messages call it.
    chain : bool
        Queue a successor too, which starts when the driver's job has ended, however it did;
        each link queues the next one, until the sweep is complete.
    mixed_versions : bool
        As of `hpc_sweep.sweep.execute`.

    Returns
    -------
    list of str
        Ids of the jobs.

    Raises
    ------
    ClusterError
        With the queue's own words when it refuses.
    """
    scripts = make_scripts(spec, origin, chain=chain, mixed_versions=mixed_versions)
    run = run_folder(spec.output.store)
    queue = make_queue(spec.cluster.kind)
    run.make()
    write_durably(run.spec, driver_spec(spec, chain=chain).model_dump_json(indent=2).encode())
    write_durably(run.script, scripts.driver.encode())
    jobs = [_submit_link(queue, run, None)]
    if chain:
        jobs.append(_submit_link(queue, run, jobs[0]))
    return jobs


@contextlib.contextmanager
def chain_link(spec: SweepSpec, say: Callable[[str], None]) -> Iterator[None]:
    """Run a driver as one link of a chain: keep a successor queued, or end the chain.

    The chain goes on after a link that was stopped, drained or killed, and after one that no
    worker came to. It ends when the sweep is complete, when an error would come again
    (spec, store, disk, a refusal of the queue), and after a link that had workers and added
    nothing.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    say : callable
        Told what becomes of the chain.
    """
    run = run_folder(spec.output.store)
    queue = make_queue(spec.cluster.kind)
    mine = queue.current_job()
    try:
        _wait_for_disk(run, spec.cluster.disk_patience, say)
        _queue_successor(queue, run, mine, say)
        yield
    except (Interrupted, NoWorkersError) as error:
        if _added_nothing(run):
            _end_chain(queue, run, mine, say, "this link had workers and added nothing")
            raise ClusterError(
                f"{error}; a link that had workers and added nothing ends the chain: a unit may "
                "need more time than a link has; raise cluster.driver.walltime"
            ) from error
        raise
    except SweepError as error:
        _end_chain(queue, run, mine, say, type(error).__name__)
        raise
    _end_chain(queue, run, mine, say, "the sweep is complete")


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


def _submit_link(queue: Queue, run: RunFolder, after: str | None) -> str:
    job = queue.submit(run.script, after)
    Journal(run.events).write("driver_submitted", job=job, kind=queue.kind, after=after)
    return job


def _other_links(queue: Queue, run: RunFolder, mine: str) -> list[str]:
    """Return the driver jobs of this run that have not ended, but this one."""
    events = [e for e in read_events(run.events) if e["event"] == "driver_submitted"]
    jobs = [event["job"] for event in events if event["job"] != mine]
    if not jobs:
        return []
    alive = {state.job for state in queue.states(jobs) if not state.ended}
    return [job for job in jobs if job in alive]


def _queue_successor(queue: Queue, run: RunFolder, mine: str, say: Callable[[str], None]) -> None:
    """Queue one more link unless `MAX_SUCCESSORS` wait already."""
    try:
        waiting = _other_links(queue, run, mine)
        if len(waiting) < MAX_SUCCESSORS:
            job = _submit_link(queue, run, waiting[-1] if waiting else mine)
            say(f"queued job {job} to go on after this one")
    except (ClusterError, QueueSilentError) as error:
        say(f"no successor could be queued from here: {error}")


def _end_chain(
    queue: Queue, run: RunFolder, mine: str, say: Callable[[str], None], why: str
) -> None:
    try:
        waiting = _other_links(queue, run, mine)
        if waiting:
            queue.cancel(waiting)
            say(f"cancelled the queued links {', '.join(waiting)}: {why}")
    except QueueSilentError as error:
        say(f"queued links stay, and end by themselves when the sweep is complete: {error}")


def _added_nothing(run: RunFolder) -> bool:
    """Return whether the last run in the event log had workers but finished no unit."""
    kinds: list[str] = []
    for event in read_events(run.events):
        kinds = [] if event["event"] == "run_started" else [*kinds, event["event"]]
    return "workers_ready" in kinds and "unit_done" not in kinds


def cancel(store: str | Path) -> list[str]:
    """Cancel the jobs of a store's runs, and only these; return those that were alive.

    Raises
    ------
    StoreError
        When there is no run folder.
    ClusterError
        When the queue does not answer.
    """
    run = run_folder(Path(store).absolute())
    if not run.path.is_dir():
        raise StoreError(f"{run.path} does not exist, so no job is known of {store}")
    jobs: dict[str, list[str]] = defaultdict(list)
    for event in read_events(run.events):
        if event["event"] in ("driver_submitted", "job_submitted"):
            jobs[event["kind"]].append(event["job"])
    cancelled: list[str] = []
    for kind, ids in jobs.items():
        queue = make_queue(kind)
        try:
            states = [state for state in queue.states(ids) if not state.ended]
            alive = [state.job for state in states if state.state not in ENDING]
            if alive:
                queue.cancel(alive)
        except QueueSilentError as error:
            raise ClusterError(f"jobs {', '.join(ids)} were not cancelled: {error}") from None
        cancelled += alive
    Journal(run.events).write("cancelled", jobs=cancelled)
    return cancelled


def _job_queue(spec: ClusterSpec, run: RunFolder) -> JobQueue:
    make_queue(spec.kind)  # says so when there is none
    cluster = make_cluster(spec, run.path, lambda event, **facts: None)
    return cast("JobQueue", cluster)
