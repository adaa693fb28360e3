"""What the peers' workers do: search one pixel with scikit-learn, or the bare loop.

Workers import this file: it loads nothing but scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, StratifiedKFold

Array = NDArray[np.float64]
Pixels = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Search:
    """A grid search.

    Attributes
    ----------
    estimator : estimator
        Unfitted.
    param_grid : mapping
        Parameters to try.
    cv : int
        Number of folds.
    scoring : str
        ``r2`` or ``accuracy``.
    """

    estimator: Any
    param_grid: Mapping[str, list[Any]]
    cv: int
    scoring: str = "r2"

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """The candidates in scikit-learn's order."""
        return list(ParameterGrid(dict(self.param_grid)))

    def arguments(self) -> dict[str, Any]:
        """Return what scikit-learn's and dask-ml's searches take; nothing is refitted."""
        return {
            "estimator": self.estimator,
            "param_grid": dict(self.param_grid),
            "cv": self.cv,
            "scoring": self.scoring,
            "refit": False,
        }


def search_pixel(X: Array, y: Array, search: Search) -> Array:
    """Search one pixel with scikit-learn; shape (n_candidates, n_splits)."""
    return split_scores(GridSearchCV(**search.arguments()).fit(X, y).cv_results_, search.cv)


def split_scores(results: Mapping[str, Any], n_splits: int) -> Array:
    """Return test scores out of ``cv_results_``, shape (n_candidates, n_splits)."""
    return np.stack([results[f"split{i}_test_score"] for i in range(n_splits)], axis=1)


def bare_loop(pixels: Pixels, search: Search) -> list[Array]:
    """Return the scores of some pixels, each of shape (n_candidates, n_splits)."""
    candidates = search.candidates
    return [_bare_pixel(X, y, search, candidates) for X, y in pixels]


def _bare_pixel(X: Array, y: Array, search: Search, candidates: list[dict[str, Any]]) -> Array:
    folds = StratifiedKFold if search.scoring == "accuracy" else KFold
    score = accuracy_score if search.scoring == "accuracy" else r2_score
    splits = [(X[a], y[a], X[b], y[b]) for a, b in folds(search.cv).split(X, y)]
    scores = np.empty((len(candidates), len(splits)))
    for row, params in enumerate(candidates):
        for column, (X_train, y_train, X_test, y_test) in enumerate(splits):
            estimator = clone(search.estimator).set_params(**params)
            predicted = estimator.fit(X_train, y_train).predict(X_test)
            scores[row, column] = score(y_test, predicted)
    return scores
