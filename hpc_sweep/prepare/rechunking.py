"""Whether a sweep reads its data as it is, or copies it into another layout first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.plan import BASELINE_BYTES
from hpc_sweep.source import (
    SLAB_BYTES,
    Copy,
    Source,
    copying_s,
    open_source,
    reading_s,
    tiling_for,
)
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import Store

LEAST_SAVED_S = 2.0
"""A copy that saves less is not made."""


@dataclass(frozen=True)
class Rechunked:
    """Data as a copy has it.

    Attributes
    ----------
    copy : Copy
        Perhaps not made yet.
    source : Source
        With the copy's chunks.
    seconds : float
        That one process takes to copy and read it, about.
    read_factor_directly, seconds_directly : float
        Without it: how often each chunk would be read, and how long that would take.
    """

    copy: Copy
    source: Source
    seconds: float
    read_factor_directly: float
    seconds_directly: float


def rechunked(
    spec: SweepSpec,
    source: Source,
    folder: Path,
    read_factor: float,
    worker_memory_bytes: int | None,
    store: Store | None,
) -> Rechunked | None:
    """Return data as a copy would have it, where that is faster or the store was begun with it.

    Parameters
    ----------
    spec : SweepSpec
        The sweep.
    source : Source
        Its data as it is.
    folder : Path
        Where the copy is, or would be.
    read_factor : float
        How often each chunk would be read without it.
    worker_memory_bytes : int or None
        What a worker has.
    store : Store or None
        What exists already.
    """
    room = float(SLAB_BYTES)
    if worker_memory_bytes is not None:
        room = min(room, (worker_memory_bytes - BASELINE_BYTES) / 6)
    tiling = tiling_for(source, room)
    if tiling is None:
        return None
    copy = Copy(folder, tiling, source.identity())
    other = open_source(spec.data, spec.search, copy)
    directly_s, copied_s = read_factor * reading_s(source), copying_s(source, tiling)
    if store is not None:
        wanted = other.grid.read_chunks == store.header.read_chunks
    else:
        wanted = directly_s - copied_s > LEAST_SAVED_S
    return Rechunked(copy, other, copied_s, read_factor, directly_s) if wanted else None
