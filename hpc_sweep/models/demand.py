"""Best models fitted again from parameters, seed and data, as the sweep fits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hpc_sweep.candidates import Candidate
from hpc_sweep.errors import StoreError
from hpc_sweep.search import refitted
from hpc_sweep.source import Samples
from hpc_sweep.store import Store
from hpc_sweep.work import Bench, open_bench, train_again


class Refits:
    """Fits best models again; needs the data that the store was made of.

    Parameters
    ----------
    store : Store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _bench(self) -> Bench:
        store = self._store
        return open_bench(str(store.path), store.spec.model_dump_json(), store.header.revision)

    @cached_property
    def _results(self) -> Any:
        return self._store.dataset()

    @property
    def together(self) -> tuple[int, ...]:
        """Lengths of blocks of partitions that `models` is best asked for at once."""
        return self._store.header.read_chunks

    def models(
        self, partitions: NDArray[np.intp], best: Sequence[int]
    ) -> Iterator[tuple[Any, str]]:
        """Yield the models of some partitions of one block, or None and why; they are read at once.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n, n_dims)
            In one chunk of the source.
        best : sequence of int
            Their ``best_index``.

        Raises
        ------
        StoreError
            When the data has changed.
        """
        strategy = self._bench.strategy
        if strategy.on_blocks:
            for partition, index in zip(partitions, best, strict=True):
                yield self._trained(partition, index), ""
            return
        samples = self._bench.source.read(partitions)
        for partition, index, given in zip(partitions, best, samples, strict=True):
            yield self._fitted(partition, self._candidate(partition, index), given)

    def _fitted(
        self, partition: NDArray[np.intp], candidate: Candidate, samples: Samples
    ) -> tuple[Any, str]:
        bench = self._bench
        params = bench.params(candidate, bench.seed(partition))
        try:
            return refitted(bench.models[candidate.model], params, samples.given), ""
        except Exception as error:
            return None, f"{candidate.json}, {type(error).__name__}: {error}"

    def _trained(self, partition: NDArray[np.intp], index: int) -> Any:
        """Train a candidate on the blocks that it has seen."""
        bench, candidate = self._bench, self._candidate(partition, index)
        if not bench.strategy.trains:
            raise StoreError(
                f"{candidate.model_name} is dask-ml's, which a whole cluster fits: fit it on a "
                f"collection of your own, with the parameters {dict(candidate.params)}"
            )
        params = bench.params(candidate, bench.seed(partition))
        model = bench.models[candidate.model]
        estimator = clone(model.estimator).set_params(**clone(params, safe=False))
        calls = int(self._results["partial_fit_calls"].isel(self._place(partition))[index])
        return train_again(bench, partition, estimator, calls)

    def _candidate(self, partition: NDArray[np.intp], index: int) -> Candidate:
        place = self._place(partition)
        return self._bench.strategy.candidate(
            lambda name: self._results[name].isel(place).values, index
        )

    def _place(self, partition: NDArray[np.intp]) -> Mapping[str, int]:
        return dict(zip(self._store.header.dims, partition.tolist(), strict=True))
