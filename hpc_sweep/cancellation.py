"""Cancelling the jobs of a store; apart from submitting them, which needs scikit-learn."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hpc_sweep.clusters import ENDING, QueueSilentError, recorded_queue
from hpc_sweep.driverjobs import queue_name
from hpc_sweep.errors import ClusterError, StoreError, listed
from hpc_sweep.store import (
    Holder,
    Journal,
    Predictions,
    RunFolder,
    Store,
    is_known_alive,
    is_known_dead,
    read_events,
    read_holder,
    real_place,
    run_folder,
)


def cancel(store: str | Path) -> list[str]:
    """Cancel the jobs of a store's runs, and only these; return those that were alive.

    A driver that `hpc_sweep.submit` started on this machine is told to end: it drains, and ends
    within seconds.

    Raises
    ------
    StoreError
        When there is no run folder.
    ClusterError
        When a queue does not answer, or is not the one here; jobs of the others are cancelled.
    """
    run = _run_folder(store)
    jobs: dict[str, list[str]] = defaultdict(list)
    detached: list[Holder] = []
    for event in read_events(run.events):
        if event["event"] == "driver_started":
            detached.append(Holder.at(event))
        if event["event"] in ("driver_submitted", "job_submitted") and event.get("job"):
            jobs[queue_name(event)].append(event["job"])
    cancelled: list[str] = []
    left: list[str] = []
    _end_detached(detached, run, cancelled, left)
    for name, ids in jobs.items():
        try:
            queue = recorded_queue(name)
            states = [state for state in queue.states(ids) if not state.ended]
            alive = [state.job for state in states if state.state not in ENDING]
            if alive:
                queue.cancel(alive)
            cancelled += alive
        except QueueSilentError as error:
            left.append(f"jobs {listed(ids)} were not cancelled: {error}")
    if cancelled or not left:
        Journal(run.events).write("cancelled", jobs=cancelled)
    if left:
        done = f"cancelled {', '.join(cancelled)}; " if cancelled else ""
        remedy = "if they are still alive, call hpc-sweep cancel where they or their queue answer"
        raise ClusterError(f"{done}{'; '.join(left)}; {remedy}")
    return cancelled


def _run_folder(store: str | Path) -> RunFolder:
    place, run = real_place(store), run_folder(store)
    if not run.path.is_dir():
        if place.exists() and Predictions.find(place) is None:
            Store.open(place)  # or it says what is there
        raise StoreError(f"{run.path} does not exist, so no job is known of {store}")
    return run


def left_driver(store: str | Path) -> str:
    """Return who works at a store and is none of those that `cancel` ends, or ``""``."""
    run = run_folder(Path(store).absolute())
    holders = map(read_holder, (run.lease, *run.rivals()))
    alive = [holder for holder in holders if holder and not holder.job and is_known_alive(holder)]
    known = [event for event in read_events(run.events) if event["event"] == "driver_started"]
    places = [Holder.at(event).place for event in known]
    return listed(holder for holder in alive if holder.place not in places)


def _holds(driver: Holder, run: RunFolder) -> bool:
    """Return whether a process has the store."""
    holder = read_holder(run.lease)
    return holder is not None and holder.place == driver.place


def _end_detached(
    drivers: Sequence[Holder], run: RunFolder, cancelled: list[str], left: list[str]
) -> None:
    """Tell drivers without a job to end, and append to what was cancelled and what is left."""
    for driver in drivers:
        if is_known_alive(driver):
            os.kill(driver.pid, signal.SIGTERM)
            cancelled.append(str(driver))
        elif not is_known_dead(driver) and _holds(driver, run):
            left.append(f"{driver} was not ended: it is on another machine")
