"""Worker jobs on Slurm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hpc_sweep.clusters.jobqueue import JobQueue, QueueSilentError, ask


class Slurm(JobQueue):
    """`dask_jobqueue.SLURMCluster`."""

    config_name = "slurm"
    submit_command = "sbatch"

    def classes(self) -> tuple[Any, Any]:
        """Import the classes."""
        from dask_jobqueue import SLURMCluster

        from hpc_sweep.clusters.recording import RecordingSlurmJob

        return SLURMCluster, RecordingSlurmJob

    def states(self, jobs: Sequence[str]) -> Counter[str]:
        """Ask squeue, which also knows jobs that ended a while ago."""
        ids = ",".join(jobs)
        answer = ask(["squeue", "--noheader", "--states=all", f"--jobs={ids}", "--format=%T (%r)"])
        states = Counter(line.strip() for line in answer.splitlines() if line.strip())
        if not states:
            raise QueueSilentError(f"jobs {ids} are not in the queue any more")
        return states
