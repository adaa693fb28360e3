"""Coefficients of fitted models in the units of the features, where they are affine in these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from hpc_sweep.linear import is_linear

Floats = NDArray[np.float64]
Affine = tuple[Floats, Floats]
"""Coefficients, shape (n_outputs, n_features), and intercepts, shape (n_outputs,)."""


def steps_of(estimator: Any) -> Iterator[Any]:
    """Yield the steps of an estimator that do something, of pipelines inside pipelines too."""
    if type(estimator) is Pipeline:
        for _, step in estimator.steps:
            yield from steps_of(step)
    elif estimator is not None and not (isinstance(estimator, str) and estimator == "passthrough"):
        yield estimator


def affine(estimator: Any, n_features: int, n_outputs: int) -> Affine | None:
    """Return what a fitted model comes to in the units of its features.

    Parameters
    ----------
    estimator : estimator
        A linear model, maybe after scalers, selections and principal components.
    n_features, n_outputs : int
        Of a partition; classifiers of two classes have one output.

    Returns
    -------
    tuple of ndarray or None
        None where the model has another form, or other outputs.
    """
    *before, last = steps_of(estimator)
    if not is_linear(last):
        return None
    matrix, shift = np.eye(n_features), np.zeros(n_features)
    for step in before:
        made = _transformation(step, matrix.shape[1])
        if made is None:
            return None
        matrix, shift = matrix @ made[0], shift @ made[0] + made[1]
    weights = np.asarray(last.coef_, dtype=float).reshape(-1, matrix.shape[1])
    if len(weights) != n_outputs:
        return None
    constant = np.broadcast_to(np.asarray(last.intercept_, dtype=float), (n_outputs,))
    return weights @ matrix.T, weights @ shift + constant


def _transformation(step: Any, n_features: int) -> Affine | None:
    """Return by what a fitted step multiplies samples, and what it adds; None if it does else."""
    eye, nothing = np.eye(n_features), np.zeros(n_features)
    if type(step) is MinMaxScaler and not step.clip:
        return eye * step.scale_, np.asarray(step.min_)
    if type(step) is MaxAbsScaler and not getattr(step, "clip", False):
        return eye / step.scale_, nothing
    if type(step) in (StandardScaler, RobustScaler):
        centre = step.mean_ if type(step) is StandardScaler and step.with_mean else None
        centre = step.center_ if type(step) is RobustScaler else centre
        scale = 1.0 if step.scale_ is None else step.scale_
        return eye / scale, nothing if centre is None else -centre / scale
    if type(step) is PCA and not step.whiten:
        return step.components_.T, -step.mean_ @ step.components_.T
    if type(step) is TruncatedSVD:
        return step.components_.T, np.zeros(len(step.components_))
    if isinstance(step, SelectorMixin) and type(step).__module__.startswith("sklearn."):
        kept = step.get_support(indices=True)
        return eye[:, kept], nothing[kept]
    return None
