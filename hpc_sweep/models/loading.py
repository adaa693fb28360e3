"""The best models of a store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError
from hpc_sweep.models.demand import Refits
from hpc_sweep.models.labels import coordinates_of, find_partition
from hpc_sweep.partitions import describe, partition_labels
from hpc_sweep.store import Store


class Models:
    """The best models of a store, as `open_models` gives them."""

    def __init__(self, store: Store, trust: Sequence[str] = ()) -> None:
        self._store = store
        self._trust = tuple(trust)

    @cached_property
    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Labels along each partition dimension."""
        return coordinates_of(self._store)

    @cached_property
    def _best(self) -> NDArray[np.int64]:
        return np.asarray(self._store.dataset()["best_index"].values)

    @cached_property
    def _refits(self) -> Refits:
        return Refits(self._store)

    def of(self, partitions: NDArray[np.intp]) -> list[Any]:
        """Return the models of some partitions, in their order.

        Partitions that lie in one chunk of the data are read at once.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            Which, by their index along each partition dimension.

        Returns
        -------
        list of estimator or None
            Fitted; None where there is no best model: pending, failed or empty.

        Raises
        ------
        StoreError
            When the data has changed.
        """
        partitions = np.asarray(partitions, dtype=np.intp)
        best = np.broadcast_to(self._best[tuple(partitions.T)], len(partitions))
        found: list[Any] = [None] * len(partitions)
        has_model = np.flatnonzero(best >= 0)
        read_chunks = partitions[has_model] // np.array(self._store.header.read_chunks, dtype=int)
        _, group = np.unique(read_chunks, axis=0, return_inverse=True)
        group = group.reshape(-1)  # of NumPy 2.0 it had two axes
        for number in range(group.max(initial=-1) + 1):
            rows = has_model[group == number]
            models = self._refits.models(partitions[rows], best[rows].tolist())
            for row, model in zip(rows, models, strict=True):
                found[row] = model
        return found


def open_models(store: Store, *, trust: Sequence[str] = ()) -> Models:
    """Return the best models of a store; nothing is read before it is asked for.

    Parameters
    ----------
    store : Store
        The store.
    trust : sequence of str
        What may be loaded besides scikit-learn's own types.
    """
    return Models(store, trust)


def load_model(store: str | Path, *, trust: Sequence[str] = (), **labels: Any) -> Any:
    """Return the best model of one partition, fitted on all its samples but those held out.

    After an incremental or Hyperband search it is trained on the blocks that it was trained on.

    Nothing of it is stored: parameters, seed and data give it back. It is what
    scikit-learn's ``GridSearchCV`` has as ``best_estimator_``.

    Parameters
    ----------
    store : path
        A store.
    trust : sequence of str
        What may be loaded besides scikit-learn's own types.
    **labels : object
        One label for each partition dimension, such as ``latitude=52.5, longitude=-1.25``.

    Returns
    -------
    estimator
        Fitted.

    Raises
    ------
    StoreError
        When there is no such partition, it has no best candidate, or the data has changed.
    """
    opened = Store.open(store)
    models = open_models(opened, trust=trust)
    partition = find_partition(models.coordinates, labels)
    (model,) = models.of(partition[np.newaxis])
    if model is None:
        name = describe(partition_labels(models.coordinates, opened.header.dims, partition))
        raise StoreError(f"{name} has no best model (pending, failed or empty)")
    return model
