"""Cutting by any axes: what boxes hold, what is picked, what it costs, against plain loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpc_sweep.partitions import Axis, Cut, Layout, Reads

LENGTHS = {"y": 5, "x": 4, "time": 6}


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, ...]:
    """Draw up to three axes of any kind; they may cut the same dimensions."""
    found = []
    for number in range(draw(st.integers(0, 3))):
        dims = draw(st.lists(st.sampled_from(list(LENGTHS)), min_size=1, max_size=2, unique=True))
        shape = [LENGTHS[dim] for dim in dims]
        kind = draw(st.sampled_from(["index", "tiles", "labels"]))
        if kind == "labels":
            size = draw(st.integers(1, 4))
            seed = draw(st.integers(0, 2**31))
            codes = np.random.default_rng(seed).integers(-1, size, shape)
        else:
            dims, width = dims[:1], 1 if kind == "index" else draw(st.integers(1, 7))
            codes = np.arange(shape[0]) // width
            size = int(codes.max()) + 1
        found.append(Axis(f"axis{number}", size, tuple(dims), codes))
    return tuple(found)


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    order = draw(st.permutations(list(LENGTHS)))
    return Cut(draw(axes()), {dim: LENGTHS[dim] for dim in order})


def members(cut: Cut, partition: NDArray[np.intp]) -> list[tuple[int, ...]]:
    """Return the elements of a partition by looking at each, in the order of samples."""
    dims = list(cut.lengths)
    found = []
    for place in itertools.product(*map(range, cut.lengths.values())):
        where = dict(zip(dims, place, strict=True))
        labels = [int(axis.codes[tuple(where[dim] for dim in axis.dims)]) for axis in cut.axes]
        if labels == partition.tolist():
            found.append(place)
    joints = sorted(cut.joints, key=lambda joint: min(map(dims.index, joint.dims)))
    together = [dims.index(dim) for joint in joints for dim in joint.dims]
    return sorted(found, key=lambda place: [place[index] for index in together])


def smallest_box(cut: Cut, partitions: NDArray[np.intp]) -> dict[str, slice]:
    """Return the hull of what the labels of each partition have in common.

    Of several that lie on one dimension alone it is the hull of the very elements.
    """
    alone = [
        dim
        for dim in cut.lengths
        if all(axis.dims == (dim,) for axis in cut.axes if dim in axis.dims)
        and sum(dim in axis.dims for axis in cut.axes) > 1
    ]
    boxes = []
    for partition in partitions.tolist():
        sides = {dim: set(range(length)) for dim, length in cut.lengths.items()}
        for axis, label in zip(cut.axes, partition, strict=True):
            for dim, where in zip(axis.dims, np.nonzero(axis.codes == label), strict=True):
                if dim in alone:
                    sides[dim] &= set(where.tolist())
                else:
                    sides[dim] &= set(range(where.min(), where.max() + 1)) if where.size else set()
        if all(sides.values()):
            boxes.append(sides)
    found = {}
    for dim in {dim for axis in cut.axes for dim in axis.dims}:
        hull = set().union(*(box[dim] for box in boxes))
        found[dim] = slice(min(hull), max(hull) + 1) if hull else slice(0, 0)
    return found


def partitions_of(cut: Cut) -> NDArray[np.intp]:
    shape = tuple(axis.size for axis in cut.axes)
    return np.indices(shape).reshape(len(shape), math.prod(shape)).T


@given(cuts(), st.randoms(use_true_random=False), st.integers(1, 500))
@settings(deadline=None, max_examples=150)
def test_picks_are_what_loops_find(cut: Cut, random: Any, room: int) -> None:
    dims = list(cut.lengths)
    every = partitions_of(cut)
    chosen = every[random.sample(range(len(every)), random.randint(1, min(6, len(every))))]
    variables = [dims, random.sample(dims, 2), random.sample(dims, 1), dims[::-1]]
    values = {
        tuple(names): np.random.default_rng(len(names)).random([cut.lengths[n] for n in names])
        for names in variables
    }
    box = cut.box(chosen)
    assert set(box) == {dim for axis in cut.axes for dim in axis.dims}
    block = {
        names: cut.arranged(array[tuple(box.get(n, slice(None)) for n in names)], names, box)
        for names, array in values.items()
    }
    position = 0
    for some, pick in cut.picks(chosen, box, room):
        assert some.start == position
        picked = {
            names: pick.of(array).reshape(pick.shape[0], pick.n_samples)
            for names, array in block.items()
        }
        for row, partition in enumerate(chosen[some]):
            places = members(cut, partition)
            assert pick.n_samples == len(places) <= cut.n_samples
            for names, array in values.items():
                expected = [
                    array[tuple(place[dims.index(name)] for name in names)] for place in places
                ]
                assert picked[names][row].tolist() == expected
        position = some.stop
    assert position == len(chosen)


@given(cuts(), st.data())
@settings(deadline=None, max_examples=150)
def test_costs_are_those_of_the_chunks_that_boxes_touch(cut: Cut, data: st.DataObject) -> None:
    every = partitions_of(cut)
    chunks = {dim: data.draw(st.integers(1, length)) for dim, length in cut.lengths.items()}
    layout = Layout(8, cut.lengths, chunks)
    reads = Reads(cut, (layout,))
    cuts = data.draw(st.sets(st.integers(1, len(every)), max_size=4))
    starts = np.array(sorted({0, *(each for each in cuts if each < len(every))}))
    touched, held = reads.of(every, starts)
    for index, (start, stop) in enumerate(itertools.pairwise([*starts.tolist(), len(every)])):
        box = cut.box(every[start:stop])
        assert box == smallest_box(cut, every[start:stop])
        sides = [range(*box.get(dim, slice(0, n)).indices(n)) for dim, n in cut.lengths.items()]
        hit = [
            {i // chunks[dim] for i in side} for dim, side in zip(cut.lengths, sides, strict=True)
        ]
        assert held[index] == 8 * math.prod(map(len, sides))
        assert touched[index] == 8 * math.prod(map(len, hit)) * math.prod(chunks.values())
        some = {place for each in every[start:stop] for place in members(cut, each)}
        for place in some:
            assert all(i in side for i, side in zip(place, sides, strict=True))


@given(axes(), st.integers(1, 6))
@settings(deadline=None, max_examples=100)
def test_partitions_with_the_same_footprint_touch_the_same_chunks(
    some: tuple[Axis, ...], chunk: int
) -> None:
    cut = Cut(some, LENGTHS)
    reads = Reads(cut, (Layout(4, LENGTHS, dict.fromkeys(LENGTHS, chunk)),))
    every = partitions_of(cut)
    marks = reads.footprints(every)
    seen: dict[int, Any] = {}
    for mark, partition in zip(marks.tolist(), every, strict=True):
        box = cut.box(partition[np.newaxis])
        touched = {d: (s.start // chunk, -(-s.stop // chunk)) for d, s in box.items()}
        assert seen.setdefault(mark, touched) == touched
    assert len(seen) == len({tuple(sorted(each.items())) for each in seen.values()})
