"""Boosting: the first stages of a longer fit."""

from __future__ import annotations

from typing import Any

from hpc_sweep.search.copies import is_seeded
from hpc_sweep.search.rules.base import Data
from hpc_sweep.search.rules.views import Views, kinds_of

_FEW = 10_000
"""Samples up to which early stopping is off by default and bins are made of all samples."""


class GradientBoosting(Views):
    """Shares stages over ``n_estimators``; not where the fit decides when to stop."""

    kinds = kinds_of("GradientBoosting")
    varied = ("n_estimators",)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether it is seeded, and goes on to the last stage."""
        return estimator.n_iter_no_change is None and is_seeded(estimator)

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first stages, and what was noted of them."""
        for name in ("estimators_", "train_score_", "oob_improvement_", "oob_scores_"):
            if hasattr(view, name):
                setattr(view, name, getattr(view, name)[: view.n_estimators])
        if hasattr(view, "oob_scores_"):
            view.oob_score_ = view.oob_scores_[-1]
        view.n_estimators_ = view.n_estimators


class HistGradientBoosting(Views):
    """Shares iterations over ``max_iter`` where early stopping is off."""

    kinds = kinds_of("HistGradientBoosting")
    varied = ("max_iter",)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether it may go on to the last iteration, and draws nothing from nowhere."""
        may_stop = estimator.early_stopping not in ("auto", False)
        return not may_stop and (is_seeded(estimator) or estimator.max_features == 1.0)

    def fit(self, estimator: Any, data: Data) -> None:
        """Fit; raise where samples are so many that 'auto' stops early or bins are sampled."""
        has_rest = estimator.early_stopping != "auto" and is_seeded(estimator)
        if len(data.X_train) > _FEW and not has_rest:
            raise ValueError(f"more than {_FEW} samples")
        super().fit(estimator, data)

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the trees of the first iterations."""
        view._predictors = view._predictors[: view.max_iter]


class AdaBoost(Views):
    """Shares stages over ``n_estimators``.

    A fit that ends early leaves zeros as the weights of stages that never came; their number
    counts in sums, so weights are cut to the size that was asked for.
    """

    kinds = kinds_of("AdaBoost")
    varied = ("n_estimators",)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether the ensemble is seeded: it seeds what is in it."""
        return is_seeded(estimator, deep=False)

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first stages, their weights and errors."""
        for name in ("estimators_", "estimator_weights_", "estimator_errors_"):
            setattr(view, name, getattr(view, name)[: view.n_estimators])
