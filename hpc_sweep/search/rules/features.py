"""Transformers whose fits differ in what they keep only: best features, first components."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from scipy.sparse import issparse

from hpc_sweep.search.rules.base import Data
from hpc_sweep.search.rules.views import Views

_SMALL = 500
"""Samples and features up to which ``svd_solver="auto"`` never depends on the components."""

_HELD = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_")


class Selections(Views):
    """Shares the scores of features over how many of them are kept."""

    kinds = frozenset(
        f"sklearn.Select{name}" for name in ("KBest", "Percentile", "Fpr", "Fdr", "Fwe")
    )
    varied = ("k", "percentile", "alpha")

    def is_part(self, estimator: Any, data: Data) -> bool:
        """Return whether there are as many features as are asked for: else it warns."""
        k = getattr(estimator, "k", "all")
        return isinstance(k, str) or bool(k <= data.X_train.shape[1])

    def size(self, estimator: Any) -> Any:
        """Return nothing: the scores are the same."""
        return 0

    def cut(self, view: Any, data: Data, transformed: Any) -> Any:
        """Return the features that are kept."""
        return view.transform(data.X_train)


class Components(Views):
    """Shares the decomposition of `PCA` over ``n_components``, where it is a full one."""

    kinds = frozenset({"sklearn.PCA"})
    varied = ("n_components",)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether all components are found, and none is found by chance."""
        n_components = estimator.n_components
        is_number = n_components is None or isinstance(n_components, Integral)
        return is_number and estimator.svd_solver in ("auto", "full", "covariance_eigh")

    def is_part(self, estimator: Any, data: Data) -> bool:
        """Return whether there are so many components, and the solver is the same for all."""
        if issparse(data.X_train):
            return False
        n_samples, n_features = shape = data.X_train.shape
        is_tall = n_features <= 2 * _SMALL and n_samples >= 10 * n_features
        if estimator.svd_solver == "auto" and not (is_tall or max(shape) <= _SMALL):
            return False
        return estimator.n_components is None or 1 <= estimator.n_components <= min(shape)

    def size(self, estimator: Any) -> Any:
        """Return the number of components."""
        return estimator.n_components or np.inf

    def fit(self, estimator: Any, data: Data) -> Any:
        """Return the training samples in all components."""
        estimator.n_components = None
        return estimator.fit_transform(data.X_train)

    def cut(self, view: Any, data: Data, transformed: Any) -> Any:
        """Keep the first components; what is left of the variance is noise."""
        n_all = len(view.components_)
        kept = n_all if view.n_components is None else view.n_components
        view.n_components_ = kept
        view.noise_variance_ = np.mean(view.explained_variance_[kept:]) if kept < n_all else 0.0
        for name in _HELD:
            setattr(view, name, np.array(getattr(view, name)[:kept]))
        if view._fit_svd_solver == "full":
            return transformed[:, :kept]
        return view.transform(data.X_train)
