"""What a sweep has used of its core-hours, and what it is going to need."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.charge import Spent, spent
from hpc_sweep.clusters import seconds, with_margin
from hpc_sweep.errors import BudgetError, PlanError
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import Change, Journal, Ledger, RunFolder, Store, read_events

TELL_EVERY_S = 60.0
"""How often the number of workers is written down though it did not change."""

IN_HAND_S = 60.0
"""How long what workers have in hand may still take when nothing more is handed out."""

MEASURED_UNITS = 10
"""From so many finished units on, what the rest needs counts as known."""


@dataclass(frozen=True)
class Forecast:
    """What was used, and what the rest is going to need.

    Attributes
    ----------
    spent : Spent
        In all runs.
    remaining_core_hours : float or None
        For the rest, at the pace so far; None before anything is done.
    """

    spent: Spent
    remaining_core_hours: float | None


def total_spent(run: Path) -> Spent:
    """Return what all runs of a sweep have used, by the event logs of its run folder."""
    return sum((spent(read_events(log)) for log in _logs(run)), Spent())


def forecast(store: Store | None, change: Change | None = None) -> Forecast:
    """Return what a sweep has used and needs; overheads and work done twice are in the pace.

    Parameters
    ----------
    store : Store or None
        None before there is one.
    change : Change, optional
        How its candidates are going to change.
    """
    if store is None:
        return Forecast(Spent(), None)
    used = total_spent(store.run.path)
    ledger = Ledger.read(store)
    done = ledger.cells_done()
    left: float = ledger.n_cells - done
    if change is not None:
        left *= change.kept / max(1, change.kept + change.dropped)
        left += change.new * ledger.n_partitions
    if not left:
        return Forecast(used, 0.0)
    known = done and used.core_hours
    return Forecast(used, used.core_hours * left / done if known else None)


def shorter_walltime_s(spec: SweepSpec, cores: int) -> float | None:
    """Return what the rest of a sweep is predicted to need, where a driver asks for more.

    Parameters
    ----------
    spec : SweepSpec
        The sweep.
    cores : int
        Cores of all its workers.
    """
    asked = seconds(spec.cluster.driver.walltime or spec.cluster.walltime or "")
    if asked is None or not Path(spec.output.store).exists():
        return None
    rest = forecast(Store.open(spec.output.store)).remaining_core_hours
    if rest is None:
        return None
    needed = with_margin(rest * 3600 / cores)
    return needed if needed < asked else None


def check_budget(spec: SweepSpec, store: Store | None, change: Change | None = None) -> None:
    """Refuse a sweep that has used its core-hours, or is known to need more than it may.

    Raises
    ------
    PlanError
        With what was used and is needed against the limit.
    """
    limit = spec.cluster.max_core_hours
    if limit is None or store is None:
        return
    found = forecast(store, change)
    used, rest = found.spent.core_hours, found.remaining_core_hours or 0.0
    known = found.spent.units >= MEASURED_UNITS
    if rest and (used >= limit or (known and used + rest > limit)):
        raise PlanError(
            f"the rest needs about {rest:.3g} core-hours; {used:.3g} were used, and "
            f"cluster.max_core_hours is {limit:g}; raise it, or leave candidates out"
        )


class Budget:
    """Counts the core-hours of a run while it goes on, and ends it at the limit.

    Parameters
    ----------
    journal : Journal
        Told of the number of workers.
    run : RunFolder
        Whose logs say what was used before, and what other drivers use meanwhile.
    limit : float or None
        ``cluster.max_core_hours``.
    own_cores : int
        Cores of the driver's own job.
    apart : bool
        Whether workers have other cores than these.
    """

    def __init__(
        self,
        journal: Journal,
        run: RunFolder,
        limit: float | None,
        own_cores: int,
        apart: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._run = run
        self._limit = limit
        self._own = own_cores
        self._apart = apart
        self._clock = clock
        self._before = spent(read_events(run.events)).core_hours
        self._others = self._others_spent()
        self._mine = 0.0
        self._workers = 0
        self._used_up = False
        self._since = self._told = clock()

    @property
    def core_hours(self) -> float:
        """Used in all runs so far."""
        return self._before + self._others + self._mine

    @property
    def _cores(self) -> int:
        return self._own + (self._workers if self._apart else 0)

    def update(self, workers: int) -> None:
        """Take note of how many workers there are."""
        now = self._clock()
        self._mine += self._cores * (now - self._since) / 3600
        self._since = now
        if workers != self._workers or now - self._told >= TELL_EVERY_S:
            self._workers, self._told = workers, now
            self._journal.write("workers", workers=workers)
            self._others = self._others_spent()

    def is_used_up(self) -> bool:
        """Return whether to hand out nothing more: what is in hand is going to use the rest.

        That stays so when workers go.
        """
        if self._limit is not None:
            in_hand = self._cores * IN_HAND_S / 3600
            most = self.core_hours + min(in_hand, self._limit / 10)
            self._used_up = self._used_up or most >= self._limit
        return self._used_up

    def error(self) -> BudgetError:
        """Return what to raise when the run ended because of it."""
        return BudgetError(
            f"used {self.core_hours:.3g} core-hours, and cluster.max_core_hours is "
            f"{self._limit:g}; what is done is kept: raise it to go on from here"
        )

    def _others_spent(self) -> float:
        logs = [log for log in _logs(self._run.path) if log != self._run.events]
        return sum(spent(read_events(log)).core_hours for log in logs)


def _logs(run: Path) -> list[Path]:
    return sorted(run.glob("events*.jsonl"))
