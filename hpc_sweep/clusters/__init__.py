"""Kinds of clusters. A new one is a file here, a line in `KINDS`, and its conformance test."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.base import Cluster, Say, settings
from hpc_sweep.clusters.ending import Ending, seconds_to_work
from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.queue import (
    ENDING,
    JobState,
    NotNowError,
    Queue,
    QueueSilentError,
    clock,
    log_tail,
    seconds,
    with_margin,
)
from hpc_sweep.clusters.security import dashboard_lines
from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.spec import ClusterSpec

KINDS = {
    "local": "hpc_sweep.clusters.local:Local",
    "slurm": "hpc_sweep.clusters.slurm:Slurm",
    "pbs": "hpc_sweep.clusters.pbs:Pbs",
    "external": "hpc_sweep.clusters.external:External",
}
OTHER = "hpc_sweep.clusters.importable:Importable"

QUEUES = {
    "slurm": "hpc_sweep.clusters.slurm:SlurmQueue",
    "pbs": "hpc_sweep.clusters.pbs:PbsQueue",
}

__all__ = [
    "ENDING",
    "KINDS",
    "QUEUES",
    "Cluster",
    "Ending",
    "JobQueue",
    "JobState",
    "NotNowError",
    "Queue",
    "QueueSilentError",
    "clock",
    "current_queue",
    "dashboard_lines",
    "has_ended",
    "log_tail",
    "make_cluster",
    "make_queue",
    "recorded_queue",
    "seconds",
    "seconds_to_work",
    "settings",
    "with_margin",
]


def make_cluster(spec: ClusterSpec, folder: Path, say: Say) -> Cluster:
    """Return the cluster that a spec names, not started.

    Parameters
    ----------
    spec : ClusterSpec
        What the spec says.
    folder : Path
        The run folder.
    say : callable
        Told of jobs that are submitted.
    """
    cluster: Cluster = _imported(KINDS.get(spec.kind, OTHER))(spec, folder, say)
    return cluster


def make_queue(kind: str) -> Queue:
    """Return the commands of a queue, ``slurm`` or ``pbs``.

    Raises
    ------
    SpecError
        When that kind of cluster has no queue.
    """
    if kind not in QUEUES:
        message = f"'{kind}' has no queue to submit to; use --cluster slurm or pbs"
        raise SpecError([Fault("cluster.kind", message)])
    queue: Queue = _imported(QUEUES[kind])()
    return queue


def recorded_queue(name: str) -> Queue:
    """Return the queue that jobs were recorded under, where it is the one here.

    Parameters
    ----------
    name : str
        As `Queue.known_name` gave it when they were submitted; the kind alone is any of that kind.

    Raises
    ------
    QueueSilentError
        When it does not answer, or the queue here is another one: ids of two clusters are the
        same numbers.
    """
    queue = make_queue(name.partition(":")[0])
    here = queue.name()
    if name not in (here, queue.kind):
        raise QueueSilentError(f"they are jobs of {name}, and the queue here is {here}")
    return queue


def current_queue() -> Queue | None:
    """Return the queue whose job this process is in, or None."""
    queues = map(make_queue, QUEUES)
    return next((queue for queue in queues if queue.current_job()), None)


def has_ended(queue: str, job: str) -> bool:
    """Return whether a queue, by its `Queue.name`, says that a job will never run again.

    False where it does not answer from here, or does not know the job any more.
    """
    if queue.partition(":")[0] not in QUEUES:
        return False
    try:
        return any(state.ended for state in recorded_queue(queue).states([job]))
    except QueueSilentError:
        return False


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
