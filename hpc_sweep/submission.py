"""The driver in a job of its own, and the end of a run's jobs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_sweep.budget import check_budget, shorter_walltime_s
from hpc_sweep.clusters import (
    QUEUES,
    NotNowError,
    Queue,
    QueueSilentError,
    clock,
    current_queue,
    has_ended,
    make_queue,
    seconds,
)
from hpc_sweep.directives import PREFIX
from hpc_sweep.driverjobs import job_queue, submit_driver
from hpc_sweep.errors import ClusterError, Fault, SpecError
from hpc_sweep.jobscripts import driver_job, driver_script, with_workers
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.prepare import Prepared, begin, check_versions, group_of, prepare
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import RunFolder, group_access, hold, run_folder
from hpc_sweep.store.durable import write_durably

CHECK = (sys.executable, "-c", "import hpc_sweep.cli")
"""What a node must be able to do before a driver begins there."""


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
    together : bool
        Whether workers are in the driver's job.
    """

    driver: str
    worker: str
    together: bool = False


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
    retry : tuple of str
        Kinds of failure that are done again.
    """

    chain: bool = False
    drivers: int = 0
    mixed_versions: bool = False
    retry: tuple[str, ...] = ()


def driver_spec(spec: SweepSpec, way: Way = Way()) -> SweepSpec:
    """Return the spec as the driver's job needs it: on a node, with nobody who waits for it."""
    # the profile lies under the section already, and may not be seen from a node
    changed: dict[str, object] = {"scheduler_interface": None, "machine": None}
    if way.chain:
        changed["start_timeout"] = spec.cluster.idle_limit
    if way.drivers:
        workers = job_queue(spec.cluster, run_folder(spec.output.store))
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
    share = f"array/{way.drivers}"
    return driver_scripts(spec, way, _words(spec, way, share), share)


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
    words = _words(spec, Way(), "")
    return spec, driver_scripts(spec, Way(), words) if has_queue else Scripts("", "")


def check_way(spec: SweepSpec, origin: str, way: Way) -> None:
    """Refuse a way that the cluster does not have.

    Raises
    ------
    SpecError
        With all that is wrong.
    """
    cluster = job_queue(spec.cluster, run_folder(spec.output.store))
    faults = cluster.faults() if way.drivers else []
    if way.chain and way.drivers:
        faults.append(Fault("--drivers", "has no --chain; submit again to go on"))
    if way.chain and not spec.cluster.chain:
        message = "is false, as this machine wants no jobs that queue jobs; submit again to go on"
        faults.append(Fault("cluster.chain", message))
    if faults:
        raise SpecError(faults, origin)


def _checked(spec: SweepSpec, origin: str, way: Way) -> Prepared:
    check_way(spec, origin, way)
    prepared = prepare(driver_spec(spec, way), origin, drivers=max(1, way.drivers))
    if prepared.store is not None:
        check_versions(prepared.store, mixed=way.mixed_versions)
        check_budget(spec, prepared.store, prepared.change)
    return prepared


def _words(spec: SweepSpec, way: Way, share: str) -> list[str]:
    """Return the command of a sweep's driver."""
    return [
        *("run", str(run_folder(spec.output.store).spec)),
        *(["--chain"] if way.chain else []),
        *(["--mixed-versions"] if way.mixed_versions else []),
        *(["--share", share] if way.drivers else []),
    ]


def driver_scripts(spec: SweepSpec, way: Way, words: Sequence[str], share: str = "") -> Scripts:
    """Return the scripts of a driver's job and its workers' jobs.

    Parameters
    ----------
    spec : SweepSpec
        Its cluster, and in whose run folder the jobs leave their logs.
    way : Way
        How it is submitted.
    words : sequence of str
        What the driver does, after ``hpc-sweep``.
    share : str
        Which of several drivers it is.
    """
    run = run_folder(spec.output.store)
    cluster = job_queue(spec.cluster, run)
    command = [sys.executable, "-m", "hpc_sweep", *words]
    asked = cluster.completed()
    job = driver_job(asked, command, str(run.logs))
    walltime = seconds(job.walltime or "")
    job = replace(
        job,
        check=CHECK,
        walltime=None if walltime is None else clock(walltime),
        # without a successor nobody would go on with what a shortened job leaves
        time_min=cluster.queue.time_min(walltime, spec.cluster.time_min) if way.chain else None,
    )
    together = spec.cluster.place == "one_job"
    if way.drivers or together:
        nodes, cores = 1 if way.drivers else cluster.jobs, cluster.workers_per_job
        memory_bytes = cores * (cluster.worker_memory_bytes() or 0)
        job = with_workers(job, asked, nodes, cores, memory_bytes)
        job = replace(job, array=way.drivers if share.startswith("array") else 1)
    worker = "" if way.drivers else cluster.job_script()
    if together:  # which is no job, so that its directives say nothing
        lines = worker.splitlines(keepends=True)
        worker = "".join(line for line in lines if not line.startswith(PREFIX[spec.cluster.kind]))
    return Scripts(driver_script(spec.cluster.kind, job), worker, together)


def warnings_of(spec: SweepSpec) -> list[str]:
    """Return what the user should know about the cluster before it is started."""
    return job_queue(spec.cluster, run_folder(spec.output.store)).warnings()


def submit(
    spec: SweepSpec,
    origin: str = "the spec",
    way: Way = Way(),
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
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
    say : callable
        Told what is changed in the store.

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
    share = f"array/{way.drivers}"
    scripts = driver_scripts(spec, way, _words(spec, way, share), share)
    run = leave_for_driver(spec, way, scripts)
    has_more = prepared.store is not None and (way.retry or prepared.change is not None)
    if way.drivers or has_more:  # once, before the first of several drivers or links comes
        with (
            group_access(group_of(spec) is not None),
            hold(run.lease, rivals=run.rivals, has_ended=has_ended, say=say),
        ):
            begin(prepared, retry=way.retry, say=say)
    if not way.drivers:
        cores = job_queue(spec.cluster, run).workers
        return submit_drivers_job(spec, way, shorter_walltime_s(spec, cores))
    jobs: list[str] = []
    queue = make_queue(spec.cluster.kind)
    with _all_or_none(queue, jobs):
        _submit_drivers(spec, queue, run, way, jobs)
    return jobs


def leave_for_driver(spec: SweepSpec, way: Way, scripts: Scripts) -> RunFolder:
    """Leave in the run folder what a driver's job reads, and its script."""
    run, group = run_folder(spec.output.store), group_of(spec)
    with group_access(group is not None):
        run.make(group)
        write_durably(run.spec, driver_spec(spec, way).model_dump_json(indent=2).encode())
        write_durably(run.script, scripts.driver.encode())
        run.asked.unlink(missing_ok=True)
    return run


def submit_drivers_job(spec: SweepSpec, way: Way, walltime_s: float | None = None) -> list[str]:
    """Submit one driver's job, whose script is in the run folder, and with a chain the next.

    Parameters
    ----------
    spec : SweepSpec
        Its cluster and run folder.
    way : Way
        Whether there is a chain.
    walltime_s : float, optional
        In place of the script's.

    Returns
    -------
    list of str
        Ids of the jobs.

    Raises
    ------
    ClusterError
        With the queue's own words when it refuses.
    """
    queue, run = make_queue(spec.cluster.kind), run_folder(spec.output.store)
    jobs: list[str] = []
    with _all_or_none(queue, jobs):
        jobs.append(submit_driver(queue, run, None, walltime_s))
        if way.chain:
            with contextlib.suppress(NotNowError):  # the first link queues it
                jobs.append(submit_driver(queue, run, jobs[0], walltime_s))
    return jobs


@contextlib.contextmanager
def _all_or_none(queue: Queue, jobs: Sequence[str]) -> Iterator[None]:
    """Cancel the jobs of a submission that the queue does not take as a whole."""
    try:
        yield
    except ClusterError as error:
        left = "nothing was submitted"
        try:
            if jobs:
                queue.cancel(jobs)
        except QueueSilentError:
            left = f"jobs {', '.join(jobs)} were submitted: hpc-sweep cancel STORE ends them"
        if isinstance(error, NotNowError):
            raise NotNowError(f"{error}; {left}, the same command can be tried again") from None
        raise type(error)(f"{error}; {left}" if jobs else str(error)) from None


def _submit_drivers(
    spec: SweepSpec, queue: Queue, run: RunFolder, way: Way, jobs: list[str]
) -> None:
    """Append the ids of what is submitted to `jobs`."""
    cores = way.drivers * job_queue(spec.cluster, run).workers_per_job
    walltime_s = shorter_walltime_s(spec, cores)
    try:
        jobs.append(submit_driver(queue, run, None, walltime_s, f"array/{way.drivers}"))
        return
    except ClusterError as error:
        if way.drivers == 1 or "array" not in str(error).lower():
            raise
    for index in range(1, way.drivers + 1):
        share = f"{index}/{way.drivers}"
        script = driver_scripts(spec, way, _words(spec, way, share), share).driver
        write_durably(run.script, script.encode())
        jobs.append(submit_driver(queue, run, None, walltime_s, share))


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
