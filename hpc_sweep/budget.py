"""What a sweep and its predictions have used of its core-hours, and what it is going to need."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.charge import Spent, spent
from hpc_sweep.clusters import seconds, with_margin
from hpc_sweep.errors import BudgetError, PlanError
from hpc_sweep.spec import ClusterSpec, SweepSpec
from hpc_sweep.store import Change, Journal, Ledger, RunFolder, Store, read_events

SEARCHES, PREDICTIONS = "events*.jsonl", "charged-*.jsonl"
LOGS = (SEARCHES, PREDICTIONS)
"""Logs of a run folder that say what was used, and of what."""

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
        In all runs, and in predictions.
    remaining_core_hours : float or None
        For the rest, at the pace so far; None before anything is done.
    """

    spent: Spent
    remaining_core_hours: float | None


def account_of(run: RunFolder, prediction: str) -> Journal:
    """Return the log in a sweep's run folder of what one of its predictions uses."""
    return Journal(run.path / f"charged-{prediction}.jsonl")


def total_spent(run: Path, logs: Sequence[str] = LOGS) -> Spent:
    """Return what runs of a sweep, and its predictions, have used, by logs of its run folder."""
    return sum((spent(read_events(log)) for log in _logs(run, logs)), Spent())


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
    searched = total_spent(store.run.path, [SEARCHES]).core_hours
    known = done and searched
    return Forecast(used, searched * left / done if known else None)


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


def check_room(spec: SweepSpec, run: RunFolder) -> None:
    """Refuse to predict where a sweep and its predictions have used its core-hours.

    Raises
    ------
    PlanError
        With what was used against the limit.
    """
    limit, used = spec.cluster.max_core_hours, total_spent(run.path).core_hours
    if limit is not None and used >= limit:
        raise PlanError(
            f"{used:.3g} core-hours were used, in the sweep and its predictions, and "
            f"cluster.max_core_hours is {limit:g}; raise it (--set cluster.max_core_hours=…)"
        )


def drivers_cores(section: ClusterSpec, cores: int, job: str) -> tuple[int, bool]:
    """Return the cores of a driver's own job, and whether its workers have others.

    Parameters
    ----------
    section : ClusterSpec
        Which cluster.
    cores : int
        Of all workers.
    job : str
        Of the driver, or ``""``.
    """
    # the cores of one job for all are charged whether workers are there or not
    if job and (section.kind == "local" or section.place == "one_job"):
        return cores, False
    return int(bool(job)), True


class Budget:
    """Counts the core-hours of a run while it goes on, and ends it at the limit.

    Parameters
    ----------
    journal : Journal
        Told of the number of workers; it says what was used before, and the logs beside it what
        other drivers use meanwhile.
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
        limit: float | None,
        own_cores: int,
        apart: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._limit = limit
        self._own = own_cores
        self._apart = apart
        self._clock = clock
        self._before = spent(read_events(journal.path)).core_hours
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

    def update(self, workers: int) -> bool:
        """Take note of how many workers there are; return whether it was written down."""
        now = self._clock()
        self._mine += self._cores * (now - self._since) / 3600
        self._since = now
        telling = workers != self._workers or now - self._told >= TELL_EVERY_S
        if telling:
            self._workers, self._told = workers, now
            self._journal.write("workers", workers=workers)
            self._others = self._others_spent()
        return telling

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
        own = self._journal.path
        logs = [log for log in _logs(own.parent) if log != own]
        return sum(spent(read_events(log)).core_hours for log in logs)


def _logs(run: Path, patterns: Sequence[str] = LOGS) -> list[Path]:
    return sorted(log for pattern in patterns for log in run.glob(pattern))
