"""Scores out of residuals, for many candidates at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.metrics._scorer import _MultimetricScorer, _PassthroughScorer, _Scorer

from hpc_sweep.search.rules.gathering import Floats, Side
from hpc_sweep.search.rules.normal import NEARLY_CONSTANT

LAST_BITS = 1e-11
"""Of the largest number: what differs by less may change its order when it is solved otherwise."""


@dataclass(frozen=True)
class Residuals:
    """What predictions miss.

    Attributes
    ----------
    side : Side
        The samples.
    values : ndarray of float64, shape (n_splits, width, n_candidates * n_targets)
        Prediction minus target; 0 beyond the samples.
    n_targets : int
        Number of targets; the last axis runs through them fastest.
    shift : ndarray of float64, shape (n_splits, n_targets)
        What was subtracted from the targets.
    """

    side: Side
    values: Floats
    n_targets: int
    shift: Floats

    def means(self, values: Floats) -> Floats:
        """Return means over samples, shape (n_splits, n_candidates, n_targets)."""
        sums = self.side.sums(values) / self.side.count[:, np.newaxis]
        return sums.reshape(len(values), -1, self.n_targets)


def _r2(residuals: Residuals) -> Floats:
    side = residuals.side
    count = side.count[:, np.newaxis]
    y = side.Z[:, :, -residuals.n_targets :]
    mean = side.sums(y) / count
    centred = y - mean[:, np.newaxis] * side.Z[:, :, :1]
    variance = side.sums(centred * centred) / count
    raw = np.maximum((mean + residuals.shift) ** 2, mean**2)
    # of fewer than two samples and of constant targets scikit-learn has its own idea
    defined = (variance > NEARLY_CONSTANT * raw) & (count > 1)
    variance = np.where(defined, variance, np.nan)
    missed = residuals.means(residuals.values * residuals.values)
    return _averaged(1 - missed / variance[:, np.newaxis])


def _mse(residuals: Residuals) -> Floats:
    return _averaged(residuals.means(residuals.values * residuals.values))


def _rmse(residuals: Residuals) -> Floats:
    return _averaged(np.sqrt(residuals.means(residuals.values * residuals.values)))


def _mae(residuals: Residuals) -> Floats:
    return _averaged(residuals.means(np.abs(residuals.values)))


def _averaged(by_target: Floats) -> Floats:
    """Return the mean over targets, shape (n_splits, n_candidates)."""
    total = by_target[..., 0].copy()
    for target in range(1, by_target.shape[-1]):
        total += by_target[..., target]
    return np.asarray(total / by_target.shape[-1])


MEASURES: dict[Any, Callable[[Residuals], Floats]] = {
    r2_score: _r2,
    mean_squared_error: _mse,
    root_mean_squared_error: _rmse,
    mean_absolute_error: _mae,
}
"""By scikit-learn's function: what gives its value, NaN where it has to be asked itself."""


@dataclass(frozen=True)
class Measure:
    """A metric that looks at predictions only.

    Attributes
    ----------
    sign : int
        −1 for what is better when it is less.
    function : callable
        ``function(y_true, y_pred, **options)``.
    options : dict
        Its options.
    """

    sign: int
    function: Callable[..., Any]
    options: dict[str, Any]

    @property
    def is_continuous(self) -> bool:
        """Whether it cannot turn on last bits: scikit-learn's of numbers do not, a user's may."""
        return str(getattr(self.function, "__module__", "")).startswith("sklearn.")

    @property
    def at_once(self) -> Callable[[Residuals], Floats] | None:
        """What gives the same for many candidates, or None."""
        return None if self.options else MEASURES.get(self.function)


def is_generic(y: Any, predicted: Floats) -> bool:
    """Return whether a function of predictions has no reason to turn on their last bits.

    Ranks do where two are the same, and thresholds where targets are met.
    """
    flat = np.sort(predicted, axis=None)
    nearest = LAST_BITS * (np.abs(flat[[0, -1]]).max() + float(np.abs(y).max()))
    return bool((np.diff(flat) > nearest).all() and (np.abs(predicted - y) > nearest).all())


def measures_of(scorer: Any, metrics: Sequence[str], kind: type) -> dict[str, Measure] | None:
    """Return the metrics of a scorer; None where it needs more than predictions.

    Parameters
    ----------
    scorer : callable
        Of a model.
    metrics : sequence of str
        Their names.
    kind : type
        Class of the regressor.
    """
    several = isinstance(scorer, _MultimetricScorer)
    scorers: dict[str, Any] = scorer._scorers if several else dict.fromkeys(metrics, scorer)
    found: dict[str, Measure] = {}
    for metric in metrics:
        each: Any = scorers.get(metric)
        is_own_score = getattr(kind, "score", None) is RegressorMixin.score
        if isinstance(each, _PassthroughScorer) and is_own_score:
            found[metric] = Measure(1, r2_score, {})
        elif type(each) is _Scorer and each._response_method == "predict":
            found[metric] = Measure(each._sign, each._score_func, each._kwargs)
        else:
            return None
    return found
