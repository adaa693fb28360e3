"""What worker jobs ask the queue for, and how dask-jobqueue is told: what Slurm and PBS share.

The user's own ``jobqueue.yaml`` is the ground; what the spec says overrides it.
"""

from __future__ import annotations

import abc
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from dask.utils import parse_bytes
from distributed import Security

from hpc_sweep import jobend, placeholders
from hpc_sweep.clusters import ending
from hpc_sweep.clusters.base import OTHERS_BYTES, WORKER_ENVIRONMENT, Cluster, Record, Say
from hpc_sweep.clusters.certificates import certificates, keys_folder
from hpc_sweep.clusters.configuration import configured, keeping_sigint
from hpc_sweep.clusters.nodes import Nodes
from hpc_sweep.clusters.options import option_faults
from hpc_sweep.clusters.queue import Queue, clock, seconds
from hpc_sweep.clusters.security import security_faults
from hpc_sweep.directives import Changes, Size, scratch_bytes, worker_changes
from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.processes import FILES_PER_CONNECTION, open_files_missing
from hpc_sweep.spec import ClusterSpec

_PLAIN_PATH = re.compile(r"[\w./+@-]+")


class WorkerJobs(Cluster):
    """A cluster of worker jobs: how many, how large, by which script.

    Attributes
    ----------
    queue : Queue
        Its commands; its kind is also the section of ``jobqueue.yaml``.
    """

    queue: Queue

    def __init__(self, spec: ClusterSpec, folder: Path, say: Say) -> None:
        super().__init__(spec, folder, say)
        self._record = Record(say)

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
            **self._scheduler_options(),
            "dashboard": spec.dashboard,
            "dashboard_address": "127.0.0.1:0",
        }
        if spec.scheduler_interface is not None:
            scheduler["interface"] = spec.scheduler_interface
        options["scheduler_options"] = scheduler
        return {key: value for key, value in options.items() if value is not None}

    def _scheduler_options(self) -> dict[str, Any]:
        """Return what ``jobqueue.yaml`` says of the scheduler.

        A driver in a job is on a node, where the network of a login node may not be.
        """
        given = dict(self._configured("scheduler-options") or {})
        if self.queue.current_job() and given.get("interface") not in psutil.net_if_addrs():
            given.pop("interface", None)
        return given

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
        configured = self._scheduler_options().get("interface")
        return nodes, self.spec.scheduler_interface or configured or nodes

    def _configured(self, key: str) -> Any:
        """Return what the user's ``jobqueue.yaml`` says for this kind, or None."""
        return configured(self.queue.kind, key)
