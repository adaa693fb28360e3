"""Files that survive a crash: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hpc_sweep.errors import disk_errors

PROBE_BYTES = 64 * 1024


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Raises
    ------
    DiskError
        When there is no space, no permission, or the disk fails.
    """
    with durably(path) as file:
        file.write(content)


@contextlib.contextmanager
def durably(path: Path) -> Iterator[IO[bytes]]:
    """Context with a file that is at its place when it is whole, or not at all.

    Raises
    ------
    DiskError
        When there is no space, no permission, or the disk fails.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probe(folder: Path) -> None:
    """Write, read and remove a file, so that a disk that refuses says so.

    Raises
    ------
    DiskError
        What it says.
    """
    file = folder / f".probe-{secrets.token_hex(4)}.tmp"
    try:
        write_durably(file, secrets.token_bytes(PROBE_BYTES))  # zeros may be compressed away
        with disk_errors(file, "read"):
            file.read_bytes()
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
