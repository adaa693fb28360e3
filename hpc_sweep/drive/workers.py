"""The workers of a run: waited for, counted, replaced."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass

from distributed import Client
from distributed.comm import get_address_host

from hpc_sweep.clusters import Cluster
from hpc_sweep.drive.progress import Progress
from hpc_sweep.drive.roster import Roster
from hpc_sweep.errors import ClusterError, NoWorkersError
from hpc_sweep.store import Journal

LOOK_EVERY_S = 2.0
"""While there are some."""

WAIT_S = 0.5
"""While there are none."""

REASON_AFTER_S = 10.0
REASON_EVERY_S = 60.0


@dataclass
class Workers:
    """Those of one run.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    cluster : Cluster
        Asked for rejections, reasons and replacements while workers are missing.
    journal : Journal
        Where events go.
    progress : Progress
        Told of their number.
    start_timeout_s : float
        How long to be without any.
    roster : Roster
        Told of each.

    Attributes
    ----------
    worked_s : float
        Seconds that they spent in units.
    """

    client: Client
    cluster: Cluster
    journal: Journal
    progress: Progress
    start_timeout_s: float
    roster: Roster
    clock: Callable[[], float] = time.monotonic
    worked_s: float = 0.0
    _looked: float = float("-inf")
    _alone_since: float | None = None
    _short_since: float | None = None
    _asked: float = float("-inf")
    _started: float | None = None

    @property
    def seconds(self) -> float:
        """Since the first one came."""
        return 0.0 if self._started is None else self.clock() - self._started

    def look(self) -> None:
        """Count them, every two seconds while there are some; see to those that are missing.

        Raises
        ------
        ClusterError
            When the scheduler is gone, the queue refused the workers' jobs, or workers lack
            the package.
        NoWorkersError
            When there are none for `start_timeout_s`.
        """
        now = self.clock()
        if now - self._looked < LOOK_EVERY_S and self.progress.workers:
            return
        if not self.progress.workers and now - self._looked < WAIT_S:
            time.sleep(WAIT_S)
        self._looked = now
        if self.client.status != "running":
            raise ClusterError("the Dask scheduler went away; run the same command again")
        here = self.client.nthreads()
        self.roster.look(here)
        self.progress.workers, self.progress.workers_lost = len(here), self.roster.lost
        self.progress.workers_asked = self.cluster.workers
        if self.progress.workers:
            self._alone_since, self.progress.note = None, ""
            if self._started is None:
                self._started = now
                self._check_package()
                self.journal.write("workers_ready", workers=self.progress.workers)
        else:
            self._wait_for_workers(now)
        self._top_up(now)

    def _check_package(self) -> None:
        """Raise when a host lacks this package: its workers would break at the first task."""
        one_a_host = {get_address_host(worker): worker for worker in self.client.nthreads()}
        answers = self.client.run(
            importlib.metadata.version,
            "hpc-sweep",
            workers=list(one_a_host.values()),
            on_error="return",
        )
        for worker, answer in answers.items():
            if isinstance(answer, importlib.metadata.PackageNotFoundError):
                raise ClusterError(
                    f"the worker {worker} lacks the package hpc-sweep; its environment needs it in "
                    "the driver's version"
                )

    def _top_up(self, now: float) -> None:
        """Have workers that are missing replaced, asking the queue once a minute at most."""
        if self.progress.workers >= self.cluster.workers:
            self._short_since = None
            return
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since < REASON_AFTER_S or now - self._asked < REASON_EVERY_S:
            return
        self._asked = now
        self.cluster.top_up(self._remaining_s())
        if not self.progress.workers:
            self.progress.note = f"workers: {self.cluster.reason()}"
        self.journal.write("topped_up", workers=self.progress.workers, reason=self.cluster.reason())

    def _remaining_s(self) -> float | None:
        """Return how long all workers are going to need for the rest, once that is known."""
        done = self.progress.cells_this_run
        if not done:
            return None
        share = (self.progress.cells - self.progress.cells_done) / done
        return self.worked_s * share / self.cluster.workers

    def _wait_for_workers(self, now: float) -> None:
        """There is no worker: give up when the queue refused them, or at the deadline."""
        if self._alone_since is None or self.cluster.waits_for_maintenance():
            self._alone_since = now
        words = self.cluster.rejection()
        if words:
            raise ClusterError(f"the queue refused the worker jobs: {words}")
        if now - self._alone_since > self.start_timeout_s:
            reason = self.cluster.reason()
            raise NoWorkersError(
                f"no worker within {self.start_timeout_s:.0f} s (cluster.start_timeout)"
                + (f": {reason}" if reason else "")
                + "; run the same command again when some can come"
            )
