"""Data that workers bring into another layout among themselves, and keep in memory.

That is Dask's peer-to-peer rechunk. What it leaves is on workers only: a worker that is lost takes
blocks with it, and Dask would read everything again for them, or wait for ever (distributed issues
8088 and 8411 among others). So nothing is waited for without a limit, and what is lost ends it:
the driver then goes on with a copy on a disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

import dask
import numpy as np
from distributed import Client, Future, futures_of
from numpy.typing import NDArray

from hpc_sweep.errors import DiskError, StoreError, SweepError, disk_cause, disk_error
from hpc_sweep.partitions import Cut
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.source import BlockLayout, Slab, stored_reading
from hpc_sweep.store import PartName, Receipt, Store
from hpc_sweep.versions import installed
from hpc_sweep.work.copying import unreadable
from hpc_sweep.work.tasks import Context, Held, bench_of, check_versions, key_of
from hpc_sweep.work.threads import Handle

if TYPE_CHECKING:
    from dask.array import Array

FAILED = "Dask's peer-to-peer rechunk failed"

LOOK_S = 0.2
ANSWER_S = 30.0

WORKERS_S = 60.0
"""So long all workers are waited for, once there is one."""

SLOWER = 10
"""A rechunk that takes so many times as long as foreseen is given up,"""

LEAST_LIMIT_S = 120.0
"""but not before."""


class PeersLostError(SweepError):
    """What workers kept among themselves is not there, or not any more."""


@dataclass
class Peers:
    """Blocks of variables on workers.

    Parameters
    ----------
    cut : Cut
        Says where partitions lie.
    store : Store
        Says which partitions a unit has.
    layouts : sequence of BlockLayout
        How variables are cut.
    """

    cut: Cut
    store: Store
    layouts: Sequence[BlockLayout]
    _futures: dict[tuple[str, tuple[int, ...]], Future] = field(default_factory=dict)

    def keep(self, name: str, blocks: NDArray[Any]) -> None:
        """Keep the blocks of a variable: futures, in an array as the blocks lie."""
        for index in np.ndindex(blocks.shape):
            self._futures[name, index] = blocks[index]

    def check(self) -> None:
        """Look whether all is there still.

        Raises
        ------
        PeersLostError
            When it is not.
        """
        lost = sum(future.status != "finished" for future in self._futures.values())
        if lost:
            raise PeersLostError(f"{lost:,} of {len(self._futures):,} blocks are lost")

    def of(self, unit: Unit) -> Held:
        """Return the blocks that a unit's partitions are made of.

        Raises
        ------
        PeersLostError
            When one of them is lost.
        """
        order = self.store.grid.reading_order(self.store.header.chunks, unit.chunk)
        box = self.cut.box(order[unit.start : unit.stop])
        blocks = tuple(block for layout in self.layouts for block in layout.touched(box))
        held = [self._futures[block.name, block.index] for block in blocks]
        if any(future.status != "finished" for future in held):
            self.check()
        return blocks, held


@dataclass(frozen=True)
class PeerTasks:
    """The tasks of a run whose units get the blocks that workers keep.

    Parameters
    ----------
    context : Context
        What every task is told.
    peers : Peers
        The blocks.
    """

    guards: ClassVar[bool] = True
    context: Context
    peers: Peers

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future:
        """Submit a unit."""
        return self.context.evaluate(client, unit, guarded=guarded, held=self.peers.of(unit))

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Future:
        """Submit a unit without candidates."""
        held = self.peers.of(unit)
        return self.context.score(client, unit, parts, guarded=guarded, held=held)

    def begun(self, client: Client) -> set[str]:
        """Return the keys of tasks that are at work."""
        return self.context.begun(client)

    def step(self) -> str:
        """Return nothing: units are steps enough."""
        return self.context.step()

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold."""
        return self.context.fold(client, chunk, parts)


@dataclass
class Exchange:
    """The rechunk itself, as the driver's loop asks for what is left and hands it out: one unit.

    Parameters
    ----------
    context : Context
        What every task is told.
    peers : Peers
        Gets the blocks.
    workers, least_workers : int
        How many are waited for, and how many have the memory.
    foreseen_s : float
        How long it should take.
    """

    guards: ClassVar[bool] = False
    context: Context
    peers: Peers
    workers: int
    least_workers: int
    foreseen_s: float
    parts: Mapping[Chunk, list[PartName]] = field(default_factory=dict)
    is_complete: bool = False
    _ends: Event = field(default_factory=Event)
    _pool: futures.ThreadPoolExecutor = field(
        default_factory=lambda: futures.ThreadPoolExecutor(1, thread_name_prefix="peers")
    )
    _handles: list[Handle] = field(default_factory=list)
    _step: str = ""

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._pool.shutdown(cancel_futures=True)

    def end(self) -> None:
        """Give it up."""
        self._ends.set()

    def units(self) -> Iterator[Unit]:
        """Yield the one unit."""
        yield Unit((), 0, 1, 0, 1)

    def complete(self) -> Iterable[Chunk]:
        """Return nothing: it is not folded."""
        return ()

    def add(self, name: PartName) -> bool:
        """Note that it is done."""
        self.is_complete = True
        return False

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Handle:
        """Have it done by a thread, which waits for the workers."""
        work = self._pool.submit(self._rechunk, client, unit)
        self._handles.append(Handle(work, key_of("peers", unit.key)))
        return self._handles[-1]

    def begun(self, client: Client) -> set[Any]:
        """Return the keys of what is at work."""
        return {each.key for each in self._handles if each.begun}

    def step(self) -> str:
        """Return how many blocks are there, or what is waited for."""
        return self._step

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Any:
        """Score nothing."""
        raise NotImplementedError

    def fold(self, *_: Any, **__: Any) -> Any:
        """Fold nothing."""
        raise NotImplementedError

    def _rechunk(self, client: Client, unit: Unit) -> Receipt:
        begin = time.monotonic()
        self._wait_for_workers(client, begin + WORKERS_S)
        begin = time.monotonic()
        arrays = [rechunked(self.context, layout) for layout in self.peers.layouts]
        persisted = client.persist(arrays)
        try:
            self._wait(futures_of(persisted), begin + max(LEAST_LIMIT_S, SLOWER * self.foreseen_s))
        except (SweepError, DiskError):
            client.cancel(persisted, force=True)
            raise
        except Exception as error:  # whatever Dask says: there is another way
            client.cancel(persisted, force=True)
            raise PeersLostError(f"{FAILED}: {type(error).__name__}: {error}") from error
        for layout, array in zip(self.peers.layouts, persisted, strict=True):
            by_key = {future.key: future for future in futures_of(array)}
            blocks = np.empty(array.numblocks, dtype=object)
            for index in np.ndindex(blocks.shape):
                blocks[index] = by_key[(array.name, *index)]
            self.peers.keep(layout.name, blocks)
        seconds = time.monotonic() - begin
        return Receipt(PartName("", unit, 0, ""), seconds, "driver", 0, installed("scikit-learn"))

    def _wait_for_workers(self, client: Client, until: float) -> None:
        while (count := len(client.nthreads())) < self.workers:
            self._step = f"waiting for all {self.workers} workers: {count} came"
            if time.monotonic() > until:
                if count >= self.least_workers:
                    return
                raise PeersLostError(
                    f"{count} workers came, and {self.least_workers} have the memory for it"
                )
            self._pause()

    def _pause(self) -> None:
        if self._ends.wait(LOOK_S):
            raise PeersLostError("the run ends")

    def _wait(self, blocks: Sequence[Future], until: float) -> None:
        """Wait until all blocks are there."""
        left = list(blocks)
        while left := [each for each in left if each.status != "finished"]:
            failed = next((each for each in left if each.status not in _GOOD), None)
            if failed is not None:
                raise _reason(failed)
            if time.monotonic() > until:
                raise PeersLostError(f"{len(left):,} of {len(blocks):,} blocks were not in time")
            there = len(blocks) - len(left)
            self._step = f"rechunking among workers: {there:,} of {len(blocks):,} blocks are there"
            self._pause()


_GOOD = ("pending", "finished")


def _reason(failed: Future) -> BaseException:
    """Return why a block is not there: faults of the data and its disk are told as they are."""
    error = failed.exception(timeout=ANSWER_S) if failed.status == "error" else None
    if isinstance(error, (DiskError, StoreError)):
        return error
    what = failed.status if error is None else f"{type(error).__name__}: {error}"
    return PeersLostError(f"{FAILED}: {what}")


def rechunked(context: Context, layout: BlockLayout) -> Array:
    """Return a variable in blocks, as Dask is going to make them."""
    from dask.array import map_blocks  # a tenth of a worker's start, and most need it never

    read = map_blocks(
        read_box,
        context,
        layout,
        chunks=layout.chunks(layout.read_starts),
        dtype=layout.dtype,
        meta=np.empty((0,) * len(layout.dims), layout.dtype),
        name=key_of("box", layout.name),
    )
    # in memory, where it has room: a disk would do for a copy as well
    with dask.config.set({"distributed.p2p.storage.disk": False}):
        return read.rechunk(layout.chunks(layout.starts), method="p2p")


# on workers


def read_box(context: Context, layout: BlockLayout, block_id: tuple[int, ...] = ()) -> NDArray[Any]:
    """Read whole chunks of a variable.

    Raises
    ------
    DiskError
        When the disk refuses.
    StoreError
        When the data cannot be read there: all partitions need it.
    """
    check_versions(context)
    bench = bench_of(context)
    box = layout.read_box(block_id)
    try:
        found = stored_reading(bench.source.reading).read([layout.name], box)[layout.name]
        return np.ascontiguousarray(found.values, dtype=layout.dtype)
    except Exception as error:  # decoders of damaged chunks raise all kinds
        cause = disk_cause(error)
        if cause is not None:
            bench.source.dataset.close()
            raise disk_error(cause, bench.source.data.origin, "read") from error
        raise unreadable(Slab((layout.name,), 0, box, layout.sizes), error) from error
