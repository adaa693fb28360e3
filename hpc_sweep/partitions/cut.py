"""How axes cut data: which of its elements are the samples of a partition.

Dimensions that one axis cuts, or several that overlap, go together: a *joint*. The samples of a
partition are the product of its members in each joint, so none of them has to be listed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.partitions.axes import Axis

Bounds = Mapping[str, tuple[NDArray[np.intp], NDArray[np.intp]]]
"""By dimension, first indices of several boxes, and those behind their last ones."""

Box = Mapping[str, slice]
"""By dimension, which indices; dimensions that it lacks are whole."""


@dataclass(frozen=True)
class Joint:
    """Dimensions of the data that are cut together.

    Attributes
    ----------
    dims : tuple of str
        In the order of samples.
    shape : tuple of int
        Their lengths.
    axes : tuple of int
        Positions of the axes that cut them; without any, each partition has all of it.
    sizes : tuple of int
        How many labels these have.
    keys : ndarray of intp, shape (n_members,)
        Combined label of each element that has one, sorted; empty without axes.
    members : ndarray of intp, shape (n_members,)
        Which elements these are, as indices into the flattened dimensions.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    keys: NDArray[np.intp]
    members: NDArray[np.intp]

    @cached_property
    def most(self) -> int:
        """How many members a combination of labels has at the most."""
        if not self.axes:
            return math.prod(self.shape)
        return int(np.unique(self.keys, return_counts=True)[1].max(initial=0))

    def ranges(self, partitions: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return where in `members` those of some partitions begin and end.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_axes)
        """
        combined = np.zeros(len(partitions), dtype=np.intp)
        if not self.axes:
            return combined, combined + self.most
        for axis, size in zip(self.axes, self.sizes, strict=True):
            combined = combined * size + partitions[:, axis]
        return np.searchsorted(self.keys, combined), np.searchsorted(self.keys, combined, "right")

    def bounds(self, partitions: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the first member of some partitions, and the place behind the last one.

        Where a combination of labels has none, both are 0.
        """
        first, last = self.ranges(partitions)
        low, high = np.zeros_like(first), np.zeros_like(last)
        some = first < last
        low[some], high[some] = self.members[first[some]], self.members[last[some] - 1] + 1
        return low, high

    def inside(self, members: NDArray[np.intp], box: Box) -> NDArray[np.intp]:
        """Return elements as indices into the flattened part of the dimensions in a box."""
        part = [box.get(dim, slice(0, n)) for dim, n in zip(self.dims, self.shape, strict=True)]
        if len(part) == 1:
            return np.asarray(members - part[0].start, dtype=np.intp)
        where = np.unravel_index(members, self.shape)
        inner = [indices - each.start for indices, each in zip(where, part, strict=True)]
        flat = np.ravel_multi_index(inner, [each.stop - each.start for each in part])
        return np.asarray(flat, dtype=np.intp)


@dataclass(frozen=True)
class Pick:
    """Where the samples of some partitions are in arranged variables.

    Attributes
    ----------
    shape : tuple of int
        Number of partitions, and how many members they have in each joint.
    indices : tuple of ndarray of intp, shape (n_partitions, 1 …, n_members, 1 …)
        Of the joints that are cut.
    order : tuple of int
        Joints in the order of samples.
    """

    shape: tuple[int, ...]
    indices: tuple[NDArray[np.intp], ...]
    order: tuple[int, ...]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """How many members in each joint, in the order of samples."""
        return tuple(self.shape[1 + joint] for joint in self.order)

    @property
    def n_samples(self) -> int:
        """How many samples each partition has."""
        return math.prod(self.shape[1:])

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the values of an arranged variable, shape (n_partitions, *sample_shape)."""
        at = tuple(
            index if length > 1 else np.zeros_like(index)
            for index, length in zip(self.indices, array.shape, strict=False)
        )
        picked = array[at] if at else array[np.newaxis]
        order = [0, *(1 + joint for joint in self.order)]
        return np.broadcast_to(picked, self.shape).transpose(order)


@dataclass(frozen=True)
class Cut:
    """How a data set is cut along axes.

    Attributes
    ----------
    axes : tuple of Axis
        In the order of the results' dimensions.
    lengths : dict of str to int
        The dimensions of the data; those of samples in the order that samples have.
    """

    axes: tuple[Axis, ...]
    lengths: Mapping[str, int]

    @cached_property
    def joints(self) -> tuple[Joint, ...]:
        """What is cut together, those that are cut first; else in the order of samples."""
        bundles: list[set[str]] = [{dim} for dim in self.lengths]
        for axis in self.axes:
            apart = [bundle for bundle in bundles if not bundle & {*axis.dims}]
            touched = [bundle for bundle in bundles if bundle not in apart]
            bundles = [*apart, set().union(*touched)]
        bundles.sort(key=self._place)
        found = [self._joint(tuple(d for d in self.lengths if d in each)) for each in bundles]
        return tuple(sorted(found, key=lambda joint: not joint.axes))

    def _place(self, dims: Iterable[str]) -> int:
        """Return where in the order of samples some dimensions stand."""
        order = list(self.lengths)
        return min(map(order.index, dims))

    def _joint(self, dims: tuple[str, ...]) -> Joint:
        shape = tuple(self.lengths[dim] for dim in dims)
        axes = tuple(i for i, axis in enumerate(self.axes) if set(axis.dims) <= {*dims})
        if not axes:  # each partition has all of it, which may be more than memory holds
            none = np.empty(0, dtype=np.intp)
            return Joint(dims, shape, (), (), none, none)
        combined = np.zeros(shape, dtype=np.intp)
        absent = np.zeros(shape, dtype=bool)
        for axis in (self.axes[i] for i in axes):
            codes = np.transpose(axis.codes, np.argsort([dims.index(dim) for dim in axis.dims]))
            spread = [self.lengths[dim] if dim in axis.dims else 1 for dim in dims]
            codes = codes.reshape(spread)
            combined = combined * axis.size + codes
            absent |= codes < 0
        (elements,) = np.nonzero(~absent.ravel())
        keys = combined.ravel()[elements]
        order = np.argsort(keys, kind="stable")
        return Joint(
            dims, shape, axes, tuple(self.axes[i].size for i in axes), keys[order], elements[order]
        )

    @cached_property
    def n_samples(self) -> int:
        """Samples of a partition at the most."""
        return math.prod(joint.most for joint in self.joints)

    def counts(self, partitions: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return how many samples partitions have, before any is dropped."""
        found = np.ones(len(partitions), dtype=np.int64)
        for joint in self.joints:
            first, last = joint.ranges(partitions)
            found *= last - first
        return found

    def bounds(self, partitions: NDArray[np.intp]) -> Bounds:
        """Return where partitions lie along the dimensions that are cut; if nowhere, at 0 to 0."""
        bounds: dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
        for position, axis in enumerate(self.axes):
            for dim, (lows, highs) in axis.spans.items():
                low, high = lows[partitions[:, position]], highs[partitions[:, position]]
                if dim in bounds:
                    low, high = np.maximum(low, bounds[dim][0]), np.minimum(high, bounds[dim][1])
                bounds[dim] = low, high
        for joint in self.joints:
            if len(joint.dims) == 1 < len(joint.axes):  # labels on one line: known exactly
                bounds[joint.dims[0]] = joint.bounds(partitions)
        some = np.ones(len(partitions), dtype=bool)
        for low, high in bounds.values():
            some &= low < high
        return {dim: (low * some, high * some) for dim, (low, high) in bounds.items()}

    def boxes(self, partitions: NDArray[np.intp], starts: NDArray[np.intp]) -> Bounds:
        """Return the smallest boxes that hold runs of partitions.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_axes)
            Those of one run after the other.
        starts : ndarray of intp, shape (n_runs,)
            Where the runs begin.
        """
        boxes = {}
        for dim, (low, high) in self.bounds(partitions).items():
            last = np.maximum.reduceat(high, starts)
            nowhere = np.where(high > 0, low, self.lengths[dim])
            boxes[dim] = np.minimum(np.minimum.reduceat(nowhere, starts), last), last
        return boxes

    def box(self, partitions: NDArray[np.intp]) -> dict[str, slice]:
        """Return the smallest box that holds partitions, along the dimensions that are cut."""
        found = self.boxes(partitions, np.zeros(1, dtype=np.intp))
        return {dim: slice(int(low[0]), int(high[0])) for dim, (low, high) in found.items()}

    def arranged(self, values: NDArray[Any], dims: Sequence[str], box: Box) -> NDArray[Any]:
        """Return a variable's part in a box with one dimension for each of `joints`.

        Parameters
        ----------
        values : ndarray
            The part in the box.
        dims : sequence of str
            Its dimensions.
        box : mapping of str to slice
            The box.

        Returns
        -------
        ndarray
            Along joints that it has no dimension of the length is 1.
        """
        present = [dim for joint in self.joints for dim in joint.dims if dim in dims]
        values = np.transpose(values, [dims.index(dim) for dim in present])
        shape: list[int] = []
        full: list[int] = []
        flat: list[int] = []
        for joint in self.joints:
            lengths = [
                part.stop - part.start if (part := box.get(dim)) else length
                for dim, length in zip(joint.dims, joint.shape, strict=True)
            ]
            has = [dim in dims for dim in joint.dims]
            shape += [n if here else 1 for n, here in zip(lengths, has, strict=True)]
            full += lengths if any(has) else [1] * len(lengths)
            flat.append(math.prod(lengths) if any(has) else 1)
        return np.broadcast_to(values.reshape(shape), full).reshape(flat)

    def picks(
        self, partitions: NDArray[np.intp], box: Box, room: int
    ) -> Iterator[tuple[slice, Pick]]:
        """Yield partitions, in order, with where their samples are in arranged variables.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_axes)
            Which ones.
        box : mapping of str to slice
            Holds them all.
        room : int
            How many samples to pick at once, or those of one partition. Those that are picked
            at once have equally many in every joint.

        Yields
        ------
        some : slice
            Which of `partitions`.
        pick : Pick
            Where their samples are.
        """
        cut = [joint for joint in self.joints if joint.axes]
        ranges = [joint.ranges(partitions) for joint in cut]
        counts = np.array([last - first for first, last in ranges]).reshape(-1, len(partitions))
        counts[:, (counts == 0).any(axis=0)] = 0
        whole = [joint.most for joint in self.joints if not joint.axes]
        uneven = np.flatnonzero((counts[:, 1:] != counts[:, :-1]).any(axis=0)) + 1
        for begin, end in itertools.pairwise([0, *uneven.tolist(), len(partitions)]):
            shape = (*counts[:, begin].tolist(), *whole)
            step = max(1, room // max(1, math.prod(shape)))
            for first in range(begin, end, step):
                some = slice(first, min(first + step, end))
                members = [
                    joint.inside(joint.members[low[some, np.newaxis] + np.arange(count)], box)
                    for joint, (low, _), count in zip(cut, ranges, shape, strict=False)
                ]
                yield some, self._pick(some.stop - first, members, shape)

    def _pick(self, n: int, members: Sequence[NDArray[np.intp]], shape: tuple[int, ...]) -> Pick:
        """Return the pick of `n` partitions with these members in each joint that is cut."""
        indices = []
        for place, each in enumerate(members):
            spread = [n, *(1 for _ in members)]
            spread[place + 1] = each.shape[1]
            indices.append(each.reshape(spread))
        places = [self._place(joint.dims) for joint in self.joints]
        return Pick((n, *shape), tuple(indices), tuple(np.argsort(places).tolist()))
