"""Following a sweep or a prediction from anywhere, by its run folder: cheap however large it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_sweep.drive import Progress
from hpc_sweep.driverjobs import not_begun
from hpc_sweep.store import (
    ForeignError,
    Holder,
    beats,
    is_known_alive,
    is_known_dead,
    read_holder,
    run_folder,
)
from hpc_sweep.tally import Tally, together
from hpc_sweep.watching.standing import Standing, Work, is_there, may_be_at_work, standing_of

ASK_EVERY_S = 60.0
"""How often the queue is asked, and the whole ledger read, while no driver is at work."""

SILENT_S = 60.0
"""A driver whose heartbeat stands still for so long, on the observer's clock, is gone."""


@dataclass(frozen=True)
class Seen:
    """How far a sweep or a prediction is, as seen from outside.

    Attributes
    ----------
    state : str
        ``absent`` (there is neither store nor run folder), ``queued``, ``running``, ``complete``,
        ``stopped``.
    progress : Progress
        Of the drivers at work, or of the last ones.
    status : Standing or None
        What the store says, where it was asked: while no driver is at work.
    """

    state: str
    progress: Progress
    status: Standing | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in ("complete", "stopped")

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        of = self.progress
        counts = of.counts
        fails = "candidates_failed" if counts == "fits" else "predictions_failed"
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "name": of.name,
            "state": self.state,
            "phase": of.phase,
            "share_done": round(of.share_done, 6) if of.cells else None,
            counts: of.all_fits,
            f"{counts}_done": of.all_fits_done,
            f"{counts}_per_second": of.fits_per_second,
            "left_s": of.left_s,
            "units_done": of.units,
            "units_in_flight": of.in_flight,
            "workers": of.workers,
            "workers_pending": of.workers_pending,
            "workers_lost": of.workers_lost,
            fails: of.failed,
            "reasons": dict(of.reasons.most_common()),
            "chunks": of.chunks,
            "chunks_folded": of.chunks_folded,
            "waiting_for": of.note or None,
            "step": of.step or None,
        }


@dataclass
class Watching:
    """Follows one store.

    While a driver is at work a look reads what its event log has got since the last look, and its
    lease; neither parts nor the store.

    Parameters
    ----------
    store : path
        The store; it may not be there yet.
    """

    store: Path
    clock: Callable[[], float] = time.monotonic
    _tallies: dict[Path, Tally] = field(default_factory=dict)
    _beats: dict[Path, tuple[str, float]] = field(default_factory=dict)
    _asked: tuple[float, int] = float("-inf"), -1
    _status: Standing | None = None
    _faults_since: float | None = None

    def look(self) -> Seen:
        """Return how far it is now.

        Raises
        ------
        SweepError
            When files cannot be read for longer than a driver may need to write them.
        """
        run = run_folder(self.store)
        for log in sorted(run.path.glob("events*.jsonl")):
            self._tallies.setdefault(log, Tally(log, self.clock)).look()
        at_work = [tally for tally in self._tallies.values() if self._is_at_work(tally)]
        if at_work:
            return Seen("running", together(self._campaign(at_work)))
        return self._at_rest()

    def _campaign(self, at_work: list[Tally]) -> list[Tally]:
        """Return the tallies of those who share the work with drivers that are at it."""
        count = max(at_work, key=lambda tally: tally.started["time"]).share[1]
        begun = [tally for tally in self._tallies.values() if tally.started]
        return [tally for tally in begun if tally.share[1] == count]

    def _is_at_work(self, tally: Tally) -> bool:
        """Return whether a run has no end, and somebody who may be at work at it."""
        if not tally.is_running:
            return False
        lease = tally.log.path.with_name(tally.log.path.name.replace("events", "lease", 1))
        return self._beats_still(lease.with_suffix(".json"))

    def _beats_still(self, lease: Path) -> bool:
        holder = read_holder(lease)
        if holder is not None and is_known_dead(holder):
            return False
        beat = "" if holder is None else holder.nonce + beats(lease, holder)
        if lease not in self._beats:  # the queue may know what a first look cannot see
            gone = holder is None or not may_be_at_work(holder)
            self._beats[lease] = beat, float("-inf") if gone else self.clock()
        elif beat != self._beats[lease][0]:
            self._beats[lease] = beat, self.clock()
        return self.clock() - self._beats[lease][1] <= SILENT_S

    def _at_rest(self) -> Seen:
        """Return what files and queue say while no driver is known to be at work."""
        if any(map(self._begins, self._tallies.values())):
            return Seen("running", Progress(0, 0, phase="the driver begins"))
        events = sum(tally.n_events for tally in self._tallies.values())
        now = self.clock()
        if events != self._asked[1] or now - self._asked[0] >= ASK_EVERY_S:
            self._asked = now, events
            self._status = self._ask()
        status = self._status
        if status is None:
            return Seen("absent", Progress(0, 0, phase=f"waiting for {self.store}"))
        run = run_folder(self.store)
        lease_is_held = status.driver and any(
            self._beats_still(lease) for lease in run.path.glob("lease*.json")
        )
        if status.driver and not lease_is_held:  # so others may follow it
            left = [] if status.work.complete else not_begun(run)
            status = self._status = replace(status, driver=None, not_begun=left)
        waiting = [job for job in status.not_begun if not job.ended]
        progress = self._last_progress(status.work)
        if status.work.complete:
            progress.phase = "complete"
            return Seen("complete", progress, status)
        if lease_is_held:
            progress.phase = f"{status.driver} has the store"
            return Seen("running", progress, status)
        if waiting:
            progress.phase = "; ".join(map(str, waiting))
            return Seen("queued", progress, status)
        why = self._why_stopped()
        progress.phase = f"stopped: {why}" if why else "stopped"
        return Seen("stopped", progress, status)

    def _begins(self, tally: Tally) -> bool:
        """Return whether a driver of its own was started that has not taken the store yet."""
        if not tally.detached:
            return False
        holder = Holder.at(tally.detached)
        return is_known_alive(holder) or (
            not is_known_dead(holder) and tally.silent_s <= SILENT_S  # on another machine
        )

    def _why_stopped(self) -> str:
        """Return how the last run ended."""
        begun = [tally for tally in self._tallies.values() if tally.started]
        last = max(begun, key=lambda tally: tally.started["time"], default=None)
        if last is None:
            return ""
        return "the driver is gone" if last.result is None else last.result

    def _ask(self) -> Standing | None:
        """Read what is done and ask the queue; None while there is neither store nor run folder."""
        if not is_there(self.store):
            return None
        try:
            status = standing_of(self.store)
        except ForeignError:
            raise
        except ValueError:  # a StoreError, or half a file: they come late, or are being folded
            now = self.clock()
            self._faults_since = now if self._faults_since is None else self._faults_since
            if now - self._faults_since > SILENT_S:
                raise
            self._asked = now, -1
            return self._status
        self._faults_since = None
        return status

    def _last_progress(self, work: Work) -> Progress:
        begun = [tally for tally in self._tallies.values() if tally.started]
        last = max(begun, key=lambda tally: tally.started["time"], default=None)
        progress = Progress(0, 0) if last is None else last.progress()
        progress.name, progress.counts = work.name, work.counts
        progress.cells, progress.cells_done = work.total or 0, work.done
        progress.fits_per_cell, progress.workers = 1, 0
        progress.fits_per_second = progress.left_s = None
        progress.chunks = work.chunks or 0
        progress.chunks_folded, progress.in_flight = work.chunks_done, 0
        return progress


def look_once(store: str | Path) -> Seen:
    """Return how far it is now, by event logs, lease, and what the store says.

    Raises
    ------
    StoreError
        When there is neither a sweep nor a prediction.
    """
    seen = Watching(Path(store).absolute()).look()
    return seen if seen.status is not None else replace(seen, status=standing_of(store))


def watch(
    store: str | Path,
    seen: Callable[[Seen], None],
    every_s: float = 2.0,
    timeout_s: float = float("inf"),
    sleep: Callable[[float], None] = time.sleep,
) -> Seen:
    """Follow a sweep or a prediction until it is complete or stopped.

    Parameters
    ----------
    store : path
        The store; it may not be there yet.
    seen : callable
        Told at each look.
    every_s : float
        Seconds between looks.
    timeout_s : float
        When to leave it.

    Returns
    -------
    Seen
        The last look.
    """
    watching, end = Watching(Path(store).absolute()), time.monotonic() + timeout_s
    while True:
        found = watching.look()
        seen(found)
        left = end - time.monotonic()
        if found.has_ended or left <= 0:
            return found
        sleep(min(every_s, left))
