"""Windows: a source cut along its samples, for partitions that no worker can hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.source.layout import FREE_BLOCK_BYTES, chunk_shape
from hpc_sweep.source.reading import Box, Reading
from hpc_sweep.source.source import Source

Window = Mapping[str, slice]
"""Which indices along each sample dimension, as slices with both ends."""

WINDOW_BYTES = 32_000_000
"""Chunks of the source are put together until a window has so many bytes as estimators see it."""


def windows(
    source: Source, n_samples: int | None = None, partition: NDArray[np.intp] | None = None
) -> list[Window]:
    """Return windows that cover all samples of a partition, at borders of the source's chunks.

    Parameters
    ----------
    source : Source
        The source.
    n_samples : int, optional
        How many samples a window shall have at the least, where there are as many; by default
        those of `WINDOW_BYTES`. A chunk of the source is never cut: it would be read twice.
    partition : ndarray of intp, shape (n_dims,), optional
        Leave out windows in which it has nothing.

    Returns
    -------
    list of mapping of str to slice
        In the order of samples along the first sample dimension, then the next.
    """
    sizes = {dim: int(source.dataset.sizes[dim]) for dim in source.sample_dims}
    columns = len(source.data.features) + len(source.targets)
    sample_bytes = columns * np.dtype(source.data.dtype).itemsize
    wanted = n_samples or max(1, WINDOW_BYTES // sample_bytes)
    steps = _chunks(source, sizes, sample_bytes)
    for dim in reversed(sizes):  # the last dimensions run fastest
        held = math.prod(steps.values())
        if held >= wanted:
            break
        times = -(-wanted // held)
        steps[dim] = min(sizes[dim], steps[dim] * times)
    slices = [
        [slice(low, min(low + steps[dim], size)) for low in range(0, size, steps[dim])]
        for dim, size in sizes.items()
    ]
    made: list[Window] = [
        dict(zip(sizes, each, strict=True)) for each in itertools.product(*slices)
    ]
    if partition is None or all(axis.is_dimension for axis in source.axes):
        return made
    return [window for window in made if _holds(within(source, window), partition)]


def _holds(source: Source, partition: NDArray[np.intp]) -> bool:
    """Return whether a partition has any sample, before those that lack something are dropped."""
    one = partition[np.newaxis]
    ((_, pick),) = source.cut.picks(one, source.cut.box(one), 1)
    return pick.n_samples > 0


def _chunks(source: Source, sizes: dict[str, int], sample_bytes: int) -> dict[str, int]:
    """Return the chunks of the largest variable along the sample dimensions."""
    names = [name for name in source.variables if {*source.dataset[name].dims} & {*sizes}]
    largest = source.dataset[max(names, key=lambda name: source.dataset[name].nbytes)]
    shape = chunk_shape(largest)
    if shape is not None:
        chunk = dict(zip(map(str, largest.dims), shape, strict=True))
        return {dim: max(1, min(size, chunk.get(dim, size))) for dim, size in sizes.items()}
    room = max(1, FREE_BLOCK_BYTES // sample_bytes)
    free: dict[str, int] = {}
    for dim in reversed(sizes):
        free[dim] = max(1, min(sizes[dim], room))
        room //= sizes[dim]
    return {dim: free[dim] for dim in sizes}


def largest_window(made: Sequence[Window]) -> int:
    """Return how many samples the largest of some windows has."""
    return max(int(math.prod(s.stop - s.start for s in window.values())) for window in made)


def within(source: Source, window: Window) -> Source:
    """Return a source that has the samples inside a window only."""
    axes = tuple(
        replace(axis, codes=axis.codes[tuple(window.get(dim, slice(None)) for dim in axis.dims)])
        for axis in source.axes
    )
    reading = Windowed(source.reading, window)
    return replace(source, dataset=source.dataset.isel(window), axes=axes, reading=reading)


@dataclass(frozen=True)
class Windowed:
    """A reading whose indices are counted from where a window begins.

    Attributes
    ----------
    whole : Reading
        Reads the whole data set: what it makes of a sample may need others, outside.
    window : mapping of str to slice
        The window.
    """

    whole: Reading
    window: Window

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the stored variables that are read for some variables."""
        return self.whole.sources(names)

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read variables inside a box inside the window."""
        moved = dict(box)
        for dim, inside in self.window.items():
            within_it = box.get(dim, slice(None))
            if isinstance(within_it, slice):
                low, high, _ = within_it.indices(inside.stop - inside.start)
                moved[dim] = slice(inside.start + low, inside.start + high)
            else:
                moved[dim] = within_it + inside.start
        return self.whole.read(names, moved)
