"""The fold: a result chunk's complete parts become that chunk of the store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, EMPTY, FAILED, PENDING
from hpc_sweep.errors import StoreError
from hpc_sweep.plan import Chunk
from hpc_sweep.store.parts import PartName, delete_parts, read_part
from hpc_sweep.store.ranks import best, mean_and_std, rank
from hpc_sweep.store.store import Store

VISIBLE_S = 30.0
"""How long a fresh part may stay invisible on a network file system."""


def fold(store: Store, chunk: Chunk, names: Sequence[PartName]) -> dict[str, int]:
    """Write one result chunk from its parts, ``status`` last, then delete the parts.

    Parameters
    ----------
    store : Store
        The store.
    chunk : tuple of int
        The result chunk; this call is its only writer.
    names : sequence of PartName
        Parts that cover it.

    Returns
    -------
    dict
        How many partitions have which ``partition_status``, by its int8 value as text.

    Raises
    ------
    StoreError
        When a part is missing or damaged, or cells are left uncovered.
    DiskError
        When the disk refuses.
    """
    before = store.read_status(chunk)
    if before is not None:  # done by a worker that died before its answer came
        delete_parts(store.run.parts, names)
        return _counts(partition_status(before.reshape(-1, before.shape[-1])))
    values = _joined(store, chunk, names)
    if (values["status"] == PENDING).any():
        count = int((values["status"] == PENDING).sum())
        raise StoreError(f"result chunk {chunk} has {count} cells that no part covers")
    values.update(_derived(store, values))
    shape = store.grid.chunk_shape(store.header.chunks, chunk)
    order = store.grid.reading_order(store.header.chunks, chunk)
    start = np.array([part.start for part in store.region(chunk)])
    flat = np.ravel_multi_index(tuple((order - start).T), shape)
    for array in store.arrays:
        scattered = np.empty_like(values[array.name])
        scattered[flat] = values[array.name]
        store.write(array, chunk, scattered.reshape(shape + scattered.shape[1:]))
    delete_parts(store.run.parts, names)
    return _counts(values["partition_status"])


def _counts(states: NDArray[np.int8]) -> dict[str, int]:
    kinds, counts = np.unique(states, return_counts=True)
    return {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}


def _joined(store: Store, chunk: Chunk, names: Sequence[PartName]) -> dict[str, NDArray[Any]]:
    """Return the parts' arrays joined, partitions in reading order."""
    strategy = store.strategy
    partitions = math.prod(store.grid.chunk_shape(store.header.chunks, chunk))
    values: dict[str, NDArray[Any]] = {}
    for array in store.arrays:
        shape = (partitions, *(store.lengths[dim] for dim in array.dims))
        dtype = object if array.dtype == "str" else array.dtype
        values[array.name] = np.full(shape, array.fill, dtype=dtype)
    for name in names:
        part = read_part(store.run.parts, name, wait_s=VISIBLE_S)
        unit = name.unit
        rows, columns = slice(unit.start, unit.stop), strategy.rows(unit.first, unit.last)
        done, also_done = values["status"][rows, columns] == DONE, part.status == DONE
        if not strategy.is_parted:  # what belongs together is taken together
            done, also_done = done.any(axis=1), also_done.any(axis=1)
        take = ~done | also_done  # a late failure never lowers a done
        cells: dict[str, NDArray[Any]] = {
            **{f"test_{metric}": scores for metric, scores in part.scores.items()},
            "fit_time": part.fit_time,
            "score_time": part.score_time,
            "status": part.status,
            "message": _texts(part.status.shape, part.messages),
            **part.more,
        }
        for key, found in cells.items():
            place = values[key][rows] if key in part.more else values[key][rows, columns]
            place[take] = found[take]
        for key, counts in (("n_samples", part.n_samples), ("n_splits", part.n_splits)):
            values[key][rows] = np.maximum(values[key][rows], counts)
    return values


def _texts(shape: tuple[int, ...], messages: Any) -> NDArray[Any]:
    texts = np.full(shape, "", dtype=object)
    for cell, text in messages.items():
        # bytes of file names that are no Unicode cannot be stored
        texts[cell] = text.encode("utf-8", "backslashreplace").decode()
    return texts


def _derived(store: Store, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return means, ranks, the best candidate, and the state of each partition."""
    derived: dict[str, NDArray[Any]] = {}
    took_part = store.strategy.took_part(values)
    for metric in store.spec.metrics:
        scores = values[f"test_{metric}"]
        shape = scores.shape[:-1]
        flat = scores.reshape(shape[0], -1, scores.shape[-1])
        mean, std = mean_and_std(flat, values["n_splits"])
        ranks = rank(mean)
        if metric == store.spec.refit_metric and not store.strategy.chooses:
            index = best(ranks, mean)
            rows = np.arange(len(mean))
            derived["best_index"] = index
            derived["best_score"] = np.where(index >= 0, mean[rows, index], np.nan)
        ranked = ~np.isnan(mean).all(1, keepdims=True) & (
            True if took_part is None else took_part.reshape(mean.shape)
        )
        derived[f"mean_test_{metric}"] = mean.reshape(shape)
        derived[f"std_test_{metric}"] = std.reshape(shape)
        derived[f"rank_test_{metric}"] = np.where(ranked, ranks, -1).reshape(shape)
    index = derived.get("best_index", values["best_index"])
    derived.update(store.strategy.best(values, index))
    derived["partition_status"] = partition_status(values["status"])
    return derived


def partition_status(status: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return one state for each partition from those of its candidates.

    Parameters
    ----------
    status : ndarray of int8, shape (n_partitions, n_candidates)

    Returns
    -------
    ndarray of int8, shape (n_partitions,)
        Pending if any candidate is; else done if any is; else empty if all are; else the
        largest of the failures.
    """
    worst = np.where(status == EMPTY, FAILED, status).max(axis=1)
    result = np.where((status == EMPTY).all(axis=1), EMPTY, worst)
    result = np.where((status == DONE).any(axis=1), DONE, result)
    return np.where((status == PENDING).any(axis=1), PENDING, result).astype(np.int8)
