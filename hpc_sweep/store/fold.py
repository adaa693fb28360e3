"""The fold: a result chunk's complete parts become that chunk of the store."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import Candidate
from hpc_sweep.choices import PENDING
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store.modelfiles import has_models
from hpc_sweep.store.openchunk import OpenChunk
from hpc_sweep.store.parts import PartName, delete_parts, read_part
from hpc_sweep.store.ranks import partition_status
from hpc_sweep.store.store import Store

VISIBLE_S = 30.0
"""How long a fresh part may stay invisible on a network file system."""


@dataclass(frozen=True)
class Folded:
    """What came of a fold.

    Attributes
    ----------
    counts : dict
        How many partitions have which ``partition_status``, by its int8 value as text.
    unscored : tuple of int
        Partitions, by their position, whose best candidate is to be fitted again before this
        chunk can be folded; nothing is done if there are any.
    """

    counts: Mapping[str, int]
    unscored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The best candidate of a partition.

    Attributes
    ----------
    index : int
        Which row it is.
    candidate : Candidate
        What it is.
    """

    index: int
    candidate: Candidate


def fold(store: Store, chunk: Chunk, names: Sequence[PartName], *, whole: bool = True) -> Folded:
    """Write one result chunk from what it has and its parts, ``status`` last, then delete these.

    What the chunk has of candidates without new results is not written again, but for ranks.

    Parameters
    ----------
    store : Store
        The store.
    chunk : tuple of int
        The result chunk; this call is its only writer.
    names : sequence of PartName
        Parts that cover what it lacks.
    whole : bool
        Whether they have to cover all of it.

    Returns
    -------
    Folded
        Parts stay if partitions are left unscored.

    Raises
    ------
    StoreError
        When a part is missing or damaged, or cells are left uncovered.
    DiskError
        When the disk refuses.
    """
    before = store.read_status(chunk)
    if (
        before is not None
        and store.settled(before).all()
        and store.read_revision(chunk) == store.header.revision
        and has_models(store, chunk)
    ):  # done by a worker that died before its answer came
        delete_parts(store.run.parts, names)
        return Folded(_counts(partition_status(before[:, store.strategy.in_spec])))
    opened = _opened(store, chunk, before, names)
    if whole:
        opened.check()
    unscored = opened.write(whole=whole)
    if unscored.size:
        return Folded({}, tuple(unscored.tolist()))
    delete_parts(store.run.parts, names)
    return Folded(_counts(opened.states))


def choices(store: Store, unit: Unit, names: Sequence[PartName]) -> dict[int, Choice]:
    """Return the best candidates of some partitions, as a fold of their chunk will find them.

    Parameters
    ----------
    store : Store
        The store.
    unit : Unit
        Which partitions.
    names : sequence of PartName
        Parts that cover what these partitions lack.

    Returns
    -------
    dict of int to Choice
        By position; without those that have none.
    """
    of_these = [each for each in names if _meet(each.unit, unit)]
    opened = _opened(store, unit.chunk, store.read_status(unit.chunk), of_these)
    opened.check(slice(unit.start, unit.stop))
    values = opened.derived(lambda *written: None)
    found = {}
    for position in range(unit.start, unit.stop):
        index = int(values["best_index"][position])
        if index >= 0:
            here = functools.partial(_at, values, position)
            found[position] = Choice(index, store.strategy.candidate(here, index))
    return found


def _meet(one: Unit, other: Unit) -> bool:
    return one.start < other.stop and other.start < one.stop


def _at(values: Mapping[str, NDArray[Any]], position: int, name: str) -> Any:
    return values[name][position]


def _opened(
    store: Store, chunk: Chunk, before: NDArray[np.int8] | None, names: Sequence[PartName]
) -> OpenChunk:
    if before is None:
        before = np.full((store.n_partitions(chunk), store.strategy.n_rows), PENDING, dtype=np.int8)
    parts = [(name.unit, read_part(store.run.parts, name, wait_s=VISIBLE_S)) for name in names]
    return OpenChunk(store, chunk, before, parts)


def _counts(states: NDArray[np.int8]) -> dict[str, int]:
    kinds, counts = np.unique(states, return_counts=True)
    return {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}
