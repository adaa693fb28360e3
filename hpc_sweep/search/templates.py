"""Unfitted estimators of candidates, and what scikit-learn has to say about their parameters."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from hpc_sweep.search.tasks import Model, Setting


def template_of(model: Model, setting: Setting) -> Any:
    """Return a candidate's estimator, or raise what scikit-learn raises of its parameters."""
    return clone(model.estimator).set_params(**clone(dict(setting.params), safe=False))


def template(model: Model, setting: Setting) -> Any | None:
    """Return an estimator with all parameters set; None where that fails."""
    try:
        return template_of(model, setting).set_params(**dict.fromkeys(setting.seeded, 0))
    except Exception:
        return None


def is_valid(estimator: Any) -> bool:
    """Return whether scikit-learn finds nothing wrong with any parameter, or any step."""
    if estimator is None:
        return False
    try:
        for part in (estimator, *estimator.get_params(deep=True).values()):
            if hasattr(part, "_parameter_constraints") and not isinstance(part, type):
                part._validate_params()
            if isinstance(part, Pipeline):
                part._validate_steps()
    except Exception:
        return False
    return True
