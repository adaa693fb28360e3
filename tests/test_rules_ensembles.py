"""Ensembles whose smaller ones are the beginnings of the largest: bit-identical."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, conforms, samples
from sklearn.base import is_classifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier

from hpc_sweep.search import Evaluator, Model, Setting, Task

PROBABILITIES = ["neg_log_loss", "accuracy"]
ERRORS = ["r2", "neg_mean_absolute_error"]
SIZES = {"n_estimators": [5, 2, 5, 1]}
ITERATIONS = {"max_iter": [6, 1, 3]}


def forest(**params: Any) -> Any:
    return RandomForestRegressor(random_state=1, max_depth=4, **params)


def scaled(estimator: Any, grid: dict[str, Any], groups: tuple[int, ...]) -> Case:
    name = type(estimator).__name__.lower()
    named = {f"{name}__{key}": values for key, values in grid.items()}
    return Case(make_pipeline(StandardScaler(), estimator), named, groups)


CASES = {
    "forest": Case(forest(), {"n_estimators": [9, 3], "max_depth": [2, 5]}, (2, 2), ERRORS),
    "forest in a pipeline": scaled(forest(), {**SIZES, "max_features": [1, 3]}, (8,)),
    "forest of classes": Case(
        RandomForestClassifier(random_state=1, class_weight="balanced_subsample"),
        {"n_estimators": [4, 2], "max_samples": [None, 0.5], "criterion": ["entropy"]},
        (2, 2),
        PROBABILITIES,
    ),
    "forest of weighted classes": Case(
        ExtraTreesClassifier(random_state=1, bootstrap=True),
        {**SIZES, "class_weight": [None, "balanced", {0: 1, 1: 5, 2: 1}]},
        (4, 4, 4),
    ),
    "extra trees": Case(
        ExtraTreesRegressor(random_state=1),
        {**SIZES, "bootstrap": [False, True], "n_jobs": [1]},
        (4, 4),
        cv=TimeSeriesSplit(3),
    ),
    "bag": Case(
        BaggingRegressor(random_state=1),
        {**SIZES, "max_features": [0.5], "bootstrap_features": [False, True]},
        (4, 4),
    ),
    "bag of models": Case(
        BaggingRegressor(random_state=1, max_samples=0.6, bootstrap=False),
        {**SIZES, "estimator": [SVR(), LinearRegression(), make_pipeline(StandardScaler(), SVR())]},
        (4, 4, 4),
    ),
    "bag by a nested parameter": Case(
        BaggingRegressor(Ridge(), random_state=1),
        {**SIZES, "estimator__alpha": [0.1, 10]},
        (4, 4),
    ),
    "bag of classes": Case(
        BaggingClassifier(DecisionTreeClassifier(max_depth=2), random_state=1),
        SIZES,
        (4,),
        PROBABILITIES,
    ),
    "boosting": Case(
        GradientBoostingRegressor(random_state=1),
        {**SIZES, "max_depth": [2, 3], "subsample": [0.5, 1.0], "max_features": [2]},
        (4,) * 4,
        ERRORS,
    ),
    "boosting by losses": Case(
        GradientBoostingRegressor(random_state=1),
        {**SIZES, "loss": ["huber", "quantile", "absolute_error"], "init": ["zero"]},
        (4,) * 3,
    ),
    "boosting on a model": Case(
        GradientBoostingRegressor(random_state=1, init=LinearRegression()), SIZES, (4,)
    ),
    "boosting in a pipeline": scaled(GradientBoostingRegressor(random_state=1), SIZES, (4,)),
    "boosting of classes": Case(
        GradientBoostingClassifier(random_state=1), SIZES, (4,), PROBABILITIES
    ),
    "binned boosting": Case(
        HistGradientBoostingRegressor(min_samples_leaf=5),
        {**ITERATIONS, "max_depth": [2, None], "interaction_cst": [None, "no_interactions"]},
        (3,) * 4,
        ERRORS,
    ),
    "binned boosting, constrained": Case(
        HistGradientBoostingRegressor(min_samples_leaf=5, random_state=1, max_features=0.5),
        {**ITERATIONS, "monotonic_cst": [None, [1, 0, 0, 0, -1]], "loss": ["absolute_error"]},
        (3, 3),
    ),
    "binned boosting of classes": Case(
        HistGradientBoostingClassifier(min_samples_leaf=5, early_stopping=False),
        {**ITERATIONS, "class_weight": [None, "balanced"]},
        (3, 3),
        PROBABILITIES,
    ),
    "adaptive boosting": Case(
        AdaBoostRegressor(random_state=1),
        {**SIZES, "loss": ["linear", "square", "exponential"], "learning_rate": [0.5]},
        (4,) * 3,
        ERRORS,
    ),
    "adaptive boosting that ends early": Case(
        AdaBoostRegressor(LinearRegression(), random_state=1),
        {"n_estimators": [20, 10, 6, 5, 3], "loss": ["linear", "square"]},
        (5, 5),
    ),
    "adaptive boosting of classes": Case(
        AdaBoostClassifier(random_state=1),
        {"n_estimators": [10, 3, 1], "learning_rate": [0.1, 3.0]},
        (3, 3),
        PROBABILITIES,
    ),
    "adaptive boosting of classes that ends early": Case(
        AdaBoostClassifier(LogisticRegression(max_iter=9999), random_state=1),
        {"n_estimators": [9, 5, 4, 3, 2]},
        (5,),
        PROBABILITIES,
    ),
    "adaptive boosting of classes that fits at once": Case(
        AdaBoostClassifier(DecisionTreeClassifier(), random_state=1), SIZES, (4,), PROBABILITIES
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_stages(name: str) -> None:
    case = CASES[name]
    conforms(case, *samples(is_classifier(case.estimator)))


@pytest.mark.parametrize("estimator", [forest(), BaggingRegressor(random_state=1)])
def test_several_outputs(estimator: Any) -> None:
    X, y = samples(False)
    conforms(Case(estimator, SIZES, (4,), ERRORS), X, np.stack([y, y**2, X[:, 0]], axis=1))


def test_two_classes_named_by_text() -> None:
    X, y = samples(True)
    for kind in (RandomForestClassifier, GradientBoostingClassifier, AdaBoostClassifier):
        case = Case(kind(random_state=1), SIZES, (4,), ["roc_auc", "accuracy"])
        conforms(case, X, np.where(y > 0, "wet", "dry"))


def test_a_class_that_is_missing_in_a_split() -> None:
    X, y = samples(True)
    order = np.argsort(y, kind="stable")
    case = Case(RandomForestClassifier(random_state=1), SIZES, (4,), cv=KFold(3))
    conforms(case, X[order], y[order])


class Own(RandomForestRegressor):
    """Might do anything."""


NEVER = {
    "no seed": RandomForestRegressor(),
    "a generator": RandomForestRegressor(random_state=np.random.RandomState(0)),
    "out of bag": forest(oob_score=True),
    "warm": forest(warm_start=True),
    "threads": forest(n_jobs=2),
    "verbose": forest(verbose=1),
    "a subclass": Own(random_state=1),
    "stops early": GradientBoostingRegressor(random_state=1, n_iter_no_change=3),
    "random beginning": GradientBoostingRegressor(random_state=1, init=RandomForestRegressor()),
    "writes into its input": BaggingRegressor(LinearRegression(copy_X=False), random_state=1),
    "foreign members": BaggingRegressor(Own(), random_state=1),
    "stops early, binned": HistGradientBoostingRegressor(early_stopping=True, random_state=1),
    "features drawn": HistGradientBoostingRegressor(max_features=0.5),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_is_not_shared(name: str) -> None:
    size = "max_iter" if hasattr(NEVER[name], "max_iter") else "n_estimators"
    model = Model(NEVER[name], None, None)
    settings = [Setting(0, {size: 1}), Setting(0, {size: 2})]
    assert all(rule is None for rule, _ in Evaluator([model], settings, ["score"]).groups)


def test_a_seed_of_the_partition_is_a_seed() -> None:
    settings = [Setting(0, {"n_estimators": n}, ("random_state",)) for n in (1, 2)]
    model = Model(RandomForestRegressor(), None, None)
    ((rule, rows),) = Evaluator([model], settings, ["score"]).groups
    assert rule is not None
    assert rows == [0, 1]


def test_early_stopping_depends_on_the_number_of_samples() -> None:
    """Above 10,000 samples 'auto' stops early: each candidate is fitted alone."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10_004, 1))
    y = rng.normal(size=10_004)
    halves = [
        (np.arange(10_001), np.arange(10_001, 10_004)),
        (np.arange(9_000), np.arange(9_000, 9_100)),
    ]
    model = HistGradientBoostingRegressor(random_state=1, max_leaf_nodes=3, n_iter_no_change=2)
    conforms(Case(model, {"max_iter": [30, 3]}, (2,), cv=halves, left=2, train=False), X, y)


def test_what_warns_is_fitted_alone() -> None:
    """Which member warned cannot be told from the fit of the largest."""
    X, y = samples(False)
    case = Case(forest(), SIZES, (4,), left=9)
    found = conforms(case, X, y[:, np.newaxis])
    assert all("DataConversionWarning" in message for message in found.messages)


def test_a_fit_that_fails_for_all() -> None:
    X, y = samples(False)
    X[40] = np.nan
    model = Model(GradientBoostingRegressor(random_state=1), None, None)
    evaluator = Evaluator([model], [Setting(0, {"n_estimators": n}) for n in (1, 2)], ["score"])
    halves = [(np.arange(50), np.arange(50, 90))]
    found = evaluator.evaluate([Task(X, y, {0: halves})])[0]
    assert found.failed.all()
    assert all("NaN" in message for message in found.messages)


def seen(estimator: Any, X: Array, y: Array) -> float:
    """Score by what a fitted ensemble holds, beside what it predicts."""
    importances = getattr(estimator, "feature_importances_", np.zeros(1))
    held = [len(getattr(estimator, name, ())) for name in ("estimators_", "train_score_")]
    drawn = sum(map(np.sum, getattr(estimator, "estimators_samples_", ())))
    out_of_bag = getattr(estimator, "oob_score_", 0.0)
    iterations = getattr(estimator, "n_iter_", 0) + getattr(estimator, "n_estimators_", 0)
    sizes = estimator.get_params().get("n_estimators", 0)
    return float(importances @ importances + sum(held) + drawn + out_of_bag + iterations + sizes)


@pytest.mark.parametrize(
    "estimator",
    [
        forest(),
        BaggingRegressor(random_state=1),
        GradientBoostingRegressor(random_state=1, subsample=0.5),
        AdaBoostRegressor(random_state=1),
        HistGradientBoostingRegressor(),
    ],
)
def test_a_scorer_that_looks_inside(estimator: Any) -> None:
    grid = ITERATIONS if hasattr(estimator, "max_iter") else SIZES
    conforms(Case(estimator, grid, (len(*grid.values()),), scoring=seen), *samples(False))
