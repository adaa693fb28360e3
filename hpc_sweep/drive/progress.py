"""How far a run is, how fast it gets on, and what is to be said of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

PACE_OVER_S = 120.0
"""Pace is that of so many last seconds, or of `PACE_UNITS` where these take longer."""

PACE_UNITS = 4
"""Per worker."""

LEAST_UNITS = 2
"""So many units per worker make a pace, and a time left; before there is none."""

PACE_AFTER_S = 3.0
"""Before so many seconds of work there is none either."""

MOST_REASONS = 50
"""Different reasons of failures that are counted apart; those that come later are one."""

OTHER_REASONS = "other reasons"


class Speed:
    """What is done in how much time, of late.

    Times are the caller's: of a monotonic clock while a run goes on, of its event log later.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._done = 0
        self._units = 0

    def begin(self, now: float) -> None:
        """Note when work begins, from which the first unit's time counts."""
        if not self._marks:
            self._marks.append((now, 0))

    def add(self, now: float, done: int, workers: int) -> None:
        """Note that a unit of so much has been done just now."""
        self.begin(now)
        self._done += done
        self._units += 1
        self._marks.append((now, self._done))
        while len(self._marks) > PACE_UNITS * max(1, workers) + 1 and (
            now - self._marks[1][0] >= PACE_OVER_S
        ):
            self._marks.popleft()

    def per_second(self, now: float, workers: int) -> float | None:
        """Return how much is done in a second, or None while that is not known.

        A unit that is long in coming slows it down.
        """
        if self._units < LEAST_UNITS * max(1, workers):
            return None
        since, before = self._marks[0]
        if now - since < PACE_AFTER_S:
            return None
        return (self._done - before) / (now - since)


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    cells, cells_done, cells_this_run : int
        (partition, candidate) pairs: all, finished, and finished in this run. While data is
        copied: slabs.
    name : str
        Of the sweep.
    phase : str
        ``starting`` the cluster, ``copying`` data into another layout, ``fitting``, ``folding``
        what is left; ``""`` before the first one.
    fits_per_cell : float
        How many fits such a pair is; on the average, where boxes are predicted.
    counts : str
        What ``fits`` are: samples, where it predicts.
    fits : int
        Fits of this run.
    failed : int
        Cells that failed in this run.
    reasons : Counter
        Of these failures, by how many there are.
    workers, workers_asked, workers_lost : int
        Workers at present, how many there are to be, and how many went in this run.
    units, in_flight : int
        Units finished in this run, and handed out.
    chunks, chunks_folded : int
        Result chunks, and those that are in the store.
    chunks_per_cell : int
        How many of these are in the store with each cell, where none are folded.
    size_bytes : int
        Of all that is copied, while data is.
    seconds : float
        Since the first worker came.
    fits_per_second : float or None
        Of late; None while that is not known.
    left_s : float or None
        How long the rest takes at that pace; None while that is not known.
    note : str
        What the driver waits for, if it does; follows on "waiting for".
    step : str
        What the driver is at inside a unit that it works at itself.
    draining : bool
        Whether nothing more is handed out.
    """

    cells: int
    cells_done: int
    cells_this_run: int = 0
    name: str = ""
    phase: str = ""
    fits_per_cell: float = 1
    counts: str = "fits"
    fits: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    workers: int = 0
    workers_asked: int = 0
    workers_lost: int = 0
    units: int = 0
    in_flight: int = 0
    chunks: int = 0
    chunks_folded: int = 0
    chunks_per_cell: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    fits_per_second: float | None = None
    left_s: float | None = None
    note: str = ""
    step: str = ""
    draining: bool = False

    @property
    def workers_pending(self) -> int:
        """Workers that are to come."""
        return max(0, self.workers_asked - self.workers)

    @property
    def all_fits(self) -> int:
        """How many fits there are."""
        return round(self.cells * self.fits_per_cell)

    @property
    def all_fits_done(self) -> int:
        """How many of these are done, in all runs."""
        return round(self.cells_done * self.fits_per_cell)

    @property
    def share_done(self) -> float:
        """What part of all is done, between 0 and 1."""
        return min(1.0, self.cells_done / self.cells) if self.cells else 1.0

    def of_copy(self, slabs: int, done: int, size_bytes: int) -> Progress:
        """Return the progress of a copy that this run makes of its data.

        Parameters
        ----------
        slabs, done : int
            How many there are, and how many are there already.
        size_bytes : int
            Of all of them.
        """
        return replace(
            self,
            cells=slabs,
            cells_done=done,
            cells_this_run=0,
            fits_per_cell=1,
            fits=0,
            units=0,
            size_bytes=size_bytes,
        )

    def take_workers(self, other: Progress) -> None:
        """Take over how many workers there are, from a copy that was made meanwhile."""
        self.workers, self.workers_asked = other.workers, other.workers_asked
        self.workers_lost = other.workers_lost

    def interrupt(self) -> None:
        """Forget what is in hand, and the pace: the run goes on in another way."""
        self.in_flight, self.fits_per_second, self.left_s = 0, None, None

    def unit_done(self, cells: int, failed: int, reasons: Mapping[str, int]) -> None:
        """Count a unit."""
        self.units += 1
        self.cells_done += cells
        self.cells_this_run += cells
        self.fits += round(cells * self.fits_per_cell)
        self.chunks_folded += cells * self.chunks_per_cell
        self.failed += failed
        for reason, count in reasons.items():
            known = reason in self.reasons or len(self.reasons) < MOST_REASONS
            self.reasons[reason if known else OTHER_REASONS] += count

    def pace(self, speed: Speed, now: float) -> None:
        """Take over how fast it is, and so how long the rest takes."""
        cells_per_second = speed.per_second(now, self.workers) if self.workers else None
        self.fits_per_second = self.left_s = None
        if cells_per_second is not None:
            self.fits_per_second = cells_per_second * self.fits_per_cell
        if cells_per_second and self.cells_done < self.cells:
            self.left_s = (self.cells - self.cells_done) / cells_per_second
