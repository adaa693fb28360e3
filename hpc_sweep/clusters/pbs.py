"""PBS (OpenPBS, PBS Professional): its commands, and worker jobs on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.queue import JobState, Queue, QueueSilentError, ask, clock, seconds, submit

STATES = {
    "B": "BEGUN",
    "C": "COMPLETED",
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
"""What the letters of ``job_state`` mean (qstat(1B); C is of Torque and Slurm)."""


class PbsQueue(Queue):
    """qsub, qstat, qdel."""

    kind = "pbs"
    submit_command = "qsub"
    job_variable = "PBS_JOBID"
    index_variable = "PBS_ARRAY_INDEX"
    submit_host_variable = "PBS_O_HOST"
    joined_log = ("-j oe",)

    def nodes(self) -> list[str]:
        """Read the job's list of nodes, which names one once for each of its chunks."""
        return list(dict.fromkeys(_nodefile()))

    def launcher(self, node: str, cpus: int) -> list[str]:
        """Return PBS's own launcher, which keeps the job in charge of what it starts, or ssh."""
        if node.partition(".")[0] == socket.gethostname().partition(".")[0]:
            return []
        if shutil.which("pbs_tmrsh"):
            return ["pbs_tmrsh", node]
        if shutil.which("pbsdsh"):
            return ["pbsdsh", "-n", str(_nodefile().index(node)), "--"]
        return ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", node]

    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        """Submit with qsub."""
        options = [] if after is None else ["-W", f"depend=afterany:{after}"]
        options += [] if walltime_s is None else ["-l", f"walltime={clock(walltime_s)}"]
        return submit(["qsub", *options, str(script)], script.parent).split()[0]

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
        left, history, form = list(jobs), ["-x"], ["-F", "json"]
        while left:
            try:
                return parse_qstat(ask(["qstat", *history, "-f", *form, *left]))
            except QueueSilentError as error:
                unknown = [job for job in left if f"Unknown Job Id {job}" in str(error)]
                if unknown:
                    left = [job for job in left if job not in unknown]
                elif history and "history" in str(error):
                    history = []
                elif form and "gave no JSON" in str(error):  # some values break it
                    form = []
                elif history and "Unknown option" in str(error):  # Slurm's qstat
                    history, form = [], []
                elif not form and str(error).endswith("failed: "):  # it knows none of them
                    return []
                else:
                    raise
        return []


class Pbs(JobQueue):
    """`dask_jobqueue.PBSCluster`."""

    queue = PbsQueue()

    def classes(self) -> tuple[Any, Any]:
        """Import the classes."""
        from dask_jobqueue import PBSCluster

        from hpc_sweep.clusters.recording import RecordingPbsJob

        return PBSCluster, RecordingPbsJob

    def usual_resources(self) -> list[str] | None:
        """Return what ``resource-spec`` writes out."""
        given = self._written_out("resource_spec")
        return None if given is None else [f"-l {given}"]


def _nodefile() -> list[str]:
    """Return the lines of the job's list of nodes; this host where PBS left none."""
    try:
        return Path(os.environ["PBS_NODEFILE"]).read_text().split()
    except (KeyError, OSError):
        return [socket.gethostname()]


def parse_qstat(text: str) -> list[JobState]:
    """Return the states out of ``qstat -f``, with ``-F json`` or without.

    The reason is the server's comment, which says why a job waits.
    """
    if text.lstrip().startswith("Job Id:"):
        jobs = _attributes(text)
    else:
        try:
            jobs = json.loads(text).get("Jobs") or {}
        except ValueError:
            raise QueueSilentError(f"qstat gave no JSON: {text.strip()[:200]}") from None
    states = []
    for name, job in jobs.items():
        letter = str(job.get("job_state"))
        used = seconds(str(job.get("resources_used", {}).get("walltime", "")))
        asked = seconds(str(job.get("Resource_List", {}).get("walltime", "")))
        comment = str(job.get("comment", "")).strip()
        ended = letter in ("C", "F", "X")  # one that moved goes on at another server
        left = None
        if asked is not None and letter == "R" and (used is not None or "stime" in job):
            left = asked - _running_s(job, used or 0.0)
        states.append(JobState(name, STATES.get(letter, letter), comment, ended, used, left))
    return states


def _attributes(text: str) -> dict[str, Any]:
    """Return the attributes of each job in the long form that qstat(1B) prints by itself.

    Long values go on in lines that begin with a tab; in Slurm's, each attribute begins with one.
    """
    jobs: dict[str, Any] = {}
    whole = text if text.lstrip().startswith("Job Id:\t") else text.replace("\n\t", "")
    for line in whole.splitlines():
        name, equals, value = line.partition(" = ")
        if line.startswith("Job Id:"):
            job: dict[str, Any] = {}
            jobs[line.partition(":")[2].strip()] = job
        elif equals and jobs:
            group, dot, key = name.strip().partition(".")
            (job.setdefault(group, {}) if dot else job)[key or group] = value.strip()
    return jobs


def _running_s(job: dict[str, Any], used: float) -> float:
    """Return how long a job has run: by its start time, since the usage is told minutes late."""
    try:
        started = time.mktime(time.strptime(str(job.get("stime", ""))))
    except (ValueError, OverflowError):
        return used
    return max(used, time.time() - started)
