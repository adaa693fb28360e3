"""Sample weights: how estimators and scorers take them.

As in a search of scikit-learn 1.9 without metadata routing that is fitted with ``sample_weight``:
they go to ``fit``, of a pipeline to its last step's, and to the scorers that take them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics._scorer import _MultimetricScorer, _PassthroughScorer, _Scorer
from sklearn.pipeline import Pipeline

from hpc_sweep.search.warned import recorded_once

NAME = "sample_weight"
"""What scikit-learn calls them."""

_REFUSALS = ("fit_params", "metadata", "routing", "sample weights", NAME)
"""Words of those that refuse weights, though they seem to take anything."""


def weight_parameter(estimator: Any) -> str | None:
    """Return the name by which ``fit`` takes sample weights; None where it takes none.

    Of a pipeline that is ``svr__sample_weight``, after its last step.
    """
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    if isinstance(estimator, TransformedTargetRegressor) and estimator.regressor is not None:
        return weight_parameter(estimator.regressor)
    if not hasattr(estimator, "fit"):  # passthrough
        return None
    parameters = inspect.signature(estimator.fit).parameters
    if NAME in parameters:
        return NAME
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return NAME if takes_any and not _refuses(estimator) else None


def _refuses(estimator: Any) -> bool:
    """Return whether a fit on a few samples fails of weights."""
    X = np.random.default_rng(0).random((40, 3))
    y = np.arange(len(X)) % 2
    with recorded_once():
        try:
            clone(estimator).fit(X, y, sample_weight=np.ones(len(X)))
        except Exception as error:
            return any(word in str(error) for word in _REFUSALS)
    return False


def weighs(scorer: Callable[..., Any], estimator: Any) -> bool:
    """Return whether a scorer, or any of several, takes sample weights.

    Parameters
    ----------
    scorer : callable
        ``scorer(estimator, X, y)``.
    estimator : estimator
        What it scores.
    """
    if isinstance(scorer, _MultimetricScorer):
        return any(weighs(each, estimator) for each in scorer._scorers.values())
    if isinstance(scorer, _PassthroughScorer):
        while isinstance(estimator, Pipeline):  # whose own score hands them on
            estimator = estimator.steps[-1][1]
        score = getattr(estimator, "score", None)
        return score is not None and NAME in inspect.signature(score).parameters
    if hasattr(scorer, "_accept_sample_weight"):
        return bool(scorer._accept_sample_weight())
    return NAME in inspect.signature(scorer).parameters


def _compares_classes(scorer: Callable[..., Any], estimator: Any) -> bool:
    """Return whether a scorer of scikit-learn's only compares what a fitted classifier predicts.

    It looks at the kind of the classes each time, which nothing comes of here and which takes a
    third of the time of ``accuracy``.
    """
    if type(scorer) is not _Scorer or not hasattr(estimator, "classes_"):
        return False
    return _is_of_predictions(scorer) and hasattr(estimator, "predict")


@functools.lru_cache(maxsize=64)
def _is_of_predictions(scorer: Any) -> bool:
    return scorer._response_method == "predict" and scorer._get_pos_label() is None


def score(scorer: Callable[..., Any], estimator: Any, X: Any, y: Any, weights: Any) -> Any:
    """Return what a scorer says of a fitted estimator; y and weights may be None."""
    if weights is None and y is not None and _compares_classes(scorer, estimator):
        return scorer._sign * scorer._score_func(y, estimator.predict(X), **scorer._kwargs)  # type: ignore[attr-defined]
    targets = () if y is None else (y,)
    return scorer(estimator, X, *targets, **({} if weights is None else {NAME: weights}))


def fit(estimator: Any, X: Any, y: Any, weights: Any, name: str | None) -> None:
    """Fit an estimator; y and weights may be None.

    Parameters
    ----------
    estimator : estimator
        Unfitted.
    X, y, weights
        Samples as estimators take them.
    name : str or None
        By which it takes weights.

    Raises
    ------
    TypeError
        When there are weights, and it takes none.
    """
    targets = () if y is None else (y,)
    if weights is None:
        estimator.fit(X, *targets)
    elif name is None:
        raise TypeError(f"{called(estimator)}.fit takes no sample weights")
    else:
        estimator.fit(X, *targets, **{name: weights})


def called(estimator: Any) -> str:
    """Return the class of an estimator, or of a pipeline's last step."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator if isinstance(estimator, str) else type(estimator).__name__
