"""The lease: at most one driver works on a store.

A file made by exclusive creation names the driver. It is taken over when the driver is
known to be dead (same host), or when its heartbeat stood still for `STALE_S` on the
observer's own clock (other hosts).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from hpc_sweep.errors import LeaseError
from hpc_sweep.store.durable import disk_errors, write_durably

HEARTBEAT_S = 5.0
STALE_S = 30.0
CLAIM_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes
    ----------
    nonce : str
        Random; tasks check it before they write.
    host, pid, started : str, int, float
        The process, with its start time in seconds since 1970 (pids are used again).
    job : str
        Id of the queue's job, or ``""``.
    restarts : str
        How often the queue restarted that job.
    """

    nonce: str
    host: str
    pid: int
    started: float
    job: str
    restarts: str

    @classmethod
    def this_process(cls) -> Holder:
        """Return a new holder for this process."""
        environment = os.environ
        return cls(
            secrets.token_hex(8),
            socket.gethostname(),
            os.getpid(),
            psutil.Process().create_time(),
            environment.get("SLURM_JOB_ID") or environment.get("PBS_JOBID") or "",
            environment.get("SLURM_RESTART_COUNT", "0"),
        )

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lease, or None where nobody does."""
    try:
        return Holder(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # damaged: as good as dead
        return Holder("damaged", "", 0, 0.0, "", "0")


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    take_over: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Lease]:
    """Hold the lease while the context lasts.

    Parameters
    ----------
    path : Path
        The lease file.
    take_over : bool
        Take it from whoever has it.
    sleep, say : callable
        The clock to wait with, and where to tell why.

    Raises
    ------
    LeaseError
        When another driver is alive.
    """
    mine = Holder.this_process()
    with disk_errors(path):
        _acquire(path, mine, take_over, sleep, say)
    lease = Lease(path, mine)
    lease.start()
    try:
        yield lease
    finally:
        lease.release()


class Lease:
    """A lease that is held; a thread keeps its heartbeat going."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def start(self) -> None:
        """Start the heartbeat."""
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseError` when somebody else has taken the lease over."""
        check_nonce(self.path, self.holder.nonce)

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a disk that failed must not hide its first error
            held = read_holder(self.path)
            if held is not None and held.nonce == self.holder.nonce:
                self.path.unlink(missing_ok=True)
            _beat_file(self.path, self.holder).unlink(missing_ok=True)

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(HEARTBEAT_S if count else 0):
            count += 1
            with contextlib.suppress(OSError):  # a full disk must not end the run here
                _beat_file(self.path, self.holder).write_text(str(count))


def check_nonce(path: Path, nonce: str) -> None:
    """Raise `LeaseError` unless the lease is held under that nonce."""
    held = read_holder(path)
    if held is None or held.nonce != nonce:
        raise LeaseError(f"the lease {path} was taken over by {held or 'nobody'}; this run stops")


def _acquire(
    path: Path,
    mine: Holder,
    take_over: bool,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> None:
    content = json.dumps(asdict(mine)).encode()
    draft = path.with_name(f".{path.name}.{mine.nonce}")
    claim = path.with_name(f".{path.name}.claim")
    waited = 0.0
    while True:
        write_durably(draft, content)
        try:
            os.link(draft, path)  # exclusive, and whole at once
            return
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        other = read_holder(path)
        if other is None:
            continue
        if other == mine:  # NFS made the link and lost its answer
            return
        if not take_over and _is_alive(path, other, sleep, say):
            raise LeaseError(
                f"another driver works on this store: {other}; wait for it, or end it, or use "
                "--take-over if you know that it is gone"
            )
        if _remove(path, claim, other):
            say(f"took the store over from {other}, which is gone")
        elif path.exists():
            sleep(CLAIM_S / 50)
            waited += CLAIM_S / 50
            if waited > CLAIM_S:  # whoever claimed it died within
                claim.unlink(missing_ok=True)


def _remove(path: Path, claim: Path, other: Holder) -> bool:
    """Remove the lease of `other`, and no other one; return whether this process did it.

    Only who could make the claim removes a lease, so that of several that take over at the
    same time none removes what another one has just put there.
    """
    try:
        os.link(path, claim)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        if read_holder(claim) != other:
            return False
        path.unlink(missing_ok=True)
        _beat_file(path, other).unlink(missing_ok=True)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _is_alive(
    path: Path, other: Holder, sleep: Callable[[float], None], say: Callable[[str], None]
) -> bool:
    if is_known_dead(other):
        return False
    if other.host == socket.gethostname():
        return True
    say(f"{other} holds the store; watching its heartbeat for {STALE_S:.0f} s")
    before = _beats(path, other)
    waited = 0.0
    while waited < STALE_S:
        sleep(1.0)
        waited += 1.0
        if read_holder(path) != other:  # it ended by itself
            return False
        if _beats(path, other) != before:
            return True
    return False


def is_known_dead(holder: Holder) -> bool:
    """Return whether this host can tell that a holder's process is gone."""
    if holder.nonce == "damaged":
        return True
    if holder.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and not yet collected
            return True
        return abs(process.create_time() - holder.started) >= 2.0
    except psutil.NoSuchProcess:
        return True


def _beat_file(path: Path, holder: Holder) -> Path:
    return path.with_name(f"lease.{holder.nonce}.beat")


def _beats(path: Path, holder: Holder) -> str:
    try:
        return _beat_file(path, holder).read_text()
    except OSError:
        return ""
