"""Worker jobs on a queue, through dask-jobqueue: what Slurm and PBS have in common.

The user's own ``jobqueue.yaml`` is the ground; what the spec says overrides it.
"""

from __future__ import annotations

import abc
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes
from distributed import Client, Security

from hpc_sweep import jobend, placeholders
from hpc_sweep.clusters import ending
from hpc_sweep.clusters.base import OTHERS_BYTES, WORKER_ENVIRONMENT, Cluster, Record, Say
from hpc_sweep.clusters.certificates import (
    certificates,
    keys_folder,
    make_certificates,
    remove_certificates,
)
from hpc_sweep.clusters.configuration import configured, keeping_sigint
from hpc_sweep.clusters.nodes import Nodes
from hpc_sweep.clusters.options import option_faults
from hpc_sweep.clusters.queue import (
    JobState,
    Queue,
    QueueSilentError,
    clock,
    is_for_maintenance,
    seconds,
    with_margin,
)
from hpc_sweep.clusters.security import security_faults
from hpc_sweep.clusters.watching import Watch, described
from hpc_sweep.directives import Changes, Size, scratch_bytes, worker_changes
from hpc_sweep.errors import ClusterError, Fault, SpecError
from hpc_sweep.processes import FILES_PER_CONNECTION, open_files_missing, raise_open_files
from hpc_sweep.spec import ClusterSpec

LOST_S = 120
"""A job whose worker is lost has so long to bring it back, by its nanny: imports may be slow on a
busy file system, and another job may wait for hours. Dask's own limit is 15 seconds."""

_PLAIN_PATH = re.compile(r"[\w./+@-]+")


class JobQueue(Cluster):
    """A cluster of dask-jobqueue with TLS, whose rejected submissions are not lost.

    Attributes
    ----------
    queue : Queue
        Its commands; its kind is also the section of ``jobqueue.yaml``.
    """

    queue: Queue

    def __init__(self, spec: ClusterSpec, folder: Path, say: Say) -> None:
        super().__init__(spec, folder, say)
        self._record = Record(say)
        self._reason = ""
        self._maintained = False
        self._watch: Watch | None = None

    @property
    def workers_per_job(self) -> int:
        """Worker processes of one job; one core each."""
        asked = (
            self.spec.workers_per_node or self._configured("processes") or self._configured("cores")
        )
        return int(asked or 1)

    @property
    def jobs(self) -> int:
        """How many jobs are submitted, or how many nodes their one job has."""
        if isinstance(self.queue, Nodes):
            return len(self.queue.nodes())
        if self.spec.workers is None:
            return self.spec.nodes or 1
        return -(-self.spec.workers // self.workers_per_job)

    @property
    def workers(self) -> int:
        """Worker processes of all jobs."""
        return self.jobs * self.workers_per_job

    def worker_memory_bytes(self) -> int | None:
        """Return the memory of a worker: given, or a share of the job's."""
        given, job = super().worker_memory_bytes(), self.job_memory_bytes()
        if given is not None or job is None:
            return given
        return self.share_bytes(job, self.workers_per_job)

    def job_memory_bytes(self) -> int | None:
        """Return the memory that a job asks for, or None where it is not known."""
        if self.spec.memory is not None:
            return int(self.spec.memory) * self.workers_per_job + OTHERS_BYTES
        configured = self.spec.node_memory or self._configured("memory")
        return None if configured is None else int(parse_bytes(configured))

    def most_core_hours(self) -> tuple[float, str] | None:
        """Return cores × walltime of the driver's job, within which workers are replaced."""
        driver = self.spec.driver.walltime or self.spec.walltime
        ends = [seconds(driver) if driver else None, self._walltime_s()]
        longest = max((end for end in ends if end is not None), default=None)
        if longest is None:
            return None
        cores = self.workers + (self.spec.place == "worker_jobs")
        return cores * longest / 3600, f"{cores} cores for {clock(longest)}"

    def completed(self) -> ClusterSpec:
        """Return the section with what ``jobqueue.yaml`` adds that a driver's job needs as well."""
        added = {
            "queue": self.spec.queue or self._configured("queue"),
            "account": self.spec.account or self._configured("account"),
            "prologue": [*(self._configured("job-script-prologue") or ()), *self.spec.prologue],
            "skip": [*(self._configured("job-directives-skip") or ()), *self.spec.skip],
        }
        return self.spec.model_copy(update=added)

    def faults(self) -> list[Fault]:
        """Return what is missing before jobs can be submitted."""
        faults = []
        if shutil.which(self.queue.submit_command) is None:
            message = (
                f"{self.spec.kind} needs {self.queue.submit_command}, which is not on PATH here; "
                "use --cluster local, or go to a login node"
            )
            faults.append(Fault("cluster.kind", message))
        if self.worker_memory_bytes() is None:
            message = (
                "is missing; memory per worker process such as 4GB (or node_memory, or in "
                "jobqueue.yaml)"
            )
            faults.append(Fault("cluster.memory", message))
        if not _PLAIN_PATH.fullmatch(str(self.folder)):
            message = f"'{self.folder}' cannot go into a job script; letters, digits and ._+-/ can"
            faults.append(Fault("output.store", message))
        missing = open_files_missing(self.workers, FILES_PER_CONNECTION)
        if missing:
            faults.append(Fault("cluster.workers", missing))
        names = ("worker-extra-args", "scheduler-options")
        theirs = [(f"jobqueue.{self.queue.kind}.{name}", self._configured(name)) for name in names]
        given = [
            (f"cluster.options.{name}", self.spec.options.get(name))
            for name in ("worker_extra_args", "scheduler_options")
        ]
        faults += security_faults(self.spec, *theirs, *given)
        return [*faults, *option_faults(self.spec.options)]

    def start(self) -> Client:
        """Start the scheduler in this process and submit the worker jobs.

        In one job with its workers, they are started on its nodes instead.
        """
        if self.spec.place == "one_job":
            self.queue = Nodes(self.queue, self.folder, self.workers_per_job)
            self._record.nodes = self.queue
        self._record.queue = self.queue.known_name()
        raise_open_files(self.workers, FILES_PER_CONNECTION)
        self._configure({"distributed.deploy.lost-worker-timeout": f"{LOST_S}s"})
        with keeping_sigint():
            make, job = self.classes()
        try:
            options = self.options(self._security(make_certificates))
            self._cluster = make(job_cls=job, **{**options, **self.spec.options})
            self._client = Client(self._cluster)
            # for those who look in with a client of their own, and this run's keys
            identity = json.dumps(self._cluster.scheduler.identity(), default=str)
            self._scheduler_file.write_text(identity)
        except Exception as error:
            self.close()
            raise ClusterError(f"the Dask scheduler did not start: {error}") from error
        self._cluster.scale(jobs=self.jobs)
        return self._client

    @property
    def _scheduler_file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def _protocol(self) -> str:
        return "tls://" if self.spec.security == "tls" else "tcp://"

    def _security(self, get: Callable[[Path], Security]) -> Security | None:
        return get(keys_folder(self.folder)) if self.spec.security == "tls" else None

    @abc.abstractmethod
    def classes(self) -> tuple[Any, Any]:
        """Import and return dask-jobqueue's cluster class, and our job class for it."""

    def job_script(self) -> str:
        """Return the script of a worker job, with a placeholder for the scheduler's address.

        Nothing is written: dask-jobqueue makes the folder of logs, so it gets another one.
        """
        with keeping_sigint():
            _, job = self.classes()
        options = {**self.options(self._security(certificates)), **self.spec.options}
        for key in ("scheduler_options", "silence_logs"):
            options.pop(key, None)
        with tempfile.TemporaryDirectory() as folder:
            logs = options.get("log_directory")
            options["log_directory"] = folder
            try:
                made = job(f"{self._protocol}SCHEDULER:PORT", "NAME", **options)
            except TypeError as error:
                message = f"dask-jobqueue does not take it: {error}"
                raise SpecError([Fault("cluster.options", message)]) from None
            return str(made.job_script()).replace(folder, str(logs))

    def options(self, security: Any) -> dict[str, Any]:
        """Return what the cluster class is made with."""
        spec = self.spec
        options: dict[str, Any] = {
            "record": self._record,
            "job_name": "hpc-sweep-worker",
            "cores": self.workers_per_job,
            "processes": self.workers_per_job,
            "memory": f"{self.job_memory_bytes() or 0}B",
            "queue": spec.queue,
            "account": spec.account,
            "interface": spec.interface,
            "log_directory": str(self.folder / "logs"),
            "protocol": self._protocol,
            "security": security,
            "python": f"exec {shlex.join([*self._launcher(), self._python()])}",
            "worker_command": "hpc_sweep.worker",
            "worker_memory_bytes": self.worker_memory_bytes(),
            "changes": self._changes(),
            "scratch_bytes": scratch_bytes(self.spec),
            "local_directory": None if spec.scratch is None else f'"{spec.scratch.folder}"',
            "worker_extra_args": [
                *(self._configured("worker-extra-args") or ()),
                *("--nworkers", str(self.workers_per_job), "--no-dashboard"),
                *("--dashboard-address", "127.0.0.1:0"),
                "--preload hpc_sweep.clusters.ending",
            ],
            "silence_logs": "critical",  # the journal tells of deaths
            **self._timed(self._walltime_s()),
        }
        scheduler: dict[str, Any] = {
            **(self._configured("scheduler-options") or {}),
            "dashboard": spec.dashboard,
            "dashboard_address": "127.0.0.1:0",
        }
        if spec.scheduler_interface is not None:
            scheduler["interface"] = spec.scheduler_interface
        options["scheduler_options"] = scheduler
        return {key: value for key, value in options.items() if value is not None}

    def _python(self) -> str:
        return str(self._configured("python") or sys.executable)

    def _launcher(self) -> list[str]:
        size = Size(
            self.workers_per_job,
            self.job_memory_bytes() or 0,
            scratch_bytes=scratch_bytes(self.spec),
        )
        return [placeholders.expanded(word, size.values()) for word in self.spec.launcher]

    def _changes(self) -> Changes:
        """Return how the machine wants the directives of worker jobs, which have one log each.

        The user's ``job-directives-skip`` counts by option too.
        """
        changes = worker_changes(self.spec)
        skip = ["-e", *(self._configured("job-directives-skip") or ()), *changes.skip]
        resources = changes.resources
        if resources is None:
            resources = self.usual_resources()
        return replace(changes, skip=skip, resources=resources)

    def usual_resources(self) -> list[str] | None:
        """Return the resources that ``jobqueue.yaml`` or ``cluster.options`` writes out."""
        return None

    def _written_out(self, key: str) -> str | None:
        """Return what ``cluster.options`` says, else ``jobqueue.yaml``, else None."""
        given = self.spec.options.get(key, self._configured(key.replace("_", "-")))
        return None if given is None else str(given).replace("{", "{{").replace("}", "}}")

    def lifetime_s(self) -> float | None:
        """Return how long a worker works before its job ends."""
        walltime_s = self._walltime_s()
        return None if walltime_s is None else walltime_s - ending.reserve(walltime_s)

    def _walltime_s(self) -> float | None:
        """Return the longest walltime of a worker job, or None where nobody set one."""
        asked = self.spec.walltime or self._configured("walltime")
        return None if asked is None else seconds(str(asked))

    def _timed(self, walltime_s: float | None) -> dict[str, Any]:
        """Return the options of a worker job that its walltime decides."""
        spec = self.spec
        directives = [*self.queue.joined_log, *(self._configured("job-extra-directives") or ())]
        walltime, end = spec.walltime, ""
        if walltime_s is not None:
            walltime = clock(walltime_s)
            end = self.queue.job_end(walltime_s)
            least = self.queue.time_min(walltime_s, spec.time_min)
            directives += [] if least is None else [f"--time-min={least}"]
        exports = [
            f"export {name}={shlex.quote(text)}"
            for name, text in sorted(WORKER_ENVIRONMENT.items())
        ]
        return {
            "walltime": walltime,
            "job_extra_directives": directives,
            "job_script_prologue": [
                *(self._configured("job-script-prologue") or ()),
                *exports,
                f'export {jobend.VARIABLE}="{end}"',
                *spec.prologue,
            ],
        }

    def interfaces(self) -> tuple[str | None, str | None]:
        """Return the network interfaces of nodes and driver, where they are named."""
        nodes = self.spec.interface or self._configured("interface")
        configured = self._configured("scheduler-options") or {}
        return nodes, self.spec.scheduler_interface or configured.get("interface") or nodes

    def rejection(self) -> str:
        """Return the queue's own words when it refused a job."""
        return self._record.rejections[0] if self._record.rejections else ""

    def waits_for_maintenance(self) -> bool:
        """Return whether all jobs wait for the end of a maintenance."""
        return self._maintained

    def reason(self) -> str:
        """Return how many jobs are in which state, with the queue's reasons."""
        return self._reason

    def top_up(self, remaining_s: float | None = None) -> None:
        """Submit jobs in place of those that ended or that the queue could not take yet."""
        live = [job.job_id for job in self._jobs().values() if job.job_id]
        try:
            found = self.queue.states(live) if live else []
        except QueueSilentError as error:
            self._reason = str(error)
            return
        self._reason = self._described(found, len(live))
        self._maintained = bool(found) and all(map(is_for_maintenance, found))
        if self._watch is None:
            self._watch = Watch(self.folder / "logs", self._walltime_s())
        ended = self._watch.ended(live, found)
        if self._record.rejections:
            return
        for job in sorted(ended):
            self.say("job_ended", job=job)
        self._cluster.sync(self._forget, ended)
        longest = self._walltime_s()
        if longest is not None and remaining_s is not None:
            timed = self._timed(min(longest, with_margin(remaining_s)))
            self._cluster.new_spec["options"].update(timed)
        self._cluster.scale(jobs=self.jobs)

    def job_of(self, worker: str) -> str:
        """Return the id of a worker's job, or ``""``; workers are named ``JOB`` or ``JOB-1``."""
        jobs = self._jobs()
        job = jobs.get(worker) or jobs.get(worker.rpartition("-")[0])
        return "" if job is None else str(job.job_id or "")

    def _jobs(self) -> dict[Any, Any]:
        """Return dask-jobqueue's jobs by name."""
        return dict(self._cluster.workers)

    async def _forget(self, ended: set[str]) -> None:
        """Let dask-jobqueue forget jobs that ended or were not taken, so that it makes new ones."""
        for name, job in self._jobs().items():
            if job.job_id is None or job.job_id in ended:
                # the next job gets a name of its own: `LOST_S` after a worker was lost, Dask
                # cancels what has the name of its job and no worker
                del self._cluster.workers[name], self._cluster.worker_spec[name]
                self._cluster._i += 1

    def _described(self, found: Sequence[JobState], count: int) -> str:
        if self._record.delays and not count:
            return f"the queue takes no job now: {self._record.delays[-1]}"
        return f"{described(found, count)}; logs in {self.folder / 'logs'}"

    def _configured(self, key: str) -> Any:
        """Return what the user's ``jobqueue.yaml`` says for this kind, or None."""
        return configured(self.queue.kind, key)

    def close(self) -> None:
        """Cancel the jobs, end the scheduler, remove its address and the keys."""
        super().close()
        self._scheduler_file.unlink(missing_ok=True)
        remove_certificates(keys_folder(self.folder))
