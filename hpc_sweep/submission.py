"""The driver in a job of its own, and the end of a run's jobs."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.clusters import ENDING, JobQueue, QueueSilentError, make_cluster
from hpc_sweep.errors import ClusterError, Fault, SpecError, StoreError
from hpc_sweep.jobscripts import DriverJob, driver_script
from hpc_sweep.prepare import prepare
from hpc_sweep.spec import ClusterSpec, SweepSpec
from hpc_sweep.store import Journal, RunFolder, read_events, run_folder
from hpc_sweep.store.durable import write_durably


@dataclass(frozen=True)
class Scripts:
    """What ``submit`` hands to the queue.

    Attributes
    ----------
    driver, worker : str
        Scripts of the driver's job and of the worker jobs that it submits.
    """

    driver: str
    worker: str


def driver_spec(spec: SweepSpec) -> SweepSpec:
    """Return the spec as the driver's job needs it: on a node, not on a login node."""
    cluster = spec.cluster.model_copy(update={"scheduler_interface": None})
    return spec.model_copy(update={"cluster": cluster})


def make_scripts(spec: SweepSpec, origin: str = "the spec") -> Scripts:
    """Check a spec and return the scripts; nothing is written.

    Raises
    ------
    SpecError, PlanError, StoreError
        As `hpc_sweep.prepare` does, and where there is no queue to submit to.
    """
    run = run_folder(spec.output.store)
    cluster = _queue(spec.cluster, run)
    prepare(driver_spec(spec), origin)
    driver, workers = spec.cluster.driver, spec.cluster
    job = DriverJob(
        command=[sys.executable, "-m", "hpc_sweep", "run", str(run.spec)],
        log_folder=str(run.logs),
        memory_bytes=int(driver.memory),
        queue=driver.queue or workers.queue,
        account=driver.account or workers.account,
        walltime=driver.walltime or workers.walltime,
        directives=driver.directives,
        prologue=workers.prologue,
    )
    return Scripts(driver_script(spec.cluster.kind, job), cluster.job_script())


def submit(spec: SweepSpec, origin: str = "the spec") -> str:
    """Submit the driver as a job of its own and return the job's id.

    Raises
    ------
    ClusterError
        With the queue's own words when it refuses.
    """
    scripts = make_scripts(spec, origin)
    run = run_folder(spec.output.store)
    cluster = _queue(spec.cluster, run)
    run.make()
    write_durably(run.spec, driver_spec(spec).model_dump_json(indent=2).encode())
    write_durably(run.script, scripts.driver.encode())
    job = cluster.submit_driver(run.script)
    Journal(run.events).write("driver_submitted", job=job, kind=spec.cluster.kind)
    return job


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
        cluster = _queue(ClusterSpec(kind=kind), run)
        try:
            states = [state for state in cluster.states(ids) if not state.ended]
            alive = [state.job for state in states if state.state not in ENDING]
            if alive:
                cluster.cancel(alive)
        except QueueSilentError as error:
            raise ClusterError(f"jobs {', '.join(ids)} were not cancelled: {error}") from None
        cancelled += alive
    Journal(run.events).write("cancelled", jobs=cancelled)
    return cancelled


def _queue(spec: ClusterSpec, run: RunFolder) -> JobQueue:
    cluster = make_cluster(spec, run.path, lambda event, **facts: None)
    if not isinstance(cluster, JobQueue):
        message = f"'{spec.kind}' has no queue to submit to; use --cluster slurm or pbs"
        raise SpecError([Fault("cluster.kind", message)])
    return cluster
