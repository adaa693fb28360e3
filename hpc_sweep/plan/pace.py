"""How large the next units are: by the times of the last ones, and by what is left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hpc_sweep.plan.plan import Plan
from hpc_sweep.plan.units import Unit

SHARES = 3
"""A unit takes a worker's part of what is left, divided by this: so units become short at the
end, when a long one would keep a single worker busy."""

SHORTEST_S = 1.0
"""A task, its file and its line in the event log take some hundredths of a second."""

LONGEST_S = 30.0
"""So much is lost at the most when a worker dies."""

GROWTH = 4
"""A unit is at the most so many times as large as any of the last ones."""

FULL = 0.8
"""A worker that has used so much of its memory gets units of half the size."""

RECENT_PER_WORKER = 2
"""So many of the last units per worker tell the time of the next ones."""


@dataclass
class Pace:
    """The size of the next unit of a run.

    Parameters
    ----------
    plan : Plan
        Says the first size, and the limits.
    cells : float
        (partition, column) pairs that are not handed out, those of a partition of average size
        counting 1.
    workers : callable
        How many workers there are at present.
    memory_bytes : int or None
        What a worker has.
    """

    plan: Plan
    cells: float
    workers: Callable[[], int]
    memory_bytes: int | None = None
    _recent: deque[tuple[int, float, float]] = field(default_factory=deque)
    _peak: int = 0
    _most: float = math.inf

    def hand_out(self, unit: Unit) -> None:
        """Count a unit that is handed out for the first time."""
        self.cells -= self.plan.weight(unit)

    def done(self, unit: Unit, seconds: float, peak_bytes: int = 0) -> None:
        """Learn from a unit that is done.

        Parameters
        ----------
        unit : Unit
            What was done of it.
        seconds : float
            How long its task took.
        peak_bytes : int
            Most memory that its worker ever had.
        """
        partitions = unit.stop - unit.start
        if self.memory_bytes and peak_bytes > max(self._peak, FULL * self.memory_bytes):
            self._peak, self._most = peak_bytes, min(self._most, max(1, partitions // 2))
        length = unit.last - unit.first if self.plan.is_sliced else partitions
        self._recent.append((length, self.plan.weight(unit), seconds))
        while len(self._recent) > RECENT_PER_WORKER * max(1, self.workers()):
            self._recent.popleft()

    def partitions(self) -> int:
        """Return how many partitions the next unit has."""
        plan = self.plan
        if not self._recent:
            return plan.unit_partitions
        wanted = min(self._cells() / plan.unit_columns, self._largest(), plan.most_partitions)
        return int(min(self._most, max(plan.least_partitions, wanted)))

    def columns(self, share: float) -> int:
        """Return how many columns the next slice of a partition has.

        Parameters
        ----------
        share : float
            Its samples, by the average.
        """
        if not self._recent:  # nor may all workers have come yet
            wanted = self.cells / (SHARES * max(1, self.workers())) / share
            wanted = min(wanted, self.plan.unit_columns)
        else:
            wanted = min(self._cells() / share, self._largest())
        return max(1, int(wanted))

    def _cells(self) -> float:
        """Return how many cells the next unit shall have, by their times."""
        cell_s = max(self.cell_seconds(), 1e-9)
        share_s = self.cells * cell_s / max(1, self.workers())
        return min(LONGEST_S, max(SHORTEST_S, share_s / SHARES), share_s) / cell_s

    def _largest(self) -> int:
        return GROWTH * max(length for length, _, _ in self._recent)

    def cell_seconds(self) -> float:
        """Return the seconds of a (partition, column) pair, by the last units; NaN without any."""
        known = sum(cells for _, cells, _ in self._recent)
        return sum(seconds for _, _, seconds in self._recent) / known if known else math.nan
