"""The lease: at most one driver works on a store.

A file made by exclusive creation names the driver. It is taken over when the driver's
process is gone (where it can be seen), when the queue ran the same job again or says that it
ended, or when its heartbeat stood still for `STALE_S` on the observer's own clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

from hpc_sweep.errors import LeaseError, disk_errors
from hpc_sweep.store.durable import write_durably
from hpc_sweep.store.holder import Holder, is_running, ran_before

HEARTBEAT_S = 5.0
STALE_S = 30.0
CLAIM_S = 5.0


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lease, or None where nobody does."""
    try:
        with disk_errors(path, "read"):
            facts = json.loads(path.read_text())
        kinds = {field.name: field.type for field in fields(Holder)}
        known = {key: value for key, value in facts.items() if key in kinds}
        if any(type(value).__name__ != kinds[key] for key, value in known.items()):
            raise TypeError
        return Holder(**known)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):  # damaged: as good as dead
        return Holder("damaged", "", 0)


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    take_over: bool = False,
    rivals: Callable[[], Iterable[Path]] = lambda: (),
    has_ended: Callable[[str, str], bool] = lambda queue, job: False,
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
    rivals : callable
        Other leases that nobody may hold at the same time.
    has_ended : callable
        Whether a queue says that a job ended; both as in `Holder`.
    sleep, say : callable
        The clock to wait with, and where to tell why.

    Raises
    ------
    LeaseError
        When another driver is alive.
    """
    mine = Holder.this_process()
    with disk_errors(path):
        _acquire(path, mine, take_over, has_ended, sleep, say)
    lease = Lease(path, mine)
    lease.start()
    try:
        # after its own: of two rivals that come at the same time at least one sees the other
        for rival in rivals():
            other = read_holder(rival)
            if other and not take_over and _is_alive(rival, mine, other, has_ended, sleep, say):
                raise LeaseError(_refusal(other))
            if other:
                _remove(rival, _claim(rival), other)
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
        self._beat_once(0)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseError` when somebody else has taken the lease over."""
        check_nonce(self.path, self.holder.nonce)

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a disk that failed must not hide its first error
            # first, so that a kill leaves at the most a lease, which goes with the next one
            _beat_file(self.path, self.holder).unlink(missing_ok=True)
            held = read_holder(self.path)
            if held is not None and held.nonce == self.holder.nonce:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(HEARTBEAT_S):
            count += 1
            self._beat_once(count)

    def _beat_once(self, count: int) -> None:
        with contextlib.suppress(OSError):  # a disk that refuses must not end the run here
            _write_in_place(_beat_file(self.path, self.holder), f"{count:012}")


def check_nonce(path: Path, nonce: str) -> None:
    """Raise `LeaseError` unless the lease is held under that nonce."""
    held = read_holder(path)
    if held is None or held.nonce != nonce:
        who = (
            f"was taken over by {held}" if held else "is gone: another driver had it and has ended"
        )
        raise LeaseError(
            f"the lease {path} {who}; this run stops, what is done is kept; run the same command "
            "again unless another driver works on this store"
        )


def _acquire(
    path: Path,
    mine: Holder,
    take_over: bool,
    has_ended: Callable[[str, str], bool],
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> None:
    content = json.dumps(asdict(mine)).encode()
    draft = path.with_name(f".{path.name}.{mine.nonce}")
    claim = _claim(path)
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
        if not take_over and _is_alive(path, mine, other, has_ended, sleep, say):
            raise LeaseError(_refusal(other))
        if _remove(path, claim, other):
            say(f"took the store over from {other}, which is gone")
        elif path.exists():
            sleep(CLAIM_S / 50)
            waited += CLAIM_S / 50
            if waited > CLAIM_S:  # whoever claimed it died within
                claim.unlink(missing_ok=True)


def _refusal(other: Holder) -> str:
    return (
        f"another driver works on this store: {other}; wait for it, or end it, or use "
        "--take-over if you know that it is gone"
    )


def _claim(path: Path) -> Path:
    return path.with_name(f".{path.name}.claim")


def _remove(path: Path, claim: Path, other: Holder) -> bool:
    """Remove the lease of `other`, and no other one; return whether this process did it.

    Only who could make the claim removes a lease, so that of several that take over at the
    same time none removes what another one has just put there.
    """
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        if read_holder(path) != other:
            return False
        _beat_file(path, other).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _is_alive(
    path: Path,
    mine: Holder,
    other: Holder,
    has_ended: Callable[[str, str], bool],
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> bool:
    if ran_before(other, mine):
        return False
    fate = is_running(other)
    if fate is not None:
        return fate
    if other.job and has_ended(other.queue, other.job):
        return False
    say(f"{other} holds the store; watching its heartbeat for {STALE_S:.0f} s")
    before = beats(path, other)
    waited = 0.0
    while waited < STALE_S:
        sleep(1.0)
        waited += 1.0
        if read_holder(path) != other:  # it ended by itself
            return False
        if beats(path, other) not in ("", before):
            return True
    return False


def _beat_file(path: Path, holder: Holder) -> Path:
    return path.with_name(f"lease.{holder.nonce}.beat")


def beats(path: Path, holder: Holder) -> str:
    """Return the count of a holder's heartbeats, or ``""`` where there is none."""
    try:
        return _beat_file(path, holder).read_text()
    except OSError:
        return ""


def _write_in_place(path: Path, text: str) -> None:
    """Write a few bytes over those that are there: a disk that is full lets that pass."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(descriptor, text.encode(), 0)
    finally:
        os.close(descriptor)
