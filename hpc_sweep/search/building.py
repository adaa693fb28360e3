"""Models and candidates of a spec, made into what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.base import clone

from hpc_sweep.candidates import Candidate
from hpc_sweep.estimators import (
    build_estimator,
    build_scorers,
    build_splitter,
    is_classifier,
    parameter_value,
)
from hpc_sweep.search.tasks import Model, Setting
from hpc_sweep.spec import SweepSpec


def build_models(spec: SweepSpec) -> tuple[Model, ...]:
    """Build the models of a spec with their splitters and scorers."""
    models = []
    for model in spec.models:
        estimator = build_estimator(model.estimator, model.pipeline)
        splitter = build_splitter(spec.search.splitter, is_classifier(estimator))
        models.append(Model(estimator, splitter, build_scorers(estimator, spec.search.scoring)))
    return tuple(models)


def setting_of(models: Sequence[Model], candidate: Candidate) -> Setting:
    """Return a candidate as estimators take it."""
    estimator = models[candidate.model].estimator
    defaults = estimator.get_params(deep=True)
    params = {
        name: parameter_value(value, defaults.get(name)) for name, value in candidate.params.items()
    }
    return Setting(candidate.model, params, _open_random_states(estimator, params))


def _open_random_states(estimator: Any, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of ``random_state`` parameters that nobody has set."""
    try:
        set_up = clone(estimator).set_params(**clone(params, safe=False))
    except Exception:  # the candidate fails when it is fitted, with this as its reason
        return ()
    return tuple(
        name
        for name, value in set_up.get_params(deep=True).items()
        if name.rpartition("__")[2] == "random_state" and value is None and name not in params
    )
