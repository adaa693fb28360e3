"""A cluster of worker processes on this machine."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security
from distributed.system import MEMORY_LIMIT
from distributed.utils import get_mp_context

from hpc_sweep.clusters.base import WORKER_ENVIRONMENT, Cluster
from hpc_sweep.clusters.certificates import temporary
from hpc_sweep.clusters.security import security_faults
from hpc_sweep.errors import ClusterError, Fault
from hpc_sweep.processes import (
    open_files_missing,
    raise_open_files,
    start_fork_server,
    without_terminal_signals,
)


class Local(Cluster):
    """Embedded `distributed.LocalCluster`: processes of one thread, TLS on loopback."""

    @property
    def workers(self) -> int:
        """Worker processes; as many as cores where the spec says nothing."""
        asked = self.spec.workers or self.spec.nodes or self.spec.workers_per_node
        return super().workers if asked else int(CPU_COUNT)

    def worker_memory_bytes(self) -> int:
        """Return the memory of a worker: given, or a share of this machine's."""
        given = super().worker_memory_bytes()
        return given or self.share_bytes(self.spec.node_memory or MEMORY_LIMIT, self.workers)

    def lifetime_s(self) -> float:
        """Return infinity: workers end with the run."""
        return math.inf

    def faults(self) -> list[Fault]:
        """Return whether there are more workers than this process can look after."""
        missing = open_files_missing(self.workers)
        faults = [Fault("cluster.workers", missing)] if missing else []
        return [*faults, *security_faults(self.spec)]

    def start(self) -> Client:
        """Start the processes."""
        options: dict[str, Any] = {
            "n_workers": self.workers,
            "threads_per_worker": 1,
            "memory_limit": self.worker_memory_bytes(),
            "host": "127.0.0.1",
            **self._security(),
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": self.spec.dashboard},
            "silence_logs": logging.CRITICAL,  # what goes wrong comes back with tasks
            # a fork server that runs already has the environment of its start
            "env": {**os.environ, **WORKER_ENVIRONMENT},
            **self.spec.options,
        }
        raise_open_files(self.workers)
        self._configure({"distributed.worker.multiprocessing-method": "forkserver"})
        try:
            with without_terminal_signals():
                get_mp_context()  # names its own libraries to the fork server, once
                start_fork_server()
                self._cluster = LocalCluster(**options)
            self._client = Client(self._cluster)
        except Exception as error:
            self.close()
            raise ClusterError(
                f"the local Dask cluster did not start: {error}; run the same command again, with "
                "fewer cluster.workers where this machine has no room for them"
            ) from error
        return self._client

    def top_up(self, remaining_s: float | None = None) -> None:
        """Start workers whose nanny could not."""
        self._cluster.scale(self.workers)

    def _security(self) -> dict[str, Any]:
        if self.spec.security == "none":
            return {"protocol": "tcp://", "security": Security()}
        return {"protocol": "tls://", "security": temporary()}
