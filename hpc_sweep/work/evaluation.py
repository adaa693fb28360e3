"""Read the partitions of a unit, evaluate them in batches, join what came out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, EMPTY, FAILED
from hpc_sweep.errors import disk_cause, disk_error
from hpc_sweep.partitions import describe
from hpc_sweep.plan import BATCH_BYTES, Unit
from hpc_sweep.search import Split, Sums, Task, brief
from hpc_sweep.source import Samples
from hpc_sweep.store import Choice
from hpc_sweep.strategies import Counts, Found, Request
from hpc_sweep.work.asking import Searching
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.refits import choices_of, has_all, refit_together
from hpc_sweep.work.remains import NOBODY, Attendant, Loss, Remains

MODEL_BYTES = 64_000_000
"""A unit ends early when it has so many bytes of models to be kept."""

BATCH_S = 1.0
"""Partitions are evaluated together that take about so long."""


@dataclass(frozen=True)
class Partition:
    """One partition of a unit.

    Attributes
    ----------
    position : int
        In the reading order of the result chunk.
    index : ndarray of intp, shape (n_dims,)
        Which one it is.
    samples : Samples or Loss
        Its samples, or why there are none.
    """

    position: int
    index: NDArray[np.intp]
    samples: Samples | Loss

    def __sizeof__(self) -> int:
        # by which Dask knows what it holds
        held = self.samples.nbytes if isinstance(self.samples, Samples) else 0
        return object.__sizeof__(self) + held


def evaluate_partitions(
    bench: Bench,
    unit: Unit,
    until: float,
    *,
    batch_s: float = BATCH_S,
    attendant: Attendant = NOBODY,
    remains: Remains | None = None,
    choices: Mapping[int, Choice] | None = None,
    kept: Sequence[Partition] = (),
    request: Request | None = None,
) -> Iterator[list[Outcome]]:
    """Evaluate the partitions of a unit in order, until time is up; yield batch by batch.

    Where the unit has all candidates, the best one is fitted again if that is wanted, but for
    what is found of a request.

    Parameters
    ----------
    bench : Bench
        What the worker keeps.
    unit : Unit
        Which partitions and candidates.
    until : float
        On the clock of `time.perf_counter`; at least one batch is evaluated.
    batch_s : float
        How long a batch should take.
    attendant : Attendant
        Told of each step before it begins.
    remains : Remains, optional
        What is known already.
    choices : mapping of int to Choice, optional
        Of a unit without candidates: the best ones, by position.
    kept : sequence of Partition
        What has been read already.
    request : Request, optional
        What is asked of each partition, in place of all that the strategy asks for.
    """
    remains = remains or Remains()
    partitions = partitions_of(bench, unit, attendant, remains, kept)
    careful = remains.one_by_one > 0
    size, held = max(1, remains.one_by_one), 0
    while batch := list(itertools.islice(partitions, size)):
        begin = time.perf_counter()
        solves = bench.solves and request is None and has_all(bench.strategy, unit)
        sums: dict[int, Sums] = {each.position: {} for each in batch if solves}
        rest = remains if careful else None
        outcomes = _evaluate(bench, unit, batch, attendant, rest, sums, request)
        if bench.refits and request is None:
            _add_refits(bench, unit, batch, outcomes, attendant, remains, choices, sums)
        yield outcomes
        held += sum(len(outcome.refit.model) for outcome in outcomes)
        now = time.perf_counter()
        if now > until or held > MODEL_BYTES:
            break
        size = _next_size(batch, now - begin, min(batch_s, until - now))
        careful = False


NONE: Mapping[int, Loss] = {}


def groups_of(bench: Bench, unit: Unit, lost: Mapping[int, Loss] = NONE) -> Iterator[list[int]]:
    """Yield the positions of a unit that are read together: those in one chunk of the source."""
    header = bench.store.header
    order = bench.store.grid.reading_order(header.chunks, unit.chunk)
    source_chunk = order // np.array(header.read_chunks)

    def group_of(position: int) -> tuple[object, ...]:
        return (lost.get(position), *source_chunk[position])

    for _, positions in itertools.groupby(range(unit.start, unit.stop), group_of):
        yield list(positions)


def _next_size(batch: Sequence[Partition], spent_s: float, room_s: float) -> int:
    """Return how many partitions to take next: at most twice as many."""
    held = [each.samples.nbytes for each in batch if isinstance(each.samples, Samples)]
    by_time = room_s / max(spent_s, 1e-6) * len(batch)
    by_bytes = BATCH_BYTES // max(1, *held) if held else len(batch)
    return max(1, int(min(2 * len(batch), by_time, by_bytes)))


def partitions_of(
    bench: Bench,
    unit: Unit,
    attendant: Attendant = NOBODY,
    remains: Remains | None = None,
    kept: Sequence[Partition] = (),
) -> Iterator[Partition]:
    """Yield each partition of a unit with its samples, or with why there are none."""
    order = bench.store.grid.reading_order(bench.store.header.chunks, unit.chunk)
    lost = {} if remains is None else remains.partitions
    known = {each.position: each for each in kept}
    for group in groups_of(bench, unit, lost):
        if group[0] in lost:
            yield from (_lost(bench, p, order[p], lost[p]) for p in group)
        elif known.keys() >= {*group}:
            yield from (known[p] for p in group)
        else:
            yield from _read(bench, order, group, attendant)


def _lost(bench: Bench, position: int, index: NDArray[np.intp], loss: Loss) -> Partition:
    reason = f"{describe(bench.labels(index))}: {loss.reason}"
    return Partition(position, index, Loss(loss.status, reason))


def _read(
    bench: Bench, order: NDArray[np.intp], group: Sequence[int], attendant: Attendant
) -> Iterator[Partition]:
    """Yield partitions that are read together; if that fails, those that need other chunks apart.

    So what a partition fails of does not depend on what it is read with.
    """
    samples = bench.source.read(order[group], bench.reading)
    for count, position in enumerate(group):
        attendant.reads(position, len(group) - count)
        try:
            found = next(samples)
        except Exception as error:  # decoders of damaged chunks raise all kinds
            cause = disk_cause(error)
            if cause is not None:
                bench.source.dataset.close()  # a stale file stays stale until opened anew
                open_bench.cache_clear()
                raise disk_error(cause, bench.source.data.origin, "read") from error
            needs = bench.source.reads.footprints(order[group]).tolist()
            if count == 0 and len(set(needs)) > 1:
                for _, some in itertools.groupby(
                    zip(needs, group, strict=True), lambda each: each[0]
                ):
                    yield from _read(bench, order, [position for _, position in some], attendant)
            else:
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                loss = Loss(FAILED, f"reading failed: {text}")
                yield from (Partition(p, order[p], loss) for p in group[count:])
            return
        yield Partition(position, order[position], found)


def without_samples(bench: Bench, unit: Unit, partition: Partition) -> Outcome | None:
    """Return the outcome of a partition that has nothing to fit; None for any other."""
    loss = _loss_of(partition)
    return None if loss is None else without_fits(bench, unit, loss)


def _loss_of(partition: Partition) -> Loss | None:
    """Return why a partition has nothing to fit; None if it has."""
    samples = partition.samples
    if isinstance(samples, Loss):
        return samples
    return None if len(samples) else Loss(EMPTY, "")


def _evaluate(
    bench: Bench,
    unit: Unit,
    batch: Sequence[Partition],
    attendant: Attendant,
    remains: Remains | None,
    sums: Mapping[int, Sums],
    request: Request | None,
) -> list[Outcome]:
    """Evaluate some partitions together."""
    outcomes: dict[int, Outcome] = {}
    tasks: dict[int, Task] = {}
    refusals: dict[int, dict[int, str]] = {}
    for each in batch if unit.n_cells else ():
        position = each.position
        outcome = without_samples(bench, unit, each)
        if outcome is not None:
            outcomes[position] = outcome
            continue
        attendant.splits(position)
        tasks[position], refusals[position] = task_of(bench, unit, each, sums.get(position))
    attendant.takes(batch[0].position, len(batch))
    searching = Searching(bench, unit, tasks, refusals, attendant, remains, request=request)
    for position, found in searching.run().items():
        task = tasks[position]
        outcomes[position] = outcome_of(task.n_samples, task, found)
    nothing = Loss(FAILED, "")
    return [outcomes.get(each.position) or without_fits(bench, unit, nothing) for each in batch]


def _add_refits(
    bench: Bench,
    unit: Unit,
    batch: Sequence[Partition],
    outcomes: Sequence[Outcome],
    attendant: Attendant,
    remains: Remains,
    choices: Mapping[int, Choice] | None,
    sums: Mapping[int, Sums],
) -> None:
    """Put into outcomes what came of the best candidates, fitted again."""
    chosen: list[Choice | None]
    if choices is not None:
        chosen = [choices.get(each.position) for each in batch]
    elif has_all(bench.strategy, unit):
        found = choices_of(bench.strategy, unit, [outcome.found for outcome in outcomes])
        chosen = [None if _loss_of(p) else c for p, c in zip(batch, found, strict=True)]
    else:
        chosen = [None] * len(batch)
    refits = refit_together(bench, batch, chosen, attendant, remains, sums)
    attendant.shares()
    for each, refit in zip(outcomes, refits, strict=True):
        each.refit = refit


def task_of(
    bench: Bench, unit: Unit, partition: Partition, sums: Sums | None = None
) -> tuple[Task, dict[int, str]]:
    """Return a partition that has samples as the evaluator takes it, and why it lacks splits."""
    samples = cast(Samples, partition.samples)
    X, y = samples.X, samples.y
    seed = bench.seed(partition.index)
    labels = None if samples.groups is None else np.unique(samples.groups)
    columns = None if labels is None else bench.columns(labels)
    splits: dict[int, list[Split]] = {}
    refused: dict[int, str] = {}
    for model in bench.strategy.models(unit.first, unit.last):
        try:
            splits[model] = bench.splits[model].make(X, y, seed, samples.groups)
        except Exception as error:  # a user's splitter may raise anything
            why = error if isinstance(error, ValueError) else brief(type(error).__name__, error)
            refused[model] = f"{len(samples)} samples cannot be split: {why}"
    names = [] if columns is None or labels is None else list(map(str, labels))
    return Task(X, y, splits, seed, names, columns, samples.weights, sums), refused


class Placed(Protocol):
    """A partition's splits, wherever its samples are."""

    @property
    def counts(self) -> Counts:
        """Samples of its splits."""

    @property
    def columns(self) -> NDArray[np.intp] | None:
        """Where these stand in the store."""


def outcome_of(n_samples: int, task: Placed, found: Found) -> Outcome:
    """Return the outcome of a partition that was searched."""
    splits = max(task.counts.values(), key=len, default=())
    status = np.where(found.failed, FAILED, DONE).astype(np.int8)
    for row, state in found.states.items():
        status[row] = state
    return Outcome(found, status, n_samples, [test for _, test in splits], task.columns)


def without_fits(bench: Bench, unit: Unit, loss: Loss) -> Outcome:
    """Return the outcome of a partition in which nothing is fitted.

    Parameters
    ----------
    bench : Bench
        Has the strategy.
    unit : Unit
        Which columns.
    loss : Loss
        Status and message of all.
    """
    found = bench.strategy.nothing(unit.first, unit.last, loss.reason)
    return Outcome(found, np.full(len(found.failed), loss.status, dtype=np.int8))
