"""A candidate fitted on all its samples, as scikit-learn's ``best_estimator_`` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from hpc_sweep.search.results import brief, numbers
from hpc_sweep.search.tasks import Model
from hpc_sweep.search.warned import recorded_once


def refitted(model: Model, params: Mapping[str, Any], X: Any, y: Any) -> Any:
    """Return a model with these parameters, fitted.

    Parameters
    ----------
    model : Model
        Which.
    params : mapping of str to object
        Its parameters, random states too.
    X, y
        Its samples, as estimators take them; y may be None.
    """
    estimator = clone(model.estimator).set_params(**clone(dict(params), safe=False))
    return estimator.fit(X) if y is None else estimator.fit(X, y)


def held_out_scores(
    model: Model,
    params: Mapping[str, Any],
    training: tuple[Any, Any],
    held_out: tuple[Any, Any],
    metrics: Sequence[str],
) -> tuple[dict[str, float], str]:
    """Fit a model on some samples, and score it on others.

    Parameters
    ----------
    model, params
        As for `refitted`.
    training, held_out : tuple
        X and y, which may be None.
    metrics : sequence of str
        Names of the scores.

    Returns
    -------
    scores : dict of str to float
        By metric; NaN where fit or score failed.
    message : str
        Why it failed, or ``""``.
    """
    scores, message = dict.fromkeys(metrics, float("nan")), ""
    X, y = held_out
    with recorded_once():
        try:
            estimator = refitted(model, params, *training)
            found = model.scorer(estimator, X) if y is None else model.scorer(estimator, X, y)
            for metric, score in numbers(found, metrics):
                if isinstance(score, str):
                    message = message or brief(f"scoring {metric}", score.strip().splitlines()[-1])
                else:
                    scores[metric] = score
        except (Exception, SystemExit) as error:  # it is the candidate's failure
            message = brief(type(error).__name__, error)
    return scores, message
