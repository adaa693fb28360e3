"""The process that holds a lease, and whether it still runs."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes
    ----------
    nonce : str
        Random; tasks check it before they write.
    host : str
        Name of the machine, for messages.
    pid, ticks : int
        The process, and when it began (pids are used again), in clock ticks since its
        machine started: unlike the time of day it never jumps.
    pids : str
        Which processes `pid` counts: one start of one machine, and one namespace of it.
        ``""`` where that is not known.
    job : str
        Id of the queue's job, or ``""``.
    restarts : str
        How often the queue restarted that job.
    queue : str
        Which queue: ``slurm:CLUSTER`` or ``pbs``, or ``""``.
    """

    nonce: str
    host: str
    pid: int
    job: str = ""
    restarts: str = "0"
    ticks: int = 0
    pids: str = ""
    queue: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """Return a new holder for this process."""
        environment = os.environ
        slurm = environment.get("SLURM_JOB_ID", "")
        pbs = environment.get("PBS_JOBID", "")
        cluster = environment.get("SLURM_CLUSTER_NAME", "")
        state = _process_state(os.getpid())
        return cls(
            secrets.token_hex(8),
            socket.gethostname(),
            os.getpid(),
            slurm or pbs,
            environment.get("SLURM_RESTART_COUNT", "0"),
            0 if state is None else state[1],
            _pids(),
            f"slurm:{cluster}" if slurm else "pbs" if pbs else "",
        )

    @classmethod
    def of(cls, pid: int) -> Holder:
        """Return a process of this machine, as if it held a lease."""
        state = _process_state(pid)
        return cls(
            "", socket.gethostname(), pid, ticks=0 if state is None else state[1], pids=_pids()
        )

    @property
    def place(self) -> dict[str, str | int]:
        """Which process it is, as `at` takes it."""
        return {"host": self.host, "pid": self.pid, "ticks": self.ticks, "pids": self.pids}

    @classmethod
    def at(cls, place: Mapping[str, Any]) -> Holder:
        """Return the process that an event tells of."""
        host, pids = (str(place.get(key, "")) for key in ("host", "pids"))
        return cls("", host, int(place.get("pid", 0)), ticks=int(place.get("ticks", 0)), pids=pids)

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def ran_before(other: Holder, mine: Holder) -> bool:
    """Return whether the holder is an earlier run of the very job that this process is in."""
    if not mine.job or (other.queue, other.job) != (mine.queue, mine.job):
        return False
    if mine.queue != "pbs":
        with contextlib.suppress(ValueError):
            return int(other.restarts) < int(mine.restarts)
        return False
    # nothing marks a rerun of PBS; a second process of this run is on one of its nodes
    nodes = {_short(mine.host)}
    with contextlib.suppress(OSError, KeyError):
        nodes |= {_short(line) for line in Path(os.environ["PBS_NODEFILE"]).read_text().split()}
    return _short(other.host) not in nodes


def _short(host: str) -> str:
    return host.partition(".")[0]


def is_known_dead(holder: Holder) -> bool:
    """Return whether it can be told from here that a holder's process is gone."""
    return is_running(holder) is False


def is_known_alive(holder: Holder) -> bool:
    """Return whether it can be told from here that a holder's process runs."""
    return is_running(holder) is True


def is_running(holder: Holder) -> bool | None:
    """Return whether a holder's process runs; None where it cannot be seen from here."""
    if holder.nonce == "damaged":
        return False
    if not holder.pids or holder.pids != _pids():
        return None
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another account's
        pass
    state = _process_state(holder.pid)
    if state is None:  # /proc hides other accounts' processes on some machines
        return None
    code, ticks = state
    return code not in "ZX" and ticks == holder.ticks  # a zombie was killed and not yet collected


def _process_state(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and when it began, as proc(5) has them, or None."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])


def _pids() -> str:
    """Return what tells process ids of this machine, since it started, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux: heartbeats decide
        return ""
