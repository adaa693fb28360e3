"""The best models of a store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError
from hpc_sweep.models.demand import Refits
from hpc_sweep.models.kept import KeptModels
from hpc_sweep.models.labels import coordinates_of, find_partition
from hpc_sweep.models.trust import Trust
from hpc_sweep.partitions import describe, partition_labels
from hpc_sweep.store import ModelFiles, Store


class Models:
    """The best models of a store, as `open_models` gives them.

    Attributes
    ----------
    reasons : dict
        By index of a partition: why its best model could not be fitted or stored.
    """

    def __init__(self, store: Store, trust: Trust, warn: Callable[[str], None]) -> None:
        self._store = store
        self.reasons: dict[tuple[int, ...], str] = {}
        files = ModelFiles.of(store)
        self._models = Refits(store) if files is None else KeptModels(files, trust, warn)

    @cached_property
    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Labels along each partition dimension."""
        return coordinates_of(self._store)

    @cached_property
    def _best(self) -> NDArray[np.int64]:
        return np.asarray(self._store.dataset()["best_index"].values)

    def of(self, partitions: NDArray[np.intp]) -> list[Any]:
        """Return the models of some partitions, in their order.

        Where they are fitted again, partitions that lie in one chunk of the data are read at once.

        Parameters
        ----------
        partitions : ndarray of intp, shape (n_partitions, n_dims)
            Which, by their index along each partition dimension.

        Returns
        -------
        list of estimator or None
            Fitted; None where there is no best model (pending, failed or empty), or where it
            could not be fitted to all samples, or stored (`reasons` has why).

        Raises
        ------
        StoreError
            When the data has changed; when a file of models is missing or damaged, or has types
            that nobody trusts.
        """
        partitions = np.asarray(partitions, dtype=np.intp)
        best = np.broadcast_to(self._best[tuple(partitions.T)], len(partitions))
        found: list[Any] = [None] * len(partitions)
        has_model = np.flatnonzero(best >= 0)
        blocks = partitions[has_model] // np.array(self._models.together, dtype=int)
        _, group = np.unique(blocks, axis=0, return_inverse=True)
        group = group.reshape(-1)  # of NumPy 2.0 it had two axes
        for number in range(group.max(initial=-1) + 1):
            rows = has_model[group == number]
            models = self._models.models(partitions[rows], best[rows].tolist())
            for row, (model, reason) in zip(rows, models, strict=True):
                found[row] = model
                if reason:
                    self.reasons[tuple(partitions[row].tolist())] = reason
        return found


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=6)  # where `of` or `load_model` is called


def open_models(
    store: Store, *, trust: Sequence[str] | Trust = (), warn: Callable[[str], None] = _warn
) -> Models:
    """Return the best models of a store; nothing is read before it is asked for.

    Parameters
    ----------
    store : Store
        The store.
    trust : sequence of str, or Trust
        Names of types that stored models may have besides scikit-learn's own; ``joblib`` lets
        pickles be loaded, which run whatever code they have. What the store's own spec trusts
        counts where you ran it: signed by your key, in files that only you may write.
    warn : callable
        Told, once, when stored models are of another version of scikit-learn.

    Raises
    ------
    StoreError
        When the store was made without models.
    """
    if store.spec.output.models == "none":
        raise StoreError(
            f"{store.path} was made with output.models: none. Its best_model and best_param_… say "
            "what to fit; a sweep with output.models: on_demand gives the models back"
        )
    return Models(store, trust if isinstance(trust, Trust) else Trust.of(store, trust), warn)


def load_model(store: str | Path, *, trust: Sequence[str] = (), **labels: Any) -> Any:
    """Return the best model of one partition, fitted on all its samples but those held out.

    After an incremental or Hyperband search it is trained on the blocks that it was trained on.

    It is what scikit-learn's ``GridSearchCV`` has as ``best_estimator_``. With ``output.models:
    on_demand`` parameters, seed and data give it back; with ``skops`` or ``joblib`` it was stored,
    and the data is not needed.

    Parameters
    ----------
    store : path
        A store.
    trust : sequence of str
        As for `open_models`.
    **labels : object
        One label for each partition dimension, such as ``latitude=52.5, longitude=-1.25``.

    Returns
    -------
    estimator
        Fitted.

    Raises
    ------
    StoreError
        When there is no such partition, it has no best candidate, or the data has changed; when
        its file is missing or damaged, or has types that nobody trusts.
    """
    opened = Store.open(store)
    models = open_models(opened, trust=trust)
    partition = find_partition(models.coordinates, labels)
    (model,) = models.of(partition[np.newaxis])
    if model is None:
        name = describe(partition_labels(models.coordinates, opened.header.dims, partition))
        why = models.reasons.get(tuple(partition.tolist()))
        if why is not None:
            raise StoreError(f"{name}: its best model cannot be had: {why}")
        raise StoreError(f"{name} has no best model (pending, failed or empty)")
    return model
