"""Certificates of one driver: in its run folder, readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from distributed import Security


def make_certificates(folder: Path) -> Security:
    """Make a new certificate and key, and return what scheduler, workers and client need.

    Dask's own temporary ones are handed to jobs as temporary files, which stay behind when
    the driver is killed; these have fixed names, so that the next driver replaces them.

    Parameters
    ----------
    folder : Path
        Existing folder that all nodes see; what lies in it from earlier is removed.
    """
    remove_certificates(folder)
    made = Security.temporary()
    for name, text in (
        ("ca", made.tls_ca_file),
        ("cert", made.tls_worker_cert),
        ("key", made.tls_worker_key),
    ):
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(folder / f"{name}.pem", mode, 0o600), "w") as file:
            file.write(text)
    return certificates(folder)


def certificates(folder: Path) -> Security:
    """Return what scheduler, workers and client need, by the certificates' places."""
    roles = {
        f"tls_{role}_{name}": str(folder / f"{name}.pem")
        for role in ("scheduler", "worker", "client")
        for name in ("cert", "key")
    }
    return Security(tls_ca_file=str(folder / "ca.pem"), require_encryption=True, **roles)


def remove_certificates(folder: Path) -> None:
    """Remove the certificates of a driver that ended or was killed."""
    for file in folder.glob("*.pem"):
        file.unlink(missing_ok=True)
