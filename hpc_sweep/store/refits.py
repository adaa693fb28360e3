"""What a result chunk has of its best candidates, fitted again: joined from store and parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.linear import linear_models
from hpc_sweep.plan import Chunk
from hpc_sweep.store.layout import refit_arrays
from hpc_sweep.store.modelfile import SIZE, Kept, ModelFile
from hpc_sweep.store.modelfiles import ModelFiles
from hpc_sweep.store.parts import RefitPart
from hpc_sweep.store.store import Store

FROM_FILE, FROM_NOWHERE = -1, -2

HELD_BYTES = 64_000_000
"""So many bytes of models are copied at once from the file to the one that replaces it."""


class Refits:
    """The refits of a result chunk while it is written; all in reading order.

    Parameters
    ----------
    store, chunk
        Which.
    values : mapping of str to ndarray
        ``best_index`` and the like, as they are going to be.
    known : callable
        Gives an array as the store has it, by name.
    """

    def __init__(
        self,
        store: Store,
        chunk: Chunk,
        values: Mapping[str, NDArray[Any]],
        known: Callable[[str], NDArray[Any]],
    ) -> None:
        self._store, self._chunk, self._values = store, chunk, values
        self._fills = {array.name: array.fill for array in refit_arrays(store.strategy)}
        self.arrays = {name: known(name) for name in self._fills}
        self._of = known("best_index").copy()  # whose these are
        self._files = ModelFiles.of(store)
        self._file: ModelFile | None = None
        self._source = np.full(len(self._of), FROM_FILE)
        self._picked = np.arange(len(self._of))
        self._parts: list[RefitPart] = []
        if self._files is not None:
            self._file = self._files.opened(chunk)
            has = -1 if self._file is None else self._file.candidates()
            self._of[self._of != has] = -1

    def take(self, rows: slice, part: RefitPart | None) -> None:
        """Take what a part has of the best candidates."""
        if part is None or (self._files is not None and part.models is None):
            return
        index = self._values["best_index"]
        here = np.flatnonzero((part.index == index[rows]) & (part.index >= 0))
        place = here + rows.start
        failed = np.array([row in part.messages for row in here.tolist()], dtype=bool)
        better = (self._of[place] != index[place]) | ~failed  # no late failure replaces anything
        here, place = here[better], place[better]
        self._of[place] = index[place]
        for metric, scores in part.scores.items():
            if f"holdout_{metric}" in self.arrays:
                self.arrays[f"holdout_{metric}"][place] = scores[here]
        for name, values in part.arrays.items():
            self.arrays[name][place] = values[here]
        if "refit_message" in self.arrays:
            self.arrays["refit_message"][place] = texts(part.index.shape, part.messages)[here]
        self._source[place], self._picked[place] = len(self._parts), here
        self._parts.append(part)

    def finish(self) -> NDArray[np.intp]:
        """Forget what is of other candidates, and return which partitions lack a refit."""
        index = self._values["best_index"]
        other = self._of != index
        for name, values in self.arrays.items():
            values[other] = self._fills[name]
        for name in {"coef", "intercept"} & {*self.arrays}:
            self.arrays[name][~self._linear()] = np.nan
        self._source[other | (index < 0)] = FROM_NOWHERE
        return np.flatnonzero(other & (index >= 0) & self._wanted())

    def _wanted(self) -> NDArray[np.bool_]:
        """Return which partitions have something to be known by a refit."""
        if self._files is not None:
            return np.ones(len(self._of), dtype=bool)
        wanted = np.zeros(len(self._of), dtype=bool)
        if self._store.holds_out:
            wanted |= self._values["n_holdout"] > 0
        return wanted | self._linear()

    def _linear(self) -> NDArray[np.bool_]:
        """Return which partitions' best model is one with coefficients."""
        names = self._store.strategy.model_names
        linear = [names[model] for model in linear_models(self._store.spec)]
        return np.isin(self._values["best_model"].astype(str), linear)

    def write_models(self) -> None:
        """Write the file of models, where the store keeps them and it changes."""
        if self._files is None:
            return
        there = self._source == FROM_FILE
        has = np.full(len(there), -1) if self._file is None else self._file.candidates()
        if self._file is not None and (there == (has >= 0)).all() and not (self._source >= 0).any():
            return
        self._files.write(self._chunk, [*self._from_file(), *self._from_parts()])

    def _from_file(self) -> Iterator[Kept]:
        """Yield the models that the file has already, some at a time."""
        file = self._file
        if file is None:
            return
        there = np.flatnonzero(self._source == FROM_FILE)
        group = np.cumsum(file.index[there, SIZE]) // HELD_BYTES
        for number in np.unique(group):
            rows = there[group == number]
            versions = [file.versions(row) for row in rows.tolist()]
            content = functools.partial(file.read, rows.tolist())
            yield Kept(rows, np.arange(len(rows)), self._of[rows], versions, content)

    def _from_parts(self) -> Iterator[Kept]:
        """Yield the models that are new, part by part."""
        for number, part in enumerate(self._parts):
            rows = np.flatnonzero(self._source == number)
            if rows.size and part.models is not None:
                versions = [part.versions] * len(rows)
                yield Kept(rows, self._picked[rows], self._of[rows], versions, part.models)


def texts(shape: tuple[int, ...], messages: Mapping[Any, str]) -> NDArray[Any]:
    """Return messages as an array, empty where there is none."""
    found = np.full(shape, "", dtype=object)
    for cell, text in messages.items():
        # bytes of file names that are no Unicode cannot be stored
        found[cell] = text.encode("utf-8", "backslashreplace").decode()
    return found
