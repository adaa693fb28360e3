"""The grid of partitions: every one once, source chunk by source chunk; labels for people."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_sweep.partitions import PartitionGrid, describe, partition_labels


@st.composite
def grids_and_chunks(draw: st.DrawFn) -> tuple[PartitionGrid, tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    widths = st.tuples(*(st.integers(1, n + 2) for n in shape))
    return PartitionGrid(tuple("abc"[: len(shape)]), shape, draw(widths)), draw(widths)


def all_chunks(grid: PartitionGrid, chunks: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, grid.chunk_grid(chunks))))


@given(grids_and_chunks())
@settings(deadline=None)
def test_result_chunks_hold_every_partition_once(
    made: tuple[PartitionGrid, tuple[int, ...]],
) -> None:
    grid, chunks = made
    seen = np.zeros(grid.shape, dtype=int)
    for index in all_chunks(grid, chunks):
        order = grid.reading_order(chunks, index)
        assert order.shape == (math.prod(grid.chunk_shape(chunks, index)), len(grid.shape))
        assert order.dtype == np.intp
        assert (order // np.array(chunks) == index).all()
        np.add.at(seen, tuple(order.T), 1)
    assert (seen == 1).all()
    assert grid.size == seen.size


@given(grids_and_chunks())
@settings(deadline=None)
def test_reading_order_goes_source_chunk_by_source_chunk(
    made: tuple[PartitionGrid, tuple[int, ...]],
) -> None:
    grid, chunks = made
    for index in all_chunks(grid, chunks):
        order = grid.reading_order(chunks, index)
        source_chunks = [tuple(row) for row in order // np.array(grid.read_chunks)]
        runs = [key for key, _ in itertools.groupby(source_chunks)]
        assert len(runs) == len(set(runs)), "a source chunk is read twice"
        assert runs == sorted(runs)
        keyed = list(zip(source_chunks, map(tuple, order.tolist()), strict=True))
        assert keyed == sorted(keyed)


def test_reading_order_by_hand() -> None:
    grid = PartitionGrid(("y", "x"), (3, 5), (2, 2))
    order = grid.reading_order((3, 3), (0, 1))
    assert order.tolist() == [[0, 3], [1, 3], [0, 4], [1, 4], [2, 3], [2, 4]]


def test_labels() -> None:
    coordinates: dict[str, Any] = {
        "lat": np.array([52.5, 50.0]),
        "time": np.array(["2019-03-25T00:00", "2019-03-26T12:00"], dtype="datetime64[ns]"),
        "station": np.array(["Uccle", "De Bilt"], dtype=object),
        "zone": np.array([3, 4], dtype=np.int16),
        "flag": np.array([False, True]),
    }
    found = partition_labels(coordinates, [*coordinates, "x"], [1, 1, 1, 1, 1, np.intp(7)])
    assert found == {
        "lat": 50.0,
        "time": "2019-03-26T12:00",
        "station": "De Bilt",
        "zone": 4,
        "flag": True,
        "x": 7,
    }
    assert all(type(label) in (int, float, str, bool) for label in found.values())


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"latitude": 52.5, "longitude": -1.25}, "latitude=52.5, longitude=-1.25"),
        ({"station": "Uccle"}, "station=Uccle"),
        ({}, "the whole data set"),
    ],
)
def test_describe(labels: dict[str, Any], text: str) -> None:
    assert describe(labels) == text
