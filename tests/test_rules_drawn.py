"""Searches that hypothesis draws: whatever shares work gives scikit-learn's numbers to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from conformance import Array, Case, conforms
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import is_classifier
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.model_selection import (
    KFold,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

MEMBERS = {"n_estimators": st.integers(1, 6)}
PRUNED = {"ccp_alpha": st.sampled_from([0.0, 0.01, 0.3])}
DEPTH = {"max_depth": st.sampled_from([1, 2, None])}
NEAREST = {
    "n_neighbors": st.integers(1, 25),
    "weights": st.sampled_from(["uniform", "distance"]),
    "algorithm": st.sampled_from(["auto", "kd_tree", "brute"]),
    "p": st.sampled_from([1, 2]),
}
REGRESSORS: list[tuple[Any, dict[str, Any]]] = [
    (RandomForestRegressor(random_state=0), MEMBERS | PRUNED | DEPTH),
    (BaggingRegressor(random_state=0), MEMBERS),
    (
        GradientBoostingRegressor(random_state=0),
        MEMBERS | {"subsample": st.sampled_from([0.5, 1.0])},
    ),
    (AdaBoostRegressor(random_state=0), MEMBERS),
    (HistGradientBoostingRegressor(min_samples_leaf=3), {"max_iter": st.integers(1, 5)}),
    (DecisionTreeRegressor(random_state=0), PRUNED | DEPTH),
    (KNeighborsRegressor(), NEAREST),
]
CLASSIFIERS: list[tuple[Any, dict[str, Any]]] = [
    (ExtraTreesClassifier(random_state=0), MEMBERS | {"bootstrap": st.booleans()}),
    (GradientBoostingClassifier(random_state=0), MEMBERS),
    (AdaBoostClassifier(random_state=0), MEMBERS),
    (DecisionTreeClassifier(random_state=0), PRUNED | DEPTH),
    (KNeighborsClassifier(), NEAREST),
]
STEPS: list[tuple[Any, dict[str, Any]]] = [
    (StandardScaler(), {}),
    (PolynomialFeatures(), {"degree": st.integers(1, 2)}),
    (PCA(), {"n_components": st.integers(1, 4)}),
    (SelectKBest(f_regression), {"k": st.integers(1, 4)}),
]
SPLITTERS = st.sampled_from(
    [
        KFold(3),
        ShuffleSplit(2, test_size=0.3, random_state=0),
        TimeSeriesSplit(2),
        RepeatedKFold(n_splits=2, n_repeats=2, random_state=0),
    ]
)


@st.composite
def grids(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> dict[str, list[Any]]:
    """Draw some values of some parameters: at least one parameter."""
    if not drawn:
        return {}
    names = draw(st.lists(st.sampled_from(sorted(drawn)), unique=True, min_size=1, max_size=2))
    return {f"{name}{each}": draw(st.lists(drawn[each], min_size=1, max_size=3)) for each in names}


@st.composite
def searches(draw: st.DrawFn) -> Case:
    """Draw a model, alone or last in a pipeline, a grid and a splitter."""
    model, drawn = draw(st.sampled_from(REGRESSORS + CLASSIFIERS))
    n_steps = draw(st.integers(0, 2))
    grid: dict[str, list[Any]] = draw(grids(drawn, "fit__" if n_steps else ""))
    steps = [draw(st.sampled_from(STEPS)) for _ in range(n_steps)]
    for index, (_, more) in enumerate(steps):
        grid |= draw(grids(more, f"step{index}__"))
    splitters = SPLITTERS
    scoring: Any = draw(st.sampled_from([None, ["neg_max_error", "r2"]]))
    if is_classifier(model):
        splitters = st.one_of(SPLITTERS, st.just(StratifiedKFold(2)))
        scoring = draw(st.sampled_from([None, ["accuracy", "f1_macro"]]))
    if steps:
        named = [(f"step{index}", step) for index, (step, _) in enumerate(steps)]
        model = Pipeline([*named, ("fit", model)])
    train = draw(st.booleans())
    return Case(model, grid, None, scoring, draw(splitters), train=train, left=None)


@st.composite
def data(draw: st.DrawFn, classes: bool) -> tuple[Array, Array]:
    """Draw few samples: with ties, constant columns, equal samples, classes that are rare."""
    n_samples = draw(st.integers(24, 48))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.normal(size=(n_samples, 4)) * 10.0 ** rng.integers(-1, 2, size=4)
    y = X @ rng.normal(size=4) + rng.normal(size=n_samples)
    if draw(st.booleans()):
        X = np.rint(X)
    if draw(st.booleans()):
        X[:, draw(st.integers(0, 3))] = 1.5
    if draw(st.booleans()):
        X[n_samples // 2 :] = X[: n_samples - n_samples // 2]
    if classes:
        y = np.digitize(y, np.quantile(y, [0.45, 0.9]))
        return (X[np.argsort(y)], np.sort(y)) if draw(st.booleans()) else (X, y)
    return X, np.rint(y) if draw(st.booleans()) else y


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_drawn_searches(drawn: st.DataObject) -> None:
    case = drawn.draw(searches())
    conforms(case, *drawn.draw(data(is_classifier(case.estimator))))
