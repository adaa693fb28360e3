"""Nearest neighbours found once for all candidates: bit-identical, whatever the ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, conforms, samples
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hpc_sweep.search import Evaluator, Model, Setting, Task
from hpc_sweep.search.rules.neighbors import Nearest

GRID = {"n_neighbors": [5, 1, 3, 20], "weights": ["uniform", "distance"]}
PROBABILITIES = ["neg_log_loss", "accuracy"]
MODELS = [KNeighborsRegressor(), KNeighborsClassifier()]


def scoring(model: Any) -> list[str]:
    return PROBABILITIES if is_classifier(model) else ["r2", "neg_max_error"]


def of_whole_numbers(classifier: bool) -> tuple[Array, Array]:
    """Return samples with many equal distances, some samples twice, and a constant column."""
    X, y = samples(classifier, 120)
    X = np.rint(X / X.std(axis=0))
    X[:, 2] = 7.0
    X[100:] = X[:20]
    return X, y


def squeezed(distances: Array) -> Array:
    """Weigh neighbours, and write into what is given: what else it does nobody knows."""
    distances += 1.0
    return np.asarray(1 / distances**2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("algorithm", ["auto", "kd_tree", "ball_tree", "brute"])
@pytest.mark.parametrize("tied", [False, True])
def test_neighbors(model: Any, algorithm: str, tied: bool) -> None:
    data = of_whole_numbers if tied else samples
    grid = {**GRID, "algorithm": [algorithm], "p": [1, 2]}
    # majorities of a brute search are counted without a list of neighbours
    left = 24 if algorithm == "brute" and is_classifier(model) else 0
    conforms(Case(model, grid, (8, 8), scoring(model), left=left), *data(is_classifier(model)))


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int8])
@pytest.mark.parametrize("algorithm", ["kd_tree", "brute"])
def test_kinds_of_numbers(kind: Any, algorithm: str) -> None:
    X, y = of_whole_numbers(False)
    conforms(Case(KNeighborsRegressor(algorithm=algorithm), GRID, (8,)), X.astype(kind), y)


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
@pytest.mark.parametrize("algorithm", ["ball_tree", "brute"])
def test_distances_that_rounding_makes_equal(offset: float, algorithm: str) -> None:
    X, y = samples(False)
    conforms(Case(KNeighborsRegressor(algorithm=algorithm), GRID, (8,)), X + offset, y)


def test_metrics() -> None:
    grid = {**GRID, "metric": ["l1", "chebyshev", "minkowski"], "p": [3]}
    conforms(Case(KNeighborsRegressor(), grid, (8, 8, 8)), *of_whole_numbers(False))


@pytest.mark.parametrize("model", MODELS)
def test_many_features_mean_brute_force(model: Any) -> None:
    X, y = samples(is_classifier(model))
    X = np.hstack([X, X**2, X**3, np.sin(X)])
    left = 12 if is_classifier(model) else 0
    conforms(Case(model, GRID, (8,), scoring(model), left=left), X, y)


@pytest.mark.parametrize("model", MODELS)
def test_auto_takes_another_index_for_many_neighbors(model: Any) -> None:
    """60 training samples: from 30 neighbours on it is brute force; 61 are too many."""
    grid = {"n_neighbors": [29, 5, 30, 60, 31, 61], "weights": ["distance"]}
    case = Case(model, grid, (6,), scoring(model), left=3)
    found = conforms(case, *samples(is_classifier(model)))
    assert found.failed.tolist() == [False] * 5 + [True]


def test_as_many_neighbors_as_samples() -> None:
    grid = {"n_neighbors": [60, 59, 2], "algorithm": ["kd_tree", "brute"]}
    conforms(Case(KNeighborsRegressor(), grid, (3, 3)), *samples(False))
    X, y = of_whole_numbers(False)
    conforms(Case(KNeighborsRegressor(), grid, (3, 3)), X[:90], y[:90])


def test_weights_of_ones_own() -> None:
    grid = {"n_neighbors": [4, 9], "weights": [squeezed, None, "uniform"]}
    conforms(Case(KNeighborsRegressor(), grid, (4,), ["r2", "neg_max_error"]), *samples(False))


@pytest.mark.parametrize("model", MODELS)
def test_in_a_pipeline(model: Any) -> None:
    name = type(model).__name__.lower()
    grid = {f"{name}__{key}": values for key, values in GRID.items()}
    case = Case(make_pipeline(StandardScaler(), model), grid, (8,), scoring(model), KFold(4))
    conforms(case, *of_whole_numbers(is_classifier(model)))


@pytest.mark.parametrize("model", MODELS)
def test_several_outputs(model: Any) -> None:
    X, y = of_whole_numbers(is_classifier(model))
    both = np.stack([y, np.rint(np.abs(X[:, 0]))], axis=1)
    case = Case(model, GRID, (8,), lambda *each: float(each[0].predict(each[1]).mean()), KFold(3))
    conforms(case, X, both)


def test_distances_an_ulp_apart_count_as_equal() -> None:
    """A tree may leave out a sample whose box lies one rounding farther than the sample."""
    X = np.array([[0.0], [1.0], [np.nextafter(1, 2)], [3.0], [5.0]])
    index = KNeighborsRegressor(2).fit(X, X[:, 0])
    queries = np.array([[0.0], [7.0]])
    distances, _, n_clear = Nearest(index, X, queries).find(queries)
    assert (np.diff(distances) > 0).all()
    assert n_clear.tolist() == [1, 2]


def test_sparse_samples_are_looked_up_alone() -> None:
    X, y = samples(False)
    model = Model(KNeighborsRegressor(), None, lambda *each: each[0].score(*each[1:]))
    settings = [Setting(0, {"n_neighbors": n}) for n in (3, 4)]
    halves = {0: [(np.arange(60), np.arange(60, 90))]}
    dense, thin = (
        Evaluator([model], settings, ["score"]).evaluate([Task(each, y, halves)])[0]
        for each in (X, sparse.csr_matrix(X))
    )
    assert not thin.failed.any()
    np.testing.assert_allclose(dense.scores["score"], thin.scores["score"])


def test_a_scorer_that_asks_for_neighbors() -> None:
    def asks(estimator: Any, X: Array, y: Array) -> float:
        distances, indices = estimator.kneighbors(X, 4)
        own = estimator.kneighbors()[0]
        more = estimator.kneighbors(X, 40, return_distance=False)
        alone = estimator.kneighbors(X[:5])[1]
        return float(distances.sum() + (indices * more[:, :4]).sum() + own.sum() + alone.sum())

    conforms(Case(KNeighborsRegressor(), GRID, (8,), asks), *samples(False))


class Own(KNeighborsRegressor):
    """Might do anything."""


@pytest.mark.parametrize(
    "estimator",
    [
        Own(),
        KNeighborsRegressor(n_jobs=2),
        KNeighborsRegressor(metric="cosine"),
        KNeighborsRegressor(p=0.5, algorithm="brute"),
        KNeighborsRegressor(metric_params={"w": np.ones(5)}),
        KNeighborsRegressor(metric=squeezed),
    ],
)
def test_what_is_not_shared(estimator: Any) -> None:
    settings = [Setting(0, {"n_neighbors": n}) for n in (1, 2)]
    groups = Evaluator([Model(estimator, None, None)], settings, ["score"]).groups
    assert all(rule is None for rule, _ in groups)
