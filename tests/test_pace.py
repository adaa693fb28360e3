"""The size of units follows their times: simulated runs, in which only the clock is made up."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan import planned, workload

from hpc_sweep.partitions import Axis, Cut, Reads
from hpc_sweep.partitions.reads import Layout
from hpc_sweep.plan import Pace, Plan, Unit
from hpc_sweep.plan.pace import GROWTH, LONGEST_S, SHORTEST_S

TASK_S = 0.02
"""Seconds that a task takes besides its fits."""


class Run:
    """What came of a simulated run: the units in order, and when each worker ended its last."""

    def __init__(self, plan: Plan, seconds: Callable[[Unit], float], workers: int) -> None:
        pace = Pace(plan, plan.workload.n_cells, lambda: workers)
        self.units: list[Unit] = []
        self.seconds: list[float] = []
        free = [(0.0, worker) for worker in range(workers)]
        heapq.heapify(free)
        for unit in self._units(plan, pace):
            begin, worker = heapq.heappop(free)
            took = TASK_S + seconds(unit)
            heapq.heappush(free, (begin + took, worker))
            self.units.append(unit)
            self.seconds.append(took)
            pace.done(unit, took)  # a little early, which a window of units in flight is not
        self.ends = sorted(end for end, _ in free)
        self.busy = sum(self.seconds) / (workers * self.ends[-1])
        self.left = pace.cells

    def _units(self, plan: Plan, pace: Pace) -> Iterator[Unit]:
        if plan.is_sliced:
            for unit in plan.slices(dict.fromkeys(plan.result_chunks()), pace.columns):
                pace.hand_out(unit)
                yield unit
            return
        for chunk in plan.result_chunks():
            for unit in plan.units(chunk, None, pace.partitions):
                pace.hand_out(unit)
                yield unit


def steady(partition_s: float) -> Callable[[Unit], float]:
    return lambda unit: partition_s * (unit.stop - unit.start)


def covered_once(plan: Plan, units: list[Unit]) -> bool:
    for chunk in plan.result_chunks():
        cells = np.zeros((plan.n_partitions(chunk), plan.workload.n_columns), dtype=int)
        for unit in units:
            if unit.chunk == chunk:
                cells[unit.start : unit.stop, unit.first : unit.last] += 1
        if (cells != 1).any():
            return False
    return True


@pytest.mark.parametrize("partition_s", [1e-4, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_all_workers_are_busy_to_the_end(partition_s: float, workers: int) -> None:
    plan = planned(workload((120, 100), (2, 2)), workers=workers)
    run = Run(plan, steady(partition_s), workers)
    assert covered_once(plan, run.units)
    assert run.left == 0
    work_s = partition_s * 120 * 100 / workers
    assert run.ends[-1] - run.ends[0] <= max(SHORTEST_S, 8 * partition_s) + work_s / 20
    if work_s > 60:
        assert run.busy > 0.95


def test_units_grow_when_they_are_found_to_be_short() -> None:
    plan = planned(workload((1000, 100), (1, 1)), workers=2, chunks=(1000, 100))
    first = plan.unit_partitions
    run = Run(plan, steady(1e-5), 2)
    sizes = [unit.stop - unit.start for unit in run.units]
    assert sizes[0] == first
    assert max(sizes) > 20 * first
    assert all(b <= GROWTH * max(sizes[: i + 1]) for i, b in enumerate(sizes[1:]))


def test_units_shrink_when_they_are_found_to_be_long() -> None:
    plan = planned(workload((400, 10), (1, 1)), workers=2, chunks=(400, 10))
    run = Run(plan, steady(4.0), 2)
    first = plan.unit_partitions
    assert run.units[0].stop - run.units[0].start == first
    later = run.seconds[1:]
    assert max(later) <= LONGEST_S + 4.0 + TASK_S < run.seconds[0]


def test_no_source_chunk_is_cut_that_was_planned_to_be_whole() -> None:
    plan = planned(workload((60, 60), (10, 10)), workers=2)
    assert plan.read_factor == 1
    run = Run(plan, steady(10.0), 2)
    assert {(unit.stop - unit.start) % 100 for unit in run.units} == {0}


def test_units_never_need_more_memory_than_a_worker_has() -> None:
    facts: dict[str, Any] = {"n_candidates": 2000, "n_splits": 20}
    work = workload((300, 300), (1, 1), **facts)
    tight = planned(work, worker_memory_bytes=330_000_000, chunks=(300, 300))
    run = Run(tight, steady(1e-6), 2)
    largest = max(unit.stop - unit.start for unit in run.units)
    assert largest <= tight.most_partitions
    assert tight.most_partitions < planned(work, chunks=(300, 300)).most_partitions


def test_fast_ones_at_first_do_not_make_the_others_long() -> None:
    """Empty partitions of a coast tell nothing of those on land."""
    plan = planned(workload((2000, 10), (1, 1)), workers=2)
    run = Run(plan, lambda u: (1e-5 if u.chunk[0] < 1000 else 0.05) * (u.stop - u.start), 2)
    assert covered_once(plan, run.units)
    assert run.busy > 0.9


@given(
    partition_s=st.lists(st.floats(1e-6, 10), min_size=1, max_size=8),
    workers=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    read=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_whatever_the_times_every_cell_is_handed_out_once(
    partition_s: list[float], workers: int, shape: tuple[int, int], read: tuple[int, int]
) -> None:
    plan = planned(workload(shape, read), workers=workers)
    run = Run(plan, lambda u: partition_s[u.start % len(partition_s)] * (u.stop - u.start), workers)
    assert covered_once(plan, run.units)
    assert run.left == 0
    assert all(unit.stop - unit.start >= 1 for unit in run.units)


# few partitions: slices of their candidates


def uneven(sizes: list[int], n_candidates: int, workers: int, **facts: Any) -> Plan:
    """Return the plan of partitions of these sizes."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    cut = Cut((Axis("a", len(sizes), ("time",), codes),), {"time": sum(sizes)})
    reads = Reads(cut, (Layout(8, {"time": sum(sizes)}, {"time": 1}),))
    work = workload((len(sizes),), (1,), n_candidates=n_candidates)
    return planned(replace(work, known_reads=reads, **facts), workers=workers)


@pytest.mark.parametrize("sizes", [[1000], [10, 1000, 200], [1] * 7])
@pytest.mark.parametrize("workers", [3, 16])
@pytest.mark.parametrize("cell_s", [0.001, 0.5, 20.0])
def test_slices_keep_all_workers_busy_to_the_end(
    sizes: list[int], workers: int, cell_s: float
) -> None:
    plan = uneven(sizes, 400, workers)
    assert plan.is_sliced
    each = [cell_s * size * len(sizes) / sum(sizes) for size in sizes]
    run = Run(plan, lambda unit: each[unit.chunk[0]] * (unit.last - unit.first), workers)
    assert covered_once(plan, run.units)
    assert run.left == pytest.approx(0, abs=1e-6)
    order = [sizes[unit.chunk[0]] for unit in run.units]
    assert order == sorted(order, reverse=True)
    whole_s = sum(run.seconds) / workers
    assert run.ends[-1] - run.ends[0] <= SHORTEST_S + max(each) + whole_s / 20
    first, last = run.units[0], run.units[-1]
    if whole_s > 60:
        assert last.last - last.first <= (first.last - first.first) / 4


def test_slices_shrink_before_any_time_is_known() -> None:
    plan = uneven([1000], 900, 3)
    pace = Pace(plan, plan.workload.n_cells, lambda: 1 + 2 * (len(lengths) > 1))
    lengths: list[int] = []
    for unit in plan.slices({(0,): None}, pace.columns):
        pace.hand_out(unit)
        lengths.append(unit.last - unit.first)
    assert lengths[0] == plan.unit_columns == 75
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1


@given(
    n_columns=st.integers(1, 30),
    borders=st.sets(st.integers(1, 30)),
    covered=st.sets(st.integers(0, 29)),
    sizes=st.lists(st.integers(0, 9), min_size=1),
)
def test_slices_end_at_borders_only(
    n_columns: int, borders: set[int], covered: set[int], sizes: list[int]
) -> None:
    plan = uneven([4, 8], n_columns, 20, known_borders=tuple(sorted({*borders, n_columns})))
    done = np.zeros((1, n_columns), dtype=bool)
    done[0, [n for n in covered if n < n_columns]] = True
    cells = np.stack([done[0], np.zeros(n_columns, dtype=bool)]).astype(int)
    size = itertools.cycle(sizes)
    for unit in plan.slices({(0,): done, (1,): None}, lambda share: next(size)):
        cells[unit.chunk[0], unit.first : unit.last] += 1
        is_border = unit.last in {n_columns, *borders}
        assert is_border or (unit.chunk == (0,) and done[0, unit.last])
    assert (cells == 1).all()
