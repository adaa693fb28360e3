"""Whether a sweep reads its data as it is, or copies it into another layout first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.plan import BASELINE_BYTES
from hpc_sweep.source import (
    SLAB_BYTES,
    CopiedSource,
    Copy,
    Source,
    copied_source,
    copying_s,
    find_copy,
    reading_s,
    slab_bytes,
    tiling_for,
)

LEAST_SAVED_S = 2.0
"""A copy that saves less is not made."""

COPIES = 6
"""So many times a slab lies in memory at the most: as it was read, in order, encoded, in a file."""

MOST_BYTES = 512_000_000
"""A chunk that is larger is not copied where nobody knows what memory a worker has."""


@dataclass(frozen=True)
class Rechunked:
    """Data as a copy has it.

    Attributes
    ----------
    copy : Copy
        Perhaps not made yet.
    source : CopiedSource
        Reads it.
    seconds : float
        That one process takes to copy and read it, about.
    read_factor_directly, seconds_directly : float
        Without it: how often each chunk would be read, and how long that would take; infinite
        where no worker could hold what a partition's box has.
    """

    copy: Copy
    source: CopiedSource
    seconds: float
    read_factor_directly: float
    seconds_directly: float

    @property
    def memory_bytes(self) -> int:
        """Projected for a worker that makes the copy."""
        return BASELINE_BYTES + COPIES * slab_bytes(self.source.direct, self.copy.tiling)

    @property
    def is_whole(self) -> bool:
        """Whether that very copy is there."""
        return self.copy.is_whole and find_copy(self.copy.folder) == self.copy


def rechunked(
    source: Source,
    folder: Path,
    read_factor: Callable[[Source], float],
    worker_memory_bytes: int | None,
) -> Rechunked | None:
    """Return data as a copy would have it, where that is faster or the copy is there already.

    Parameters
    ----------
    source : Source
        The data as it is.
    folder : Path
        Where the copy is, or would be.
    read_factor : callable
        Returns how often each chunk of a source would be read; infinite: it cannot be.
    worker_memory_bytes : int or None
        What a worker has.
    """
    room = float(MOST_BYTES)
    if worker_memory_bytes is not None:
        room = (worker_memory_bytes - BASELINE_BYTES) / COPIES
    tiling = tiling_for(source, min(SLAB_BYTES, room), room)
    if tiling is None:
        return None
    copy = Copy(folder, tiling, source.identity())
    other = copied_source(source, copy)
    factor = read_factor(source)
    directly_s = factor * reading_s(source)
    copied_s = copying_s(source, tiling, read_factor(other))
    made = Rechunked(copy, other, copied_s, factor, directly_s)
    return made if made.is_whole or directly_s - copied_s > LEAST_SAVED_S else None
