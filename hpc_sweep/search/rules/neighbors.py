"""Nearest neighbours: found once for the largest number of them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from hpc_sweep.search.copies import identity, kind, leaves_input
from hpc_sweep.search.rules.base import Data, Fitted, Rule
from hpc_sweep.search.rules.views import fits_once, kinds_of

Array = NDArray[Any]

_KINDS = kinds_of("KNeighbors")
_NORMS = frozenset({"minkowski", "euclidean", "l2", "manhattan", "cityblock", "l1", "chebyshev"})


class Neighbors(Rule):
    """Shares index and queries over ``n_neighbors`` and ``weights``.

    The k nearest are the beginning of the nearest, in the same order, as long as distances
    differ by more than rounding could. Samples where two do not are looked up again for each
    candidate, since then the order depends on how many were asked for.
    """

    def matches(self, estimator: Any) -> Hashable | None:
        """Return how neighbours are found."""
        if kind(estimator) not in _KINDS or not leaves_input(estimator):
            return None
        if estimator.metric_params is not None or not fits_once(estimator):
            return None
        if not isinstance(estimator.metric, str) or estimator.metric not in _NORMS:
            return None
        if estimator.metric == "minkowski" and estimator.p < 1:
            return None
        return identity(estimator, without=("n_neighbors", "weights"))

    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield estimators that know the neighbours of the test samples."""
        if not (isinstance(data.X_train, np.ndarray) and isinstance(data.X_test, np.ndarray)):
            return
        n_samples = len(data.X_train)
        by_index: dict[bool, list[int]] = {True: [], False: []}
        for position, each in enumerate(estimators):
            if each.n_neighbors <= n_samples:
                is_many = each.algorithm == "auto" and each.n_neighbors >= n_samples // 2
                by_index[is_many].append(position)
        for positions in by_index.values():
            yield from self._shared([(each, estimators[each]) for each in positions], data)

    def _shared(self, members: Sequence[tuple[int, Any]], data: Data) -> Iterator[Fitted]:
        """Yield the members of a group for which scikit-learn takes the same index."""
        if len(members) < self.least:
            return
        start = len(data.warned)
        begin = time.perf_counter()
        largest = max((each for _, each in members), key=lambda each: int(each.n_neighbors))
        data.fit(largest)
        fitted = time.perf_counter()
        if largest._fit_method == "brute" and is_classifier(largest):
            # majorities are counted without a list of neighbours
            members = [(i, each) for i, each in members if each.weights != "uniform"]
        if len(members) < self.least or len(data.warned) > start:
            return
        nearest = Nearest(largest, data.X_train, data.X_test)
        nearest.find(data.X_test)
        fit_share = (fitted - begin) / len(members)
        score_share = (time.perf_counter() - fitted) / len(members)
        for position, each in members:
            view = copy.copy(largest)
            view.n_neighbors, view.weights = each.n_neighbors, each.weights
            view.kneighbors = nearest.among(each.n_neighbors)
            yield Fitted(position, view, fit_share, score_seconds=score_share, warned=())


class Nearest:
    """Neighbours of samples, found once.

    Parameters
    ----------
    index : estimator
        Fitted; no more neighbours than its own number are asked for.
    X_train : ndarray, shape (n_samples, n_features)
        What it was fitted on.
    X_test : ndarray, shape (n_queries, n_features)
        Samples whose neighbours are remembered, as those of `X_train` are. All others are
        looked up.
    """

    def __init__(self, index: Any, X_train: Array, X_test: Array) -> None:
        self._index = index
        self._most = min(int(index.n_neighbors) + 1, index.n_samples_fit_)
        self._known = (X_train, X_test)
        self._found: dict[int, tuple[Array, Array, Array]] = {}

    def among(self, n_neighbors: int) -> Callable[..., Any]:
        """Return what stands in for ``kneighbors`` of an estimator."""

        def kneighbors(
            X: Any = None, n_neighbors: int = n_neighbors, return_distance: bool = True
        ) -> Any:
            if not any(X is known for known in self._known) or n_neighbors > self._most:
                return self._index.kneighbors(X, n_neighbors, return_distance)
            found = self._first(X, n_neighbors)
            return found if return_distance else found[1]

        return kneighbors

    def find(self, X: Array) -> tuple[Array, Array, Array]:
        """Return distances and indices, nearest first, and how many come before a tie."""
        if id(X) not in self._found:
            distances, indices = self._index.kneighbors(X, self._most)
            nearer, farther = distances[:, :-1], distances[:, 1:]
            is_clear = (farther - nearer) * (farther + nearer) > self._rounding(X)
            is_clear = np.column_stack([is_clear, np.zeros(len(X), dtype=bool)])
            self._found[id(X)] = distances, indices, np.argmin(is_clear, axis=1)
        return self._found[id(X)]

    def _first(self, X: Array, n_neighbors: int) -> tuple[Array, Array]:
        """Return distances and indices of the first neighbours, shape (n_queries, n_neighbors)."""
        distances, indices, n_clear = self.find(X)
        first = distances[:, :n_neighbors].copy(), indices[:, :n_neighbors].copy()
        is_tied = n_clear < min(n_neighbors, self._most - 1)
        if not is_tied.any():
            return first
        if self._index._fit_method == "brute":  # distances of a sample depend on the others
            distances, indices = self._index.kneighbors(X, n_neighbors)
            return distances, indices
        for values, found in zip(
            first, self._index.kneighbors(X[is_tied], n_neighbors), strict=True
        ):
            values[is_tied] = found
        return first

    def _rounding(self, X: Array) -> float:
        """Return by how much squares of distances may be wrong, in any norm from p = 1 on.

        A squared distance of two samples is the sum of about as many products as there are
        features, each at most the square of the samples' lengths; no norm is longer than p = 1.
        """
        longest = sum(
            float(np.abs(each, dtype=np.float64).sum(axis=1).max()) for each in (X, self._known[0])
        )
        products = 8 * (int(X.shape[1]) + 4)
        return products * float(np.finfo(np.float64).eps) * longest * longest
