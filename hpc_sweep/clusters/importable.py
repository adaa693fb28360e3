"""Any cluster class that Dask can use, named by its import path."""

from __future__ import annotations

import importlib

from distributed import Client

from hpc_sweep.clusters.base import Cluster
from hpc_sweep.clusters.security import OPEN, foreign_faults
from hpc_sweep.errors import ClusterError, Fault, nearest


class Importable(Cluster):
    """``package.module:ClusterClass``, made with ``cluster.options`` and scaled to ``workers``."""

    is_ours = False

    def faults(self) -> list[Fault]:
        """Return why the class cannot be imported, if so."""
        module_name, _, name = self.spec.kind.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # somebody else's module may raise anything
            return [Fault("cluster.kind", f"'{module_name}' cannot be imported: {error}")]
        if not callable(getattr(module, name, None)):
            near = nearest(name, dir(module))
            return [Fault("cluster.kind", f"'{module_name}' has no class '{name}'{near}")]
        protocol, security = (self.spec.options.get(key) for key in ("protocol", "security"))
        faults = foreign_faults(self.spec, None)
        if str(protocol or "").startswith("tls") and not security:
            message = f"'{protocol}' needs security: true beside it, or no worker can connect"
            faults.append(Fault("cluster.options.protocol", message))
        if security and str(protocol or "tls").startswith("tcp"):
            message = f"'{protocol}' is not encrypted, but there is security; write tls://"
            faults.append(Fault("cluster.options.protocol", message))
        return faults

    def warnings(self) -> list[str]:
        """Return whether others may have a say."""
        if self.spec.options.get("security"):
            return []
        return [
            f"{OPEN.format(what=self.spec.kind)}, unless it sees to that by itself; where it takes "
            "them, cluster.options: {protocol: 'tls://', security: true}"
        ]

    def start(self) -> Client:
        """Make the cluster, ask for workers, connect."""
        module_name, _, name = self.spec.kind.partition(":")
        make = getattr(importlib.import_module(module_name), name)
        try:
            self._cluster = make(**self.spec.options)
            asked = self.spec.workers or self.spec.nodes
            if asked and hasattr(self._cluster, "scale"):
                self._cluster.scale(self.workers)
            self._client = Client(self._cluster, set_as_default=False)
        except Exception as error:
            self.close()
            raise ClusterError(f"{self.spec.kind} did not start: {error}") from error
        return self._client
