"""Certificates of one driver: in its run folder, readable by their owner only."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Security

from hpc_sweep.errors import ClusterError

ROLES = ("scheduler", "worker", "client")

WRONG_CLOCKS = datetime.timedelta(days=7)
"""A certificate is valid from so long before it is made: clocks of nodes may be behind."""

VALID = datetime.timedelta(days=365)


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
    made = temporary()
    for name, text in (
        ("ca", made.tls_ca_file),
        ("cert", made.tls_worker_cert),
        ("key", made.tls_worker_key),
    ):
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(folder / f"{name}.pem", mode, 0o600), "w") as file:
            file.write(text)
    return certificates(folder)


def temporary() -> Security:
    """Return a new certificate, its own authority, and its key, in memory.

    Dask's are valid from the moment on that they are made: a node that is behind refuses them.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hpc-sweep")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hpc-sweep")]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - WRONG_CLOCKS)
        .not_valid_after(now + VALID)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    ).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    roles = {f"tls_{role}_cert": certificate for role in ROLES}
    keys = {f"tls_{role}_key": secret for role in ROLES}
    return Security(tls_ca_file=certificate, require_encryption=True, **roles, **keys)


def certificates(folder: Path) -> Security:
    """Return what scheduler, workers and client need, by the certificates' places."""
    roles = {
        f"tls_{role}_{name}": str(folder / f"{name}.pem")
        for role in ROLES
        for name in ("cert", "key")
    }
    return Security(tls_ca_file=str(folder / "ca.pem"), require_encryption=True, **roles)


def remove_certificates(folder: Path) -> None:
    """Remove the certificates of a driver that ended or was killed."""
    for file in folder.glob("*.pem"):
        file.unlink(missing_ok=True)
