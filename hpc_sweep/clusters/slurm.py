"""Worker jobs on Slurm, through dask-jobqueue.

The user's own ``jobqueue.yaml`` is the ground; what the spec says overrides it.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Client

from hpc_sweep.clusters.base import WORKER_ENVIRONMENT, Cluster, Record, Say
from hpc_sweep.clusters.certificates import make_certificates, remove_certificates
from hpc_sweep.errors import ClusterError, Fault
from hpc_sweep.spec import ClusterSpec

_PLAIN_PATH = re.compile(r"[\w./+@-]+")

QUERY_S = 30
"""How long one question to the queue may take."""


class Slurm(Cluster):
    """`dask_jobqueue.SLURMCluster` with TLS, whose rejected submissions are not lost."""

    _cluster: Any = None
    _client: Client | None = None

    def __init__(self, spec: ClusterSpec, folder: Path, say: Say) -> None:
        super().__init__(spec, folder, say)
        self._record = Record(say)

    @property
    def workers_per_job(self) -> int:
        """Worker processes of one job; one core each."""
        asked = self.spec.workers_per_node or _configured("processes") or _configured("cores")
        return int(asked or 1)

    @property
    def jobs(self) -> int:
        """How many jobs are submitted."""
        if self.spec.workers is None:
            return self.spec.nodes or 1
        return -(-self.spec.workers // self.workers_per_job)

    @property
    def workers(self) -> int:
        """Worker processes of all jobs."""
        return self.jobs * self.workers_per_job

    def worker_memory_bytes(self) -> int | None:
        """Return the memory of a worker: given, or the job's of ``jobqueue.yaml`` divided."""
        given = super().worker_memory_bytes()
        if given is not None:
            return given
        configured = _configured("memory")
        return None if configured is None else int(parse_bytes(configured)) // self.workers_per_job

    def faults(self) -> list[Fault]:
        """Return what is missing before jobs can be submitted."""
        faults = []
        if shutil.which("sbatch") is None:
            message = "slurm needs sbatch, which is not on PATH here; use --cluster local"
            faults.append(Fault("cluster.kind", message))
        if self.worker_memory_bytes() is None:
            message = "is missing; memory per worker process such as 4GB (or in jobqueue.yaml)"
            faults.append(Fault("cluster.memory", message))
        if not _PLAIN_PATH.fullmatch(str(self.folder)):
            message = f"'{self.folder}' cannot go into a job script; letters, digits and ._+-/ can"
            faults.append(Fault("output.store", message))
        return faults

    def start(self) -> Client:
        """Start the scheduler in this process and submit the worker jobs."""
        with _keeping_sigint():
            from dask_jobqueue import SLURMCluster

            from hpc_sweep.clusters.recording import RecordingSlurmJob
        try:
            self._cluster = SLURMCluster(
                job_cls=RecordingSlurmJob, **{**self.options(), **self.spec.options}
            )
            self._client = Client(self._cluster)
        except Exception as error:
            self.close()
            raise ClusterError(f"the Dask scheduler did not start: {error}") from error
        self._cluster.scale(jobs=self.jobs)
        return self._client

    def options(self) -> dict[str, Any]:
        """Return what `dask_jobqueue.SLURMCluster` is made with; makes the certificates."""
        spec = self.spec
        memory = self.worker_memory_bytes()
        options: dict[str, Any] = {
            "record": self._record,
            "job_name": "hpc-sweep-worker",
            "cores": self.workers_per_job,
            "processes": self.workers_per_job,
            "memory": f"{(memory or 0) * self.workers_per_job}B",
            "queue": spec.queue,
            "account": spec.account,
            "walltime": spec.walltime,
            "interface": spec.interface,
            "log_directory": str(self.folder / "logs"),
            "protocol": "tls://",
            "security": make_certificates(self.folder / "keys"),
            "python": f"exec {shlex.quote(_configured('python') or sys.executable)}",
            "job_script_prologue": [
                *(_configured("job-script-prologue") or ()),
                *(f"export {name}={shlex.quote(text)}" for name, text in _environment()),
                *spec.prologue,
            ],
            "worker_extra_args": [*(_configured("worker-extra-args") or ()), "--no-dashboard"],
            "job_extra_directives": [
                *(_configured("job-extra-directives") or ()),
                *spec.directives,
            ],
            "silence_logs": "error",
        }
        scheduler: dict[str, Any] = {
            **(_configured("scheduler-options") or {}),
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        if spec.scheduler_interface is not None:
            scheduler["interface"] = spec.scheduler_interface
        options["scheduler_options"] = scheduler
        return {key: value for key, value in options.items() if value is not None}

    def rejection(self) -> str:
        """Return sbatch's own words when it refused a job."""
        return self._record.rejections[0] if self._record.rejections else ""

    def reason(self) -> str:
        """Ask squeue once and return the states of the jobs with its reasons."""
        if not self._record.job_ids:
            return "no job was submitted yet"
        ids = ",".join(self._record.job_ids)
        command = ["squeue", "--noheader", "--states=all", f"--jobs={ids}", "--format=%T (%r)"]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, timeout=QUERY_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"squeue does not answer: {error}"
        states = Counter(line.strip() for line in answer.stdout.splitlines() if line.strip())
        if answer.returncode or not states:
            return answer.stderr.strip() or f"jobs {ids} are not in the queue any more"
        text = ", ".join(f"{count} job(s) {state}" for state, count in states.items())
        return f"{text}; logs in {self.folder / 'logs'}"

    def close(self) -> None:
        """Cancel the jobs and end the scheduler."""
        for started in (self._client, self._cluster):
            if started is not None:
                with contextlib.suppress(TimeoutError):
                    started.close()
        remove_certificates(self.folder / "keys")


def _configured(key: str) -> Any:
    """Return what the user's ``jobqueue.yaml`` says for Slurm, or None."""
    with _keeping_sigint():
        import dask_jobqueue.config  # noqa: F401  (reads jobqueue.yaml)

    return dask.config.get(f"jobqueue.slurm.{key}", None)


def _environment() -> list[tuple[str, str]]:
    return sorted(WORKER_ENVIRONMENT.items())


@contextlib.contextmanager
def _keeping_sigint() -> Iterator[None]:
    """Put the SIGINT handler back that importing dask-jobqueue replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
