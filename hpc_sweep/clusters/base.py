"""What every kind of cluster does, and what the driver may ask of it."""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import Client

from hpc_sweep.charge import charge_rate
from hpc_sweep.clusters.queue import Queue
from hpc_sweep.clusters.security import OPEN
from hpc_sweep.clusters.timing import keep_time
from hpc_sweep.errors import Fault
from hpc_sweep.processes import THREADS
from hpc_sweep.spec import ClusterSpec

SETTINGS: dict[str, Any] = {
    # a worker holds one task at a time, so that its death blames the right one; the driver
    # counts the deaths
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.http.routes": [],
    # advice for who writes the graph, and here dask-ml does
    "distributed.admin.large-graph-warning-threshold": "1PB",
}
"""Dask's configuration in the driver's process, where the scheduler runs."""

NO_PAGES: dict[str, Any] = {"distributed.scheduler.http.routes": []}
"""Where nobody asked for the dashboard: loopback is not private on a shared node."""

WORKER_ENVIRONMENT = {"DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]", **THREADS}
"""Environment of workers: one thread a process."""

OTHERS_BYTES = 300_000_000
"""What the other processes of a job take: nannies 110 to 170 MB, fork server 80 MB seen."""

USABLE = 0.95
"""Of a node's memory; the rest is the operating system's."""

SILENT = logging.CRITICAL + 1
"""Above all levels: a scheduler whose client has gone logs a traceback a task as critical."""

Say = Callable[..., None]
"""Takes an event's name and its facts, as the journal does."""


@dataclass
class Record:
    """What became of the submissions of one driver.

    Attributes
    ----------
    say : callable
        Told of each.
    job_ids : list of str
        Accepted ones.
    rejections : list of str
        The queue's words for the others.
    delays : list of str
        The queue's words where it only asked to wait: a limit, a controller that is down.
    nodes : Queue or None
        Stands in for the queue where driver and workers share a job.
    queue : str
        Which one took the jobs, by its name.
    """

    say: Say
    job_ids: list[str] = field(default_factory=list)
    rejections: list[str] = field(default_factory=list)
    delays: list[str] = field(default_factory=list)
    nodes: Queue | None = None
    queue: str = ""


class Cluster(abc.ABC):
    """One kind of cluster: started by `start`, ended by `close`.

    Parameters
    ----------
    spec : ClusterSpec
        What the spec says.
    folder : Path
        The run folder, with ``keys`` and ``logs`` in it.
    say : callable
        Told of jobs that are submitted.
    """

    is_ours = True
    """Whether scheduler and settings are this package's."""

    _client: Client | None = None
    _cluster: Any = None
    _config: contextlib.AbstractContextManager[Any] | None = None

    def __init__(self, spec: ClusterSpec, folder: Path, say: Say) -> None:
        self.spec = spec
        self.folder = folder
        self.say = say

    @property
    def workers(self) -> int:
        """How many worker processes are asked for."""
        if self.spec.workers is not None:
            return self.spec.workers
        return (self.spec.nodes or 1) * (self.spec.workers_per_node or 1)

    @property
    def workers_per_job(self) -> int:
        """Worker processes of one job or node; one core each."""
        return self.spec.workers_per_node or self.workers

    def charge_facts(self) -> dict[str, Any]:
        """Return ``charge_rate`` of a worker's core-hour and ``charge_unit``, where known."""
        charge, cores = self.spec.charge, self.workers_per_job
        if charge is None:
            return {}
        memory = self.job_memory_bytes()
        return {"charge_rate": charge_rate(charge, cores, memory), "charge_unit": charge.unit}

    def job_memory_bytes(self) -> int | None:
        """Return the memory that `workers_per_job` workers ask for, or None."""
        memory = self.worker_memory_bytes()
        return None if memory is None else memory * self.workers_per_job

    def most_core_hours(self) -> tuple[float, str] | None:
        """Return what the jobs of one submission may use, and how that comes about."""
        return None

    def lifetime_s(self) -> float | None:
        """Return how long a worker works; infinite: as long as the run; None: nobody knows."""
        return None

    def worker_memory_bytes(self) -> int | None:
        """Return the memory of one worker process, or None where it is not known."""
        return None if self.spec.memory is None else int(self.spec.memory)

    @staticmethod
    def share_bytes(memory_bytes: float, workers: int) -> int:
        """Return what each of so many workers may use of a node's or a job's memory."""
        return int((USABLE * memory_bytes - OTHERS_BYTES) // workers)

    def faults(self) -> list[Fault]:
        """Return what is wrong with the spec for this kind, before anything is started."""
        return []

    def warnings(self) -> list[str]:
        """Return what the user should know before anything is started."""
        if self.spec.security == "tls":
            return []
        return [OPEN.format(what="the Dask cluster (cluster.security: none)")]

    def dashboard_port(self) -> int | None:
        """Return where a dashboard that was asked for listens, on this host's loopback."""
        if not self.spec.dashboard or self._client is None:
            return None
        return int(self._client.scheduler_info()["services"]["dashboard"])

    @abc.abstractmethod
    def start(self) -> Client:
        """Start the cluster and return a client; workers may come later.

        Raises
        ------
        ClusterError
            When it cannot be started.
        """

    def _configure(self, values: dict[str, Any]) -> None:
        """Set Dask's configuration until this is closed."""
        self._config = dask.config.set(values)

    def rejection(self) -> str:
        """Return the queue's words when it refused what was submitted, else ``""``."""
        return ""

    def top_up(self, remaining_s: float | None = None) -> None:  # noqa: B027, most need none
        """Replace workers that ended; asks the queue once, so call it once a minute at most.

        Parameters
        ----------
        remaining_s : float, optional
            How long the rest is predicted to take with all workers; jobs ask for no more.

        Raises
        ------
        ClusterError
            When workers end as soon as they start.
        """

    def waits_for_maintenance(self) -> bool:
        """Return whether nothing but a maintenance keeps workers away, as of the last `top_up`."""
        return False

    def reason(self) -> str:
        """Return why workers are not there, in the queue's words as of the last `top_up`."""
        return ""

    def job_of(self, worker: str) -> str:
        """Return the queue's id of the job that a worker is in, by its name, or ``""``."""
        return ""

    def close(self) -> None:
        """End what was started: the client, and the cluster where it is ours."""
        for started in (self._client, self._cluster):
            if started is not None:
                with contextlib.suppress(TimeoutError):
                    started.close()
        if self._config is not None:
            self._config.__exit__(None, None, None)


@contextlib.contextmanager
def settings(dashboard: bool = False) -> Iterator[None]:
    """Context in which Dask is configured as the driver needs it, and says nothing itself.

    Clusters silence it too, but only until they close, when connections break by intent.
    """
    keep_time()
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]  # Dask gives the client's one of its own
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        with dask.config.set({**SETTINGS, **({} if dashboard else NO_PAGES)}):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
