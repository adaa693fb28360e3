"""Read the partitions of a unit, evaluate them in batches, join what came out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, EMPTY, FAILED
from hpc_sweep.errors import disk_cause, disk_error
from hpc_sweep.plan import BATCH_BYTES, Unit
from hpc_sweep.search import Split, Task
from hpc_sweep.store import Part
from hpc_sweep.strategies import Array, Found
from hpc_sweep.work.asking import search
from hpc_sweep.work.bench import Bench, open_bench

BATCH_S = 1.0
"""Partitions are evaluated together that take about so long."""

Arrays = tuple[NDArray[Any], NDArray[Any] | None]


@dataclass(frozen=True)
class Outcome:
    """What came out for one partition.

    Attributes
    ----------
    found : Found
        Scores, times, messages.
    n_samples, n_splits : int
        Of the partition.
    status : ndarray of int8, shape (n_candidates,)
        As in the store.
    """

    found: Found
    n_samples: int
    n_splits: int
    status: NDArray[np.int8]


def evaluate_partitions(bench: Bench, unit: Unit, until: float) -> list[Outcome]:
    """Evaluate the partitions of a unit in order, until time is up.

    Parameters
    ----------
    bench : Bench
        What the worker keeps.
    unit : Unit
        Which partitions and candidates.
    until : float
        On the clock of `time.perf_counter`; at least one batch is evaluated.
    """
    outcomes: list[Outcome] = []
    partitions = _partitions(bench, unit)
    size = 1
    while batch := list(itertools.islice(partitions, size)):
        begin = time.perf_counter()
        outcomes += _evaluate(bench, unit, batch)
        now = time.perf_counter()
        if now > until:
            break
        size = _next_size(batch, now - begin, min(BATCH_S, until - now))
    return outcomes


def _next_size(
    batch: Sequence[tuple[Any, Arrays | BaseException]], spent_s: float, room_s: float
) -> int:
    """Return how many partitions to take next: at most twice as many."""
    held = [arrays[0].nbytes for _, arrays in batch if not isinstance(arrays, BaseException)]
    by_time = room_s / max(spent_s, 1e-6) * len(batch)
    by_bytes = BATCH_BYTES // max(1, *held) if held else len(batch)
    return max(1, int(min(2 * len(batch), by_time, by_bytes)))


def _partitions(
    bench: Bench, unit: Unit
) -> Iterator[tuple[NDArray[np.intp], Arrays | BaseException]]:
    """Yield each partition of a unit with its arrays, or with what reading them raised."""
    header = bench.store.header
    order = bench.store.grid.reading_order(header.chunks, unit.chunk)[unit.start : unit.stop]
    source_chunk = order // np.array(header.read_chunks)
    borders = np.flatnonzero((source_chunk[1:] != source_chunk[:-1]).any(axis=1)) + 1
    for group in np.split(order, borders):
        count = 0
        try:
            for partition, arrays in zip(group, bench.source.read(group), strict=True):
                yield partition, arrays
                count += 1
        except Exception as error:  # decoders of damaged chunks raise all kinds
            cause = disk_cause(error)
            if cause is not None:
                bench.source.dataset.close()  # a stale file stays stale until it is opened anew
                open_bench.cache_clear()
                raise disk_error(cause, bench.source.data.store, "read") from error
            yield from ((partition, error) for partition in group[count:])


def _evaluate(
    bench: Bench, unit: Unit, batch: Sequence[tuple[NDArray[np.intp], Arrays | BaseException]]
) -> list[Outcome]:
    """Evaluate some partitions together."""
    outcomes: list[Outcome | None] = []
    tasks: list[Task] = []
    refusals: list[dict[int, str]] = []
    for partition, arrays in batch:
        if isinstance(arrays, BaseException):
            text = f"{type(arrays).__name__}: {' '.join(str(arrays).split())}"
            outcomes.append(without_fits(bench, unit, FAILED, f"reading failed: {text}"))
        elif len(arrays[0]) == 0:
            outcomes.append(without_fits(bench, unit, EMPTY, ""))
        else:
            seed = bench.seed(partition)
            splits, refused = _splits(bench, unit, arrays, seed)
            tasks.append(Task(*arrays, splits, seed))
            refusals.append(refused)
            outcomes.append(None)
    searched = iter(zip(tasks, search(bench, unit, tasks, refusals), strict=True))
    return [_outcome(*next(searched)) if outcome is None else outcome for outcome in outcomes]


def _splits(
    bench: Bench, unit: Unit, arrays: Arrays, seed: int
) -> tuple[dict[int, list[Split]], dict[int, str]]:
    """Return the splits of a partition by model, and why there are none."""
    X, y = arrays
    splits: dict[int, list[Split]] = {}
    refused: dict[int, str] = {}
    for model in bench.strategy.models(unit.first, unit.last):
        try:
            splits[model] = bench.splits[model].make(X, y, seed)
        except ValueError as error:
            refused[model] = f"{len(X)} samples cannot be split: {error}"
    return splits, refused


def _outcome(task: Task, found: Found) -> Outcome:
    n_splits = max((len(made) for made in task.splits.values()), default=0)
    status = np.where(found.failed, FAILED, DONE).astype(np.int8)
    return Outcome(found, len(task.X), n_splits, status)


def without_fits(bench: Bench, unit: Unit, state: int, reason: str) -> Outcome:
    """Return the outcome of a partition in which nothing is fitted.

    Parameters
    ----------
    bench : Bench
        Has the strategy.
    unit : Unit
        Which columns.
    state : int
        Their status.
    reason : str
        Their message.
    """
    found = bench.strategy.nothing(unit.first, unit.last, reason)
    return Outcome(found, 0, 0, np.full(len(found.failed), state, dtype=np.int8))


def part_of(bench: Bench, outcomes: Sequence[Outcome]) -> Part:
    """Return what a part file holds of some partitions."""
    width = bench.store.header.n_splits

    def joined(rows: list[NDArray[Any]], dtype: str) -> NDArray[Any]:
        whole = np.full((len(rows), *rows[0].shape[:-1], width), np.nan, dtype=dtype)
        for values, row in zip(whole, rows, strict=True):
            values[..., : row.shape[-1]] = row
        return whole

    def stacked(array: Array) -> NDArray[Any]:
        shape = [bench.store.lengths[dim] for dim in array.dims]
        rows = [f.more.get(array.name, np.full(shape, array.fill)) for f in found]
        return np.stack(rows).astype(array.dtype)

    found = [outcome.found for outcome in outcomes]
    return Part(
        {m: joined([f.scores[m] for f in found], "float64") for m in bench.store.spec.metrics},
        joined([f.fit_time for f in found], "float32"),
        joined([f.score_time for f in found], "float32"),
        np.stack([outcome.status for outcome in outcomes]),
        np.array([outcome.n_samples for outcome in outcomes], dtype=np.int64),
        np.array([outcome.n_splits for outcome in outcomes], dtype=np.int64),
        {
            (i, j): text
            for i, evaluation in enumerate(found)
            for j, text in enumerate(evaluation.messages)
            if text
        },
        {array.name: stacked(array) for array in bench.store.arrays if array.is_found},
    )
