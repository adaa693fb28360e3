"""Every sharing rule gives scikit-learn's numbers: one suite over estimators, grids and splits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, conforms, evaluated, samples
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVR

SCALED_SVR = make_pipeline(StandardScaler(), SVR())
THREE = Pipeline([("scale", StandardScaler()), ("poly", PolynomialFeatures()), ("fit", SVR())])

PREFIXES = {
    "scaler": Case(SCALED_SVR, {"svr__C": [1, 10], "svr__gamma": [0.1, 1]}, (4,)),
    "two steps": Case(THREE, {"poly__degree": [1, 2], "fit__C": [1, 10]}, (4,)),
    "swapped steps": Case(
        THREE,
        {"scale": [StandardScaler(), MinMaxScaler(), "passthrough"], "fit__C": [1, 10]},
        (2, 2, 2),
    ),
    "swapped last steps": Case(SCALED_SVR, [{"svr": [SVR(), Lasso()]}, {"svr__C": [3]}], (3,)),
    "several metrics": Case(
        SCALED_SVR, {"svr__C": [1, 10]}, (2,), scoring=["r2", "neg_max_error"], cv=KFold(4)
    ),
    "probabilities": Case(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [0.1, 1, 10]},
        (3,),
        scoring=["neg_log_loss", "roc_auc_ovr", "accuracy"],
    ),
    "in place": Case(
        make_pipeline(StandardScaler(copy=False), Lasso(copy_X=False)),
        {"lasso__alpha": [0.1, 1]},
        (2,),
        train=False,
    ),
    "one that is invalid": Case(SCALED_SVR, {"svr__C": [1, -1, 10]}, (2,)),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes(name: str) -> None:
    case = PREFIXES[name]
    conforms(case, *samples(is_classifier(case.estimator)))


class Counting(TransformerMixin, BaseEstimator):
    """Counts its fits; fails, warns or writes into its input as told."""

    fits = 0

    def __init__(self, how: str = "") -> None:
        self.how = how

    def fit(self, X: Array, y: Array | None = None) -> Counting:
        Counting.fits += 1
        if self.how == "raises":
            raise ValueError("no")
        if self.how == "warns":
            warnings.warn("so so", ConvergenceWarning, stacklevel=2)
        if self.how == "mutates":
            X[...] = 0
        return self

    def transform(self, X: Array) -> Array:
        return np.asarray(X * 1.0)


def test_a_prefix_is_fitted_once_a_split() -> None:
    case = Case(make_pipeline(Counting(), SVR()), {"svr__C": [1, 2, 3]}, (3,), train=False)
    X, y = samples(False)
    Counting.fits = 0
    evaluated(case, X, y)
    assert Counting.fits == 3


@pytest.mark.parametrize("how", ["raises", "warns", "mutates"])
def test_a_prefix_that_misbehaves(how: str) -> None:
    """Its candidates get what they would get alone; the others notice nothing."""
    grid = {"counting__how": ["", how], "svr__C": [1, 2, 3]}
    left = 9 if how == "raises" else 0
    case = Case(make_pipeline(Counting(), SVR()), grid, (3, 3), train=False, left=left)
    found = conforms(case, *samples(False))
    assert found.failed.tolist() == [False] * 3 + [how == "raises"] * 3
    expected = {"raises": "split 0: ValueError: no", "warns": "ConvergenceWarning: so so"}
    assert found.messages == [""] * 3 + [expected.get(how, "")] * 3


def test_a_scorer_that_looks_at_the_steps() -> None:
    def n_features(estimator: Any, X: Array, y: Array) -> float:
        assert X.shape[1] == 5
        return float(estimator["pca"].n_components + estimator.predict(X).mean())

    pipeline = make_pipeline(StandardScaler(), PCA(2), SVR())
    case = Case(pipeline, {"svr__C": [1, 10], "pca__n_components": [2, 3]}, (4,), n_features)
    conforms(case, *samples(False))


def test_a_failure_on_one_split_hides_no_other() -> None:
    """What fails when shared is done alone, also after another split has failed for good."""
    X, y = samples(False)
    folds = list(KFold(3).split(X))
    seen: list[str] = []

    def fails_at_first(estimator: Any, X_test: Array, y_test: Array) -> float:
        if y_test[0] == y[folds[0][1][0]]:
            raise ValueError("never")
        name = f"{estimator['svr'].C} {y_test[0]}"
        if name not in seen:
            seen.append(name)
            raise ValueError("the first time")
        return 1.0

    case = Case(SCALED_SVR, {"svr__C": [1, 10]}, (2,), scoring=fails_at_first, train=False)
    found = evaluated(case, X, y)
    np.testing.assert_array_equal(found.scores["score"], [[np.nan, 1, 1]] * 2)
    assert found.messages == ["split 0: ValueError: never"] * 2
