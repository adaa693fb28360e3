"""Keep many workers busy: the real driver and scheduler, units that only sleep.

    python benchmarks/busy.py [--workers N] [--seconds S] [--units U] [--plot PNG] [--json FILE]

See the README beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import xarray as xr
from distributed import Client, LocalCluster

from hpc_sweep.clusters import settings
from hpc_sweep.drive import Drive, Progress
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.prepare import create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Folded, Journal, Ledger, Outage, PartName, Receipt, probe

QUIET = {
    "distributed.admin.low-level-log-length": 10,
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.tick.interval": "10s",
    "distributed.worker.profile.enabled": False,
}
"""What each worker does by the way; all of them share one process here, and elsewhere do not."""

SIDE = 16
"""Partitions of a result chunk along each dimension."""

_at_work = 0
_lock = threading.Lock()


@dataclass(frozen=True)
class Moment:
    """What was seen at one time.

    Attributes
    ----------
    seconds : float
        Since the first unit was handed out.
    at_work : int
        Workers in a unit.
    tasks : int
        What the scheduler knows.
    rss_bytes : int
        Of the one process that scheduler, driver and workers are.
    """

    seconds: float
    at_work: int
    tasks: int
    rss_bytes: int


def sleep(unit: Unit, seconds: float) -> Receipt:
    """Be busy with a unit; leave no part."""
    global _at_work
    with _lock:
        _at_work += 1
    time.sleep(seconds)
    with _lock:
        _at_work -= 1
    return Receipt(PartName("", unit, 0, ""), seconds, "", 0, "")


@dataclass
class Sleeping:
    """Tasks that sleep, in place of those that search; their keys are as long as real ones."""

    seconds: float

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Any:
        """Submit a unit."""
        return client.submit(sleep, unit, self.seconds, key=f"unit-{unit.key}", pure=False)

    def begun(self, client: Client) -> set[Any]:
        """Return nothing: no run is drained here."""
        return set()

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Any:
        """Submit a fold that does nothing."""
        key = f"fold-{'.'.join(map(str, chunk))}"
        return client.submit(Folded, {}, key=key, priority=1, pure=False)

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Any:
        """Score nothing: no unit comes without candidates here."""
        raise NotImplementedError

    def step(self) -> str:
        """Return nothing: the driver itself does none of it."""
        return ""


@dataclass
class InProcess:
    """What the driver asks of a cluster whose workers neither come nor go."""

    workers: int
    reasons: list[str] = field(default_factory=list)

    def rejection(self) -> str:
        """Return nothing: there is no queue."""
        return ""

    def reason(self) -> str:
        """Return nothing."""
        return ""

    def waits_for_maintenance(self) -> bool:
        """Return whether a maintenance is on."""
        return False

    def top_up(self, remaining_s: float | None = None) -> None:
        """Start nothing."""

    def job_of(self, worker: str) -> str:
        """Return nothing: no worker is in a job."""
        return ""


def make_store(folder: Path, units: int) -> tuple[Any, Ledger]:
    """Make a store of so many partitions, whose plan has a unit for each."""
    rows = -(-units // (SIDE * SIDE)) * SIDE
    shape = (rows, SIDE, 4)
    data = xr.Dataset(
        {name: (("y", "x", "time"), np.zeros(shape, "float32")) for name in ("a", "b")}
    )
    data.chunk(y=SIDE, x=SIDE).to_zarr(folder / "data.zarr", consolidated=False)
    spec = {
        "data": {
            "store": str(folder / "data.zarr"),
            "features": ["a"],
            "target": "b",
            "partition_by": ["y", "x"],
        },
        "models": [{"estimator": "sklearn.linear_model.Ridge"}],
        "search": {"cv": 2},
        "cluster": {"kind": "local", "workers": 1},
        "output": {"store": str(folder / "results.zarr")},
    }
    prepared = prepare(load_spec(spec))
    store = create(prepared)
    store.run.make()
    return replace(prepared.plan, unit_partitions=1), Ledger.read(store)


def measure(workers: int, seconds: float, units: int) -> tuple[float, float, list[Moment]]:
    """Run, and return the share of the workers' time in units, the wall time, and what was seen."""
    seen: list[Moment] = []
    process = psutil.Process()
    with (
        tempfile.TemporaryDirectory(prefix="busy-") as folder,
        settings(dashboard=False),
        dask.config.set(QUIET),
    ):
        plan, ledger = make_store(Path(folder), units)
        store = ledger.store
        n_units = plan.n_units()
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster) as client,
        ):
            begin, ended = time.perf_counter(), threading.Event()

            def look() -> None:
                while not ended.wait(0.25):
                    now = time.perf_counter() - begin
                    tasks = len(cluster.scheduler.tasks)
                    seen.append(Moment(now, _at_work, tasks, process.memory_info().rss))

            watcher = threading.Thread(target=look)
            watcher.start()
            try:
                Drive(
                    client=client,
                    cluster=InProcess(workers),  # type: ignore[arg-type]
                    ledger=ledger,
                    tasks=Sleeping(seconds),
                    journal=Journal(store.run.events),
                    progress=Progress(n_units, 0),
                    outage=Outage(lambda: probe(store.run.parts), 60.0),
                    start_timeout_s=60.0,
                ).run(unit for chunk in ledger.chunks for unit in plan.units(chunk))
            finally:
                wall = time.perf_counter() - begin
                ended.set()
                watcher.join()
    return n_units * seconds / (workers * wall), wall, seen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=256, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of a unit")
    parser.add_argument("--units", type=int, default=256 * 60, metavar="U")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="needs matplotlib")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    busy, wall, seen = measure(options.workers, options.seconds, options.units)
    settled = [each for each in seen if each.seconds > 0.1 * wall]
    print(
        f"{options.workers} workers, units of {options.seconds:g} s, {wall:.1f} s in all: "
        f"{busy:.1%} of the workers' time was spent in units (load {load:.1f} before)"
    )
    print(f"the scheduler held {max(each.tasks for each in seen):,} tasks at the most")
    first, last = settled[0].rss_bytes / 1e6, settled[-1].rss_bytes / 1e6
    print(f"memory of the process: {first:.0f} MB after a tenth of the time, {last:.0f} at the end")
    if options.json:
        facts = {"busy": busy, "seconds": wall, "seen": [asdict(each) for each in seen]}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plot:
        _plot(seen, options.workers, options.plot)
    return 0


def _plot(seen: Sequence[Moment], workers: int, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(3, 1, figsize=(8, 6), sharex=True, layout="constrained")
    seconds = [each.seconds for each in seen]
    lines = (
        ([each.at_work for each in seen], f"workers in a unit, of {workers}"),
        ([each.tasks for each in seen], "tasks that the scheduler knows"),
        ([each.rss_bytes / 1e6 for each in seen], "memory of the process, MB"),
    )
    for panel, (values, title) in zip(panels, lines, strict=True):
        panel.plot(seconds, values)
        panel.set_ylim(0, max(values) * 1.1)
        panel.set_title(title, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    import busy  # tasks are known by the name of their module

    sys.exit(busy.main())
