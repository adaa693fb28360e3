"""Kinds of clusters. A new one is a file here, a line in `KINDS`, and its conformance test."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.base import Cluster, Say, settings
from hpc_sweep.clusters.jobqueue import ENDING, JobQueue, QueueSilentError
from hpc_sweep.spec import ClusterSpec

KINDS = {
    "local": "hpc_sweep.clusters.local:Local",
    "slurm": "hpc_sweep.clusters.slurm:Slurm",
    "pbs": "hpc_sweep.clusters.pbs:Pbs",
    "external": "hpc_sweep.clusters.external:External",
}
OTHER = "hpc_sweep.clusters.importable:Importable"

__all__ = ["ENDING", "KINDS", "Cluster", "JobQueue", "QueueSilentError", "make_cluster", "settings"]


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
    module, _, name = KINDS.get(spec.kind, OTHER).partition(":")
    kind: Any = getattr(importlib.import_module(module), name)
    cluster: Cluster = kind(spec, folder, say)
    return cluster
