"""A cluster of worker processes on this machine."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security
from distributed.system import MEMORY_LIMIT

from hpc_sweep.clusters.base import WORKER_ENVIRONMENT, Cluster
from hpc_sweep.errors import ClusterError


@contextlib.contextmanager
def _workers_without_sigint() -> Iterator[None]:
    """Let the threads that start processes, and so the processes, block SIGINT.

    A terminal's Ctrl-C goes to all processes of its group; the driver alone shall act on it.
    """
    resource_tracker.ensure_running()  # it unblocks the signals of the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Local(Cluster):
    """Embedded `distributed.LocalCluster`: processes of one thread, TLS on loopback."""

    @property
    def workers(self) -> int:
        """Worker processes; as many as cores where the spec says nothing."""
        asked = self.spec.workers or self.spec.nodes or self.spec.workers_per_node
        return super().workers if asked else int(CPU_COUNT)

    def worker_memory_bytes(self) -> int:
        """Return the memory of a worker: given, or this machine's divided by the workers."""
        return super().worker_memory_bytes() or int(MEMORY_LIMIT // self.workers)

    def start(self) -> Client:
        """Start the processes."""
        options: dict[str, Any] = {
            "n_workers": self.workers,
            "threads_per_worker": 1,
            "memory_limit": self.worker_memory_bytes(),
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": Security.temporary(),
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": False},
            "silence_logs": logging.CRITICAL,  # what goes wrong comes back with tasks
            "env": WORKER_ENVIRONMENT,
            **self.spec.options,
        }
        try:
            with _workers_without_sigint():
                self._cluster = LocalCluster(**options)
            self._client = Client(self._cluster)
        except Exception as error:
            self.close()
            raise ClusterError(f"the local Dask cluster did not start: {error}") from error
        return self._client
