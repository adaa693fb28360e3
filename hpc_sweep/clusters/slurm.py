"""Slurm: its commands, and worker jobs on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.queue import JobState, Queue, QueueSilentError, ask, clock, seconds, submit
from hpc_sweep.directives import RESOURCES

ALIVE = frozenset(
    {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING"}
    | {"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT"}
    | {"RESV_DEL_HOLD"}
)
"""States of squeue(1) in which a job may still run; all others have ended."""

FORMAT = "%i|%T|%M|%L|%r"
"""Id, state, time used, time left, reason."""


class SlurmQueue(Queue):
    """sbatch, squeue, scancel."""

    kind = "slurm"
    submit_command = "sbatch"
    job_variable = "SLURM_JOB_ID"
    index_variable = "SLURM_ARRAY_TASK_ID"
    submit_host_variable = "SLURM_SUBMIT_HOST"

    def name(self) -> str:
        """Return the cluster's name after the kind: ids of two clusters are the same numbers."""
        lines = (line.partition("=") for line in ask(["scontrol", "show", "config"]).splitlines())
        names = [value.strip() for key, _, value in lines if key.strip() == "ClusterName"]
        return f"{self.kind}:{names[0] if names else ''}"

    def nodes(self) -> list[str]:
        """Ask scontrol to write the list out."""
        return ask(["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]).split()

    def launcher(self, node: str, cpus: int) -> list[str]:
        """Return an srun that shares its node with the driver.

        Since 22.05 srun does not take the cores of the job as its own, and it would bind the
        workers of a step to fewer.
        """
        size = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}", "--mem=0"]
        share = ["--overlap", "--cpu-bind=none", "--no-kill", "--kill-on-bad-exit=0"]
        return ["srun", f"--nodelist={node}", *size, *share]

    def job_end(self, walltime_s: float) -> str:
        """Ask: ``--time-min`` or an administrator may have changed the limit."""
        asked = 'date -d "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%e)" +%s'
        told = f"$({asked} 2>/dev/null || echo {super().job_end(walltime_s)})"
        return f"${{SLURM_JOB_END_TIME:-{told}}}"  # newer versions of Slurm tell by themselves

    def time_min(self, walltime_s: float | None, least: str | None) -> str | None:
        """Return it for ``--time-min``, where it is less than the walltime."""
        least_s = seconds(least) if least else None
        return clock(least_s) if least_s and walltime_s and least_s < walltime_s else None

    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        """Submit with sbatch."""
        options = [] if after is None else [f"--dependency=afterany:{after}"]
        options += [] if walltime_s is None else [f"--time={clock(walltime_s)}"]
        answer = submit(["sbatch", "--parsable", *options, str(script)], script.parent)
        return answer.partition(";")[0]

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel with scancel, which is silent about jobs that ended."""
        ask(["scancel", *jobs])

    def states(self, jobs: Sequence[str]) -> list[JobState]:
        """Ask squeue, which also knows jobs that ended a while ago."""
        ids = ",".join(jobs)
        command = ["squeue", "--noheader", "--states=all", f"--jobs={ids}", f"--format={FORMAT}"]
        try:
            return parse_squeue(ask(command))
        except QueueSilentError as error:
            if "Invalid job id" in str(error):  # all of them have left its memory
                return []
            raise


class Slurm(JobQueue):
    """`dask_jobqueue.SLURMCluster`."""

    queue = SlurmQueue()

    def classes(self) -> tuple[Any, Any]:
        """Import the classes."""
        from dask_jobqueue import SLURMCluster

        from hpc_sweep.clusters.recording import RecordingSlurmJob

        return SLURMCluster, RecordingSlurmJob

    def usual_resources(self) -> list[str] | None:
        """Return what ``job-cpu`` and ``job-mem`` make of them."""
        cores, memory = self._written_out("job_cpu"), self._written_out("job_mem")
        if cores is None and memory is None:
            return None
        *nodes_and_tasks, usual_cores, usual_memory = RESOURCES["slurm"]
        return [
            *nodes_and_tasks,
            usual_cores if cores is None else f"--cpus-per-task={cores}",
            usual_memory if memory is None else f"--mem={memory}",
        ]


def parse_squeue(text: str) -> list[JobState]:
    """Return the states out of what squeue prints with `FORMAT`."""
    states = []
    for line in text.splitlines():
        if line.count("|") >= 4:
            job, state, used, left, reason = line.strip().split("|", 4)
            ended = state not in ALIVE
            states.append(JobState(job, state, reason, ended, seconds(used), seconds(left)))
    return states
