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
    RunFolder,
    is_known_alive,
    is_known_dead,
    read_events,
    read_holder,
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
    run = run_folder(Path(store).absolute())
    if not run.path.is_dir():
        raise StoreError(f"{run.path} does not exist, so no job is known of {store}")
    jobs: dict[str, list[str]] = defaultdict(list)
    detached: list[Holder] = []
    for event in read_events(run.events):
        if event["event"] == "driver_started":
            detached.append(Holder.at(event))
        if event["event"] in ("driver_submitted", "job_submitted"):
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
