"""Which models have coefficients: linear ones of scikit-learn, by their import paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_sweep.spec import ModelSpec, SweepSpec

LINEAR = frozenset(
    f"sklearn.{name}"
    for name in (
        *("linear_model.ARDRegression", "linear_model.BayesianRidge", "linear_model.ElasticNet"),
        *("linear_model.ElasticNetCV", "linear_model.HuberRegressor", "linear_model.Lars"),
        *("linear_model.LarsCV", "linear_model.Lasso", "linear_model.LassoCV"),
        *("linear_model.LassoLars", "linear_model.LassoLarsCV", "linear_model.LassoLarsIC"),
        *("linear_model.LinearRegression", "linear_model.LogisticRegression"),
        *("linear_model.LogisticRegressionCV", "linear_model.MultiTaskElasticNet"),
        *("linear_model.MultiTaskElasticNetCV", "linear_model.MultiTaskLasso"),
        *("linear_model.MultiTaskLassoCV", "linear_model.OrthogonalMatchingPursuit"),
        *("linear_model.OrthogonalMatchingPursuitCV", "linear_model.PassiveAggressiveClassifier"),
        *("linear_model.PassiveAggressiveRegressor", "linear_model.Perceptron"),
        *("linear_model.QuantileRegressor", "linear_model.Ridge", "linear_model.RidgeCV"),
        *("linear_model.RidgeClassifier", "linear_model.RidgeClassifierCV"),
        *("linear_model.SGDClassifier", "linear_model.SGDRegressor"),
        *("linear_model.TheilSenRegressor", "svm.LinearSVC", "svm.LinearSVR"),
        "discriminant_analysis.LinearDiscriminantAnalysis",
    )
)
"""Whose prediction, of classifiers decision, is ``X @ coef_.T + intercept_``."""


def is_linear(estimator: Any) -> bool:
    """Return whether an estimator is one of these."""
    kind = type(estimator)
    public = ".".join(part for part in kind.__module__.split(".") if not part.startswith("_"))
    return f"{public}.{kind.__name__}" in LINEAR


def linear_models(spec: SweepSpec) -> list[int]:
    """Return which models of a spec end in a linear one, as their paths say; nothing is imported.

    None where coefficients would have no names or places: features of a loader, models trained on
    blocks, ``output.models: none``.
    """
    nowhere = spec.output.models == "none" or not spec.data.features
    if nowhere or spec.search.strategy in ("incremental", "hyperband"):
        return []
    return [number for number, model in enumerate(spec.models) if _last_path(model) in LINEAR]


def _last_path(model: ModelSpec) -> str:
    steps: Any = model.pipeline if model.pipeline is not None else [model.estimator]
    last = list(steps.values() if isinstance(steps, Mapping) else steps)[-1]
    return next(iter(last)) if isinstance(last, Mapping) else str(last)
