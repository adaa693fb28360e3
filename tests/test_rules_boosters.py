"""Rounds of XGBoost and LightGBM: bit-identical; skipped where these are not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, conforms, samples
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hpc_sweep.search import Evaluator, Model, Setting

ROUNDS = {"n_estimators": [5, 1, 12]}
DRAWN = {"subsample": 0.7, "colsample_bytree": 0.6}
PROBABILITIES = ["neg_log_loss", "accuracy"]


def made(package: str, task: str, **params: Any) -> Any:
    library = pytest.importorskip(package)
    if package == "xgboost":
        return getattr(library, f"XGB{task}")(n_jobs=1, **params)
    return getattr(library, f"LGBM{task}")(n_jobs=1, verbose=-1, min_child_samples=5, **params)


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("seed", [None, 3])
def test_rounds(package: str, seed: int | None) -> None:
    model = made(package, "Regressor", random_state=seed, **DRAWN)
    grid = {**ROUNDS, "max_depth": [2, 4]}
    conforms(Case(model, grid, (3, 3), ["r2", "neg_max_error"]), *samples(False))


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_classes(package: str) -> None:
    model = made(package, "Classifier", **DRAWN)
    X, y = samples(True)
    conforms(Case(model, ROUNDS, (3,), PROBABILITIES), X, y)
    conforms(Case(model, ROUNDS, (3,), PROBABILITIES), X, (y > 0).astype(int))


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_in_a_pipeline(package: str) -> None:
    model = make_pipeline(StandardScaler(), made(package, "Regressor"))
    name = model.steps[-1][0]
    conforms(Case(model, {f"{name}__n_estimators": [2, 6]}, (2,)), *samples(False))


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_a_scorer_that_looks_inside(package: str) -> None:
    def seen(estimator: Any, X: Array, y: Array) -> float:
        return float(np.square(estimator.feature_importances_).sum() + estimator.n_estimators)

    conforms(Case(made(package, "Regressor"), ROUNDS, (3,), seen), *samples(False))


@pytest.mark.parametrize(
    ("package", "params"),
    [
        ("xgboost", {"booster": "dart"}),
        ("xgboost", {"booster": "gblinear"}),
        ("xgboost", {"early_stopping_rounds": 3}),
        ("xgboost", {"random_state": np.random.RandomState(0)}),
        ("lightgbm", {"boosting_type": "dart"}),
        ("lightgbm", {"boosting_type": "rf"}),
        ("lightgbm", {"early_stopping_round": 3}),
        ("lightgbm", {"num_iterations": 3}),
        ("lightgbm", {"boosting": "dart"}),
    ],
)
def test_what_is_not_shared(package: str, params: dict[str, Any]) -> None:
    settings = [Setting(0, {"n_estimators": n}) for n in (1, 2)]
    nobody_shares(made(package, "Regressor", **params), settings)


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_no_rounds(package: str) -> None:
    """They mean something else to either of them, or nothing."""
    nobody_shares(made(package, "Regressor"), [Setting(0, {"n_estimators": n}) for n in (0, 5)])


def nobody_shares(estimator: Any, settings: list[Setting]) -> None:
    model = Model(estimator, None, None)
    assert all(rule is None for rule, _ in Evaluator([model], settings, ["score"]).groups)
