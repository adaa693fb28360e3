"""Life of worker jobs on a queue, through dask-jobqueue: submitted, replaced, cancelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Client

from hpc_sweep.clusters.base import Say
from hpc_sweep.clusters.certificates import keys_folder, make_certificates, remove_certificates
from hpc_sweep.clusters.configuration import keeping_sigint
from hpc_sweep.clusters.nodes import Nodes
from hpc_sweep.clusters.queue import JobState, QueueSilentError, is_for_maintenance, with_margin
from hpc_sweep.clusters.watching import Watch, described
from hpc_sweep.clusters.workerjobs import WorkerJobs
from hpc_sweep.errors import ClusterError
from hpc_sweep.processes import FILES_PER_CONNECTION, raise_open_files
from hpc_sweep.spec import ClusterSpec

LOST_S = 120
"""A job whose worker is lost has so long to bring it back, by its nanny: imports may be slow on a
busy file system, and another job may wait for hours. Dask's own limit is 15 seconds."""


class JobQueue(WorkerJobs):
    """A cluster of dask-jobqueue with TLS, whose rejected submissions are not lost."""

    def __init__(self, spec: ClusterSpec, folder: Path, say: Say) -> None:
        super().__init__(spec, folder, say)
        self._reason = ""
        self._maintained = False
        self._watch: Watch | None = None

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
            raise ClusterError(
                f"the Dask scheduler did not start: {error}; hpc-sweep doctor looks at this host's "
                "network (cluster.scheduler_interface, or scheduler-options in jobqueue.yaml)"
            ) from error
        self._cluster.scale(jobs=self.jobs)
        return self._client

    @property
    def _scheduler_file(self) -> Path:
        return self.folder / "scheduler.json"

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

    def close(self) -> None:
        """Cancel the jobs, end the scheduler, remove its address and the keys."""
        super().close()
        self._scheduler_file.unlink(missing_ok=True)
        remove_certificates(keys_folder(self.folder))
