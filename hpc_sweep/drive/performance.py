"""What Dask knows of a run: task stream, profiles, memory and processor over time; and its page.

It is the page of `distributed.performance_report`, but made when the cluster has closed, of what
was taken down before: rendering takes a second or more, in which nothing else need wait.
"""

from __future__ import annotations

import asyncio
import re
import time
from types import SimpleNamespace
from typing import Any

from distributed import Client, Scheduler
from distributed import profile as profiles
from distributed.diagnostics.task_stream import TaskStreamPlugin

MOST_TASKS = 10_000
"""The last ones that a page shows: 1.5 kB each in the scheduler's memory, 350 bytes in the page."""

MOST_PROFILED = 32
"""Workers that are asked for their profiles: each costs a connection of its own."""

PROFILE_S = 3.0
"""How long they are waited for."""

_SHOWN = ("key", "worker", "thread", "startstops", "status")
"""Of each task's record."""

_ICON = re.compile(r'<link rel="shortcut icon"[^>]*>')
"""Of Dask's own site."""


def begin_recording(client: Client) -> None:
    """Let a scheduler of ours keep what its last `MOST_TASKS` tasks did."""
    client.run_on_scheduler(_begin)


def recorded(client: Client, began: float, timeout_s: float) -> dict[str, Any]:
    """Return what a scheduler knows of the time since a moment, as plain data.

    Parameters
    ----------
    client : distributed.Client
        After `begin_recording`.
    began : float
        Seconds since 1970.
    timeout_s : float
        Raises `TimeoutError` after it.
    """

    async def ask() -> Any:
        return await client.run_on_scheduler(_collect, began=began)

    found: dict[str, Any] = client.sync(ask, callback_timeout=timeout_s)
    return found


def rendered(record: dict[str, Any]) -> bytes:
    """Return Dask's page, in HTML, with the scripts that it needs inside.

    Parameters
    ----------
    record : dict
        As `recorded` gave it.
    """
    from bokeh.io.state import curstate

    state = curstate()
    place = state.file
    try:
        text = asyncio.run(
            Scheduler.performance_report(
                _Closed(record),
                start=time.time() - record["seconds"],
                last_count=0,
                code="hpc-sweep",
                mode="inline",
            )
        )
    finally:
        state._file = place  # a notebook may have set it
    return _ICON.sub("", text).encode()


def _begin(dask_scheduler: Any) -> None:
    if TaskStreamPlugin.name not in dask_scheduler.plugins:
        dask_scheduler.add_plugin(TaskStreamPlugin(dask_scheduler, maxlen=MOST_TASKS))


async def _collect(dask_scheduler: Any, began: float) -> dict[str, Any]:
    scheduler, workers = dask_scheduler, dask_scheduler.workers
    asked = list(workers)[:MOST_PROFILED]

    async def profile(**which: bool) -> Any:
        asking = scheduler.get_profile(workers=asked, start=began, **which)
        try:
            return await asyncio.wait_for(asking, PROFILE_S)
        except TimeoutError:  # of workers whose fits keep Python to themselves
            return profiles.create()

    compute, administrative = await asyncio.gather(profile(), profile(server=True))
    scheduler.monitor.update()
    names = ("address", "bandwidth", "bandwidth_types", "bandwidth_workers")
    return {
        **{name: getattr(scheduler, name) for name in names},
        "seconds": time.time() - began,
        "profiles": (compute, administrative, await profile(scheduler=True)),
        "tasks": [
            {name: task.get(name) for name in _SHOWN}
            for task in scheduler.get_task_stream(start=began)
        ],
        "monitor": scheduler.monitor.range_query(start=0),
        "logs": scheduler.get_logs(start=began, timestamps=True),
        "workers": {
            address: {
                "name": each.name,
                "nthreads": each.nthreads,
                "memory_limit": each.memory_limit,
            }
            for address, each in workers.items()
        },
    }


class _Closed:
    """What `Scheduler.performance_report` looks at of a scheduler that is no more."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record
        self.address = record["address"]
        self.bandwidth = record["bandwidth"]
        self.bandwidth_types = record["bandwidth_types"]
        self.bandwidth_workers = record["bandwidth_workers"]
        self.monitor = _Monitor(record["monitor"])
        workers = record["workers"]
        self.workers = {name: SimpleNamespace(**facts) for name, facts in workers.items()}

    async def get_profile(self, start: float, scheduler: bool = False, server: bool = False) -> Any:
        return self._record["profiles"][2 if scheduler else int(server)]

    def get_task_stream(self, start: float) -> Any:
        return self._record["tasks"]

    def get_logs(self, start: float = 0, timestamps: bool = True) -> Any:
        return self._record["logs"]


class _Monitor:
    """Of a scheduler, with all that it has measured."""

    count = 1

    def __init__(self, measured: dict[str, Any]) -> None:
        self.quantities = measured

    def range_query(self, start: int) -> dict[str, Any]:
        return {
            name: values if start < self.count else [] for name, values in self.quantities.items()
        }

    def update(self) -> None: ...
