"""The tasks of a run: evaluate a unit and leave one part, fold a result chunk.

A task carries the path of the store, the spec as text, and a unit: never data.
"""

from __future__ import annotations

import functools
import itertools
import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from distributed import Client, Future, get_worker

from hpc_sweep import strategies
from hpc_sweep.choices import FAILURES
from hpc_sweep.clusters import seconds_to_work
from hpc_sweep.errors import ClusterError, SpecError, StoreError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.source import Block, block_reading
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    Choice,
    Folded,
    Part,
    PartName,
    Receipt,
    Store,
    check_nonce,
    choices,
    fold,
    group_access,
    write_part,
)
from hpc_sweep.strategies import Request
from hpc_sweep.versions import differences, installed
from hpc_sweep.work.bench import Bench, current_bench
from hpc_sweep.work.evaluation import Partition, evaluate_partitions, partitions_of
from hpc_sweep.work.guard import USABLE, Child, Guard, Limits
from hpc_sweep.work.outcomes import Outcome, part_of

MOST_REASONS = 2
"""Reasons of failures that a receipt tells."""

REASON_LENGTH = 120

Held = tuple[tuple[Block, ...], list[Any]]
"""Blocks of variables, and their values: futures for the driver, arrays in a task."""


@dataclass(frozen=True)
class Context:
    """What every task of a run is told.

    Attributes
    ----------
    store : str
        Path of the store.
    spec : str
        The spec as JSON.
    nonce : str
        Of the driver's lease.
    unit_seconds : float
        A unit that takes longer leaves a part of what it has and returns.
    versions : mapping
        Of libraries that workers need to have.
    lease : str
        Path of that lease.
    for_group : bool
        Whether a group may write what is written.
    timeout : float or None
        Seconds that a fit may take.
    revision : int
        Of the store's candidates.
    """

    store: str
    spec: str
    nonce: str
    unit_seconds: float
    versions: Mapping[str, str]
    lease: str
    for_group: bool
    guards: ClassVar[bool] = True
    timeout: float | None = None
    revision: int = 0

    def evaluate(
        self,
        client: Client,
        unit: Unit,
        *,
        guarded: bool,
        kept: Future | None = None,
        held: Held | None = None,
    ) -> Future:
        """Submit a unit; fits are guarded if there is a timeout in any case.

        Parameters
        ----------
        client : distributed.Client
            Connected to the cluster.
        unit : Unit
            Which partitions and candidates.
        guarded : bool
            Whether fits are done in a process of their own.
        kept : Future, optional
            The unit's one partition, read already.
        held : Held, optional
            Blocks that hold its partitions.
        """
        key = key_of("unit", unit.key)
        guarded = guarded or self.timeout is not None
        return self.submit(client, key, 0, evaluate_unit, unit, guarded, (), kept, held)

    def score(
        self,
        client: Client,
        unit: Unit,
        parts: list[PartName],
        *,
        guarded: bool,
        kept: Future | None = None,
        held: Held | None = None,
    ) -> Future:
        """Submit a unit without candidates: the best ones, by these parts, are scored.

        It comes before other units: what is kept for it takes memory.
        """
        key = key_of("score", unit.key)
        guarded = guarded or self.timeout is not None
        arguments = self, unit, guarded, tuple(parts), kept, held
        return client.submit(evaluate_unit, *arguments, key=key, priority=1, pure=False)

    def begun(self, client: Client) -> set[str]:
        """Return the keys of tasks that are at work."""
        return {key for keys in client.processing().values() for key in keys}

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold; before all units, since it frees files."""
        key = key_of("fold", ".".join(map(str, chunk)))
        return self.submit(client, key, 1, fold_chunk, chunk, tuple(parts))

    def step(self) -> str:
        """Return nothing: units are worked at by workers."""
        return ""

    def submit(
        self, client: Client, key: str, priority: int, task: Callable[..., Any], *about: Any
    ) -> Future:
        """Submit a task that waits in the scheduler until a worker has nothing to do.

        Dask keeps back what produces data, and others only once there are more than two for each
        worker: the first ones would lie at a worker in pairs, and its death would count for both.
        """
        return client.submit(
            task, self, *about, key=key, priority=priority, pure=False, _data_producer=True
        )


_COUNT = itertools.count()


def key_of(kind: str, what: str) -> str:
    """Return a key that no other task has."""
    return f"{kind}-{what}-{next(_COUNT)}"


@functools.lru_cache(maxsize=2)
def check_strategy(spec_text: str) -> None:
    """Find out once whether this worker can search as the driver can.

    Raises
    ------
    ClusterError
        When it lacks a library, which would fail all partitions.
    """
    spec = SweepSpec.model_validate_json(spec_text)
    models = {f"models.{index}": model for index, model in enumerate(spec.models)}
    faults = [*strategies.faults(spec.search, models)]
    if faults:
        raise ClusterError(
            f"a worker cannot search as the driver can: {'; '.join(map(str, faults))}; start "
            "workers in the driver's environment"
        )


def bench_of(context: Context) -> Bench:
    """Open what the driver has seen already: if this fails, it is for where this worker is."""
    try:
        return current_bench(context.store, context.spec, context.revision)
    except (StoreError, SpecError) as error:
        raise ClusterError(
            f"the worker {get_worker().address} does not see what the driver sees: {error}; data "
            "and store must be on a file system that all nodes have"
        ) from error


def with_blocks(bench: Bench, held: Held | None) -> Bench:
    """Return a bench that takes variables from blocks in memory, where there are some."""
    if held is None:
        return bench
    return replace(bench, reading=block_reading(bench.source, list(zip(*held, strict=True))))


def check_versions(context: Context) -> None:
    """Raise a `ClusterError` when this worker has other versions than the driver."""
    different = differences(context.versions)
    if different:
        raise ClusterError(
            f"the worker {get_worker().address} has {' and '.join(different)}, which the driver "
            "has; start workers in the driver's environment (--mixed-versions lets scikit-learn "
            "differ)"
        )


def evaluate_unit(
    context: Context,
    unit: Unit,
    guarded: bool = False,
    parts: tuple[PartName, ...] = (),
    kept: Partition | None = None,
    held: Held | None = None,
) -> Receipt:
    """Evaluate a unit and leave its part.

    Parameters
    ----------
    context : Context
        What every task is told.
    unit : Unit
        Which partitions and candidates.
    guarded : bool
        Whether fits are done in a process of their own.
    parts : tuple of PartName
        Of a unit without candidates: they say which are the best ones.
    kept : Partition, optional
        The unit's one partition, where it has been read already.
    held : Held, optional
        Blocks that hold its partitions.

    Returns
    -------
    Receipt
        Names the part, which covers fewer partitions than asked when time was up.

    Raises
    ------
    DiskError
        When the disk refuses.
    ClusterError
        When this worker has other versions than the driver.
    """
    begin = time.perf_counter()
    check_versions(context)
    until = begin + min(context.unit_seconds, seconds_to_work())
    check_strategy(context.spec)
    bench = with_blocks(bench_of(context), held)
    best = None if unit.n_cells else choices(bench.store, unit, parts)
    read: tuple[Partition, ...] = () if kept is None else (kept,)
    if guarded:
        if held is not None:  # they are here, and the process for fits is elsewhere
            read = tuple(partitions_of(bench, unit, kept=read))
        outcomes = guarded_outcomes(context, unit, until, best, read)
    else:
        batches = evaluate_partitions(bench, unit, until, choices=best, kept=read)
        outcomes = [each for batch in batches for each in batch]
    unit = replace(unit, stop=unit.start + len(outcomes))
    return leave(context, bench, unit, part_of(bench, outcomes), begin, get_worker().address)


_child = functools.cache(Child)
"""The process for guarded fits of this worker."""


def guarded_outcomes(
    context: Context,
    unit: Unit,
    until: float,
    best: Mapping[int, Choice] | None,
    kept: tuple[Partition, ...],
    asked: Request | None = None,
) -> list[Outcome]:
    """Evaluate a unit, or what is asked of it, in a process of its own."""
    memory_bytes = get_worker().memory_manager.memory_limit
    limits = Limits(
        math.inf if context.timeout is None else context.timeout,
        math.inf if memory_bytes is None else USABLE * memory_bytes,
    )
    try:
        return Guard(_child(), limits).evaluate(
            context.store, context.spec, unit, until, best, context.revision, kept, asked
        )
    finally:
        if context.timeout is None:  # the next unit may do without it, and need its memory
            _child().end()


def leave(
    context: Context, bench: Bench, unit: Unit, part: Part, begin: float, worker: str
) -> Receipt:
    """Write a part and return its receipt, if it was made of the sweep's data."""
    bench.check_source()
    with group_access(context.for_group):
        name = write_part(bench.store.run.parts, bench.store.header.id, unit, part)
    return Receipt(
        name,
        time.perf_counter() - begin,
        worker,
        int(np.isin(part.status, FAILURES).sum()),
        installed("scikit-learn"),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        reasons_of(part),
    )


def reasons_of(part: Part) -> dict[str, int]:
    """Return why cells of a part failed, cut short: the most frequent reasons, and how often."""
    failed = np.isin(part.status, FAILURES)
    texts = (brief(text) for place, text in part.messages.items() if failed[place])
    return dict(Counter(texts).most_common(MOST_REASONS))


def brief(reason: str) -> str:
    """Return the first line of a reason, cut to what an event log has room for."""
    line = reason.partition("\n")[0]
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"


def fold_chunk(context: Context, chunk: Chunk, parts: tuple[PartName, ...]) -> Folded:
    """Fold one result chunk, if the driver that asked for it still holds the lease."""
    store = Store.open(context.store)
    check_nonce(Path(context.lease), context.nonce)
    with group_access(context.for_group):
        return fold(store, chunk, parts)
