"""Boxes of a source: the features of all samples inside, and the way back to where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import Portion
from hpc_sweep.errors import StoreError, disk_cause, disk_error
from hpc_sweep.partitions import Cut, Pick
from hpc_sweep.source.keys import lacking
from hpc_sweep.source.source import TOGETHER_BYTES, Source, lacking_value, stacked
from hpc_sweep.source.windows import Window

Block = dict[str, NDArray[Any]]
"""Variables inside a box, by name, with one dimension for each joint of its cut."""


@dataclass(frozen=True)
class Rows:
    """Samples of partitions that have equally many in a box.

    Attributes
    ----------
    partitions : ndarray of intp, shape (n_partitions, n_axes)
        Labels by axis.
    X : ndarray, shape (n_partitions, n_samples, n_features)
        Features as estimators see them.
    wanted : ndarray of bool, shape (n_partitions, n_samples)
        Which samples there are.
    whole : ndarray of bool, shape (n_partitions, n_samples)
        Which have all features.
    pick : Pick
        Where they are.
    """

    partitions: NDArray[np.intp]
    X: NDArray[Any]
    wanted: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    pick: Pick


@dataclass(frozen=True)
class SampleBox:
    """Part of a source, by indices along all of its dimensions.

    Attributes
    ----------
    source : Source
        The source.
    window : mapping of str to slice
        Which indices, as slices with both ends.
    """

    source: Source
    window: Window

    @cached_property
    def cut(self) -> Cut:
        """How the inside is cut: labels are the source's, elements are counted from the corner."""
        axes = (
            replace(axis, codes=axis.codes[tuple(self.window[dim] for dim in axis.dims)])
            for axis in self.source.axes
        )
        lengths = {dim: self._length(dim) for dim in self.source.cut.lengths}
        return Cut(tuple(axes), lengths)

    def _length(self, dim: str) -> int:
        return int(self.window[dim].stop - self.window[dim].start)

    def partitions(self) -> NDArray[np.intp]:
        """Return the partitions that have anything inside, shape (n_partitions, n_axes)."""
        found = []
        for joint in self.cut.joints:
            if joint.axes:
                keys = np.unique(joint.keys)
                found.append(np.stack(np.unravel_index(keys, joint.sizes), axis=1))
        places = [place for joint in self.cut.joints for place in joint.axes]
        counts = [len(labels) for labels in found]
        chosen = np.indices(counts).reshape(len(found), math.prod(counts))
        together = np.empty((chosen.shape[1], len(places)), dtype=np.intp)
        first = 0
        for labels, which in zip(found, chosen, strict=True):
            here = places[first : first + labels.shape[1]]
            together[:, here] = labels[which]
            first += labels.shape[1]
        return together

    def read(self, which: Portion = "all") -> Block | None:
        """Read the box, each chunk of the source once; None where no sample of it is wanted.

        Parameters
        ----------
        which : str
            ``all``, or those that are held out (``test``), or not (``train``).

        Raises
        ------
        StoreError
            When it cannot be read.
        DiskError
            When the disk refuses.
        """
        source = self.source
        own = [name for name in (*source.keys.names, source.mask) if name is not None]
        block = self._read(own)
        if which != "all" and not self._held(block, which).any():
            return None
        return block | self._read([name for name in source.data.features if name not in block])

    def rows(
        self, block: Block, partitions: NDArray[np.intp], which: Portion = "all"
    ) -> Iterator[Rows]:
        """Yield the samples of some partitions.

        Parameters
        ----------
        block : mapping of str to ndarray
            What `read` returned.
        partitions : ndarray of intp, shape (n_partitions, n_axes)
            Some of `partitions`.
        which : str
            As `read` was told.
        """
        source = self.source
        room = TOGETHER_BYTES // (len(block) * np.dtype(source.data.dtype).itemsize)
        for some, pick in self.cut.picks(partitions, {}, room):
            X = stacked(block, source.data.features, pick, source.data.dtype)
            wanted = ~source.absent(block, pick)
            if which != "all":
                names = source.keys.names
                known = {name: stacked(block, [name], pick)[:, :, 0] for name in names}
                wanted &= self._held(known, which)
            yield Rows(partitions[some], X, wanted, ~lacking_value(X), pick)

    def _read(self, names: list[str]) -> Block:
        try:
            found = self.source.reading.read(names, self.window)
        except Exception as error:  # decoders of damaged chunks raise all kinds
            origin, cause = self.source.data.origin, disk_cause(error)
            if cause is not None:
                self.source.dataset.close()  # a stale file stays stale until opened anew
                raise disk_error(cause, origin, "read") from error
            raise StoreError(
                f"{origin} cannot be read: {error}; mend the data and run the same command again"
            ) from error
        return {
            name: self.cut.arranged(variable.values, [str(dim) for dim in variable.dims], {})
            for name, variable in found.items()
        }

    def _held(self, values: Mapping[str, NDArray[Any]], which: Portion) -> NDArray[np.bool_]:
        """Return which samples are held out, or are not; those without a value are neither."""
        held_by = str(self.source.keys.held_by)
        there = ~lacking({held_by: values[held_by]})
        chosen = np.zeros(there.shape, dtype=bool)
        held = self.source.keys.held({held_by: values[held_by][there]})
        chosen[there] = held if which == "test" else ~held
        return chosen

    def canvas(self, dtype: Any, fill: Any, more: tuple[int, ...] = ()) -> NDArray[Any]:
        """Return an array for the whole box, of fill values, one dimension for each joint.

        Parameters
        ----------
        dtype, fill
            Of the array.
        more : tuple of int
            Lengths of dimensions behind those of the data.
        """
        lengths = [math.prod(joint.shape) for joint in self.cut.joints]
        return np.full((*lengths, *more), fill, dtype=object if dtype == "str" else dtype)

    def place(self, canvas: NDArray[Any], pick: Pick, values: NDArray[Any]) -> None:
        """Put values of samples where they belong.

        Parameters
        ----------
        canvas : ndarray
            Made by `canvas`.
        pick : Pick
            Where they are.
        values : ndarray, shape (n_partitions, n_samples, *more)
        """
        behind = values.shape[2:]
        apart = values.reshape(len(values), *pick.sample_shape, *behind)
        order = [0, *(1 + np.argsort(pick.order)), *range(1 + len(pick.order), apart.ndim)]
        arranged = apart.transpose(order)
        if pick.indices:
            canvas[pick.indices] = arranged
        else:
            canvas[...] = arranged[0]

    def as_data(self, canvas: NDArray[Any], dims: tuple[str, ...]) -> NDArray[Any]:
        """Return a canvas with the dimensions of the data, in some order."""
        inside = [dim for joint in self.cut.joints for dim in joint.dims]
        behind = canvas.shape[len(self.cut.joints) :]
        apart = canvas.reshape(*(self._length(dim) for dim in inside), *behind)
        order = [inside.index(dim) for dim in dims]
        return apart.transpose(*order, *range(len(dims), apart.ndim))
