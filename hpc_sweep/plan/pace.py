"""How large the next units are: by the times of the last ones, and by what is left."""

from __future__ import annotations

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

RECENT_PER_WORKER = 2
"""So many of the last units per worker tell the time of the next ones."""


@dataclass
class Pace:
    """The size of the next unit of a run.

    Parameters
    ----------
    plan : Plan
        Says the first size, and the limits.
    cells : int
        (partition, column) pairs that are not handed out.
    workers : callable
        How many workers there are at present.
    """

    plan: Plan
    cells: int
    workers: Callable[[], int]
    _recent: deque[tuple[int, int, float]] = field(default_factory=deque)

    def hand_out(self, unit: Unit) -> None:
        """Count a unit that is handed out for the first time."""
        self.cells -= unit.n_cells

    def done(self, unit: Unit, seconds: float) -> None:
        """Learn from a unit that is done.

        Parameters
        ----------
        unit : Unit
            What was done of it.
        seconds : float
            How long its task took.
        """
        self._recent.append((unit.stop - unit.start, unit.n_cells, seconds))
        while len(self._recent) > RECENT_PER_WORKER * max(1, self.workers()):
            self._recent.popleft()

    def partitions(self) -> int:
        """Return how many partitions the next unit has."""
        plan = self.plan
        if not self._recent:
            return plan.unit_partitions
        known = sum(cells for _, cells, _ in self._recent)
        cell_s = max(sum(seconds for _, _, seconds in self._recent), 1e-9) / known
        share_s = self.cells * cell_s / max(1, self.workers())
        seconds = min(LONGEST_S, max(SHORTEST_S, share_s / SHARES), share_s)
        largest = GROWTH * max(partitions for partitions, _, _ in self._recent)
        wanted = min(seconds / (cell_s * plan.unit_columns), largest, plan.most_partitions)
        return max(plan.least_partitions, int(wanted))
