"""The tasks of a run: evaluate a unit and leave one part, fold a result chunk.

A task carries the path of the store, the spec as text, and a unit: never data.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client, Future, get_worker

from hpc_sweep import strategies
from hpc_sweep.choices import FAILED
from hpc_sweep.clusters import seconds_to_work
from hpc_sweep.errors import ClusterError, SpecError, StoreError
from hpc_sweep.partitions import describe
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    Part,
    PartName,
    Receipt,
    Store,
    check_nonce,
    fold,
    group_access,
    write_part,
)
from hpc_sweep.versions import differences, installed
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.evaluation import evaluate_partitions, part_of, without_fits


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
    """

    store: str
    spec: str
    nonce: str
    unit_seconds: float
    versions: Mapping[str, str]
    lease: str
    for_group: bool

    def evaluate(self, client: Client, unit: Unit) -> Future:
        """Submit a unit."""
        return client.submit(evaluate_unit, self, unit, key=_key("unit", unit.key), pure=False)

    def give_up(self, client: Client, unit: Unit, reason: str) -> Future:
        """Submit the writing of a part that says why a unit cannot be done."""
        key = _key("give-up", unit.key)
        return client.submit(give_up, self, unit, reason, key=key, pure=False)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Future:
        """Submit a fold; before all units, since it frees files."""
        key = _key("fold", ".".join(map(str, chunk)))
        return client.submit(fold_chunk, self, chunk, tuple(parts), key=key, priority=1, pure=False)


_COUNT = itertools.count()


def _key(kind: str, what: str) -> str:
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


def _bench(context: Context) -> Bench:
    """Open what the driver has seen already: if this fails, it is for where this worker is."""
    try:
        return open_bench(context.store, context.spec)
    except (StoreError, SpecError) as error:
        raise ClusterError(
            f"the worker {get_worker().address} does not see what the driver sees: {error}; data "
            "and store must be on a file system that all nodes have"
        ) from error


def evaluate_unit(context: Context, unit: Unit) -> Receipt:
    """Evaluate a unit and leave its part.

    Parameters
    ----------
    context : Context
        What every task is told.
    unit : Unit
        Which partitions and candidates.

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
    different = differences(context.versions)
    if different:
        raise ClusterError(
            f"the worker {get_worker().address} has {' and '.join(different)}, which the driver "
            "has; start workers in the driver's environment (--mixed-versions lets scikit-learn "
            "differ)"
        )
    until = begin + min(context.unit_seconds, seconds_to_work())
    check_strategy(context.spec)
    bench = _bench(context)
    outcomes = evaluate_partitions(bench, unit, until)
    unit = replace(unit, stop=unit.start + len(outcomes))
    return _left(context, bench, unit, part_of(bench, outcomes), begin)


def _left(context: Context, bench: Bench, unit: Unit, part: Part, begin: float) -> Receipt:
    """Write a part and return its receipt."""
    with group_access(context.for_group):
        name = write_part(bench.store.run.parts, bench.store.header.id, unit, part)
    return Receipt(
        name,
        time.perf_counter() - begin,
        get_worker().address,
        int((part.status == FAILED).sum()),
        installed("scikit-learn"),
    )


def give_up(context: Context, unit: Unit, reason: str) -> Receipt:
    """Leave a part that says why a unit cannot be done; nothing is read or fitted."""
    begin = time.perf_counter()
    bench = _bench(context)
    order = bench.store.grid.reading_order(bench.store.header.chunks, unit.chunk)
    labels = bench.labels(order[unit.start])
    outcomes = [
        without_fits(bench, unit, FAILED, f"{describe(labels)}: {reason}")
        for _ in range(unit.start, unit.stop)
    ]
    return _left(context, bench, unit, part_of(bench, outcomes), begin)


def fold_chunk(context: Context, chunk: Chunk, parts: tuple[PartName, ...]) -> dict[str, int]:
    """Fold one result chunk, if the driver that asked for it still holds the lease."""
    store = Store.open(context.store)
    check_nonce(Path(context.lease), context.nonce)
    with group_access(context.for_group):
        return fold(store, chunk, parts)
