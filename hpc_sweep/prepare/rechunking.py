"""How a sweep reads its data: as it is, from a copy, or from blocks that workers keep."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_sweep.choices import Rechunk
from hpc_sweep.errors import PlanError
from hpc_sweep.plan import BASELINE_BYTES, format_bytes
from hpc_sweep.source import (
    SLAB_BYTES,
    BlockLayout,
    CopiedSource,
    Copy,
    Source,
    block_layouts,
    copied_source,
    copying_s,
    find_copy,
    peers_s,
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

PEERS_SHARE = 0.4
"""Of the memory of all workers, which data that they keep among themselves has at the most."""

BLOCKS_PER_WORKER = 32
"""Of each variable."""

PEERS_COPIES = 2
"""So many times a worker's share of that lies in memory: as it came, and put together."""


@dataclass(frozen=True)
class Room:
    """What there is for bringing data into another layout.

    Attributes
    ----------
    workers : int
        How many there are.
    worker_memory_bytes : int or None
        What each has; None where nobody knows.
    lifetime_s : float or None
        How long each works; infinite: as long as the run; None where nobody knows.
    rest_s : float or None
        How long the search takes all of them, where that is known.
    """

    workers: int
    worker_memory_bytes: int | None
    lifetime_s: float | None = None
    rest_s: float | None = None


@dataclass(frozen=True)
class PeersWay:
    """The way of rechunking among workers.

    Attributes
    ----------
    layouts : tuple of BlockLayout
        How each variable is cut.
    nbytes : int
        Of all of them.
    seconds : float
        Of one process, as those of a copy.
    share : float
        Of the memory of all workers that the data takes; NaN where that is unknown.
    held_bytes : int
        What a worker has of it.
    least_workers : int
        So many have the memory.
    in_memory : bool
        Whether memory is no reason against it.
    danger : str
        Why it is not safe; empty where it is.
    """

    layouts: tuple[BlockLayout, ...]
    nbytes: int
    seconds: float
    share: float
    held_bytes: int
    least_workers: int
    in_memory: bool
    danger: str


@dataclass(frozen=True)
class Rechunked:
    """Data in another layout, and the ways to it.

    Attributes
    ----------
    way : str
        ``copy``, ``p2p``, or ``never``: it is read as it is.
    copy : Copy
        Perhaps not made yet.
    source : CopiedSource
        Reads it.
    seconds_copied : float
        That one process takes to copy and read it, about.
    read_factor_directly, seconds_directly : float
        Without it: how often each chunk would be read, and how long that would take; infinite
        where no worker could hold what a partition's box has.
    peers : PeersWay or None
        None where workers cannot bring it into that layout among themselves.
    missing_bytes : int
        What the disk lacks for the copy.
    """

    way: Rechunk
    copy: Copy
    source: CopiedSource
    seconds_copied: float
    read_factor_directly: float
    seconds_directly: float
    peers: PeersWay | None
    missing_bytes: int

    @property
    def by_peers(self) -> PeersWay | None:
        """The way among workers, if it is taken."""
        return self.peers if self.way == "p2p" else None

    @property
    def nbytes(self) -> int:
        """Of the variables that are laid out anew."""
        direct = self.source.direct.dataset
        return sum(int(direct[name].nbytes) for name in self.copy.tiling.names)

    @property
    def memory_bytes(self) -> int:
        """Projected for a worker that brings data into that layout."""
        slabs = BASELINE_BYTES + COPIES * slab_bytes(self.source.direct, self.copy.tiling)
        return slabs + (PEERS_COPIES * self.by_peers.held_bytes if self.by_peers else 0)

    @property
    def kept_bytes(self) -> int:
        """What a worker keeps of it while it searches."""
        return self.by_peers.held_bytes if self.by_peers else 0

    @property
    def is_whole(self) -> bool:
        """Whether that very copy is there."""
        return self.copy.is_whole and self.is_begun

    @property
    def is_begun(self) -> bool:
        """Whether some of it may be there."""
        return find_copy(self.copy.folder) == self.copy


def rechunked(
    source: Source,
    folder: Path,
    read_factor: Callable[[Source, int], float],
    room: Room,
    asked: Rechunk = "auto",
    *,
    may_peer: bool = True,
) -> Rechunked | None:
    """Return in which way data is read; None where no other layout would help.

    Parameters
    ----------
    source : Source
        The data as it is.
    folder : Path
        Where the copy is, or would be.
    read_factor : callable
        Returns how often each chunk of a source would be read by workers that keep so many bytes
        besides; infinite: it cannot be.
    room : Room
        What there is for it.
    asked : str
        The way that is asked for, or ``auto``.
    may_peer : bool
        Whether tasks can take blocks from workers.

    Raises
    ------
    PlanError
        When ``p2p`` is asked for, and is not possible.
    """
    memory = room.worker_memory_bytes
    most = float(MOST_BYTES) if memory is None else (memory - BASELINE_BYTES) / COPIES
    tiling = tiling_for(source, min(SLAB_BYTES, most), most)
    if tiling is None:
        return None
    copy = Copy(folder, tiling, source.identity())
    other = copied_source(source, copy)
    factor = read_factor(source, 0)
    most_blocks = BLOCKS_PER_WORKER * room.workers
    layouts = block_layouts(source, tiling, most_blocks) if may_peer else None
    peers = None
    if layouts is not None:
        slab = slab_bytes(source, tiling)
        peers = _peers(layouts, peers_s(source, tiling), slab, room)
        if not peers.danger and math.isinf(read_factor(other, peers.held_bytes)):
            danger = f"a worker has no room for units beside {format_bytes(peers.held_bytes)}"
            peers = replace(peers, danger=danger, in_memory=False)
    found = Rechunked(
        "copy",
        copy,
        other,
        copying_s(source, tiling, read_factor(other, 0)),
        factor,
        factor * reading_s(source),
        peers,
        _missing_bytes(copy, source),
    )
    way = _chosen(found) if asked == "auto" else asked
    if way == "p2p":
        _check_peers(found)
    return replace(found, way=way)


def _chosen(found: Rechunked) -> Rechunk:
    """Return a way that is possible and safe, and saves time.

    A copy comes first: it outlives workers and runs, and is made about as fast.
    """
    if found.is_whole:
        return "copy"
    if found.is_begun or not found.missing_bytes:
        return "copy" if _saves(found, found.seconds_copied) else "never"
    peers = found.peers
    if peers is None or peers.danger or not _saves(found, peers.seconds):
        return "never"
    return "p2p"


def _saves(found: Rechunked, seconds: float) -> bool:
    return found.seconds_directly - seconds > LEAST_SAVED_S


def _peers(layouts: tuple[BlockLayout, ...], seconds: float, slab: int, room: Room) -> PeersWay:
    """Weigh the way among workers."""
    nbytes = sum(math.prod(each.sizes) * each.dtype.itemsize for each in layouts)
    held = -(-nbytes // room.workers)
    memory = room.worker_memory_bytes
    share, least = math.nan, room.workers
    if memory is not None:
        share = nbytes / (room.workers * memory)
        least = max(1, math.ceil(nbytes / (PEERS_SHARE * memory)))
    needed = BASELINE_BYTES + COPIES * slab + PEERS_COPIES * held
    crowded = _crowded(nbytes, share, needed, room)
    danger = crowded or _outlived(seconds, room)
    return PeersWay(layouts, nbytes, seconds, share, held, least, not crowded, danger)


def _crowded(nbytes: int, share: float, needed: int, room: Room) -> str:
    """Return why workers' memory is not enough; empty where it is."""
    memory = room.worker_memory_bytes
    if memory is None:
        return "nobody knows the memory of a worker (cluster.memory)"
    if share > PEERS_SHARE:
        limit = f"{PEERS_SHARE:.0%} of the {format_bytes(memory)} of {room.workers} workers"
        return f"{format_bytes(nbytes)} are more than {limit}"
    if needed > memory:
        return f"a worker would need {format_bytes(needed)}, and has {format_bytes(memory)}"
    return ""


def _outlived(seconds: float, room: Room) -> str:
    """Return why workers' time is not enough; empty where it is."""
    if room.lifetime_s is None:
        return "nobody knows how long a worker works (cluster.walltime)"
    if math.isinf(room.lifetime_s):
        return ""
    if room.rest_s is None:
        return "nobody knows yet whether the run fits into the time of its workers"
    whole_s = seconds / room.workers + room.rest_s
    if whole_s > room.lifetime_s:
        return f"the run takes about {whole_s:.0f} s, and a worker works {room.lifetime_s:.0f} s"
    return ""


def _check_peers(found: Rechunked) -> None:
    """Raise when workers cannot rechunk the data among themselves; time is the user's matter."""
    peers = found.peers
    if peers is None:
        raise PlanError(
            "cluster.rechunk: p2p is for dimensions of a grid in the wrong chunks, searched by the "
            "shared engine, and not for scattered labels or tables; use auto or copy"
        )
    if peers.danger and not peers.in_memory:
        raise PlanError(
            f"cluster.rechunk: p2p keeps the data in the workers' memory, but {peers.danger}; "
            "use auto or copy, or raise cluster.workers or cluster.memory"
        )


def _missing_bytes(copy: Copy, source: Source) -> int:
    """Return what the disk lacks for a copy that is not compressed."""
    wanted = sum(int(source.dataset[name].nbytes) for name in copy.tiling.names)
    place = copy.folder
    while not place.exists():
        place = place.parent
    return max(0, wanted - shutil.disk_usage(place).free)
