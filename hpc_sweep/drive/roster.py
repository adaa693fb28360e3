"""Which workers have come and gone in a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from distributed.comm import get_address_host

from hpc_sweep.clusters import Cluster
from hpc_sweep.store import Journal


@dataclass
class Roster:
    """The workers of a run, from its beginning to its end.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    cluster : Cluster
        Knows the job of a worker.
    journal : Journal
        Told of each that comes or goes.

    Attributes
    ----------
    lost : int
        How many went.
    """

    client: Client
    cluster: Cluster
    journal: Journal
    lost: int = 0
    _here: dict[str, dict[str, Any]] = field(default_factory=dict)

    def look(self, addresses: Iterable[str]) -> None:
        """Write down who has come and who has gone since the last look."""
        now = set(addresses)
        come, gone = sorted(now - self._here.keys()), sorted(self._here.keys() - now)
        if not come and not gone:
            return
        names = self._names() if come else {}
        with self.journal.together():
            for worker in come:
                self._here[worker] = {
                    "host": get_address_host(worker),
                    "job": self.cluster.job_of(names.get(worker, "")),
                }
                self.journal.write("worker_joined", worker=worker, **self._here[worker])
            for worker in gone:
                self.journal.write("worker_lost", worker=worker, **self._here.pop(worker))
        self.lost += len(gone)

    def _names(self) -> dict[str, str]:
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: str(facts.get("name", "")) for address, facts in workers.items()}
