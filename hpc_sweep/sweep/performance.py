"""Dask's own report of a run: whether there is one, and how it comes into the run folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from distributed import Client

from hpc_sweep.choices import AUTO, PerformanceReport
from hpc_sweep.drive import begin_recording, recorded, rendered
from hpc_sweep.stops import Stops
from hpc_sweep.store import RunFolder, group_access
from hpc_sweep.store.durable import write_durably

LEAST_S = 5.0
"""A shorter run has nothing to show."""

LEAST_LEFT_S = 6.0
"""With less time to live a driver makes none."""

RECORD_S = 10.0
"""How long the scheduler is asked at the most."""

MOST_S = 60.0
"""How long a page may take; a second or two is usual."""

MOST_KEPT = 5
"""The last ones of a store."""


class DaskReport:
    """Of one run: begun and recorded while its cluster is there, kept when all else is done.

    Nothing that goes wrong with it is more than said.

    Parameters
    ----------
    wanted : bool or "auto"
        Whether there is to be one; ``auto``: of runs of `LEAST_S` on a cluster of ours.
    run : RunFolder
        Where it is kept.
    stops : Stops
        Of the driver.
    say : callable
        Told why there is none.
    for_group : bool
        Whether a group may read it.
    """

    def __init__(
        self,
        wanted: PerformanceReport,
        run: RunFolder,
        stops: Stops,
        say: Callable[[str], None],
        *,
        for_group: bool = False,
    ) -> None:
        self._wanted = wanted
        self._run = run
        self._stops = stops
        self._say = say
        self._for_group = for_group
        self._began: float | None = None
        self._record: dict[str, Any] | None = None

    def begin(self, client: Client) -> None:
        """Have the scheduler, which is ours, keep what tasks do from now on."""
        if self._wanted is not False:
            try:
                begin_recording(client)
                self._began = time.time()
            except Exception as error:
                self._say_none(error)

    def record(self, client: Client) -> None:
        """Take down what the scheduler knows, which is about to close."""
        if self._began is None:
            return
        if self._wanted == AUTO and time.time() - self._began < LEAST_S:
            return
        left = self._stops.ending.left_s()
        if left < LEAST_LEFT_S:
            self._say_none(f"this process has {max(0, left):.0f} s left")
        elif client.status != "running":
            self._say_none("the Dask scheduler went away")
        else:
            try:
                self._record = recorded(client, self._began, min(RECORD_S, left / 4))
            except Exception as error:
                self._say_none(error)

    def keep(self) -> None:
        """Make the page and write it, unless that takes too long or a signal comes."""
        if self._record is None:
            return
        stops = Stops(self._stops.ending)
        left = stops.ending.left_s()
        end = time.monotonic() + min(MOST_S, left / 2)
        making = threading.Thread(target=self._make, args=(self._record,), daemon=True)
        with stops.signals():
            making.start()
            while making.is_alive() and not stops.stopped() and time.monotonic() < end:
                making.join(0.1)
        if making.is_alive():
            self._say_none("there is no time for it")

    def _make(self, record: dict[str, Any]) -> None:
        try:
            content = rendered(record)
            with group_access(self._for_group):
                write_durably(self._run.performance_report(), content)
            for older in self._run.performance_reports()[:-MOST_KEPT]:
                older.unlink(missing_ok=True)
        except Exception as error:
            self._say_none(error)

    def _say_none(self, why: Exception | str) -> None:
        what = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
        self._say(f"no performance report: {what}")
