"""What runs on a worker: read a unit's partitions, evaluate them, leave one part.

A task carries the path of the store, the spec as text, and a unit: never data.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, Future, get_worker
from numpy.typing import NDArray
from sklearn.base import clone

from hpc_sweep.candidates import Candidate
from hpc_sweep.choices import DONE, EMPTY, FAILED
from hpc_sweep.clusters import seconds_to_work
from hpc_sweep.errors import ClusterError, SpecError, StoreError, disk_cause, disk_error
from hpc_sweep.estimators import (
    build_estimator,
    build_scorers,
    build_splitter,
    is_classifier,
    parameter_value,
)
from hpc_sweep.partitions import Label, describe, partition_labels
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.search import Evaluation, Model, Split, evaluate
from hpc_sweep.source import Source, open_source
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

Arrays = tuple[NDArray[Any], NDArray[Any] | None]


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


@dataclass(frozen=True)
class Bench:
    """What a worker keeps between tasks of one run: opened and built once.

    Attributes
    ----------
    store : Store
        The output.
    source : Source
        The input.
    models : tuple of Model
        Those of the spec, built.
    settings : tuple of mapping
        By candidate: parameter values as estimators take them.
    seeded : tuple of tuple of str
        By candidate: names of ``random_state`` parameters that nobody has set.
    """

    store: Store
    source: Source
    models: tuple[Model, ...]
    settings: tuple[Mapping[str, Any], ...]
    seeded: tuple[tuple[str, ...], ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates in order."""
        return self.store.candidates

    def labels(self, partition: NDArray[np.intp]) -> dict[str, Label]:
        """Return the labels of a partition."""
        return partition_labels(self.source.coordinates, self.store.header.dims, partition)

    def seed(self, partition: NDArray[np.intp]) -> int:
        """Return a seed made of the sweep's seed and the partition's labels, never of the unit."""
        content = [self.store.spec.search.seed, self.labels(partition)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def params(self, candidate: int, seed: int) -> dict[str, Any]:
        """Return the parameters of a candidate, open random states filled with a seed."""
        return {**self.settings[candidate], **dict.fromkeys(self.seeded[candidate], seed)}


@functools.lru_cache(maxsize=2)
def open_bench(store: str, spec_text: str) -> Bench:
    """Open store and source and build the models, once for all tasks of a run."""
    opened = Store.open(store)
    spec = SweepSpec.model_validate_json(spec_text)
    models = build_models(spec)
    candidates = opened.candidates
    defaults = [model.estimator.get_params(deep=True) for model in models]
    settings = tuple(
        {
            name: parameter_value(value, defaults[candidate.model].get(name))
            for name, value in candidate.params.items()
        }
        for candidate in candidates
    )
    seeded = tuple(
        _open_random_states(models[candidate.model].estimator, params)
        for candidate, params in zip(candidates, settings, strict=True)
    )
    return Bench(opened, open_source(spec.data), models, settings, seeded)


def _bench(context: Context) -> Bench:
    """Open what the driver has seen already: if this fails, it is for where this worker is."""
    try:
        return open_bench(context.store, context.spec)
    except (StoreError, SpecError) as error:
        raise ClusterError(
            f"the worker {get_worker().address} does not see what the driver sees: {error}; data "
            "and store must be on a file system that all nodes have"
        ) from error


def build_models(spec: SweepSpec) -> tuple[Model, ...]:
    """Build the models of a spec with their splitters and scorers."""
    models = []
    for model in spec.models:
        estimator = build_estimator(model.estimator, model.pipeline)
        splitter = build_splitter(spec.search.cv, is_classifier(estimator))
        models.append(Model(estimator, splitter, build_scorers(estimator, spec.search.scoring)))
    return tuple(models)


def _open_random_states(estimator: Any, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of ``random_state`` parameters that nobody has set."""
    try:
        set_up = clone(estimator).set_params(**clone(params, safe=False))
    except Exception:  # the candidate fails when it is fitted, with this as its reason
        return ()
    return tuple(
        name
        for name, value in set_up.get_params(deep=True).items()
        if name.rpartition("__")[2] == "random_state" and value is None and name not in params
    )


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
    bench = _bench(context)
    results: list[tuple[Evaluation, int, int, NDArray[np.int8]]] = []
    for partition, arrays in _partitions(bench, unit):
        results.append(_evaluate_partition(bench, unit, partition, arrays))
        if time.perf_counter() > until:
            break
    unit = replace(unit, stop=unit.start + len(results))
    part = _part(bench, results)
    return _left(context, bench, unit, part, begin)


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


def _evaluate_partition(
    bench: Bench, unit: Unit, partition: NDArray[np.intp], arrays: Arrays | BaseException
) -> tuple[Evaluation, int, int, NDArray[np.int8]]:
    """Return the evaluation, the numbers of samples and splits, and the status by candidate."""
    rows = range(unit.first, unit.last)
    if isinstance(arrays, BaseException):
        reason = f"{type(arrays).__name__}: {' '.join(str(arrays).split())}"
        return _without_fits(bench, len(rows), 0, FAILED, f"reading failed: {reason}")
    X, y = arrays
    if len(X) == 0:
        return _without_fits(bench, len(rows), 0, EMPTY, "")
    seed = bench.seed(partition)
    splits: dict[int, list[Split]] = {}
    refused: dict[int, str] = {}
    for model in sorted({bench.candidates[row].model for row in rows}):
        try:
            splits[model] = _split(bench.models[model].splitter, X, y, seed)
        except ValueError as error:
            refused[model] = f"{len(X)} samples cannot be split: {error}"
    candidates = [
        (bench.candidates[row].model, bench.params(row, seed))
        for row in rows
        if bench.candidates[row].model in splits
    ]
    found = evaluate(X, y, bench.models, candidates, splits, bench.store.spec.metrics)
    if refused:
        found = _spread(found, [refused.get(bench.candidates[row].model, "") for row in rows])
    n_splits = max((len(made) for made in splits.values()), default=0)
    status = np.where(found.failed, FAILED, DONE).astype(np.int8)
    return found, len(X), n_splits, status


def _without_fits(
    bench: Bench, count: int, n_samples: int, state: int, reason: str
) -> tuple[Evaluation, int, int, NDArray[np.int8]]:
    nothing = np.full((count, 0), np.nan)
    scores = dict.fromkeys(bench.store.spec.metrics, nothing)
    failed = np.full(count, state == FAILED)
    found = Evaluation(scores, nothing, nothing, failed, [reason] * count)
    return found, n_samples, 0, np.full(count, state, dtype=np.int8)


def _split(splitter: Any, X: Any, y: Any, seed: int) -> list[Split]:
    if getattr(splitter, "random_state", 0) is None and getattr(splitter, "shuffle", True):
        splitter = clone(splitter, safe=False)
        splitter.random_state = seed
    with warnings.catch_warnings():
        # of rare classes scikit-learn warns for each partition; the scores tell
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(X, y))


def _spread(found: Evaluation, refused: Sequence[str]) -> Evaluation:
    """Return an evaluation with failed rows put in where candidates were not evaluated."""
    rows = np.array([not reason for reason in refused])

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        whole = np.full((len(rows), *values.shape[1:]), np.nan)
        whole[rows] = values
        return whole

    failed = np.ones(len(rows), dtype=bool)
    failed[rows] = found.failed
    messages = iter(found.messages)
    return Evaluation(
        {metric: spread(scores) for metric, scores in found.scores.items()},
        spread(found.fit_time),
        spread(found.score_time),
        failed,
        [reason or next(messages) for reason in refused],
    )


def _part(bench: Bench, results: Sequence[tuple[Evaluation, int, int, NDArray[np.int8]]]) -> Part:
    width = bench.store.header.n_splits

    def joined(rows: list[NDArray[Any]], dtype: str) -> NDArray[Any]:
        padding = [((0, 0), (0, width - row.shape[1])) for row in rows]
        padded = [np.pad(r, p, constant_values=np.nan) for r, p in zip(rows, padding, strict=True)]
        return np.stack(padded).astype(dtype)

    found = [result[0] for result in results]
    return Part(
        {m: joined([f.scores[m] for f in found], "float64") for m in bench.store.spec.metrics},
        joined([f.fit_time for f in found], "float32"),
        joined([f.score_time for f in found], "float32"),
        np.stack([result[3] for result in results]),
        np.array([result[1] for result in results], dtype=np.int64),
        np.array([result[2] for result in results], dtype=np.int64),
        {
            (i, j): text
            for i, evaluation in enumerate(found)
            for j, text in enumerate(evaluation.messages)
            if text
        },
    )


def give_up(context: Context, unit: Unit, reason: str) -> Receipt:
    """Leave a part that says why a unit cannot be done; nothing is read or fitted."""
    begin = time.perf_counter()
    bench = _bench(context)
    order = bench.store.grid.reading_order(bench.store.header.chunks, unit.chunk)
    labels = bench.labels(order[unit.start])
    count = unit.last - unit.first
    results = [
        _without_fits(bench, count, 0, FAILED, f"{describe(labels)}: {reason}")
        for _ in range(unit.start, unit.stop)
    ]
    return _left(context, bench, unit, _part(bench, results), begin)


def fold_chunk(context: Context, chunk: Chunk, parts: tuple[PartName, ...]) -> dict[str, int]:
    """Fold one result chunk, if the driver that asked for it still holds the lease."""
    store = Store.open(context.store)
    check_nonce(Path(context.lease), context.nonce)
    with group_access(context.for_group):
        return fold(store, chunk, parts)
