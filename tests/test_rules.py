"""Every sharing rule gives scikit-learn's numbers: one suite over estimators, grids and splits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVR

from hpc_sweep.estimators import build_scorers, build_splitter
from hpc_sweep.search import Evaluation, Evaluator, Model, Setting, Task

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A search whose candidates are shared by rules.

    Attributes
    ----------
    estimator, param_grid : estimator, mapping or list of mapping
        What is searched.
    groups : tuple of int
        Sizes of the groups of candidates that share work, largest first.
    scoring, cv : object
        As in `GridSearchCV`.
    tolerance : float
        Largest difference of a score; 0: bit-identical.
    train : bool
        Whether training samples are scored too.
    """

    estimator: Any
    param_grid: Any
    groups: tuple[int, ...]
    scoring: Any = None
    cv: Any = 3
    tolerance: float = 0.0
    train: bool = True


def samples(classifier: bool, n_samples: int = 90, seed: int = 3) -> tuple[Array, Array]:
    """Return X and y with something to learn."""
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 2, (n_samples, 5)) * [1, 10, 0.1, 1, 3]
    y = X @ [1.0, 0.1, 5.0, 0.0, -0.5] + np.sin(X[:, 0]) + rng.normal(size=n_samples)
    return X, np.digitize(y, np.quantile(y, [0.3, 0.6])) if classifier else y


def evaluator_of(case: Case, rules: Any = None) -> tuple[Evaluator, Any]:
    """Return what evaluates a case, and its splitter."""
    classifier = is_classifier(case.estimator)
    splitter = build_splitter(case.cv, classifier) if isinstance(case.cv, int) else case.cv
    named = case.scoring is None or not callable(case.scoring)
    scorer = build_scorers(case.estimator, case.scoring) if named else case.scoring
    metrics = tuple(case.scoring) if isinstance(case.scoring, (list, dict)) else ("score",)
    settings = [Setting(0, params) for params in ParameterGrid(case.param_grid)]
    options = {} if rules is None else {"rules": rules}
    model = Model(case.estimator, splitter, scorer)
    return Evaluator([model], settings, metrics, train_scores=case.train, **options), splitter


def evaluated(case: Case, X: Array, y: Array | None, rules: Any = None) -> Evaluation:
    evaluator, splitter = evaluator_of(case, rules)
    return evaluator.evaluate([Task(X, y, {0: list(splitter.split(X, y))})])[0]


def searched(case: Case, X: Array, y: Array | None) -> dict[str, Any]:
    """Return scikit-learn's scores, shape (n_candidates, n_splits), by kind and metric."""
    search = GridSearchCV(
        case.estimator,
        case.param_grid,
        cv=case.cv,
        scoring=case.scoring,
        refit=False,
        error_score=np.nan,
        return_train_score=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = search.fit(X, y).cv_results_
    metrics = tuple(case.scoring) if isinstance(case.scoring, (list, dict)) else ("score",)
    return {
        f"{kind}_{metric}": np.stack(
            [results[f"split{i}_{kind}_{metric}"] for i in range(search.n_splits_)], axis=1
        )
        for kind in ("test", "train")
        for metric in metrics
    }


def conforms(case: Case, X: Array, y: Array | None) -> Evaluation:
    """Assert that a case gives scikit-learn's numbers, in the groups that it should."""
    evaluator, _ = evaluator_of(case)
    sizes = sorted((len(rows) for rule, rows in evaluator.groups if rule), reverse=True)
    assert tuple(sizes) == case.groups
    before = X.copy(), None if y is None else y.copy()
    found, expected = evaluated(case, X, y), searched(case, X, y)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])  # type: ignore[arg-type]
    for kind, scores in (("test", found.scores), ("train", found.train_scores)):
        for metric, values in scores.items():
            wanted = expected[f"{kind}_{metric}"]
            assert np.isfinite(wanted).any()
            if case.tolerance:
                np.testing.assert_allclose(values, wanted, rtol=0, atol=case.tolerance)
            else:
                np.testing.assert_array_equal(values, wanted)
    alone = evaluated(case, X, y, rules=())
    assert found.messages == alone.messages
    np.testing.assert_array_equal(found.failed, alone.failed)
    assert (found.fit_time[np.isfinite(alone.fit_time)] > 0).all()
    return found


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
    case = Case(make_pipeline(Counting(), SVR()), grid, (3, 3), train=False)
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
