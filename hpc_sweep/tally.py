"""What event logs say of runs, read as they grow: nothing is read twice."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_sweep.drive import Progress, Speed
from hpc_sweep.errors import disk_errors
from hpc_sweep.store import event_of

Event = dict[str, Any]


class GrowingLog:
    """The new events of a log at each look.

    A line that is not whole yet is left for the next look, and so is one with zeros in it, once:
    a network file system may show a line's length before its letters.

    Parameters
    ----------
    path : Path
        The log; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = (0, 0)
        self._offset = 0
        self._doubted = -1

    def look(self) -> Iterator[Event]:
        """Yield the events since the last look; all of them where another file is in its place."""
        with (
            contextlib.suppress(FileNotFoundError),
            disk_errors(self.path, "read"),
            self.path.open("rb") as file,
        ):
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self._file:
                self._file, self._offset = (status.st_dev, status.st_ino), 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                if b"\0" in line and self._doubted != self._offset:
                    self._doubted = self._offset
                    return
                self._offset += len(line)
                event = event_of(line)
                if event is not None:
                    yield event


class Tally:
    """How far the last run of a log is, by its events.

    Parameters
    ----------
    path : Path
        The log.
    clock : callable
        Of the observer; machines' times of day may differ.

    Attributes
    ----------
    started : dict
        ``run_started`` of the last run; empty before there is one.
    result : str or None
        How it ended; None while there is no end of it.
    detached : dict
        ``driver_started`` of a driver that has not begun its run; else empty.
    n_events : int
        Events so far.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.log = GrowingLog(path)
        self._clock = clock
        self.started: Event = {}
        self.result: str | None = None
        self.detached: Event = {}
        self.n_events = 0
        self._main = self._shown = Progress(0, 0)
        self._speed = Speed()
        self._reason = ""
        self._began = self._at = self._seen = 0.0

    def look(self) -> None:
        """Read what is new."""
        for event in self.log.look():
            self.n_events += 1
            self._at, self._seen = _seconds(event, self._at), self._clock()
            take = getattr(self, f"_on_{event.get('event')}", None)
            if take is not None:
                take(event)

    @property
    def is_running(self) -> bool:
        """Whether a run has begun of which there is no end."""
        return bool(self.started) and self.result is None

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many drivers this one is."""
        found = re.fullmatch(r"(\d+)/(\d+)", str(self.started.get("share", "1/1")))
        return (int(found[1]), int(found[2])) if found else (1, 1)

    @property
    def silent_s(self) -> float:
        """For how long nothing new was written."""
        return self._clock() - self._seen

    def progress(self) -> Progress:
        """Return how far it is now."""
        now = self._at + self.silent_s
        shown = replace(self._shown, reasons=self._shown.reasons.copy())
        shown.seconds = now - self._began
        shown.note = f"workers: {self._reason}" if self._reason and not shown.workers else ""
        shown.pace(self._speed, now)
        return shown

    def _on_driver_started(self, event: Event) -> None:
        self.detached = event

    def _on_run_started(self, event: Event) -> None:
        self.started, self.result, self.detached = event, None, {}
        self._began, self._speed, self._reason = self._at, Speed(), ""
        self._main = self._shown = Progress(
            int(event.get("cells", 0)),
            int(event.get("cells_done", 0)),
            name=str(event.get("name", "")),
            fits_per_cell=float(event.get("fits_per_cell", 1)),
            counts=str(event.get("counts", "fits")),
            workers_asked=int(event.get("workers", 0)),
            chunks=int(event.get("chunks", 0)),
            chunks_folded=int(event.get("chunks_folded", 0)),
            chunks_per_cell=int(event.get("chunks_per_cell", 0)),
        )

    def _on_run_ended(self, event: Event) -> None:
        self.result = str(event.get("result", ""))
        self._shown.phase = "closing"

    def _on_phase(self, event: Event) -> None:
        phase = str(event.get("phase", ""))
        if phase != "copying":
            self._end_copy()
        self._shown.phase = phase

    def _on_rechunking(self, event: Event) -> None:
        count, size_bytes = int(event.get("of", 0)), int(event.get("bytes", 0))
        self._end_copy()
        self._shown = self._main.of_copy(count, count - int(event.get("slabs", 0)), size_bytes)
        self._shown.phase, self._speed = "copying", Speed()

    def _end_copy(self) -> None:
        """Go on with the run itself, if data was copied."""
        if self._shown is not self._main:
            self._main.take_workers(self._shown)
            self._shown, self._speed = self._main, Speed()

    def _on_peers_lost(self, event: Event) -> None:
        self._end_copy()
        self._main.interrupt()
        self._speed = Speed()

    def _on_workers(self, event: Event) -> None:
        self._shown.workers = int(event.get("workers", 0))
        if self._shown.workers:
            self._reason = ""

    _on_workers_ready = _on_workers

    def _on_topped_up(self, event: Event) -> None:
        self._reason = str(event.get("reason", ""))

    def _on_worker_lost(self, event: Event) -> None:
        self._shown.workers_lost += 1

    def _on_unit_started(self, event: Event) -> None:
        self._speed.begin(self._at)
        self._shown.in_flight += 1

    def _on_unit_done(self, event: Event) -> None:
        cells = round(int(event.get("fits", 1)) / max(1, self._shown.fits_per_cell))
        self._land()
        self._shown.unit_done(cells, int(event.get("failed", 0)), event.get("reasons", {}))
        self._speed.add(self._at, cells, self._shown.workers)

    def _on_unit_lost(self, event: Event) -> None:
        self._land()

    _on_slab_started = _on_unit_started
    _on_slab_done = _on_unit_done
    _on_slab_lost = _on_unit_lost

    def _land(self) -> None:
        self._shown.in_flight = max(0, self._shown.in_flight - 1)

    def _on_draining(self, event: Event) -> None:
        self._shown.in_flight, self._shown.draining = int(event.get("units", 0)), True

    def _on_chunk_folded(self, event: Event) -> None:
        self._shown.chunks_folded += 1

    def _on_step(self, event: Event) -> None:
        self._shown.step = str(event.get("step", ""))

    def _on_disk_refuses(self, event: Event) -> None:
        self._reason = str(event.get("error", ""))


def together(tallies: Sequence[Tally]) -> Progress:
    """Return how far several drivers of one store are; those that have not begun count as new."""
    all_of = [tally.progress() for tally in tallies]
    if len(all_of) == 1:
        return all_of[0]
    leading = max(all_of, key=lambda each: ("", "closing", "starting").count(each.phase) == 0)
    whole = replace(leading)
    for name in (
        *("cells", "cells_done", "cells_this_run", "fits", "failed", "workers", "workers_asked"),
        *("workers_lost", "units", "in_flight", "chunks", "chunks_folded"),
    ):
        setattr(whole, name, sum(getattr(each, name) for each in all_of))
    for each in all_of:
        if each is not leading:
            whole.reasons.update(each.reasons)
    count = tallies[0].share[1]
    whole.cells = whole.cells * count // len(tallies)
    whole.chunks = whole.chunks * count // len(tallies)
    whole.seconds = max(each.seconds for each in all_of)
    rates = [each.fits_per_second for each in all_of if each.fits_per_second is not None]
    whole.fits_per_second, whole.left_s = sum(rates) if rates else None, None
    if whole.fits_per_second:
        left = (whole.cells - whole.cells_done) * whole.fits_per_cell
        whole.left_s = left / whole.fits_per_second
    return whole


def _seconds(event: Event, otherwise: float) -> float:
    try:
        return datetime.datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return otherwise
