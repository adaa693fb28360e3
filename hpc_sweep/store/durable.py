"""Files that survive a crash: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.errors import DiskError

DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.EIO, errno.EACCES, errno.EPERM}
)
"""Errors that belong to the disk and so to the run, never to a partition."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a disk into one `DiskError`."""
    try:
        yield
    except DiskError:  # said already
        raise
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            error.errno,
            f"{error.strerror}: cannot write {path}; make room or restore access, then run the "
            "same command again: what is done is kept",
        ) from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Raises
    ------
    DiskError
        When there is no space, no permission, or the disk fails.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
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
