"""How long a sweep takes, measured beforehand on a sample of its partitions."""

from __future__ import annotations

import math
import os
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
from hpc_sweep.source import Copy, copied_source, open_source
from hpc_sweep.spec import SweepSpec
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

    The first one, which imports libraries, is not counted if others follow. Data that would be
    copied into another layout first is so in small.

    Parameters
    ----------
    prepared : Prepared
        The sweep. Nothing is written but in a temporary folder, deleted at the end.
    seconds : float
        How long to measure, about.

    Raises
    ------
    ClusterError
        When the process died, nothing was done within `PATIENCE_S`, or data would lie on all
        workers.
    """
    plan = prepared.plan
    if prepared.strategy.on_blocks:
        raise ClusterError(
            "--calibrate measures in one process, which cannot hold blocks that lie on all "
            "workers; run tells times as it goes on"
        )
    measured: list[_Sample] = []
    with tempfile.TemporaryDirectory(prefix="hpc-sweep-") as folder:
        output = prepared.spec.output.model_copy(
            update={"store": f"{folder}/sample.zarr", "group": None}
        )
        spec = prepared.spec.model_copy(update={"output": output})
        store = create(replace(prepared, spec=spec))
        copy = None if prepared.copy is None else replace(prepared.copy, folder=store.run.copy)
        ours, theirs = Pipe(duplex=False)
        child = start_child(
            _measure, theirs, str(store.path), spec.model_dump_json(), plan, copy, seconds
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
    copying_s = sum(each.seconds for each in measured if not each.n_cells)
    samples = [each for each in measured if each.n_cells]
    counted = samples[1:] or samples
    if not counted:
        raise ClusterError(f"--calibrate measured nothing: {why}; run tells times as it goes on")
    cell_s = sum(each.seconds for each in counted) / sum(each.n_cells for each in counted)
    return Calibration(
        sum(each.n_partitions for each in counted),
        copying_s + cell_s * plan.workload.n_cells,
        max(each.peak_bytes for each in measured),
    )


@dataclass(frozen=True)
class _Sample:
    """What was measured of a unit; without cells: what the whole pass of a copy takes."""

    n_partitions: int
    n_cells: int
    seconds: float
    peak_bytes: int


def _measure(
    there: Connection, store: str, spec: str, plan: Plan, copy: Copy | None, seconds: float
) -> None:
    """Send what each sample took."""
    end_with_parent()
    if copy is not None:
        there.send(_Sample(0, 0, _copy_in_small(copy, spec, seconds / 2), _peak_bytes()))
    bench = open_bench(store, spec)
    end = time.perf_counter() + seconds
    cells = 0
    for unit in _samples(plan):
        begin = time.perf_counter()
        done = sum(map(len, evaluate_partitions(bench, unit, begin + seconds / SAMPLES)))
        took = time.perf_counter() - begin
        there.send(_Sample(done, done * (unit.last - unit.first), took, _peak_bytes()))
        cells += unit.n_cells
        if time.perf_counter() > end or cells >= plan.workload.n_cells:
            return


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _copy_in_small(copy: Copy, spec_text: str, seconds: float) -> float:
    """Copy slabs from random places for a while; links to them stand in for the others.

    So partitions have as many samples as they will have, of values that the data has elsewhere.

    Returns
    -------
    float
        Seconds that the whole pass would take.
    """
    spec = SweepSpec.model_validate_json(spec_text)
    source = copied_source(open_source(spec.data, spec.search), copy)
    copy.begin(source.streams)
    rng = np.random.default_rng(0)
    whole_s, share_s = 0.0, seconds / len(copy.tiling.pieces)
    for piece in copy.tiling.pieces:
        slabs = list(piece)
        took: list[float] = []
        order = rng.permutation(len(slabs)).tolist()
        while not took or (len(took) < len(slabs) and sum(took) < share_s):
            begin = time.perf_counter()
            source.copy_slab(slabs[order[len(took)]])
            took.append(time.perf_counter() - begin)
        whole_s += sum(took) / len(took) * len(slabs)
        for place, row in enumerate(order[len(took) :]):
            for name in piece.names:
                os.link(copy.file(name, order[place % len(took)]), copy.file(name, row))
    copy.end()
    return whole_s


def _samples(plan: Plan) -> Iterator[Unit]:
    """Yield units from random places, without end."""
    rng = np.random.default_rng(0)
    shape = plan.grid.chunk_grid(plan.chunks)
    while True:
        chunk = tuple(int(i) for i in np.unravel_index(rng.integers(math.prod(shape)), shape))
        units = list(plan.units(chunk))
        yield units[rng.integers(len(units))]
