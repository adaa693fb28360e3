"""Every error the package raises on purpose, and the words it uses for them.

An error says what is wrong, where, the value against its limit, and the remedy.
``exit_code`` is what the command line returns for it.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXIT_OK = 0
EXIT_OURS = 1
EXIT_USER = 2
EXIT_CLUSTER = 3
EXIT_PARTITIONS = 4
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a spec.

    Attributes
    ----------
    path : str
        Dotted key, such as ``models.0.param_grid.alpha``.
    message : str
        The value, what is allowed, and the remedy.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SweepError(Exception):
    """Root of the package's own errors."""

    exit_code = EXIT_OURS


class SpecError(SweepError, ValueError):
    """The spec does not describe a sweep that can run; all faults at once.

    Attributes
    ----------
    faults : tuple of Fault
        What is wrong.
    origin : str
        What the message calls the spec.
    sections : dict
        By dotted path, sections that are valid in themselves, so that they can be checked
        against libraries and data all the same.
    """

    exit_code = EXIT_USER

    def __init__(
        self,
        faults: Sequence[Fault],
        origin: str = "the spec",
        sections: Mapping[str, Any] | None = None,
    ) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        self.origin = origin
        self.sections = dict(sections or {})
        super().__init__(self.faults, origin)

    def __str__(self) -> str:
        count = len(self.faults)
        head = f"{self.origin} has {count} fault{'s' if count > 1 else ''}:"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


class PlanError(SweepError, ValueError):
    """The sweep does not fit into the memory or the files it may use."""

    exit_code = EXIT_USER


class StoreError(SweepError, ValueError):
    """The output store is not what it should be: foreign, of another spec, damaged."""

    exit_code = EXIT_USER


class DamagedError(StoreError):
    """Something of the store cannot be read; which file that is nobody has looked yet."""


class UntrustedError(StoreError):
    """A stored model has types that nobody trusts; whoever loads it names them if they do."""


class DiskError(SweepError, OSError):
    """The disk under the store refused to work: no space, quota, read-only, stale."""

    exit_code = EXIT_CLUSTER


class ClusterError(SweepError, RuntimeError):
    """The cluster could not be started, gave no workers, or went away."""

    exit_code = EXIT_CLUSTER


class NoWorkersError(ClusterError):
    """No worker came within the time to wait; they may come later."""


class NoProgressError(ClusterError):
    """A driver had workers for most of its time, and nothing was added to the store."""


class BudgetError(ClusterError):
    """The core-hours that a sweep may use are used up; what is done is kept."""


class LeaseError(SweepError, RuntimeError):
    """Another driver works on the same store."""

    exit_code = EXIT_CLUSTER


class Interrupted(SweepError):
    """The driver was asked to stop; what is done is in the store."""

    exit_code = EXIT_INTERRUPTED


_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM})

DISK_ERRORS = _NO_PERMISSION | {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    # network file systems: a server that was restarted, a client that was evicted
    *(errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.ENODEV),
    *((errno.EREMOTEIO,) if hasattr(errno, "EREMOTEIO") else ()),
}
"""Errors that belong to the disk and so to the run, never to a partition."""


@contextlib.contextmanager
def disk_errors(path: os.PathLike[str] | str, doing: str = "write") -> Iterator[None]:
    """Turn the operating system's errors about a disk into one `DiskError`.

    Parameters
    ----------
    path : path
        What the message names.
    doing : str
        ``write`` or ``read``.
    """
    try:
        yield
    except SweepError:  # said already
        raise
    except Exception as error:
        cause = disk_cause(error)
        if cause is None:
            raise
        raise disk_error(cause, path, doing) from error


def disk_error(cause: OSError, path: os.PathLike[str] | str, doing: str) -> DiskError:
    """Return the error of the run that the operating system's error is."""
    if cause.errno in _NO_PERMISSION:
        remedy = "you have no permission; ask the owner for it (output.group shares a store)"
    else:
        remedy = "make room or restore access" if doing == "write" else "restore access"
    return DiskError(
        cause.errno,
        f"{os.strerror(cause.errno or 0)}: cannot {doing} {os.fspath(path)}; {remedy}, then run "
        "the same command again: what is done is kept",
    )


def foreign_import(error: ImportError) -> str | None:
    """Return the message for what the environment lacks, or None where the fault is ours."""
    name = error.name or "a library"
    if name.partition(".")[0] == "hpc_sweep":
        return None
    return (
        f"cannot import {name}: {error}; the environment of {sys.executable} does not work on "
        f"{platform.node()}: repair it, or, on a node of a cluster, make it visible there (a "
        "shared file system, cluster.prologue, cluster.launcher)"
    )


def disk_cause(error: BaseException) -> OSError | None:
    """Return the error of the disk that another one wraps or is, or None."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in DISK_ERRORS:
            return found
        found = found.__cause__
    return None


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the choice nearest to `name`, or ``""``."""
    lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean '{lower[found[0]]}'?" if found else ""


def listed(names: Iterable[object], most: int = 12) -> str:
    """Join names for a message, cut after `most` of them."""
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f", … ({more} more)" if more > 0 else "")
