"""The plan: promise 1 (every cell once), whole source chunks, files, memory."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpc_sweep.errors import EXIT_USER, PlanError
from hpc_sweep.partitions import PartitionGrid
from hpc_sweep.plan import BASELINE_BYTES, Plan, Share, Unit, Workload, format_bytes, make_plan

BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def workload(shape: tuple[int, ...], read: tuple[int, ...] | None = None, **facts: int) -> Workload:
    grid = PartitionGrid(tuple("abc"[: len(shape)]), shape, read or shape)
    known = {
        "n_candidates": 4,
        "n_splits": 3,
        "n_metrics": 1,
        "n_samples": 100,
        "n_features": 3,
        "n_outputs": 1,
        "itemsize": 8,
        "source_bytes": grid.size * 3200,
        "partition_bytes": 3200,
        "chunk_bytes": 800 * math.prod(grid.read_chunks),
        "n_chunked_arrays": 12,
        "n_other_files": 40,
    }
    known |= facts
    known.setdefault("n_columns", known["n_candidates"])
    known.setdefault("n_results", known["n_candidates"])
    known.setdefault("n_fits_each", known["n_candidates"] * known["n_splits"])
    return Workload(grid=grid, **known)


def planned(work: Workload, **limits: Any) -> Plan:
    usual = {"workers": 2, "worker_memory_bytes": None, "max_files": 5000}
    return make_plan(work, **{**usual, **limits})


def all_units(plan: Plan) -> Iterator[Unit]:
    for chunk in plan.result_chunks():
        yield from plan.units(chunk)


def source_chunks(plan: Plan, chunk: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the source chunk of each partition of a result chunk, in reading order."""
    order = plan.grid.reading_order(plan.chunks, chunk)
    return order // np.array(plan.grid.read_chunks)


def times_read(plan: Plan) -> float:
    """Count how often a source chunk is touched, unit by unit."""
    touched = sum(
        len(np.unique(source_chunks(plan, unit.chunk)[unit.start : unit.stop], axis=0))
        for unit in all_units(plan)
    )
    return touched / math.prod(plan.grid.chunk_grid(plan.grid.read_chunks))


@st.composite
def workloads(draw: st.DrawFn, largest: int = 9) -> Workload:
    shape = tuple(draw(st.lists(st.integers(1, largest), min_size=1, max_size=3)))
    read = tuple(draw(st.integers(1, n + 1)) for n in shape)
    # enough candidates make a result chunk too large for one fold, so that it is cut
    candidates = draw(st.integers(1, 12) | st.sampled_from([1000, 40_000]))
    return workload(shape, read, n_candidates=candidates, n_splits=draw(st.integers(2, 6)))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan: made by the planner, or with any sizes (a store that exists, a new source)."""
    work = draw(workloads())
    if draw(st.booleans()):
        chunks = None
        if draw(st.booleans()):
            chunks = tuple(draw(st.integers(1, n + 1)) for n in work.grid.shape)
        return planned(work, workers=draw(st.integers(1, 40)), max_files=10**6, chunks=chunks)
    return Plan(
        workload=work,
        chunks=tuple(draw(st.integers(1, n + 1)) for n in work.grid.shape),
        unit_partitions=draw(st.integers(1, work.grid.size + 1)),
        least_partitions=1,
        most_partitions=work.grid.size,
        unit_columns=draw(st.integers(max(1, work.n_candidates // 5), work.n_candidates)),
        memory_bytes=0,
        read_factor=1.0,
    )


# promise 1


@given(plans())
@settings(deadline=None, max_examples=200)
def test_units_cover_every_cell_once(plan: Plan) -> None:
    cells = np.zeros((*plan.grid.shape, plan.workload.n_candidates), dtype=np.int8)
    keys = set()
    count = 0
    for unit in all_units(plan):
        order = plan.grid.reading_order(plan.chunks, unit.chunk)
        assert 0 <= unit.start < unit.stop <= len(order) == plan.n_partitions(unit.chunk)
        assert 0 <= unit.first < unit.last <= plan.workload.n_candidates
        assert unit.stop - unit.start <= plan.unit_partitions
        assert unit.last - unit.first <= plan.unit_columns
        places = tuple(order[unit.start : unit.stop].T)
        cells[(*places, slice(unit.first, unit.last))] += 1
        keys.add(unit.key)
        count += 1
    assert (cells == 1).all()
    assert count == plan.n_units() == len(keys)


@given(plans(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
@settings(deadline=None, max_examples=200)
def test_units_cover_what_is_not_covered_and_nothing_else(
    plan: Plan, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    n_candidates = plan.workload.n_candidates
    for chunk in itertools.islice(plan.result_chunks(), 20):
        covered = rng.random((plan.n_partitions(chunk), min(n_candidates, 12))) < share
        # blocks, as parts leave them
        covered = np.repeat(covered, -(-n_candidates // covered.shape[1]), axis=1)[:, :n_candidates]
        cells = covered.astype(np.int8)
        for unit in plan.units(chunk, covered):
            assert unit.chunk == chunk
            assert 0 < unit.stop - unit.start <= plan.unit_partitions
            assert 0 < unit.last - unit.first <= plan.unit_columns
            cells[unit.start : unit.stop, unit.first : unit.last] += 1
        assert (cells == 1).all()


def test_nothing_covered_is_the_same_as_no_mask() -> None:
    plan = planned(workload((7, 5), (2, 3)), workers=3)
    for chunk in plan.result_chunks():
        covered = np.zeros((plan.n_partitions(chunk), 4), dtype=bool)
        assert list(plan.units(chunk, covered)) == list(plan.units(chunk))


@given(plans())
@settings(deadline=None)
def test_what_fits_into_a_unit_is_never_cut(plan: Plan) -> None:
    for chunk in plan.result_chunks():
        where = source_chunks(plan, chunk)
        borders = {unit.start for unit in plan.units(chunk)} - {0}
        for border in borders:
            if (where[border] == where[border - 1]).all():
                size = (where == where[border]).all(axis=1).sum()
                assert size > plan.unit_partitions


# reading


@given(workloads(), st.integers(1, 40), st.sampled_from([100, 300, 10**6]))
@settings(deadline=None, max_examples=200)
def test_the_read_factor_is_what_units_read(work: Workload, workers: int, max_files: int) -> None:
    plan = planned(work, workers=workers, max_files=max_files)
    assert plan.read_factor == pytest.approx(times_read(plan))
    assert plan.read_bytes == round(work.source_bytes * plan.read_factor)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(1, 6),
)
@settings(deadline=None, max_examples=200)
def test_enough_source_chunks_are_read_once(sizes: list[tuple[int, int]], workers: int) -> None:
    shape = tuple(count * width for count, width in sizes)
    plan = planned(workload(shape, tuple(width for _, width in sizes)), workers=workers)
    if math.prod(count for count, _ in sizes) >= 4 * workers:
        assert times_read(plan) == plan.read_factor == 1.0


def test_too_few_source_chunks_are_cut_for_the_workers() -> None:
    plan = planned(workload((100, 100), (100, 100)), workers=8)
    assert plan.n_units() >= 32
    assert plan.read_factor == plan.n_units()


def test_few_partitions_are_cut_by_candidates() -> None:
    plan = planned(workload((2,), n_candidates=64), workers=4)
    assert plan.unit_partitions == 1
    assert plan.n_units() == 16
    assert plan.read_factor == 16.0


def test_result_chunks_cut_below_source_chunks_cost_reads() -> None:
    plan = planned(workload((300, 300), (100, 100), n_candidates=500, n_splits=5))
    assert plan.chunks == (25, 50)
    assert plan.unit_partitions == 100 * 100, "a unit could hold a whole source chunk"
    assert plan.read_factor == times_read(plan) == 8.0


def test_small_source_chunks_make_common_units() -> None:
    plan = planned(workload((100, 100), (1, 1)), workers=2)
    assert plan.unit_partitions > 80
    assert plan.read_factor == 1.0


# files


@given(workloads(), st.integers(100, 2000))
@settings(deadline=None)
def test_files_stay_in_their_budget(work: Workload, max_files: int) -> None:
    plan = planned(work, max_files=max_files)
    chunks = math.prod(plan.grid.chunk_grid(plan.chunks))
    assert plan.n_files == 12 * chunks + 40 <= max_files


def test_chunks_are_merged_only_as_far_as_files_ask() -> None:
    work = workload((40, 40), (4, 4))
    assert planned(work, max_files=12 * 100 + 40).chunks == (4, 4)
    assert math.prod(planned(work, max_files=12 * 100 + 39).chunks) == 32


def test_too_many_files_is_an_error_with_both_numbers() -> None:
    with pytest.raises(
        PlanError, match=r"1,240 files.*output\.max_files is 1,000.*raise"
    ) as caught:
        planned(workload((4,), n_chunked_arrays=1200), max_files=1000)
    assert caught.value.exit_code == EXIT_USER


def test_chunks_of_an_existing_store_are_kept() -> None:
    plan = planned(workload((40, 40), (4, 4)), max_files=100, chunks=(3, 7))
    assert plan.chunks == (3, 7)


def test_a_fold_holds_a_bounded_chunk() -> None:
    plan = planned(workload((1000, 1000), (1000, 1000), n_candidates=100), workers=1)
    assert math.prod(plan.chunks) * plan.workload.cell_bytes <= 128_000_000


# memory


def sizes_in(message: str) -> list[float]:
    found = re.findall(r"([\d.]+) ?([kMGT]?B)\b", message)
    return [float(number) * BYTES[unit] for number, unit in found]


def test_too_little_memory_is_an_error_with_both_numbers_and_the_knob() -> None:
    work = workload((4, 4), n_samples=10**7)
    with pytest.raises(PlanError, match=r"cluster\.memory") as caught:
        planned(work, worker_memory_bytes=10**9)
    needed, limit, *_ = sizes_in(str(caught.value))
    assert limit == 10**9
    assert needed > 4 * work.arrays_bytes
    assert "one partition's arrays of 320 MB" in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "largest", "remedy"),
    [
        ({}, "the interpreter and its libraries", "fewer workers on a node"),
        ({"chunk_bytes": 10**9}, "the source's chunks of 1.0 GB", "smaller chunks"),
        ({"n_samples": 10**7}, "one partition's arrays", "train it block by block"),
        ({"index_bytes": 10**9}, "1.0 GB of labels and orders", "fewer workers on a node"),
    ],
)
def test_the_memory_error_names_the_largest_part_and_what_helps(
    facts: dict[str, int], largest: str, remedy: str
) -> None:
    with pytest.raises(PlanError, match=f"the largest part is {largest}.* or .*{remedy}"):
        planned(workload((4,), **facts), worker_memory_bytes=10**8)


@given(workloads(), st.integers(10**3, 10**10))
@settings(deadline=None)
def test_the_remedy_of_the_memory_error_helps(work: Workload, samples: int) -> None:
    facts = {**vars(work), "n_samples": samples}
    with pytest.raises(PlanError) as caught:
        planned(Workload(**facts), worker_memory_bytes=BASELINE_BYTES // 2)
    found = re.search(r"at least (\d+)MB", str(caught.value))
    assert found is not None
    enough = int(found[1]) * 10**6
    assert planned(Workload(**facts), worker_memory_bytes=enough).memory_bytes <= enough


@given(workloads(), st.integers(BASELINE_BYTES, 2 * BASELINE_BYTES))
@settings(deadline=None)
def test_projected_memory_is_within_the_limit(work: Workload, limit: int) -> None:
    try:
        plan = planned(work, worker_memory_bytes=limit)
    except PlanError:
        plan = None
    if plan is not None:
        assert BASELINE_BYTES < plan.memory_bytes <= limit


def test_units_shrink_to_fit_the_memory() -> None:
    work = workload((50, 50), partition_bytes=10**6, chunk_bytes=0)
    free = planned(work, workers=1)
    tight = planned(work, workers=1, worker_memory_bytes=BASELINE_BYTES + 300 * 10**6)
    assert tight.unit_partitions < free.unit_partitions
    assert tight.memory_bytes <= BASELINE_BYTES + 300 * 10**6
    assert tight.read_factor == pytest.approx(times_read(tight))


def test_unknown_memory_is_no_error() -> None:
    assert planned(workload((4,), n_samples=10**9)).memory_bytes > 10**10


# sizes


def test_a_million_partitions_are_planned() -> None:
    plan = planned(workload((1000, 1000), (7, 11), n_candidates=10, n_splits=5), workers=64)
    assert sum(1 for _ in all_units(plan)) == plan.n_units()
    assert sum(unit.n_cells for unit in all_units(plan)) == 10**7
    assert plan.workload.n_fits == 5 * 10**7


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (123_456, "123 kB"),
        (999_600, "1.0 MB"),
        (4_000_000_000, "4.0 GB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(count=st.integers(1, 12), n_chunks=st.integers(0, 30))
def test_shares_cover_all_chunks_once(count: int, n_chunks: int) -> None:
    chunks = [(i,) for i in range(n_chunks)]
    shares = [Share(index, count).of(chunks) for index in range(1, count + 1)]
    assert [chunk for share in shares for chunk in share] == chunks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_as_many_result_chunks_as_drivers() -> None:
    """Even where the source is one chunk."""
    work = workload((40, 50))
    assert len(list(planned(work).result_chunks())) == 1
    assert len(list(planned(work, least_chunks=4).result_chunks())) >= 4
