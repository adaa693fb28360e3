"""A candidate fitted on all its samples, as scikit-learn's ``best_estimator_`` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from hpc_sweep.search.results import brief, numbers
from hpc_sweep.search.tasks import Model
from hpc_sweep.search.warned import recorded_once
from hpc_sweep.search.weighing import fit, score, weighs, weight_parameter

Samples = tuple[Any, Any, Any]
"""X, y and weights as estimators take them; the last two may be None."""


def refitted(model: Model, params: Mapping[str, Any], samples: Samples) -> Any:
    """Return a model with these parameters, fitted.

    Parameters
    ----------
    model : Model
        Which.
    params : mapping of str to object
        Its parameters, random states too.
    samples : tuple
        Its samples.
    """
    estimator = clone(model.estimator).set_params(**clone(dict(params), safe=False))
    name = None if samples[2] is None else weight_parameter(estimator)
    fit(estimator, *samples, name)
    return estimator


def try_refit(model: Model, params: Mapping[str, Any], samples: Samples) -> tuple[Any, str]:
    """Return a model, fitted, or None and why that failed; nothing is raised or warned."""
    with recorded_once():
        try:
            return refitted(model, params, samples), ""
        except (Exception, SystemExit) as error:  # it is the candidate's failure
            return None, brief(type(error).__name__, error)


def held_out_scores(
    model: Model, estimator: Any, held_out: Samples, metrics: Sequence[str]
) -> tuple[dict[str, float], str]:
    """Score a fitted model on samples that it has not seen.

    Parameters
    ----------
    model : Model
        Has the scorer.
    estimator : estimator
        Fitted.
    held_out : tuple
        Samples; weights are given to scorers that take them.
    metrics : sequence of str
        Names of the scores.

    Returns
    -------
    scores : dict of str to float
        By metric; NaN where the score failed.
    message : str
        Why it failed, or ``""``.
    """
    scores, message = dict.fromkeys(metrics, float("nan")), ""
    X, y, weights = held_out
    with recorded_once():
        try:
            given = weights if weights is not None and weighs(model.scorer, estimator) else None
            found = score(model.scorer, estimator, X, y, given)
            for metric, value in numbers(found, metrics):
                if isinstance(value, str):
                    message = message or brief(f"scoring {metric}", value.strip().splitlines()[-1])
                else:
                    scores[metric] = value
        except (Exception, SystemExit) as error:  # it is the candidate's failure
            message = brief(type(error).__name__, error)
    return scores, message
