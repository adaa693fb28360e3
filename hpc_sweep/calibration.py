"""How long a sweep takes, measured beforehand on a sample of its partitions."""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np

from hpc_sweep.errors import ClusterError
from hpc_sweep.plan import Plan, Unit
from hpc_sweep.prepare import Prepared, create
from hpc_sweep.processes import end_with_parent, start_child
from hpc_sweep.work import evaluate_partitions, open_bench

SECONDS = 20.0
"""So long a measurement takes, about."""

SAMPLES = 8
"""So many places of the grid are measured, if there is time."""

PATIENCE_S = 120.0
"""A first sample that takes longer is given up: nothing can be said in a short time."""


@dataclass(frozen=True)
class Calibration:
    """What a sample says of a whole sweep.

    Attributes
    ----------
    n_partitions : int
        How many were measured, maybe with a part of the candidates each.
    core_s : float
        Seconds of one core that all the sweep's units are predicted to take.
    peak_bytes : int
        Most memory that the measuring process had.
    """

    n_partitions: int
    core_s: float
    peak_bytes: int


def calibrate(prepared: Prepared, seconds: float = SECONDS) -> Calibration:
    """Evaluate units from random places of the grid in a process of their own, on this host.

    The first one, which imports libraries, is not counted if others follow.

    Parameters
    ----------
    prepared : Prepared
        The sweep. Nothing is written but a store in a temporary folder, deleted at the end.
    seconds : float
        How long to measure, about.

    Raises
    ------
    ClusterError
        When the process died, nothing was done within `PATIENCE_S`, or data would be
        rechunked first or lie on all workers.
    """
    plan = prepared.plan
    if prepared.strategy.on_blocks:
        raise ClusterError(
            "--calibrate measures in one process, which cannot hold blocks that lie on all "
            "workers; run tells times as it goes on"
        )
    if prepared.rechunked is not None:
        raise ClusterError(
            "--calibrate cannot measure data that is rechunked first; run tells times as it goes on"
        )
    measured: list[tuple[int, int, float, int]] = []
    with tempfile.TemporaryDirectory(prefix="hpc-sweep-") as folder:
        output = prepared.spec.output.model_copy(
            update={"store": f"{folder}/sample.zarr", "group": None}
        )
        spec = prepared.spec.model_copy(update={"output": output})
        store = create(replace(prepared, spec=spec))
        ours, theirs = Pipe(duplex=False)
        child = start_child(
            _measure, theirs, str(store.path), spec.model_dump_json(), plan, seconds
        )
        theirs.close()
        why = f"none of its samples was done in {PATIENCE_S:.0f} s"
        try:
            while ours.poll(PATIENCE_S):
                measured.append(ours.recv())
        except EOFError:
            child.join()
            why = f"the process that did it ended with exit code {child.exitcode}"
        finally:
            child.kill()
            child.join()
    counted = measured[1:] or measured
    if not counted:
        raise ClusterError(f"--calibrate measured nothing: {why}; run tells times as it goes on")
    cells = sum(each[1] for each in counted)
    cell_s = sum(each[2] for each in counted) / cells
    return Calibration(
        sum(each[0] for each in counted),
        cell_s * plan.workload.n_cells,
        max(each[3] for each in measured),
    )


def _measure(there: Connection, store: str, spec: str, plan: Plan, seconds: float) -> None:
    """Send partitions, cells, seconds and the peak of memory in bytes of each sample."""
    end_with_parent()
    bench = open_bench(store, spec)
    end = time.perf_counter() + seconds
    cells = 0
    for unit in _samples(plan):
        begin = time.perf_counter()
        done = sum(map(len, evaluate_partitions(bench, unit, begin + seconds / SAMPLES)))
        took = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        there.send((done, done * (unit.last - unit.first), took, peak))
        cells += unit.n_cells
        if time.perf_counter() > end or cells >= plan.workload.n_cells:
            return


def _samples(plan: Plan) -> Iterator[Unit]:
    """Yield units from random places, without end."""
    rng = np.random.default_rng(0)
    shape = plan.grid.chunk_grid(plan.chunks)
    while True:
        chunk = tuple(int(i) for i in np.unravel_index(rng.integers(math.prod(shape)), shape))
        units = list(plan.units(chunk))
        yield units[rng.integers(len(units))]
