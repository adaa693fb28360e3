"""Best models from the files beside a store; the data is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, UntrustedError, listed
from hpc_sweep.models.trust import Trust
from hpc_sweep.plan import Chunk
from hpc_sweep.serialization import from_bytes
from hpc_sweep.store import ModelFile, ModelFiles
from hpc_sweep.versions import differences

MOST_OPEN = 64
"""Indices of so many files are kept in memory."""


class KeptModels:
    """Loads models; each file is opened once.

    Parameters
    ----------
    files : ModelFiles
        Those of a store.
    trust : Trust
        What may be loaded besides scikit-learn's own types.
    warn : callable
        Told, once, of models of another version of scikit-learn.
    """

    def __init__(self, files: ModelFiles, trust: Trust, warn: Callable[[str], None]) -> None:
        self._files = files
        self._trust = trust
        self._warn = warn
        self._opened: dict[Chunk, ModelFile] = {}
        self._told: set[tuple[str, ...]] = set()

    @property
    def together(self) -> tuple[int, ...]:
        """Lengths of blocks of partitions that `models` is best asked for at once."""
        return self._files.store.header.chunks

    def models(
        self, partitions: NDArray[np.intp], best: Sequence[int]
    ) -> Iterator[tuple[Any, str]]:
        """Yield the models of some partitions of one result chunk, or None and why.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n, n_dims)
            In one result chunk.
        best : sequence of int
            Their ``best_index``.

        Raises
        ------
        StoreError
            When the file is missing or damaged, or has what nobody trusts.
        """
        store = self._files.store
        chunks = np.array(store.header.chunks, dtype=np.intp)
        chunk = tuple((partitions[0] // chunks).tolist())
        file = self._open(chunk)
        for partition, position, index in zip(
            partitions, store.positions(chunk, partitions).tolist(), best, strict=True
        ):
            if file.candidates()[position] != index:
                raise StoreError(
                    f"{file.path} has no model of the best candidate of partition "
                    f"{partition.tolist()}; a run that goes on may be about to write it, else "
                    "run the sweep's command again"
                )
            if file.is_empty(position):
                yield None, self._why(partition)
                continue
            self._tell(file.versions(position))
            (content,) = file.read([position])
            types, where = self._trust.types(file.doubt), f"model {position} of {file.path}"
            try:
                yield from_bytes(content, self._files.kind, types, where), ""
            except UntrustedError as error:
                raise UntrustedError(f"{error}{self._trust.told(file.doubt)}") from None

    def _open(self, chunk: Chunk) -> ModelFile:
        if chunk not in self._opened:
            while len(self._opened) >= MOST_OPEN:
                del self._opened[next(iter(self._opened))]
            self._opened[chunk] = self._files.open(chunk)
        return self._opened[chunk]

    def _why(self, partition: NDArray[np.intp]) -> str:
        place = dict(zip(self._files.store.header.dims, partition.tolist(), strict=True))
        return str(self._files.store.dataset()["refit_message"].isel(place).values)

    def _tell(self, versions: Mapping[str, str]) -> None:
        made = {name: version for name, version in versions.items() if name == "scikit-learn"}
        different = tuple(differences(made))
        if different and different not in self._told:
            self._told.add(different)
            self._warn(
                f"models of {self._files.store.path} are of another version: here is "
                f"{listed(different)}; they may fail or predict something else. Use that version, "
                "or fit them again: output.models: on_demand"
            )
