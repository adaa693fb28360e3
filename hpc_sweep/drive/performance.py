"""Dask's own report of a run: task stream, profiles, memory and processor over time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
from distributed import Client

MOST_TASKS = 20_000
"""The last ones that the report shows; each is about 200 bytes in the page."""

LEAST_LEFT_S = 6.0
"""Making it takes two to four seconds, in which the cluster cannot be closed."""

MOST_S = 60.0

_ICON = re.compile(r'<link rel="shortcut icon"[^>]*>')
"""Of Dask's own site."""


@contextlib.contextmanager
def performance_report(
    client: Client,
    keep: Callable[[bytes], None],
    left_s: Callable[[], float],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Context of which a report is kept, however it ends; what goes wrong with that is only said.

    It is what `distributed.performance_report` makes, but for the calling code, which is ours, and
    for bokeh's scripts, which are in the page, so that it asks no other host for them.

    Parameters
    ----------
    client : distributed.Client
        Connected to a scheduler of ours.
    keep : callable
        Given the page.
    left_s : callable
        Seconds until this process has to be done.
    say : callable
        Told why there is none.
    """
    began = time.time()

    async def begin() -> int:
        # makes the plugin that collects what was done
        await client.scheduler.get_task_stream(start=0, stop=0)
        return int(await client.run_on_scheduler(_count))

    async def end(last_count: int) -> Any:
        return await client.scheduler.performance_report(
            start=began, last_count=last_count, code="hpc-sweep run", mode="inline"
        )

    with dask.config.set({"distributed.scheduler.dashboard.tasks.task-stream-length": MOST_TASKS}):
        last_count = client.sync(begin)
    try:
        yield
    finally:
        left = left_s()
        if left < LEAST_LEFT_S:
            say(f"no performance report: this process has {max(0, left):.0f} s left")
        elif client.status == "running":
            try:
                page = client.sync(end, last_count, callback_timeout=min(MOST_S, left / 2))
                keep(_ICON.sub("", page).encode())
            except Exception as error:  # the run matters more
                say(f"no performance report: {type(error).__name__}: {error}")


def _count(dask_scheduler: Any) -> Any:
    return dask_scheduler.monitor.count
