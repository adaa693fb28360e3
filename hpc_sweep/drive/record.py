"""What a run's first units say of the rest, kept in the store beside what came."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from hpc_sweep.drive.progress import Progress
from hpc_sweep.errors import DiskError
from hpc_sweep.plan import RECENT_PER_WORKER, Pace
from hpc_sweep.store import Journal, Receipt, Store, group_access


@dataclass
class Record:
    """Predicts a run from its first units, and writes down what came of it.

    Parameters
    ----------
    store : Store
        Keeps it in its header.
    journal : Journal
        Told of the prediction.
    progress : Progress
        Of the run.
    pace : Pace
        Learns from the units too.
    projected_bytes : int
        Memory of a worker, as planned.
    for_group : bool
        Whether a group may write what is written.

    Attributes
    ----------
    rechunk_s : float
        How long data was brought into another layout, before the first unit.
    """

    store: Store
    journal: Journal
    progress: Progress
    pace: Pace
    projected_bytes: int
    for_group: bool = False
    rechunk_s: float = 0.0
    _rechunk_core_s: float = 0.0
    _began: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    _units: int = 0
    _core_s: float = 0.0
    _peak_bytes: int = 0
    _predicted: dict[str, Any] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Learn from a unit that is done; predict the rest once each worker has done some."""
        self._core_s += receipt.seconds
        self._peak_bytes = max(self._peak_bytes, receipt.peak_bytes)
        if not receipt.part.unit.n_cells:  # of what is done last, and tells nothing of the rest
            return
        self.pace.done(receipt.part.unit, receipt.seconds, receipt.peak_bytes)
        self._units += 1
        workers = max(1, self.progress.workers)
        if self._predicted or self._units < RECENT_PER_WORKER * workers:
            return
        unit = receipt.part.unit
        left = self.progress.cells - self.progress.cells_done - unit.n_cells
        rest_s = max(0, left) * self.pace.cell_seconds()
        self._predicted = {
            "core_seconds": round(self._core_s + rest_s, 3),
            "seconds": round(self.progress.seconds + rest_s / workers, 3),
            "memory_bytes": self.projected_bytes,
            "after_units": self._units,
        }
        self.journal.write("predicted", **self._predicted)
        self._keep({})

    def add_pass(self, receipt: Receipt) -> None:
        """Learn from a piece of data that was brought into another layout."""
        self._rechunk_core_s += receipt.seconds

    def end(self, result: str) -> None:
        """Keep how the run went, if it did anything."""
        if self._units:
            self._keep(
                {
                    "core_seconds": round(self._core_s, 3),
                    "seconds": round(self.progress.seconds, 3),
                    "memory_bytes": self._peak_bytes,
                    "units": self._units,
                    "rechunk_core_seconds": round(self._rechunk_core_s, 3),
                    "rechunk_seconds": round(self.rechunk_s, 3),
                    "result": result,
                }
            )

    def _keep(self, came: dict[str, Any]) -> None:
        # a disk that refuses this refuses the results too, and these are waited for
        with contextlib.suppress(DiskError), group_access(self.for_group):
            self.store.record_run(
                {
                    "began": self._began,
                    "workers": self.progress.workers,
                    "cells": self.progress.cells_this_run,
                    "predicted": self._predicted,
                    "came": came,
                }
            )
