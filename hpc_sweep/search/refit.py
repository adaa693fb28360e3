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


def held_out_scores(
    model: Model,
    params: Mapping[str, Any],
    training: Samples,
    held_out: Samples,
    metrics: Sequence[str],
) -> tuple[dict[str, float], str]:
    """Fit a model on some samples, and score it on others.

    Parameters
    ----------
    model, params
        As for `refitted`.
    training, held_out : tuple
        Samples; weights are given to scorers that take them.
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
    X, y, weights = held_out
    with recorded_once():
        try:
            estimator = refitted(model, params, training)
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
