"""Worker jobs on PBS (OpenPBS, PBS Professional)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hpc_sweep.clusters.jobqueue import JobQueue, QueueSilentError, ask

STATES = {
    "B": "BEGUN",
    "E": "EXITING",
    "F": "FINISHED",
    "H": "HELD",
    "M": "MOVED",
    "Q": "QUEUED",
    "R": "RUNNING",
    "S": "SUSPENDED",
    "T": "IN TRANSIT",
    "W": "WAITING",
    "X": "EXPIRED",
}
"""What the letters of ``job_state`` mean (qstat(1B))."""


class Pbs(JobQueue):
    """`dask_jobqueue.PBSCluster`."""

    config_name = "pbs"
    submit_command = "qsub"

    def classes(self) -> tuple[Any, Any]:
        """Import the classes."""
        from dask_jobqueue import PBSCluster

        from hpc_sweep.clusters.recording import RecordingPbsJob

        return PBSCluster, RecordingPbsJob

    def states(self, jobs: Sequence[str]) -> Counter[str]:
        """Ask qstat; jobs that ended are unknown where the server keeps no history."""
        return parse_qstat(ask(["qstat", "-x", "-f", "-F", "json", *jobs]))


def parse_qstat(text: str) -> Counter[str]:
    """Return how many jobs are in which state, out of ``qstat -f -F json``.

    The state is followed by the server's comment, which says why a job waits.
    """
    try:
        jobs = json.loads(text).get("Jobs") or {}
    except ValueError:
        raise QueueSilentError(f"qstat gave no JSON: {text.strip()[:200]}") from None
    if not jobs:
        raise QueueSilentError("the jobs are not in the queue any more")
    states: Counter[str] = Counter()
    for job in jobs.values():
        state = STATES.get(str(job.get("job_state")), str(job.get("job_state")))
        comment = str(job.get("comment", "")).strip()
        states[f"{state} ({comment})" if comment else state] += 1
    return states
