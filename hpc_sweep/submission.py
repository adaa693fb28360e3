"""The driver in a job of its own, and the end of a run's jobs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from hpc_sweep.budget import check_budget, forecast
from hpc_sweep.clusters import (
    ENDING,
    QUEUES,
    JobQueue,
    Queue,
    QueueSilentError,
    clock,
    current_queue,
    make_cluster,
    make_queue,
    seconds,
    with_margin,
)
from hpc_sweep.directives import PREFIX
from hpc_sweep.errors import (
    ClusterError,
    DiskError,
    Fault,
    Interrupted,
    NoWorkersError,
    SpecError,
    StoreError,
)
from hpc_sweep.jobscripts import driver_job, driver_script, with_workers
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.prepare import Prepared, check_versions, create, group_of, prepare
from hpc_sweep.spec import ClusterSpec, SweepSpec, load_spec
from hpc_sweep.store import (
    Journal,
    Outage,
    RunFolder,
    Store,
    group_access,
    hold,
    probe,
    read_events,
    run_folder,
)
from hpc_sweep.store.durable import write_durably

MAX_SUCCESSORS = 2
"""How many links of a chain wait in the queue at the most."""


@dataclass(frozen=True)
class Scripts:
    """What ``submit`` hands to the queue.

    Attributes
    ----------
    driver : str
        Script of the driver's job, or of each of several drivers' jobs.
    worker : str
        Script of the worker jobs that it submits, or of what it starts on each node of its own;
        ``""`` where each driver has a local cluster.
    """

    driver: str
    worker: str


@dataclass(frozen=True)
class Way:
    """How a sweep is submitted.

    Attributes
    ----------
    chain : bool
        Queue successors until the sweep is complete.
    drivers : int
        So many drivers, each with one node, a local cluster, and a share of the store; 0: one
        driver, with workers elsewhere.
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store.
    """

    chain: bool = False
    drivers: int = 0
    mixed_versions: bool = False


def driver_spec(spec: SweepSpec, way: Way = Way()) -> SweepSpec:
    """Return the spec as the driver's job needs it: on a node, with nobody who waits for it."""
    # the profile lies under the section already, and may not be seen from a node
    changed: dict[str, object] = {"scheduler_interface": None, "machine": None}
    if way.chain:
        changed["start_timeout"] = spec.cluster.idle_limit
    if way.drivers:
        workers = _job_queue(spec.cluster, run_folder(spec.output.store))
        changed |= {
            "kind": "local",
            "workers": workers.workers_per_job,
            "workers_per_node": None,
            "nodes": None,
            "memory": workers.worker_memory_bytes(),
            "node_memory": None,
            "options": {},  # of another cluster class
        }
    cluster = spec.cluster.model_copy(update=changed)
    return spec.model_copy(update={"cluster": cluster})


def make_scripts(spec: SweepSpec, origin: str = "the spec", way: Way = Way()) -> Scripts:
    """Check a spec and return the scripts; nothing is written.

    Raises
    ------
    SpecError, PlanError, StoreError
        As `hpc_sweep.prepare` does, and where there is no queue to submit to.
    """
    _checked(spec, origin, way)
    return _scripts(spec, way, f"array/{way.drivers}")


def machine_scripts(name: str, folder: Path) -> tuple[SweepSpec, Scripts]:
    """Return a spec that says nothing but the machine's name, and the scripts that it gives.

    Parameters
    ----------
    name : str
        The machine.
    folder : Path
        Where data and store would be.

    Raises
    ------
    SpecError
        As `hpc_sweep.spec.load_machine` does.
    """
    spec = load_spec(
        {
            "data": {"store": str(folder / "DATA"), "features": ["x"], "partition_by": ["y"]},
            "models": [{"estimator": "sklearn.linear_model.Ridge"}],
            "cluster": {"machine": name},
            "output": {"store": str(folder / "STORE")},
        }
    )
    has_queue = spec.cluster.kind in QUEUES
    return spec, _scripts(spec, Way(), "") if has_queue else Scripts("", "")


def _checked(spec: SweepSpec, origin: str, way: Way) -> Prepared:
    cluster = _job_queue(spec.cluster, run_folder(spec.output.store))
    faults = cluster.faults() if way.drivers else []
    if way.chain and way.drivers:
        faults.append(Fault("--drivers", "has no --chain; submit again to go on"))
    if way.chain and not spec.cluster.chain:
        message = "is false, as this machine wants no jobs that queue jobs; submit again to go on"
        faults.append(Fault("cluster.chain", message))
    if faults:
        raise SpecError(faults, origin)
    prepared = prepare(driver_spec(spec, way), origin, drivers=max(1, way.drivers))
    if prepared.store is not None:
        check_versions(prepared.store, mixed=way.mixed_versions)
        check_budget(spec, prepared.store)
    return prepared


def _scripts(spec: SweepSpec, way: Way, share: str) -> Scripts:
    run = run_folder(spec.output.store)
    cluster = _job_queue(spec.cluster, run)
    command = [
        *(sys.executable, "-m", "hpc_sweep", "run", str(run.spec)),
        *(["--chain"] if way.chain else []),
        *(["--mixed-versions"] if way.mixed_versions else []),
        *(["--share", share] if way.drivers else []),
    ]
    job = driver_job(spec.cluster, command, str(run.logs))
    walltime = seconds(job.walltime or "")
    job = replace(
        job,
        walltime=None if walltime is None else clock(walltime),
        # without a successor nobody would go on with what a shortened job leaves
        time_min=cluster.queue.time_min(walltime, spec.cluster.time_min) if way.chain else None,
    )
    if way.drivers or spec.cluster.place == "one_job":
        nodes, cores = 1 if way.drivers else cluster.jobs, cluster.workers_per_job
        memory_bytes = cores * (cluster.worker_memory_bytes() or 0)
        job = with_workers(job, spec.cluster, nodes, cores, memory_bytes)
        job = replace(job, array=way.drivers if share.startswith("array") else 1)
    worker = "" if way.drivers else cluster.job_script()
    if spec.cluster.place == "one_job":  # which is no job, so that its directives say nothing
        lines = worker.splitlines(keepends=True)
        worker = "".join(line for line in lines if not line.startswith(PREFIX[spec.cluster.kind]))
    return Scripts(driver_script(spec.cluster.kind, job), worker)


def warnings_of(spec: SweepSpec) -> list[str]:
    """Return what the user should know about the cluster before it is started."""
    return _job_queue(spec.cluster, run_folder(spec.output.store)).warnings()


def submit(spec: SweepSpec, origin: str = "the spec", way: Way = Way()) -> list[str]:
    """Submit the driver as a job of its own.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    origin : str
        What messages call it.
    way : Way
        With a chain there is a successor too, which starts when the driver's job has ended,
        however it did; each link queues the next one. Several drivers are an array of jobs, or
        single ones where the queue takes no array.

    Returns
    -------
    list of str
        Ids of the jobs.

    Raises
    ------
    ClusterError
        With the queue's own words when it refuses.
    """
    prepared = _checked(spec, origin, way)
    scripts = _scripts(spec, way, f"array/{way.drivers}")
    run = run_folder(spec.output.store)
    queue = make_queue(spec.cluster.kind)
    group = group_of(spec)
    with group_access(group is not None):
        run.make(group)
        write_durably(run.spec, driver_spec(spec, way).model_dump_json(indent=2).encode())
        write_durably(run.script, scripts.driver.encode())
        if way.drivers:
            _make_store(prepared, run)
    if way.drivers:
        return _submit_drivers(spec, queue, run, way)
    jobs = [_submit_link(spec, queue, run, None)]
    if way.chain:
        jobs.append(_submit_link(spec, queue, run, jobs[0]))
    return jobs


def _make_store(prepared: Prepared, run: RunFolder) -> None:
    """Create the store before the first of several drivers comes."""
    if prepared.store is None:
        with hold(run.lease, rivals=run.rivals):
            create(prepared).remove_leftovers()


def _submit_drivers(spec: SweepSpec, queue: Queue, run: RunFolder, way: Way) -> list[str]:
    try:
        return [_submit_link(spec, queue, run, None, way.drivers)]
    except ClusterError as error:
        if way.drivers == 1 or "array" not in str(error).lower():
            raise
    jobs = []
    for index in range(1, way.drivers + 1):
        script = _scripts(spec, way, f"{index}/{way.drivers}").driver
        write_durably(run.script, script.encode())
        jobs.append(_submit_link(spec, queue, run, None, way.drivers))
    return jobs


def parse_share(text: str) -> Share:
    """Return the share that a driver's job was given: ``2/4``, or ``array/4`` in a job array.

    Raises
    ------
    ClusterError
        When this process is in no job array.
    """
    index, _, count = text.partition("/")
    if count == "1":
        return WHOLE
    if index == "array":
        queue = current_queue()
        index = os.environ.get(queue.index_variable, "") if queue else ""
        if not index:
            raise ClusterError(f"--share {text} needs a job array, and this is no job of one")
    return Share(int(index), int(count))


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
        _queue_successor(spec, queue, mine, say)
        yield
    except (Interrupted, NoWorkersError) as error:
        if _added_nothing(run):
            _end_chain(queue, run, mine, say, "this link had workers and added nothing")
            raise ClusterError(
                f"{error}; a link that had workers and added nothing ends the chain: a unit may "
                "need more time than a link has; raise cluster.driver.walltime"
            ) from error
        raise
    except Exception as error:
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


def _submit_link(
    spec: SweepSpec, queue: Queue, run: RunFolder, after: str | None, drivers: int = 0
) -> str:
    job = queue.submit(run.script, after, _shorter_walltime_s(spec, drivers))
    Journal(run.events).write("driver_submitted", job=job, kind=queue.kind, after=after)
    return job


def _shorter_walltime_s(spec: SweepSpec, drivers: int) -> float | None:
    """Return what the rest of a sweep is predicted to need, where it is less than asked for."""
    asked = seconds(spec.cluster.driver.walltime or spec.cluster.walltime or "")
    if asked is None or not Path(spec.output.store).exists():
        return None
    rest = forecast(Store.open(spec.output.store)).remaining_core_hours
    if rest is None:
        return None
    workers = _job_queue(spec.cluster, run_folder(spec.output.store))
    cores = drivers * workers.workers_per_job if drivers else workers.workers
    needed = with_margin(rest * 3600 / cores)
    return needed if needed < asked else None


def _other_links(queue: Queue, run: RunFolder, mine: str) -> list[str]:
    """Return the driver jobs of this run that have not ended, but this one."""
    events = [e for e in read_events(run.events) if e["event"] == "driver_submitted"]
    jobs = [event["job"] for event in events if event["job"] != mine]
    if not jobs:
        return []
    alive = {state.job for state in queue.states(jobs) if not state.ended}
    return [job for job in jobs if job in alive]


def _queue_successor(spec: SweepSpec, queue: Queue, mine: str, say: Callable[[str], None]) -> None:
    """Queue one more link unless `MAX_SUCCESSORS` wait already."""
    run = run_folder(spec.output.store)
    try:
        waiting = _other_links(queue, run, mine)
        if len(waiting) < MAX_SUCCESSORS:
            job = _submit_link(spec, queue, run, waiting[-1] if waiting else mine)
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
