"""Linear models in batches: scikit-learn's numbers to 1e-9, the same bits in any company."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conformance import Case, conforms, evaluated, evaluator_of, samples
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import KFold, ShuffleSplit, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from hpc_sweep.estimators import build_scorers
from hpc_sweep.search import Evaluator, Model, Setting, Task
from hpc_sweep.search.evaluator import Evaluator as Original

Array = NDArray[Any]
ALPHAS = [1e-3, 0.1, 1.0, 10.0, 1000.0]
SCALED = make_pipeline(StandardScaler(), Ridge())
REDUCED = make_pipeline(StandardScaler(), PCA(), Ridge())
EVERY = ["r2", "neg_mean_squared_error", "neg_root_mean_squared_error", "neg_mean_absolute_error"]


def case(estimator: Any, grid: Any, groups: tuple[int, ...], **options: Any) -> Case:
    return Case(estimator, grid, groups, tolerance=1e-9, **options)


CASES = {
    "ridge": case(Ridge(), {"alpha": ALPHAS}, (5,)),
    "no intercept": case(Ridge(fit_intercept=False), {"alpha": ALPHAS}, (5,)),
    "both intercepts": case(Ridge(), {"alpha": [1], "fit_intercept": [True, False]}, (1, 1)),
    "least squares": case(LinearRegression(), {}, (1,)),
    "no intercept, least squares": case(LinearRegression(fit_intercept=False), {}, (1,)),
    "svd": case(Ridge(solver="svd"), {"alpha": ALPHAS}, (5,)),
    "scaled": case(SCALED, {"ridge__alpha": ALPHAS}, (5,), cv=KFold(5)),
    "scaled, no intercept": case(
        SCALED, {"ridge__fit_intercept": [False], "ridge__alpha": [1, 2]}, (2,)
    ),
    "centred": case(SCALED, {"standardscaler__with_std": [False], "ridge__alpha": ALPHAS}, (5,)),
    "scaler or not": case(
        SCALED,
        {"standardscaler": ["passthrough", StandardScaler()], "ridge__alpha": [1, 2]},
        (2, 2),
    ),
    "components": case(
        REDUCED, {"pca__n_components": [1, 2, 4, 5, None], "ridge__alpha": ALPHAS}, (25,)
    ),
    "components of what is not scaled": case(
        make_pipeline(PCA(), Ridge()), {"pca__n_components": [1, 2], "ridge__alpha": ALPHAS}, (10,)
    ),
    "components, least squares": case(
        make_pipeline(StandardScaler(), PCA(), LinearRegression(fit_intercept=False)),
        {"pca__n_components": [1, 2, 5], "pca__svd_solver": ["full", "covariance_eigh"]},
        (3, 3),
    ),
    "every metric": case(Ridge(), {"alpha": ALPHAS}, (5,), scoring=EVERY),
    "metrics one by one": case(
        Ridge(),
        {"alpha": ALPHAS},
        (5,),
        scoring=["neg_median_absolute_error", "neg_max_error", "r2", "explained_variance"],
    ),
    "time series": case(Ridge(), {"alpha": ALPHAS}, (5,), cv=TimeSeriesSplit(4)),
    "shuffled": case(SCALED, {"ridge__alpha": ALPHAS}, (5,), cv=ShuffleSplit(4, random_state=0)),
}


@pytest.mark.parametrize("name", CASES)
def test_linear(name: str) -> None:
    conforms(CASES[name], *samples(False))


@pytest.mark.parametrize("n_targets", [1, 3])
@pytest.mark.parametrize("estimator", [Ridge(), REDUCED], ids=["ridge", "components"])
def test_several_targets(estimator: Any, n_targets: int) -> None:
    X, y = samples(False)
    y = np.stack([y * 10**i + X[:, i] ** 2 for i in range(n_targets)], axis=1)
    name = "alpha" if isinstance(estimator, Ridge) else "ridge__alpha"
    conforms(case(estimator, {name: ALPHAS}, (5,), scoring=["r2", "neg_mean_absolute_error"]), X, y)


@pytest.mark.parametrize("n_features", [1, 15, 16, 17, 40])
def test_numbers_of_features(n_features: int) -> None:
    """Small systems and large ones are solved in two ways."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(130, n_features)) @ rng.normal(size=(n_features, n_features))
    y = X.sum(axis=1) + rng.normal(size=130)
    conforms(case(Ridge(), {"alpha": ALPHAS}, (5,)), X, y)
    conforms(case(SCALED, {"ridge__alpha": ALPHAS}, (5,)), X, y)


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64", "float32"])
def test_kinds_of_numbers(dtype: str) -> None:
    X, y = samples(False)
    X = (X * 3 > 4) if dtype == "bool" else X.astype(dtype)
    left = 15 if dtype == "float32" else 0
    found = case(Ridge(), {"alpha": ALPHAS}, (5,), left=left)
    conforms(found, X, y)
    conforms(found, np.asfortranarray(X), y)


def test_whole_numbers_as_targets() -> None:
    X, y = samples(False)
    conforms(case(Ridge(), {"alpha": ALPHAS}, (5,)), X, (y * 10).astype("int32"))


# numbers that are hard


NOISE = np.random.default_rng(1).normal(size=90)


def put(array: Array, index: Any, value: Any) -> Array:
    """Return an array in which something is replaced."""
    array = array.copy()
    array[index] = value
    return array


HARD: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "far from zero": lambda X, y: (X + 1e6, y + 1e5),
    "far from zero, and narrow": lambda X, y: (X * 1e-6 + 1e6, y),
    "units": lambda X, y: (X * [1e5, 1e-7, 1, 1e3, 1e-3], y),
    "units that differ by much": lambda X, y: (X * [1e-7, 1, 1, 1, 1], y),
    "squares that lose digits": lambda X, y: (X * 1e-160, y),
    "constant": lambda X, y: (put(X, np.s_[:, 2], 7.3), y),
    "constant but for noise": lambda X, y: (put(X, np.s_[:, 2], 1 + 1e-13 * NOISE[: len(X)]), y),
    "constant but for rounding": lambda X, y: (put(X, np.s_[:, 2], 1 + 2e-16 * (NOISE > 0)), y),
    "zero": lambda X, y: (put(X, np.s_[:, 1], 0.0), y),
    "constant in a split": lambda X, y: (put(X, np.s_[30:, 0], 1.1), y),
    "zero in a split": lambda X, y: (put(X, np.s_[30:, 0], 0.0), y),
    "rare": lambda X, y: (put(X, np.s_[:, 0], np.arange(len(X)) == 3), y),
    "far off in a split": lambda X, y: (put(X, np.s_[30:, 0], X[30:, 0] + 1e5), y),
    "target far off in a split": lambda X, y: (X, put(y, np.s_[30:], y[30:] + 1e5)),
    "twins": lambda X, y: (put(X, np.s_[:, 3], X[:, 0]), y),
    "near twins": lambda X, y: (put(X, np.s_[:, 3], X[:, 0] + 1e-7 * NOISE), y),
    "few": lambda X, y: (X[:7], y[:7]),
    "fewer than features": lambda X, y: (X[:5], y[:5]),
    "two": lambda X, y: (X[:3], y[:3]),
    "constant target": lambda X, y: (X, np.full(len(y), 3.3)),
    "constant target in a split": lambda X, y: (X, put(y, np.s_[:30], 1.7)),
    "target zero in a split": lambda X, y: (X, put(y, np.s_[:30], 0.0)),
    "target constant but for noise": lambda X, y: (X, 280 + 1e-6 * y),
    "exact": lambda X, y: (X, X @ np.arange(5.0)),
    "tiny": lambda X, y: (X * 1e-150, y * 1e-150),
    "huge": lambda X, y: (X * 1e160, y),
    "missing": lambda X, y: (put(X, (3, 1), np.nan), y),
    "infinite": lambda X, y: (put(X, (3, 1), np.inf), y),
    "infinite target": lambda X, y: (X, put(y, 5, np.inf)),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (Ridge(), {"alpha": [0, 1e-8, *ALPHAS]}),
        (SCALED, {"ridge__alpha": [0, 1e-8, *ALPHAS]}),
        (REDUCED, {"pca__n_components": [1, 2, 3, 5], "ridge__alpha": [0, 1e-8, 1]}),
        (LinearRegression(), {}),
        (LinearRegression(), {"tol": [1e-9, 1e-3, 0.5]}),
        (
            make_pipeline(StandardScaler(), PCA(), LinearRegression()),
            {"linearregression__tol": [0, 0.5, 0.9]},
        ),
    ],
    ids=["ridge", "scaled", "components", "least squares", "cut off", "components cut off"],
)
@pytest.mark.filterwarnings("ignore:R.2 score is not well-defined")
def test_hard_numbers(name: str, estimator: Any, grid: Any) -> None:
    """What normal equations would spoil is fitted alone: same numbers, same reasons."""
    X, y = HARD[name](*samples(False))
    found = case(estimator, grid, (), scoring=["r2", "neg_mean_absolute_error"])
    both = evaluated(found, X, y), evaluated(found, X, y, rules=())
    for metric, scores in both[0].scores.items():
        size = 1.0 if metric == "r2" else float(np.abs(y[np.isfinite(y)]).max())
        expected = both[1].scores[metric]
        np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9 * size, equal_nan=True)
    assert both[0].failed.tolist() == both[1].failed.tolist()
    assert both[0].messages == both[1].messages


METRICS = ["r2", "explained_variance", "neg_mean_squared_error"]
FAR: dict[str, tuple[Any, Callable[[Array, Array], tuple[Array, Array]]]] = {
    "noise about a level in a split": (
        make_pipeline(PCA(), Ridge(1e-4, fit_intercept=False)),
        lambda X, y: (np.where(np.arange(len(X)) < 30, 4, 1)[:, None] / 3 + 2e-9 * X[:, :1], y),
    ),
    "a target far off its fit": (
        Ridge(1e-6, fit_intercept=False, solver="svd"),
        lambda X, y: (1.5 + 2e-12 * X[:, :1], 1e10 + 0.01 * X[:, 0] + 0.02 * y),
    ),
    "components of what is far off": (
        make_pipeline(PCA(2), LinearRegression()),
        lambda X, y: (X / X.std(axis=0) + [1e4, 0, 0, 0, 0], y),
    ),
    "a target that is not centred": (
        make_pipeline(StandardScaler(), Ridge(1e-6, fit_intercept=False)),
        lambda X, y: (X[:, :1] + 5e-2 * X - 1e3, 1e4 + y),
    ),
}


@pytest.mark.parametrize("name", FAR)
def test_levels_that_hide_digits(name: str) -> None:
    """Means are so large beside deviations that two ways to subtract them differ."""
    estimator, made = FAR[name]
    for seed, metric in itertools.product(range(5), METRICS):
        rng = np.random.default_rng(seed)
        X, y = made(rng.normal(size=(90, 5)), rng.normal(size=90))
        found = case(estimator, {}, (), scoring=metric)
        both = (evaluated(found, X, y, **how).scores["score"] for how in ({}, {"rules": ()}))
        np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-9)


def test_a_constant_is_predicted_to_the_last_bit_or_not() -> None:
    """Explained variance is 1 or 0 then; without an intercept the target is not centred."""
    X, _ = samples(False)
    grid = {"alpha": [0, 1e-8, *ALPHAS], "fit_intercept": [True, False]}
    X[:, 2] = 0.1
    found = case(Ridge(), grid, (), scoring=["explained_variance"])
    for level in (0.1, 2.0, 1e-3):
        y = np.full(len(X), level)
        both = evaluated(found, X, y), evaluated(found, X, y, rules=())
        np.testing.assert_allclose(*(each.scores["explained_variance"] for each in both), rtol=1e-9)


def test_every_sound_candidate_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted alone where it need not be."""

    def alone(*args: Any) -> None:
        raise AssertionError("fitted alone")

    X, y = samples(False)
    monkeypatch.setattr(Original, "alone", alone)
    for name in ("ridge", "scaled", "components", "every metric", "least squares"):
        found = evaluated(CASES[name], X, y)
        assert np.isfinite(found.scores[next(iter(found.scores))]).all()
    X[:, 2] = 0.1
    for name in ("ridge", "scaled"):
        evaluated(CASES[name], X, y)


@pytest.mark.parametrize("name", ["ridge", "scaled", "components", "no intercept", "time series"])
def test_the_same_bits_in_any_company(name: str) -> None:
    """Partitions of unequal lengths: alone, in pairs, all together, in another order."""
    evaluator, splitter = evaluator_of(CASES[name])
    rng = np.random.default_rng(5)
    tasks = []
    for index in range(40):
        X, y = samples(False, n_samples=int(rng.integers(30, 200)), seed=index)
        if index % 7 == 3:
            X[:, 1] = 4.0
        if index % 11 == 5:
            X[2, 2] = np.nan
        tasks.append(Task(X, y, {0: list(splitter.split(X))}))
    alone = [evaluator.evaluate([task])[0].scores["score"] for task in tasks]
    for order in (range(40), range(39, -1, -1), rng.permutation(40)):
        for step in (2, 17, 40):
            for first in range(0, 40, step):
                part = list(order)[first : first + step]
                found = evaluator.evaluate([tasks[i] for i in part])
                for i, result in zip(part, found, strict=True):
                    np.testing.assert_array_equal(result.scores["score"], alone[i])


def test_partitions_of_different_shapes_together() -> None:
    """Features, targets and numbers of splits may differ; what is empty stays blank."""
    found = CASES["ridge"]
    evaluator, _ = evaluator_of(found)
    X, y = samples(False)
    pairs = [(X, y), (X[:, :2], y), (X, np.stack([y, y**2], axis=1)), (X[:50], y[:50])]
    numbers = [3, 4, 2, 0]
    tasks = [
        Task(X, y, {0: list(KFold(n).split(X)) if n else []})
        for (X, y), n in zip(pairs, numbers, strict=True)
    ]
    together = evaluator.evaluate(tasks)
    for task, result, n in zip(tasks, together, numbers, strict=True):
        np.testing.assert_array_equal(
            result.scores["score"][:, :n], evaluator.evaluate([task])[0].scores["score"]
        )
        assert np.isnan(result.scores["score"][:, n:]).all()
        assert not result.failed.any()


class Odd(BaseEstimator):
    """No transformer of scikit-learn's."""

    def fit(self, X: Array, y: Array | None = None) -> Odd:
        return self

    def transform(self, X: Array) -> Array:
        return X


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(positive=True),
        Ridge(solver="lsqr"),
        Ridge(alpha=[1.0]),
        LinearRegression(positive=True),
        make_pipeline(MinMaxScaler(), Ridge()),
        make_pipeline(StandardScaler(with_mean=False), Ridge()),
        make_pipeline(StandardScaler(), PCA(0.9), Ridge()),
        make_pipeline(StandardScaler(), PCA(2, whiten=True), Ridge()),
        make_pipeline(StandardScaler(), PCA(2, svd_solver="randomized"), Ridge()),
        make_pipeline(Odd(), Ridge()),
        type("MyRidge", (Ridge,), {})(),
    ],
    ids=str,
)
def test_what_is_left_to_others(estimator: Any) -> None:
    evaluator = evaluator_of(Case(estimator, {}, ()))[0]
    assert isinstance(evaluator, Evaluator)
    assert [rule for rule, _ in evaluator.groups] == [None]


def test_a_scorer_that_needs_the_estimator() -> None:
    def steep(estimator: Any, X: Array, y: Array) -> float:
        return float(np.abs(estimator[-1].coef_).sum())

    found = Case(SCALED, {"ridge__alpha": ALPHAS}, (5,), scoring=steep)
    conforms(found, *samples(False))


def test_a_scorer_that_fails() -> None:
    def no_score(y_true: Array, y_pred: Array) -> float:
        raise ZeroDivisionError("no score")

    found = evaluated(
        case(Ridge(), {"alpha": ALPHAS}, (5,), scoring=make_scorer(no_score)), *samples(False)
    )
    assert found.messages == ["split 0: ZeroDivisionError: no score"] * 5


def test_a_large_partition_takes_little_memory() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150_000, 8))
    y = X[:, 0] + rng.normal(size=len(X))
    model = Model(Ridge(), KFold(3), build_scorers(Ridge(), "r2"))
    splits = list(KFold(3).split(X))
    evaluator = Evaluator([model], [Setting(0, {"alpha": a}) for a in (0.1, 1.0)], ["score"])
    tracemalloc.start()
    try:
        found = evaluator.evaluate([Task(X, y, {0: splits})])[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.isfinite(found.scores["score"]).all()
    assert peak < 2.5 * (X.nbytes + y.nbytes)
