"""Which partition of a store another data set's labels mean: by value, in any order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import Fault, SpecError, listed
from hpc_sweep.partitions import Axis, plain_label
from hpc_sweep.source import Source
from hpc_sweep.spec import BinsSpec, wanted_axes
from hpc_sweep.store import Store

NOISE = 16
"""So many units in the last place of the coarser type, numbers may differ and be the same."""

SPACING = 1e-3
"""And so much of the least distance of two labels at the most."""


def known_labels(store: Store) -> dict[str, NDArray[Any]]:
    """Return the labels of a store along the partition dimensions that have some."""
    results = store.dataset()
    return {dim: results[dim].values for dim in store.header.dims if dim in results.coords}


def positions(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each label is among known ones; −1: nowhere.

    Parameters
    ----------
    labels : ndarray, shape (n_labels,)
        Numbers, dates, texts or booleans.
    known : ndarray, shape (n_known,)
        The same kind. Numbers are the same up to what a change of their type leaves.
    """
    numbers = {labels.dtype.kind, known.dtype.kind} <= {*"iuf"}
    if numbers and "f" in (labels.dtype.kind, known.dtype.kind):
        return _nearest(labels, known)
    if numbers or labels.dtype.kind == known.dtype.kind == "b":
        places = {value: place for place, value in enumerate(known.tolist())}
        return np.array([places.get(value, -1) for value in labels.tolist()], dtype=np.intp)
    texts = {_text(value): place for place, value in enumerate(known)}
    return np.array([texts.get(_text(value), -1) for value in labels], dtype=np.intp)


def _nearest(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[np.intp]:
    order = np.argsort(known, kind="stable")
    values = known[order].astype(np.float64)
    wanted = labels.astype(np.float64)
    right = np.clip(np.searchsorted(values, wanted), 0, values.size - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(values[left] - wanted) <= np.abs(values[right] - wanted)
    found = np.where(nearer, left, right)
    floats = [each.dtype for each in (labels, known) if each.dtype.kind == "f"]
    precision = max(float(np.finfo(dtype).eps) for dtype in floats)
    noise = NOISE * precision * np.abs(values).max(initial=0)
    gaps = np.diff(values)
    limit = min([noise, *(SPACING * gaps[gaps > 0].min(initial=np.inf),)])
    same = np.abs(values[found] - wanted) <= limit
    return np.where(same, order[found], -1)


def _text(value: Any) -> str:
    return str(plain_label(value))


SHOWN = 3
"""So many labels are named as examples."""


class Matching:
    """Which partition of a store each label of other data means.

    Parameters
    ----------
    store : Store
        Has the models.
    source : Source
        The other data.
    sweep : Source or None
        The data that the sweep read, where it can be opened.

    Raises
    ------
    SpecError
        When labels cannot be compared.
    """

    def __init__(self, store: Store, source: Source, sweep: Source | None) -> None:
        self.dims = store.header.dims
        self._lengths = dict(zip(self.dims, store.header.shape, strict=True))
        self._known = known_labels(store)
        hows = {each.name: each.how for each in wanted_axes(source.data.partition_by)}
        faults: list[Fault] = []
        axes = []
        for axis in source.axes:
            how = hows.get(axis.name)
            counted = isinstance(how, int)
            binned = hows.get(axis.name.removesuffix("_bins"))
            if isinstance(binned, BinsSpec) and isinstance(binned.bins, int):
                faults += _bin_faults(axis, sweep)
            axes.append(_with_tiles(axis, source, sweep, faults) if counted else axis)
        self.source = replace(source, axes=tuple(axes))
        self.places: dict[str, NDArray[np.intp]] = {}
        for axis in axes:
            self._match(axis, faults)
        if faults:
            raise SpecError(faults, f"the data {source.data.origin}")

    def _match(self, axis: Axis, faults: list[Fault]) -> None:
        length, known = self._lengths[axis.name], self._known.get(axis.name)
        if known is None or axis.labels is None:
            if axis.size != length or (known is None) != (axis.labels is None):
                message = (
                    f"partitions along '{axis.name}' are {axis.size} here and {length} in the "
                    "store, and both need a coordinate to be told which is which: give the data one"
                )
                faults.append(Fault("data.partition_by", message))
                return
            self.places[axis.name] = np.arange(length)
            return
        if len({_text(label) for label in known}) < known.size:
            same = axis.size == length and (positions(axis.labels, known) >= 0).all()
            if not same:
                message = (
                    f"several partitions of the store have the same '{axis.name}', so the data "
                    f"must have the same {length} in the same order, and it has {axis.size}"
                )
                faults.append(Fault("data.partition_by", message))
            self.places[axis.name] = np.arange(axis.size)
            return
        self.places[axis.name] = positions(axis.labels, known)

    def of(self, partitions: NDArray[np.intp], target: int | None = None) -> NDArray[np.intp]:
        """Return the store's partitions that some of the data's are, −1 where it has none.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_axes)
            By the axes of `source`.
        target : int, optional
            Which one, where each has a model of its own.

        Returns
        -------
        ndarray of intp, shape (n_partitions, n_dims)
        """
        found = np.empty((len(partitions), len(self.dims)), dtype=np.intp)
        if target is not None:
            found[:, self.dims.index("target")] = target
        for column, axis in enumerate(self.source.axes):
            places = self.places[axis.name][partitions[:, column]]
            found[:, self.dims.index(axis.name)] = places
        return found

    @property
    def unknown(self) -> str:
        """Which labels of the data the store does not have, in words; none: all are known."""
        found = []
        for axis in self.source.axes:
            lacking = np.flatnonzero(self.places[axis.name] < 0)
            if lacking.size and axis.labels is not None:
                there = _some(self._known[axis.name])
                mine = f"{lacking.size} of {axis.size} are unknown, {_some(axis.labels[lacking])}"
                found.append(f"{axis.name}: {mine}; the store has {there}")
        return "; ".join(found)


def _some(labels: NDArray[Any]) -> str:
    return listed(map(plain_label, labels), most=SHOWN)


def _with_tiles(axis: Axis, source: Source, sweep: Source | None, faults: list[Fault]) -> Axis:
    """Return an axis of tiles with the sweep's own tiles, found by coordinate."""
    (dim,) = axis.dims
    mine = source.dataset[dim].values if dim in source.dataset.coords else None
    if sweep is None:
        message = (
            f"tiles along '{dim}' are the sweep's, and its data cannot be opened, which says where "
            "they are"
        )
        faults.append(Fault("data.partition_by", message))
        return axis
    (theirs,) = (each for each in sweep.axes if each.name == axis.name)
    if mine is None or dim not in sweep.dataset.coords:
        return replace(theirs, codes=theirs.codes) if axis.size == theirs.size else axis
    found = positions(mine, sweep.dataset[dim].values)
    return replace(theirs, codes=np.append(theirs.codes, -1)[found])


def _bin_faults(axis: Axis, sweep: Source | None) -> list[Fault]:
    """Return a fault where so many bins of other data are not those of the sweep."""
    theirs = None
    if sweep is not None:
        (theirs,) = (each for each in sweep.axes if each.name == axis.name)
    if theirs is not None and np.array_equal(theirs.codes, axis.codes):
        return []
    message = f"'{axis.name}' are bins by number, whose edges are the data's own; name edges"
    return [Fault("data.partition_by", f"{message} in the sweep, to predict other data")]
