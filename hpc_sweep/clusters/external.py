"""A cluster that somebody else started, by address or scheduler file."""

from __future__ import annotations

import json
from pathlib import Path

from distributed import Client, Security

from hpc_sweep.clusters.base import Cluster
from hpc_sweep.clusters.security import OPEN, foreign_faults
from hpc_sweep.errors import ClusterError, Fault

CONNECT_S = 30


class External(Cluster):
    """Connects to a running scheduler and leaves it running.

    Its workers need this package in the same version. ``worker-saturation: 1.0`` and
    ``allowed-failures: 0`` in that scheduler's configuration make a worker's death blame
    the right unit at once.
    """

    is_ours = False

    def faults(self) -> list[Fault]:
        """Return what is wrong with address, scheduler file and certificates."""
        spec, faults = self.spec, []
        if spec.scheduler_file and not Path(spec.scheduler_file).exists():
            message = f"'{spec.scheduler_file}' does not exist; is the scheduler running?"
            faults.append(Fault("cluster.scheduler_file", message))
        if spec.address and not spec.address.startswith(("tcp://", "tls://")):
            message = f"'{spec.address}' must begin with tcp:// or tls://"
            faults.append(Fault("cluster.address", message))
        faults += foreign_faults(spec, self._address())
        for name, file in (spec.tls.model_dump() if spec.tls else {}).items():
            if not Path(file).is_file():
                faults.append(Fault(f"cluster.tls.{name}", f"'{file}' does not exist"))
        return faults

    def warnings(self) -> list[str]:
        """Return whether what is said to that scheduler can be overheard."""
        address = self._address() or ""
        return [OPEN.format(what=f"the cluster at {address}")] if address[:6] == "tcp://" else []

    def _address(self) -> str | None:
        """Return the scheduler's address, as far as it is known now."""
        if self.spec.scheduler_file is None:
            return self.spec.address
        try:
            return str(json.loads(Path(self.spec.scheduler_file).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError):  # it may still be written
            return None

    def start(self) -> Client:
        """Connect."""
        security = None
        if self.spec.tls is not None:
            tls = self.spec.tls
            security = Security(
                tls_ca_file=tls.ca_file,
                tls_client_cert=tls.cert,
                tls_client_key=tls.key,
                require_encryption=True,
            )
        place = self.spec.address or self.spec.scheduler_file
        try:
            self._client = Client(
                address=self.spec.address,
                scheduler_file=self.spec.scheduler_file,
                security=security,
                timeout=CONNECT_S,
                set_as_default=False,
            )
        except Exception as error:
            raise ClusterError(
                f"no Dask scheduler answers at {place} within {CONNECT_S} s ({error}); is it "
                "running, and may this machine reach it?"
            ) from error
        return self._client

    def reason(self) -> str:
        """Return why there are no workers."""
        return "the external scheduler has no workers; start some"
