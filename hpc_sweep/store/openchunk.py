"""A result chunk while it is written: what the store has of it, joined with its parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, PENDING
from hpc_sweep.errors import StoreError
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store.parts import Part
from hpc_sweep.store.ranks import best, mean_and_std, partition_status, rank
from hpc_sweep.store.refits import Refits, texts
from hpc_sweep.store.store import Store
from hpc_sweep.strategies import Array

COUNTS = ("n_samples", "n_splits", "n_test_samples", "n_holdout")
"""Arrays of a partition that all its parts tell, and in which the larger number is right."""

Put = Callable[[str, NDArray[Any], int], None]


@dataclass(frozen=True)
class _Taken:
    """What is taken of a part: cells that were pending or failed, never one that is done."""

    rows: slice
    columns: slice
    cells: NDArray[np.bool_]
    partitions: NDArray[np.bool_]
    part: Part


@dataclass(frozen=True)
class Derivation:
    """An array that follows from others, along the partitions of a result chunk.

    Attributes
    ----------
    name : str
        Which.
    block : int
        Which of `Store.blocks`, of arrays along the candidates.
    known, right : ndarray
        As the store has it, and as it should be.
    """

    name: str
    block: int
    known: NDArray[Any]
    right: NDArray[Any]


class OpenChunk:
    """One result chunk while it is written; arrays have its partitions in reading order.

    Parameters
    ----------
    store, chunk
        Which.
    before : ndarray of int8, shape (n_partitions, n_rows)
        Its status.
    parts : iterable of (Unit, Part)
        What is new.
    """

    def __init__(
        self,
        store: Store,
        chunk: Chunk,
        before: NDArray[np.int8],
        parts: Iterable[tuple[Unit, Part]],
    ) -> None:
        self._store = store
        self._chunk = chunk
        self._before = before
        self._status = before.copy()
        self._taken = [self._take(unit, part) for unit, part in parts]
        self._arrays = {array.name: array for array in store.arrays}

    def check(self, rows: slice = slice(None)) -> None:
        """Raise where something is lacking of some partitions."""
        lacking = int((~self._store.settled(self._status[rows])).sum())
        if lacking:
            raise StoreError(f"result chunk {self._chunk} has {lacking} cells that no part covers")

    def _take(self, unit: Unit, part: Part) -> _Taken:
        """Choose what is taken of a part, and note it in the status."""
        strategy = self._store.strategy
        rows, columns = slice(unit.start, unit.stop), strategy.rows(unit.first, unit.last)
        status = self._status[rows, columns]
        done, also_done = status == DONE, part.status == DONE
        if not strategy.is_parted:  # what belongs together is taken together
            done, also_done = (each.any(axis=1, keepdims=True) for each in (done, also_done))
        take = ~done | also_done  # a late failure never lowers a done
        cells = take | (status == PENDING)
        status[cells] = part.status[cells]
        # a part without candidates has nothing but refits
        whole = take[:, 0] if unit.n_cells else np.zeros(len(status), dtype=bool)
        return _Taken(rows, columns, cells, whole, part)

    @property
    def states(self) -> NDArray[np.int8]:
        """The state of each partition."""
        return partition_status(self._status[:, self._store.strategy.in_spec])

    def derived(self, put: Put) -> dict[str, NDArray[Any]]:
        """Return the arrays without candidates, ranks, and what a strategy is asked about.

        Parameters
        ----------
        put : callable
            Given what is new of each block: name, values, block.
        """
        store, arrays = self._store, self._store.arrays
        values = {each.name: self._joined(each) for each in arrays if self._is_common(each)}
        present = _present(store, values)
        new = self._new(values)
        means: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in store.spec.metrics}
        for block, is_new in enumerate(new):
            found = self._block(block, present) if is_new else {}
            for name in found:
                put(name, found[name], block)
            for metric, known in means.items():
                name = f"mean_test_{metric}"
                known.append(found[name] if is_new else self._known(self._arrays[name], block))
            if not store.strategy.is_parted:  # there is one block
                values.update(found)
        values.update(self._ranked(values, {m: np.concatenate(k, 1) for m, k in means.items()}))
        values["revision"] = np.full(len(self._status), store.header.revision)
        values["partition_status"] = self.states
        return values

    def derivations(self, *, ranked: bool) -> Iterator[Derivation]:
        """Yield what follows from other arrays, as the store has it and as it should be.

        Parameters
        ----------
        ranked : bool
            Whether ranks and best candidates are of what the store has now.
        """
        arrays = self._store.arrays
        values = {each.name: self._joined(each) for each in arrays if self._is_common(each)}
        means = yield from self._means(values)
        if ranked:
            values.update(self._ranked(values, means))
            values["partition_status"] = self.states
            for array in arrays:
                if array.name in values and _is_choice(array) and not self._is_common(array):
                    yield from self._choices(array, values[array.name])

    def _means(
        self, values: dict[str, NDArray[Any]]
    ) -> Generator[Derivation, None, dict[str, NDArray[np.float64]]]:
        """Yield means and deviations; return the means of all candidates by metric."""
        store, present = self._store, _present(self._store, values)
        means: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in store.spec.metrics}
        for block, rows in enumerate(store.blocks):
            found = self._block(block, present) if self._before[:, rows].any() else {}
            for name in found:
                if name.startswith(("mean_test_", "std_test_")):
                    yield Derivation(name, block, self._read(name, block), found[name])
            for metric, known in means.items():
                name = f"mean_test_{metric}"
                known.append(found[name] if found else self._known(self._arrays[name], block))
            if not store.strategy.is_parted:  # there is one block
                values.update(found)
        return {metric: np.concatenate(known, axis=1) for metric, known in means.items()}

    def _choices(self, array: Array, right: NDArray[Any]) -> Iterator[Derivation]:
        """Yield ranks or what the best candidates are."""
        if not self._store.has_rows(array):
            yield Derivation(array.name, 0, self._known(array, 0), right)
            return
        for block, rows in enumerate(self._store.blocks):
            yield Derivation(array.name, block, self._known(array, block), right[:, rows])

    def write(self, *, whole: bool) -> NDArray[np.intp]:
        """Write what changes, and return which partitions lack a refit; nothing counts if any.

        What is not whole is written all the same: it is folded again.
        """
        store, arrays = self._store, self._store.arrays
        values = self.derived(self._write)
        refits = Refits(store, self._chunk, values, self._known_whole)
        for taken in self._taken:
            refits.take(taken.rows, taken.part.refit)
        lacking = refits.finish()
        if lacking.size and whole:
            return lacking
        values.update(refits.arrays)
        refits.write_models()
        if lacking.size:  # the next fold is to come, though no cell is set back, and to know these
            values["revision"][:] = -1
            if not store.strategy.chooses:
                values["best_index"][lacking] = -1
        for array in arrays:
            if array.name.startswith("rank_"):
                self._write_blocks(array.name, values[array.name])
            elif not store.has_rows(array):
                self._write(array.name, values[array.name])
        for block in np.flatnonzero(self._new(values)).tolist():
            self._write("status", self._status[:, store.blocks[block]], block)
        return np.array([], dtype=np.intp)

    def _known_whole(self, name: str) -> NDArray[Any]:
        return self._known(self._arrays[name], 0)

    def _is_common(self, array: Array) -> bool:
        """Return whether an array without candidates is made of parts."""
        found = array.is_found or array.name in COUNTS
        return found and not self._store.has_rows(array)

    def _new(self, values: Mapping[str, NDArray[Any]]) -> list[bool]:
        """Return which blocks there is something new of."""
        present = _present(self._store, values)
        return [self._is_new(rows, present) for rows in self._store.blocks]

    def _is_new(self, rows: slice, present: NDArray[np.bool_]) -> bool:
        """Return whether candidates have new results, or other means for more splits."""
        if (self._before[:, rows] != self._status[:, rows]).any():
            return True
        has_some = bool(self._before[:, rows].any())
        if not has_some:
            return False
        known = {name: self._read(name) for name in COUNTS if name in self._arrays}
        return not np.array_equal(present, _present(self._store, known))

    def _block(self, block: int, present: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return all that is known of some candidates, but for ranks and status."""
        store, found = self._store, {}
        names = [f"test_{metric}" for metric in store.spec.metrics]
        for array in store.arrays:
            raw = array.name in (*names, "fit_time", "score_time", "message") or array.is_found
            if raw and store.has_rows(array):
                found[array.name] = self._joined(array, block)
        for metric in store.spec.metrics:
            scores = found[f"test_{metric}"]
            shape = scores.shape[:-1]
            flat = scores.reshape(shape[0], -1, scores.shape[-1])
            mean, std = mean_and_std(flat, present)
            found[f"mean_test_{metric}"] = mean.reshape(shape)
            found[f"std_test_{metric}"] = std.reshape(shape)
        return found

    def _joined(self, array: Array, block: int = 0) -> NDArray[Any]:
        """Return an array as the store has it, with what is taken of the parts."""
        values = self._known(array, block)
        place = self._store.blocks[block]
        for taken in self._taken:
            new = _content(taken.part, array)
            rows = values[taken.rows]
            if array.name in COUNTS:
                values[taken.rows] = np.maximum(rows, new)
            elif not self._store.has_rows(array):
                rows[taken.partitions] = new[taken.partitions]
            else:
                first = max(taken.columns.start, place.start)
                last = max(first, min(taken.columns.stop, place.stop))
                theirs = slice(first - taken.columns.start, last - taken.columns.start)
                cells = taken.cells[:, theirs]
                rows[:, first - place.start : last - place.start][cells] = new[:, theirs][cells]
        return values

    def _known(self, array: Array, block: int) -> NDArray[Any]:
        """Return an array as the store has it; the fill where it has nothing."""
        store, rows = self._store, self._store.blocks[block]
        before = self._before[:, rows] if store.has_rows(array) else self._before
        if before.any():
            return self._read(array.name, block)
        lengths = [store.lengths[dim] for dim in array.dims]
        if store.has_rows(array):
            lengths[0] = rows.stop - rows.start
        dtype = object if array.dtype == "str" else array.dtype
        return np.full((len(before), *lengths), array.fill, dtype=dtype)

    def _ranked(
        self, values: Mapping[str, NDArray[Any]], means: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[Any]]:
        """Return ranks and the best candidate, of those that the spec asks for."""
        found: dict[str, NDArray[Any]] = {}
        store, strategy = self._store, self._store.strategy
        took_part = strategy.took_part(values)
        for metric, mean in means.items():
            asked = strategy.in_spec.reshape(-1, *(1 for _ in mean.shape[2:]))
            counted = np.where(asked, mean, np.nan).reshape(len(mean), -1)
            ranks = rank(counted)
            if metric == store.spec.refit_metric and not strategy.chooses:
                index = best(ranks, counted)
                found["best_index"] = index
                rows = np.arange(len(mean))
                found["best_score"] = np.where(index >= 0, counted[rows, index], np.nan)
            has_any = ~np.isnan(counted).all(axis=1).reshape(-1, *(1 for _ in mean.shape[1:]))
            ranked = has_any & asked & (True if took_part is None else took_part)
            found[f"rank_test_{metric}"] = np.where(ranked, ranks.reshape(mean.shape), -1)
        index = found["best_index"] if "best_index" in found else values["best_index"]
        return {**found, **strategy.best(values, index)}

    def _read(self, name: str, block: int = 0) -> NDArray[Any]:
        return self._store.gather(
            self._chunk, self._store.read(self._arrays[name], self._chunk, block)
        )

    def _write(self, name: str, values: NDArray[Any], block: int = 0) -> None:
        scattered = self._store.scatter(self._chunk, values)
        self._store.write(self._arrays[name], self._chunk, scattered, block)

    def _write_blocks(self, name: str, values: NDArray[Any]) -> None:
        """Write all candidates that there is something of."""
        for block, rows in enumerate(self._store.blocks):
            if self._status[:, rows].any():
                self._write(name, values[:, rows], block)


def _is_choice(array: Array) -> bool:
    """Return whether an array says what is made of all candidates of a partition."""
    return array.name == "partition_status" or array.name.startswith(("rank_", "best_"))


def _content(part: Part, array: Array) -> NDArray[Any]:
    """Return what a part has of an array."""
    if array.name == "message":
        return texts(part.status.shape, part.messages)
    if array.name in part.more:
        return part.more[array.name]
    if array.name == "n_holdout" and part.refit is not None:
        return part.refit.n_samples
    if array.name.startswith("test_"):
        return part.scores[array.name.removeprefix("test_")]
    found: NDArray[Any] = getattr(part, array.name)
    return found


def _present(store: Store, values: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Return which splits each partition has, shape (n_partitions, n_splits)."""
    if "n_test_samples" in values:
        return np.asarray(values["n_test_samples"] > 0)
    return np.asarray(np.arange(store.header.n_splits) < values["n_splits"][:, np.newaxis])
