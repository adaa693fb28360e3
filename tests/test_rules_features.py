"""Transformers and trees that are parts of one fit: bit-identical."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conformance import Array, Case, conforms, samples
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
from sklearn.feature_selection import (
    SelectFpr,
    SelectKBest,
    SelectPercentile,
    f_classif,
    f_regression,
    mutual_info_regression,
)
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

from hpc_sweep.search import Evaluator, Model, Setting, Task

PRUNINGS = {"ccp_alpha": [0.02, 0.0, 0.5, 1e3]}
ERRORS = ["r2", "neg_max_error"]


def reduced(pca: PCA, n_components: list[int | None], **more: Any) -> Case:
    grid = {"pca__n_components": n_components, "lasso__alpha": [0.01, 0.1], **more}
    return Case(
        make_pipeline(StandardScaler(), pca, Lasso()), grid, (2 * len(n_components),), ERRORS
    )


CASES = {
    "tree": Case(
        DecisionTreeRegressor(random_state=1),
        {**PRUNINGS, "max_depth": [None, 3]},
        (4, 4),
        ERRORS,
    ),
    "tree of one split": Case(ExtraTreeRegressor(random_state=1), PRUNINGS, (4,)),
    "tree of classes": Case(
        DecisionTreeClassifier(random_state=1, class_weight="balanced"),
        PRUNINGS,
        (4,),
        ["neg_log_loss", "accuracy"],
    ),
    "tree in a pipeline": Case(
        make_pipeline(StandardScaler(), DecisionTreeRegressor(random_state=1, max_features=2)),
        {"decisiontreeregressor__ccp_alpha": [0.0, 0.1]},
        (2,),
    ),
    "forest": Case(
        RandomForestRegressor(random_state=1), {**PRUNINGS, "n_estimators": [4, 2]}, (8,), ERRORS
    ),
    "forest of classes": Case(
        ExtraTreesClassifier(random_state=1, n_estimators=4),
        {"ccp_alpha": [0.02, 0.0]},
        (2,),
        ["neg_log_loss"],
    ),
    "best features": Case(
        make_pipeline(SelectKBest(f_regression), Lasso()),
        {"selectkbest__k": [3, 1, "all", 5], "lasso__alpha": [0.1, 1]},
        (8,),
        ERRORS,
    ),
    "best features by classes": Case(
        make_pipeline(StandardScaler(), SelectPercentile(f_classif), LogisticRegression()),
        {"selectpercentile__percentile": [20, 60, 100]},
        (3,),
        ["neg_log_loss"],
    ),
    "best features by information": Case(
        make_pipeline(SelectKBest(partial(mutual_info_regression, random_state=0)), SVR()),
        {"selectkbest__k": [1, 3]},
        (2,),
    ),
    "significant features": Case(
        make_pipeline(SelectFpr(f_regression), SVR()), {"selectfpr__alpha": [0.9, 0.01]}, (2,)
    ),
    "components": reduced(PCA(), [2, 1, None, 5]),
    "components by singular values": reduced(PCA(svd_solver="full"), [4, 2]),
    "components by covariance": reduced(PCA(svd_solver="covariance_eigh"), [4, 2, None]),
    "whitened components": Case(
        make_pipeline(PCA(whiten=True), KNeighborsRegressor()),
        {"pca__n_components": [2, 3, 5], "pca__svd_solver": ["auto", "full"]},
        (3, 3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parts(name: str) -> None:
    case = CASES[name]
    conforms(case, *samples(is_classifier(case.estimator)))


@pytest.mark.parametrize("shape", [(40, 30), (30, 60), (700, 20), (900, 100)])
def test_shapes_of_components(shape: tuple[int, int]) -> None:
    """Full, wide, tall by covariance; large ones, where the solver depends on the number."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))
    y = X[:, 0] + rng.normal(size=len(X))
    model = make_pipeline(PCA(random_state=0), KNeighborsRegressor())
    counting = mock.patch.object(PCA, "fit_transform", autospec=True, side_effect=PCA.fit_transform)
    grid = {"pca__n_components": [3, 7, 15]}
    with counting as fits:
        conforms(Case(model, grid, (3,)), X, y)
    of_scikit_learn = 9
    ours, alone = (9 if shape == (900, 100) else 3), 9
    assert fits.call_count == ours + of_scikit_learn + alone


def test_single_precision() -> None:
    X, y = samples(False)
    conforms(reduced(PCA(), [1, 2, 4]), X.astype(np.float32), y)


def test_what_cannot_be_a_part() -> None:
    """More components or features than there are: alone, with an error or a warning."""
    X, y = samples(False)
    case = Case(
        make_pipeline(PCA(), SVR()), {"pca__n_components": [2, 3, 6]}, (3,), left=3, train=False
    )
    assert conforms(case, X, y).failed.tolist() == [False, False, True]
    grid = {"selectkbest__k": [2, 3, 6]}
    case = Case(make_pipeline(SelectKBest(f_regression), SVR()), grid, (3,))
    messages = conforms(case, X, y).messages
    assert messages[:2] == ["", ""]
    assert "k=6" in messages[2]


def test_components_of_sparse_samples() -> None:
    """They are found one by one, and depend on how many are asked for."""
    X, y = samples(False)
    thin = sparse.csr_array(X)
    halves = {0: [(np.arange(60), np.arange(60, 90))]}
    pipeline = make_pipeline(PCA(random_state=0), SVR())
    settings = [Setting(0, {"pca__n_components": n}) for n in (1, 2, 3)]
    model = Model(pipeline, None, lambda *each: each[0].score(*each[1:]))
    shared = Evaluator([model], settings, ["score"])
    alone = Evaluator([model], settings, ["score"], rules=())
    assert len(shared.groups) == 1
    found, wanted = (each.evaluate([Task(thin, y, halves)])[0] for each in (shared, alone))
    np.testing.assert_array_equal(found.scores["score"], wanted.scores["score"])


def centred(X: Array) -> Array:
    """Change what is given."""
    X -= X.mean(axis=0)
    return X


def test_a_function_that_writes_into_its_input() -> None:
    pipeline = make_pipeline(StandardScaler(), FunctionTransformer(), SVR())
    grid = {"functiontransformer__func": [None, centred, np.abs], "svr__C": [1, 10]}
    conforms(Case(pipeline, grid, (6,), train=False), *samples(False))
    conforms(Case(pipeline, grid, (4,)), *samples(False))


def test_several_outputs_of_a_tree() -> None:
    X, y = samples(False)
    conforms(Case(DecisionTreeRegressor(random_state=1), PRUNINGS, (4,)), X, np.stack([y, y**2], 1))


def test_a_scorer_that_looks_inside() -> None:
    def seen(estimator: Any, X: Array, y: Array) -> float:
        pca = estimator[0]
        held = (pca.components_, pca.singular_values_, pca.explained_variance_ratio_)
        total = sum(float(np.abs(each).sum()) for each in held)
        return total + pca.noise_variance_ + pca.n_components_ + float(pca.score(X))

    case = Case(make_pipeline(PCA(), SVR()), {"pca__n_components": [1, 2, 5]}, (3,), seen)
    conforms(case, *samples(False))

    def grown(estimator: Any, X: Array, y: Array) -> float:
        return float(estimator.tree_.node_count + estimator.ccp_alpha + estimator.get_depth())

    conforms(Case(DecisionTreeRegressor(random_state=1), PRUNINGS, (4,), grown), *samples(False))


@pytest.mark.parametrize(
    ("estimator", "name", "values"),
    [
        (DecisionTreeRegressor(), "ccp_alpha", [0.0, 0.1]),
        (PCA(svd_solver="arpack"), "n_components", [1, 2]),
        (PCA(svd_solver="randomized"), "n_components", [1, 2]),
        (PCA(), "n_components", [0.5, "mle"]),
        (PCA(copy=False), "n_components", [1, 2]),
    ],
)
def test_what_is_not_shared(estimator: Any, name: str, values: list[Any]) -> None:
    settings = [Setting(0, {name: value}) for value in values]
    groups = Evaluator([Model(estimator, None, None)], settings, ["score"]).groups
    assert all(rule is None for rule, _ in groups)
