"""What a process holds to know whose samples are where, besides what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.source.gathering import CopiedSource
from hpc_sweep.source.source import Source
from hpc_sweep.source.tiling import table_of

SORTING_BYTES = 48
"""Of each row of a table, while its labels are read and sorted: seen, beside what stays."""

CODE_BYTES = np.dtype(np.int32).itemsize
"""Of a label of a table's row, and of the slab that an element of a copy comes from."""


def index_bytes(source: Source) -> int:
    """Return the bytes of labels, members of partitions and orders, as many as there are at once.

    Parameters
    ----------
    source : Source
        As it is read.
    """
    arrays = {id(each): each.nbytes for each in _arrays(source)}
    table = table_of(source.direct)
    held = 0
    if table is not None and table.held:
        held = (CODE_BYTES * len(table.held) + SORTING_BYTES) * table.order.size
    if isinstance(source, CopiedSource):
        streams = {id(each): each for each in source.streams.values()}.values()
        held += sum(CODE_BYTES * line.size for each in streams for line in each.lines)
    return sum(arrays.values()) + held


def _arrays(source: Source) -> Iterator[NDArray[Any]]:
    for axis in source.axes:
        yield axis.codes
    for joint in source.cut.joints:
        yield from (joint.keys, joint.members)
    table = table_of(source)
    if table is not None:
        yield table.order
    if isinstance(source, CopiedSource):
        yield from _arrays(source.origin)
        yield from (each.elements for each in source.gathered)
        lines = (line for stream in source.streams.values() for line in stream.lines)
        yield from (line.places for line in lines if line.places is not None)
