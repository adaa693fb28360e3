"""How far a sweep or a prediction is, by its store, its run folder, and its queue."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc_sweep.budget import forecast
from hpc_sweep.charge import Spent, spent
from hpc_sweep.clusters import has_ended
from hpc_sweep.driverjobs import NotBegun, not_begun
from hpc_sweep.errors import disk_errors
from hpc_sweep.store import (
    MEANINGS,
    NOT_PREDICTED,
    Holder,
    Ledger,
    Predictions,
    RunFolder,
    Store,
    is_free,
    is_known_alive,
    is_known_dead,
    read_asked,
    read_events,
    read_holder,
    real_place,
    run_folder,
)


@dataclass(frozen=True)
class Work:
    """What there is to do, and how much of it is done.

    Attributes
    ----------
    what : str
        ``sweep`` or ``prediction``.
    name : str
        Of the sweep.
    goes_on : str
        What to do where nobody is at work.
    complete : bool
        Whether nothing is left.
    partitions : mapping of str to int
        Partitions by state.
    counts : str
        What there is to do: ``fits``, ``samples``.
    total, done : int or None, int
        How many of these; None: the first driver is going to tell.
    chunks, chunks_done : int or None, int
        Result chunks, and those in the store.
    spent : Spent
        So far.
    core_hours_left : float or None
        For the rest, as predicted.
    more : mapping
        Other facts, as JSON values.
    """

    what: str
    name: str
    goes_on: str
    complete: bool = False
    partitions: Mapping[str, int] = field(default_factory=dict)
    counts: str = "fits"
    total: int | None = None
    done: int = 0
    chunks: int | None = None
    chunks_done: int = 0
    spent: Spent = field(default_factory=Spent)
    core_hours_left: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How far it is, who works at it, and who is to.

    Attributes
    ----------
    place : Path
        Store of the results, or of the predictions.
    work : Work
        What is done of what.
    driver : str or None
        Who holds the lease; the dead do not count where this host or the queue can tell.
    not_begun : sequence of NotBegun
        Driver jobs, where there is no driver and something is left.
    last_event : dict or None
        Of all event logs.
    """

    place: Path
    work: Work
    driver: str | None = None
    not_begun: Sequence[NotBegun] = ()
    last_event: Mapping[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        work = self.work
        return {
            "what": work.what,
            "store": str(self.place),
            "name": work.name,
            "complete": work.complete,
            "partitions": dict(work.partitions),
            work.counts: work.total,
            f"{work.counts}_done": work.done,
            "result_chunks": work.chunks,
            "result_chunks_folded": work.chunks_done,
            "driver": self.driver,
            "not_begun": [asdict(job) for job in self.not_begun],
            "core_hours": round(work.spent.core_hours, 6),
            "core_hours_left": work.core_hours_left,
            "charges": dict(work.spent.charges),
            **work.more,
            "last_event": self.last_event,
        }


def standing_of(place: str | Path) -> Standing:
    """Return how far a sweep or a prediction is.

    Where a driver was submitted that has not begun, or began in a job on another host, the queue is
    asked too, if it answers from here.

    Parameters
    ----------
    place : path
        Store of the results, or of the predictions.

    Raises
    ------
    StoreError
        When there is none, and no driver was submitted to make it.
    """
    path, run = real_place(place), run_folder(place)
    work = _work(path, run)
    holders = [read_holder(lease) for lease in (run.lease, *run.rivals())]
    drivers = [str(holder) for holder in holders if holder and may_be_at_work(holder)]
    waiting = [] if drivers or work.complete else not_begun(run)
    return Standing(path, work, ", ".join(drivers) or None, waiting, _last_event(run))


def is_there(place: Path) -> bool:
    """Return whether there is anything of which `standing_of` could tell how far it is."""
    run = run_folder(place)
    return real_place(place).exists() or run.spec.exists() or run.asked.exists()


def _work(place: Path, run: RunFolder) -> Work:
    found = Predictions.find(place)
    if found is not None:
        return _of_predictions(found, run)
    if is_free(place):
        name = _name_in(run.spec)
        if run.asked.exists():
            return Work("prediction", name or place.stem, _again(run), counts="samples")
        if name:
            return Work("sweep", name, SPEC_AGAIN, more={"parts": 0, "runs": []})
    return _of_sweep(Store.open(place))


def _name_in(spec: Path) -> str:
    """Return the name of the sweep in the spec of a run folder, if that is there and whole."""
    try:
        with disk_errors(spec, "read"):
            return str(json.loads(spec.read_text(encoding="utf-8"))["name"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        return "(spec.json is damaged)"


SPEC_AGAIN = "run or submit the spec again to go on"


def _of_sweep(opened: Store) -> Work:
    ledger, known = Ledger.read(opened), forecast(opened)
    strategy = opened.strategy
    fits = strategy.n_fits(opened.header.n_splits)
    return Work(
        "sweep",
        opened.spec.name,
        SPEC_AGAIN,
        ledger.is_complete,
        ledger.summary(),
        "fits",
        opened.grid.size * fits,
        ledger.cells_done() * fits // int(strategy.columns_in_spec.sum()),
        ledger.n_chunks,
        len(ledger.folded),
        known.spent,
        known.remaining_core_hours,
        {
            "parts": sum(len(names) for names in ledger.parts.values()),
            "runs": list(opened.header.runs),
        },
    )


def _of_predictions(opened: Predictions, run: RunFolder) -> Work:
    header, count = opened.header, len(opened.boxes_there())
    status = opened.status()
    states = (int((status == code).sum()) for code in range(len(MEANINGS)))
    told = all(status[place] == NOT_PREDICTED for place in opened.failures(run.parts))
    return Work(
        "prediction",
        header.name,
        _again(run),
        count == opened.n_boxes and told,
        dict(zip(MEANINGS, states, strict=True)),
        "samples",
        opened.n_samples,
        opened.n_samples * count // opened.n_boxes,
        opened.n_boxes,
        count,
        spent(read_events(run.events)),
        more={"models": header.sweep, "command": read_asked(run)},
    )


def _again(run: RunFolder) -> str:
    words = read_asked(run)
    return f"to go on: {shlex.join(['hpc-sweep', *words])}" if words else "run the command again"


def may_be_at_work(holder: Holder) -> bool:
    """Return whether neither its machine nor its queue knows of a driver's end."""
    if is_known_alive(holder):
        return True
    return not (is_known_dead(holder) or (holder.job and has_ended(holder.queue, holder.job)))


def _last_event(run: RunFolder) -> dict[str, Any] | None:
    logs = sorted(run.path.glob("events*.jsonl"))
    return max((event for log in logs for event in read_events(log)), key=_time, default=None)


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("time", ""))
