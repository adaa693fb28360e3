"""Partitions whose candidates are cut into slices: read once, and kept on the workers.

Where one is, the slices' tasks take it as an argument: Dask brings it from worker to worker, and
nothing of it comes to the driver. When a worker dies that had the only copy, Dask reads anew.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import ClassVar

from distributed import Client, Future

from hpc_sweep.plan import Chunk, Plan, Unit
from hpc_sweep.store import PartName
from hpc_sweep.work.evaluation import Partition, partitions_of
from hpc_sweep.work.peers import Peers
from hpc_sweep.work.tasks import Context, Held, bench_of, check_versions, key_of, with_blocks

Place = tuple[Chunk, int]
"""A result chunk, and a position in its reading order."""


@dataclass
class PersistingTasks:
    """The tasks of a run in which each partition is searched by several workers.

    A partition is kept as long as a task needs it that is handed out, and until another one is
    asked for; where best candidates are fitted again, until that is handed out too.

    Parameters
    ----------
    context : Context
        What every task is told.
    plan : Plan
        Says which partitions are read together.
    peers : Peers, optional
        The blocks that they are made of, where workers keep these.
    """

    guards: ClassVar[bool] = True
    context: Context
    plan: Plan
    peers: Peers | None = None
    _kept: weakref.WeakValueDictionary[Place, Future] = field(
        default_factory=weakref.WeakValueDictionary
    )
    _needed: dict[str, Future] = field(default_factory=dict)
    _last: dict[Place, Future] = field(default_factory=dict)
    _unfinished: dict[Place, Future] = field(default_factory=dict)

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future:
        """Submit a unit.

        One whose workers died twice reads for itself, in the process that is guarded: it may be
        the reading that they died of.
        """
        is_slice = unit.stop - unit.start == 1 and unit.n_cells < self.plan.workload.n_columns
        if guarded or not is_slice:
            held = None if self.peers is None else self.peers.of(unit)
            return self.context.evaluate(client, unit, guarded=guarded, held=held)
        kept = self.keep(client, unit)
        return self._needing(kept, self.context.evaluate(client, unit, guarded=False, kept=kept))

    def keep(self, client: Client, unit: Unit) -> Future:
        """Return the one partition of a unit, which is on the workers or going to be."""
        place = unit.chunk, unit.start
        kept = self._known(place) or self._read(client, unit)[place]
        if self.plan.finishes:
            self._unfinished[place] = kept
        return kept

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Future:
        """Submit a unit without candidates, with what is still there of its partition."""
        alone = unit.stop - unit.start == 1 and not guarded
        kept = self._known((unit.chunk, unit.start)) if alone else None
        held = None if self.peers is None or kept is not None else self.peers.of(unit)
        task = self.context.score(client, unit, parts, guarded=guarded, kept=kept, held=held)
        for position in range(unit.start, unit.stop):
            self._unfinished.pop((unit.chunk, position), None)
        return task if kept is None else self._needing(kept, task)

    def _needing(self, kept: Future, task: Future) -> Future:
        """Keep a partition until a task is done."""
        self._needed[task.key] = kept
        task.add_done_callback(lambda done: self._needed.pop(done.key, None))
        return task

    def begun(self, client: Client) -> set[str]:
        """Return the keys of tasks that are at work."""
        return self.context.begun(client)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold."""
        return self.context.fold(client, chunk, parts)

    def step(self) -> str:
        """Return nothing: units are worked at by workers."""
        return self.context.step()

    def _known(self, place: Place) -> Future | None:
        """Return a partition that is on the workers, or is going to be.

        One that is lost with its worker is being read again, as long as it is needed.
        """
        kept = self._kept.get(place)
        return None if kept is None or kept.status in ("error", "cancelled") else kept

    def _read(self, client: Client, unit: Unit) -> dict[Place, Future]:
        """Have the partitions read that are read together with that of a unit."""
        start, stop = self.plan.persisted_range(unit)
        whole = Unit(unit.chunk, start, stop, 0, self.plan.workload.n_columns)
        key = key_of("read", whole.key)
        held = None if self.peers is None else self.peers.of(whole)
        read = self.context.submit(client, key, 0, read_partitions, whole, held)
        self._last = {
            (unit.chunk, position): client.submit(
                one_of, read, position - start, key=f"{key}-{position}", pure=False
            )
            for position in range(start, stop)
        }
        self._kept.update(self._last)
        return self._last


# on workers


def read_partitions(context: Context, unit: Unit, held: Held | None = None) -> list[Partition]:
    """Read the partitions of a unit, to be kept; maybe from blocks that workers keep.

    Raises
    ------
    DiskError
        When the disk refuses.
    """
    check_versions(context)
    return list(partitions_of(with_blocks(bench_of(context), held), unit))


def one_of(read: list[Partition], number: int) -> Partition:
    """Return one of the partitions that were read together."""
    return read[number]
