"""Who may talk to scheduler and workers, and who may look: faults and warnings.

A half-configured TLS fails obscurely in Dask (``cannot get address of non-running Server``),
so it is refused before anything starts.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dask

from hpc_sweep.clusters.queue import Queue
from hpc_sweep.errors import Fault
from hpc_sweep.spec import ClusterSpec

OPEN = (
    "{what} is not encrypted and asks for no key: whoever reaches it, from this machine or from "
    "the network, can run code in your name and read your files"
)


def security_faults(spec: ClusterSpec, *others: tuple[str, Any]) -> list[Fault]:
    """Return what contradicts ``cluster.security`` where the cluster is ours.

    Parameters
    ----------
    spec : ClusterSpec
        What the spec says.
    *others : tuple of (str, mapping or sequence or None)
        Options from elsewhere, by their place: keyword arguments, or words of a command line.
    """
    message = "take it out: cluster.security (tls or none) decides on protocol and certificates"
    faults = [
        Fault(f"{place}.{name}", message)
        for place, options in (("cluster.options", spec.options), *others)
        for name in _named(options)
    ]
    if spec.security == "none" and dask.config.get("distributed.comm.require-encryption", None):
        message = (
            "is none, but your Dask configuration has distributed.comm.require-encryption; "
            "leave it at tls"
        )
        faults.append(Fault("cluster.security", message))
    return faults


def _named(options: Mapping[str, Any] | Sequence[Any] | None) -> Iterable[str]:
    """Yield the options that are about protocol and certificates."""
    if isinstance(options, Mapping):
        yield from (name for name in ("protocol", "security") if options.get(name) is not None)
        return
    for word in " ".join(map(str, options or ())).split():
        name = word.partition("=")[0]
        if name == "--protocol" or name.startswith("--tls-"):
            yield name


def foreign_faults(spec: ClusterSpec, address: str | None) -> list[Fault]:
    """Return what contradicts itself where the cluster is somebody else's.

    Parameters
    ----------
    spec : ClusterSpec
        What the spec says.
    address : str or None
        The scheduler's, where it is known.
    """
    faults = []
    scheme = (address or "").partition("://")[0]
    if scheme == "tls" and spec.tls is None:
        faults.append(Fault("cluster.tls", f"{address} needs ca_file, cert and key"))
    if scheme == "tls" and spec.security == "none":
        faults.append(Fault("cluster.security", f"is none, but {address} is encrypted; drop it"))
    if scheme == "tcp" and spec.tls is not None:
        message = f"{address} is not encrypted, so certificates are of no use; is it tls://?"
        faults.append(Fault("cluster.tls", message))
    if spec.dashboard:
        faults.append(Fault("cluster.dashboard", "the cluster is not ours; ask it for its own"))
    if spec.performance_report is True:
        message = (
            "the cluster is not ours; use distributed.performance_report with a client of yours"
        )
        faults.append(Fault("cluster.performance_report", message))
    return faults


def dashboard_lines(port: int, queue: Queue | None) -> list[str]:
    """Return how to look at the dashboard on this host's loopback, and who else can.

    Parameters
    ----------
    port : int
        Where it listens.
    queue : Queue or None
        Whose job this process is in; None outside a job.
    """
    host, user = socket.gethostname(), _user()
    tunnel = f"ssh -N -L {port}:127.0.0.1:{port}"
    if queue is not None:  # its loopback is that of a node, behind the login node
        login = os.environ.get(queue.submit_host_variable, "LOGIN-NODE")
        tunnel += f" -J {user}@{login}"
    return [
        f"warning: the dashboard listens on the loopback of {host}, which is not private: every "
        "user of that host can read it while this runs",
        f"dashboard, on your own machine: {tunnel} {user}@{host}",
        f"then open http://127.0.0.1:{port}/status",
    ]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"
