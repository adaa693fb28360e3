"""Certificates of one driver: in its run folder, readable by their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from distributed import Security

from hpc_sweep.errors import ClusterError


def keys_folder(run: Path) -> Path:
    """Return the folder for this account's keys in a run folder.

    The account that made the run folder has ``keys``; a colleague who goes on cannot look into
    that, and has one with the number of the account in its name.
    """
    first = run / "keys"
    try:
        return first if first.stat().st_uid == os.geteuid() else run / f"keys-{os.geteuid()}"
    except FileNotFoundError:
        return first


def make_certificates(folder: Path) -> Security:
    """Make a new certificate and key, and return what scheduler, workers and client need.

    Dask's own temporary ones are handed to jobs as temporary files, which stay behind when
    the driver is killed; these have fixed names, so that the next driver replaces them.

    Parameters
    ----------
    folder : Path
        Folder that all nodes see, made if it is not there; what lies in it from earlier is
        removed.

    Raises
    ------
    ClusterError
        When it is somebody else's.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.geteuid() or not stat.S_ISDIR(state.st_mode):
        raise ClusterError(f"{folder} is for your keys, but it is no folder of yours; remove it")
    folder.chmod(0o700)
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
