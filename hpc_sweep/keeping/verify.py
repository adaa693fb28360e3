"""Whether a store is sound: every checksum, and that what it says agrees with itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, STATUS_MEANINGS
from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.keeping.findings import (
    AS_THE_GROUP_SAYS,
    Finding,
    Verification,
    driver_of,
    fixed_faults,
    metadata_faults,
    nodes_of,
    strays,
)
from hpc_sweep.keeping.predictions import verify_predictions
from hpc_sweep.keeping.zipping import BESIDE
from hpc_sweep.models import check_models
from hpc_sweep.partitions import describe, partition_labels
from hpc_sweep.plan import Chunk
from hpc_sweep.store import (
    OpenChunk,
    Predictions,
    Store,
    is_whole,
    parse_name,
)

RUN = "run the spec again"


def verify(store: str | Path) -> Verification:
    """Look at every file of a store and its run folder, and whether they agree.

    Checksums of all chunks and parts; metadata of nodes against those of the group; files that
    are missing, left over or unknown; and of each result chunk whether statuses, means, ranks and
    best candidates follow from the scores. Nothing is written. Memory is that of folding one
    result chunk.

    Parameters
    ----------
    store : path
        A store of a sweep, or of predictions, finished or not.

    Returns
    -------
    Verification
        With no findings where all is well.

    Raises
    ------
    StoreError
        When there is no store, or too little of it to tell what it should be.
    DiskError
        When the disk refuses.
    """
    predictions = Predictions.find(store)
    if predictions is not None:
        return verify_predictions(predictions)
    opened = Store.open(store)
    found = Verification(str(opened.path), driver_of(opened.run))
    with disk_errors(opened.path, "read"):
        nodes = nodes_of(opened.path)
        results = [array.name for array in opened.arrays]
        mends = RUN if opened.header.revision else AS_THE_GROUP_SAYS
        found.findings += metadata_faults(opened.path, nodes, results, mends)
        found.findings += fixed_faults(found, opened.path, nodes, results)
        chunks = list(np.ndindex(*opened.grid.chunk_grid(opened.header.chunks)))
        found.result_chunks = len(chunks)
        for chunk in chunks:
            faults = list(_chunk(opened, chunk, found))
            if faults and found.driver:  # it may have been in the middle of a fold
                faults = list(_chunk(opened, chunk, found))
            found.findings += faults
            found.result_chunks_done += _is_done(opened, chunk)
        found.findings += _models(opened, found)
        if not found.driver:
            found.findings += strays(opened.path, nodes, BESIDE, RUN)
        found.findings += _parts(opened, found)
    return found


def _models(store: Store, found: Verification) -> list[Finding]:
    """Return what is wrong with files of models."""
    checked = check_models(store)
    if checked.faults and found.driver:  # it may have been in the middle of a fold
        checked = check_models(store)
    found.files += checked.n_files
    found.bytes += checked.n_bytes
    return [Finding(each.file, each.fault, each.remedy) for each in checked.faults]


def _is_done(store: Store, chunk: Chunk) -> bool:
    status = store.read_status(chunk)
    return (
        status is not None
        and bool(store.settled(status).all())
        and store.read_revision(chunk) == store.header.revision
    )


def _chunk(store: Store, chunk: Chunk, found: Verification) -> Iterator[Finding]:
    """Yield what is wrong with a result chunk: first its files, then what they say."""
    status = store.read_status(chunk)
    done = [] if status is None else [bool(status[:, rows].any()) for rows in store.blocks]
    is_sound = True
    for array in store.arrays:
        for block in range(len(store.blocks) if store.has_rows(array) else 1):
            file = store.chunk_file(array, chunk, block)
            counts = (done[block] if store.has_rows(array) else any(done)) if done else False
            is_status = array.name == "status"
            if not file.exists() and not counts:
                continue
            fault = found.look_at(file)
            if fault and (counts or is_status):
                is_sound = False
                remedy = RUN if is_status else _again(store, chunk)
                yield Finding(str(file), fault, remedy)
            elif fault:
                yield Finding(str(file), fault, f"{RUN}: it is pending, and written anew")
    if is_sound and status is not None:
        try:
            yield from _values(store, chunk, status)
        except (StoreError, IndexError, ValueError, TypeError) as error:
            file = store.chunk_file(store.arrays[-1], chunk)
            text = f"and its result chunk make no sense together: {error}"
            yield Finding(str(file), text, _again(store, chunk))


def _again(store: Store, chunk: Chunk) -> str:
    """Return how a result chunk is computed again."""
    files = [store.chunk_file(store.arrays[-1], chunk, block) for block in range(len(store.blocks))]
    names = " ".join(str(file) for file in files if file.exists())
    return f"delete {names}, then {RUN}: that chunk is computed again"


def _values(store: Store, chunk: Chunk, status: NDArray[np.int8]) -> Iterator[Finding]:
    """Yield what does not follow from the rest in a result chunk."""
    if ((status < 0) | (status >= len(STATUS_MEANINGS))).any():
        file = store.chunk_file(store.arrays[-1], chunk)
        yield Finding(str(file), "has a status that there is none of", _again(store, chunk))
        return
    yield from _without_values(store, chunk, status)
    if store.strategy.chooses:
        yield from _chosen(store, chunk)
    opened = OpenChunk(store, chunk, status, [])
    arrays = {array.name: array for array in store.arrays}
    for each in opened.derivations(ranked=_is_done(store, chunk)):
        other = ~_equal(each.known, each.right)
        if other.any():
            file = store.chunk_file(arrays[each.name], chunk, each.block)
            first = np.argwhere(other.reshape(len(status), -1).any(axis=1))[0, 0]
            text = (
                f"does not follow from the scores in {int(other.sum()):,} places, first in "
                f"{_where(store, chunk, int(first))}"
            )
            yield Finding(str(file), text, _again(store, chunk))


def _chosen(store: Store, chunk: Chunk) -> Iterator[Finding]:
    """Yield best scores that are no mean of the candidates that their search chose."""
    arrays = {array.name: array for array in store.arrays}
    names = ("best_index", "best_score", f"mean_test_{store.spec.refit_metric}")
    index, best, means = (store.gather(chunk, store.read(arrays[n], chunk)) for n in names)
    inside = (index >= -1) & (index < store.strategy.n_rows)
    rows = np.where(inside, index, 0)
    reached = means.reshape(*means.shape[:2], -1)[np.arange(len(rows)), rows]
    is_one = np.where(index < 0, np.isnan(best), (reached == best[:, np.newaxis]).any(axis=1))
    wrong = np.flatnonzero(~(inside & is_one))
    if wrong.size:
        text = f"is none of the means of the best candidate in {_where(store, chunk, wrong[0])}"
        yield Finding(
            str(store.chunk_file(arrays["best_score"], chunk)), text, _again(store, chunk)
        )


def _without_values(store: Store, chunk: Chunk, status: NDArray[np.int8]) -> Iterator[Finding]:
    """Yield candidates that are done and were never timed, and partitions without samples."""
    arrays = {array.name: array for array in store.arrays}
    times = arrays["fit_time"]
    for block, rows in enumerate(store.blocks):
        done = status[:, rows] == DONE
        if not done.any():
            continue
        values = store.gather(chunk, store.read(times, chunk, block))
        untimed = done & np.isnan(values).reshape(*done.shape, -1).all(axis=2)
        if untimed.any():
            first = int(np.argwhere(untimed)[0, 0])
            text = (
                f"has nothing of {int(untimed.sum()):,} candidates whose status says done, first "
                f"in {_where(store, chunk, first)}"
            )
            yield Finding(str(store.chunk_file(times, chunk, block)), text, _again(store, chunk))
    for name in ("n_samples", "n_splits"):
        values = store.gather(chunk, store.read(arrays[name], chunk))
        lacking = (status == DONE).any(axis=1) & (values <= 0)
        if lacking.any():
            first = int(np.flatnonzero(lacking)[0])
            text = f"has none in {_where(store, chunk, first)}, whose status says done"
            yield Finding(str(store.chunk_file(arrays[name], chunk)), text, _again(store, chunk))


def _equal(known: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    if known.dtype.kind == "f" or right.dtype.kind == "f":
        return np.asarray((known == right) | (np.isnan(known) & np.isnan(right)))
    return np.asarray(known == right)


def _where(store: Store, chunk: Chunk, position: int) -> str:
    """Return what people call a partition of a result chunk."""
    place = store.grid.reading_order(store.header.chunks, chunk)[position]
    results = store.dataset()
    known = {dim: results[dim].values for dim in store.header.dims if dim in results.coords}
    return describe(partition_labels(known, store.header.dims, place.tolist()))


def _parts(store: Store, found: Verification) -> Iterator[Finding]:
    """Yield parts that are damaged, of another store, or of result chunks that are done."""
    folder = store.run.parts
    if not folder.is_dir():
        return
    grid = store.grid.chunk_grid(store.header.chunks)
    done: dict[Chunk, bool] = {}
    for name in sorted(os.listdir(folder)):
        file, part = folder / name, parse_name(name)
        if part is None or part.store != store.header.id:
            if not found.driver:
                yield Finding(str(file), "is no part of this store", f"{RUN} (it removes it)")
            continue
        found.files += 1
        found.bytes += part.size
        if not is_whole(folder, part):
            if file.exists():
                yield Finding(str(file), "is damaged", f"{RUN}: its unit is done again")
            continue
        chunk = part.unit.chunk
        if not _is_inside(chunk, grid):
            yield Finding(str(file), "is of no result chunk", "delete it")
            continue
        if chunk not in done:
            done[chunk] = _is_done(store, chunk)
        if done[chunk] and not found.driver:
            yield Finding(str(file), "is of a result chunk that is done", f"{RUN} (it removes it)")


def _is_inside(chunk: Chunk, grid: Sequence[int]) -> bool:
    return len(chunk) == len(grid) and all(i < n for i, n in zip(chunk, grid, strict=True))
