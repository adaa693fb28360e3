"""Worker jobs on PBS (OpenPBS, PBS Professional)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.jobqueue import JobQueue, JobState, QueueSilentError, ask, seconds, submit

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

    def submit_driver(self, script: Path, after: str | None = None) -> str:
        """Submit with qsub."""
        dependency = [] if after is None else ["-W", f"depend=afterany:{after}"]
        return submit(["qsub", *dependency, str(script)], script.parent).split()[0]

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel with qdel, one job a call: several with an unknown one can crash the server."""
        for job in jobs:
            try:
                ask(["qdel", job])
            except QueueSilentError as error:
                if "Unknown Job Id" not in str(error) and "has finished" not in str(error):
                    raise

    def states(self, jobs: Sequence[str]) -> list[JobState]:
        """Ask qstat; an id that it does not know hides those after it, so once more without.

        Jobs that ended are unknown where the server keeps no history.
        """
        left = list(jobs)
        while left:
            try:
                return parse_qstat(ask(["qstat", "-x", "-f", "-F", "json", *left]))
            except QueueSilentError as error:
                unknown = [job for job in left if f"Unknown Job Id {job}" in str(error)]
                if not unknown:
                    raise
                left = [job for job in left if job not in unknown]
        return []


def parse_qstat(text: str) -> list[JobState]:
    """Return the states out of ``qstat -f -F json``.

    The reason is the server's comment, which says why a job waits.
    """
    try:
        jobs = json.loads(text).get("Jobs") or {}
    except ValueError:
        raise QueueSilentError(f"qstat gave no JSON: {text.strip()[:200]}") from None
    states = []
    for name, job in jobs.items():
        letter = str(job.get("job_state"))
        used = str(job.get("resources_used", {}).get("walltime", ""))
        comment = str(job.get("comment", "")).strip()
        ended = letter in ("F", "X", "M")
        states.append(JobState(name, STATES.get(letter, letter), comment, ended, seconds(used)))
    return states
