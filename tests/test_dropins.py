"""Our searches give scikit-learn's results, in less work, wherever they run."""

from __future__ import annotations

import itertools
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import scipy.sparse
from scipy.stats import loguniform
from sklearn import config_context, model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.callback import ProgressBar
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer, r2_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, KernelCenterer, StandardScaler
from sklearn.svm import SVC

import hpc_sweep
from hpc_sweep.search.cells import _slices

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (90, 4))
Y = (X[:, 0] + RNG.normal(size=90) > 2).astype(int) + (X[:, 1] > 4)
SCALED = make_pipeline(StandardScaler(), SVC())
GRID = {"svc__C": [0.01, 1, 100], "svc__gamma": ["scale", 0.1]}
WORDS = np.array(["rain", "snow", "sun", "wind"])
TEXTS = [" ".join(WORDS[RNG.integers(0, 4, 6)]) for _ in Y]
POSITIVE = np.abs(X)


class Counting(TransformerMixin, BaseEstimator):
    """Leaves X as it is, and a line in a file for each fit."""

    def __init__(self, path: str = "") -> None:
        self.path = path

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Counting:
        with Path(self.path).open("a") as file:
            file.write("fit\n")
        return self

    def transform(self, X: Any) -> Any:
        return X


class Warns(TransformerMixin, BaseEstimator):
    """Warns in each fit."""

    def fit(self, X: Any, y: Any = None) -> Warns:
        warnings.warn(f"{len(X)} samples", ConvergenceWarning, stacklevel=1)
        return self

    def transform(self, X: Any) -> Any:
        return X


class Fails(TransformerMixin, BaseEstimator):
    """Raises where there are so many samples."""

    def __init__(self, at: int = 0, where: str = "fit") -> None:
        self.at = at
        self.where = where

    def fit(self, X: Any, y: Any = None) -> Fails:
        if self.where == "fit" and len(X) == self.at:
            raise ValueError("too many")
        return self

    def transform(self, X: Any) -> Any:
        if self.where == "transform" and len(X) == self.at:
            raise ValueError("too few")
        return X


def doubled(X: Any) -> Any:
    X *= 2
    return X


def scores_of_own(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    found = estimator.predict(X)
    return {"right": np.mean(found == y), "steps": len(estimator.steps)}


BOOSTED = GradientBoostingClassifier(random_state=0)


def number_of_own(estimator: Any, X: Any, y: Any) -> np.float32:
    return np.float32(estimator.score(X, y))


def second(results: Any) -> int:
    return 1


def both(name: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """Return our search and scikit-learn's."""
    return tuple(  # type: ignore[return-value]
        getattr(module, name)(*arguments, **options) for module in (hpc_sweep, model_selection)
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that two fitted searches have the same results, but for times."""
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for key, expected in theirs.cv_results_.items():
        found = ours.cv_results_[key]
        if key == "params":
            assert found == expected
        elif key.startswith("param_"):
            assert found.dtype == expected.dtype
            assert found.tolist() == expected.tolist()
        elif key.endswith("_time"):
            assert np.isfinite(found).all()
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    for name in ("best_index_", "best_params_", "best_score_", "multimetric_", "n_splits_"):
        assert repr(getattr(ours, name, None)) == repr(getattr(theirs, name, None))
    assert sorted(name for name in vars(ours) if name != "_shared") == sorted(vars(theirs))


CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": ({}, X),
    "train scores": ({"return_train_score": True}, X),
    "several metrics": (
        {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro", "return_train_score": True},
        X,
    ),
    "a scorer": ({"scoring": make_scorer(accuracy_score)}, X),
    "a dict of one's own": (
        {"scoring": scores_of_own, "refit": "right", "return_train_score": True},
        X,
    ),
    "a number of one's own": ({"scoring": number_of_own}, X),
    "a choice of one's own": ({"refit": second}, X),
    "no refit": ({"refit": False}, X),
    "splits": ({"cv": [(np.arange(60), np.arange(60, 90)), (np.arange(30, 90), [1, 2, 3])]}, X),
    "masks": ({"cv": [(np.arange(90) % 3 > 0, np.arange(90) % 3 == 0)]}, X),
    "masks behind numbers": (
        {
            "cv": [
                (np.arange(60), np.arange(60, 90)),
                (np.arange(90) % 3 > 0, np.arange(90) % 3 == 0),
            ]
        },
        X,
    ),
    "numbers from the end": ({"cv": [(np.arange(60), np.arange(-30, 0))]}, X),
    "frame": ({}, pandas.DataFrame(X, columns=list("abcd"))),
    "list": ({}, X.tolist()),
    "float32": ({}, X.astype(np.float32)),
    "not a number": (
        {
            "cv": [(np.arange(60), np.arange(60, 90)), (np.arange(60), np.arange(60, 80))],
            "refit": False,
        },
        np.where(np.arange(90)[:, None] == 85, np.nan, X),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_scikit_learn(name: str) -> None:
    options, features = CASES[name]
    ours, theirs = both("GridSearchCV", SCALED, GRID, **{"cv": 3, **options})
    for search in (ours, theirs):
        search.fit(features, Y)
    assert_same(ours, theirs)
    odd = name.startswith(("masks", "numbers from"))
    assert ours.shared.tolist() == ([-1] * 6 if odd else [0] * 6)
    if hasattr(theirs, "predict"):
        np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))


def test_ridge_differs_by_rounding_only() -> None:
    targets = np.stack([X[:, 0] + RNG.normal(size=90), X[:, 1] ** 2], axis=1)
    model = make_pipeline(StandardScaler(), PCA(), Ridge())
    grid = {"pca__n_components": [1, 2, 3], "ridge__alpha": [0.1, 1, 10]}
    for cv in (4, KFold(4, shuffle=True, random_state=0)):
        ours, theirs = both("GridSearchCV", model, grid, cv=cv, return_train_score=True)
        ours.fit(X, targets)
        expected = theirs.fit(X, targets).cv_results_
        for key in expected:
            if "score" in key and "time" not in key:
                np.testing.assert_allclose(ours.cv_results_[key], expected[key], rtol=0, atol=1e-9)
        assert set(ours.shared) == {0}
        assert ours.best_params_ == theirs.best_params_


@pytest.mark.parametrize("train", [True, False])
def test_functions_that_write_into_samples_change_no_other_candidate(train: bool) -> None:
    model = make_pipeline(FunctionTransformer(doubled), SVC())
    grid = {"svc__C": [1, 10], "functiontransformer__func": [doubled, np.square]}
    options = {"cv": 3, "return_train_score": train, "refit": False}
    ours, theirs = both("GridSearchCV", model, grid, **options)
    before = X.copy()
    assert_same(ours.fit(X, Y), theirs.fit(X, Y))
    np.testing.assert_array_equal(X, before)


def test_random_searches_draw_the_same_candidates() -> None:
    drawn = {"svc__C": loguniform(1e-2, 1e2), "svc__kernel": ["rbf", "linear"]}
    options = {"n_iter": 7, "random_state": 3, "cv": 3}
    ours, theirs = both("RandomizedSearchCV", SCALED, drawn, **options)
    assert_same(ours.fit(X, Y), theirs.fit(X, Y))
    assert set(ours.shared) == {0}


@pytest.mark.parametrize(
    ("steps", "parameter", "samples"),
    [
        ((TfidfVectorizer(), LogisticRegression()), "logisticregression__C", TEXTS),
        (
            (TruncatedSVD(2, random_state=0), LogisticRegression()),
            "logisticregression__C",
            scipy.sparse.csr_matrix(POSITIVE),
        ),
        (
            (KernelCenterer(), SVC(kernel="precomputed")),
            "svc__C",
            POSITIVE @ POSITIVE.T,
        ),
        ((PCA(random_state=np.random.RandomState(0)), SVC()), "svc__C", X),
    ],
    ids=["texts", "sparse", "kernel", "random state"],
)
def test_samples_of_other_kinds(steps: Any, parameter: str, samples: Any) -> None:
    ours, theirs = both("GridSearchCV", make_pipeline(*steps), {parameter: [0.1, 1, 10]}, cv=3)
    assert_same(ours.fit(samples, Y), theirs.fit(samples, Y))


def test_groups_are_given_to_the_splitter() -> None:
    ours, theirs = both("GridSearchCV", SCALED, GRID, cv=GroupKFold(3))
    groups = np.arange(90) // 10
    assert_same(ours.fit(X, Y, groups=groups), theirs.fit(X, Y, groups=groups))
    assert set(ours.shared) == {0}


WEIGHTS = RNG.exponential(size=90)


def weighted(estimator: Any, samples: Any, y: Any, sample_weight: Any = None) -> float:
    return float(estimator.score(samples, y, sample_weight=sample_weight))


@pytest.mark.parametrize(
    ("fitted", "options", "given", "shares"),
    [
        (SCALED, {}, {"svc__sample_weight": WEIGHTS}, True),
        (SCALED, {}, {"svc__sample_weight": WEIGHTS.tolist()}, True),
        (SCALED, {"n_jobs": 2}, {"svc__sample_weight": WEIGHTS}, True),
        (SCALED, {}, {"svc__sample_weight": None}, False),
        (SCALED, {"scoring": weighted}, {"svc__sample_weight": WEIGHTS}, False),
        (BOOSTED, {"return_train_score": True}, {"sample_weight": WEIGHTS}, True),
        (BOOSTED, {"scoring": ["accuracy", "neg_log_loss"]}, {"sample_weight": WEIGHTS}, True),
        (BOOSTED, {"scoring": weighted}, {"sample_weight": WEIGHTS}, False),
    ],
)
def test_weights(fitted: Any, options: Any, given: Any, shares: bool) -> None:
    """They are given to fits, and to scorers where scikit-learn does that."""
    grid = {"n_estimators": [2, 5]} if fitted is BOOSTED else GRID
    ours, theirs = both("GridSearchCV", fitted, grid, **{"cv": 3, "refit": False, **options})
    for search in (ours, theirs):
        search.fit(X, Y, **given)
    assert_same(ours, theirs)
    assert (ours.shared >= 0).tolist() == [shares] * len(ours.shared)


def test_routed_metadata_reach_fits_and_scores() -> None:
    weights = RNG.uniform(size=90)
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        model = make_pipeline(StandardScaler(), SVC().set_fit_request(sample_weight=True))
        model[0].set_fit_request(sample_weight=False)
        ours, theirs = both("GridSearchCV", model, GRID, cv=GroupKFold(3), scoring=scorer)
        for search in (ours, theirs):
            search.fit(X, Y, sample_weight=weights, groups=np.arange(90) // 10)
        assert_same(ours, theirs)
        assert set(ours.shared) == {-1}


def test_weights_may_be_for_scores_only() -> None:
    weights = RNG.uniform(size=90)
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        model = make_pipeline(PCA(), KNeighborsClassifier())  # their fits take no weights
        grid = {"kneighborsclassifier__n_neighbors": [2, 5]}
        ours, theirs = both("GridSearchCV", model, grid, cv=3, scoring=scorer)
        for search in (ours, theirs):
            search.fit(X, Y, sample_weight=weights)
        assert_same(ours, theirs)


def test_what_pipelines_have_in_common_is_fitted_once_a_split(tmp_path: Path) -> None:
    counts = []
    for number, search in enumerate(both("GridSearchCV", SCALED, GRID, cv=3, refit=False)):
        path = tmp_path / str(number)
        search.set_params(estimator=make_pipeline(Counting(str(path)), SVC())).fit(X, Y)
        counts.append(len(path.read_text().split()))
    assert counts == [3, 18]


def test_groups_and_those_alone_keep_their_places() -> None:
    grid = [
        {"pca": ["passthrough"], "svc__C": [1, 2]},
        {"pca": [PCA(2)], "svc__C": [7]},
        {"pca": [PCA(3)], "svc__C": [3]},
    ]
    whole = make_pipeline(PCA(), SVC())
    ours, theirs = both("GridSearchCV", whole, grid, cv=3)
    ours.fit(X, Y)
    results = theirs.fit(X, Y).cv_results_
    for key in ("split0_test_score", "split2_test_score", "rank_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[key], results[key])
    assert ours.shared[:2].tolist() == [0, 0]
    assert (ours.shared[2:] != 0).all()


UNION = Pipeline(
    [
        ("nothing", Pipeline([("first", None), ("second", "passthrough")])),
        ("scale", Pipeline([("inner", StandardScaler())])),
        ("missing", None),
        (
            "union",
            FeatureUnion(
                [("pca", PCA(random_state=0)), ("missing", "drop"), ("best", SelectKBest(k=1))],
                transformer_weights={"pca": 0.5},
            ),
        ),
        ("svc", SVC(kernel="linear")),
    ]
)


@pytest.mark.parametrize(
    "grid",
    [
        {
            "scale__inner__with_std": [True, False],
            "union__pca__n_components": [1, 2],
            "union__best__k": [1, 2],
            "svc__C": [0.1, 1],
        },
        [
            {"svc__C": [0.1, 0.1]},
            {"missing": [None, SelectKBest(k=2)], "scale": [StandardScaler(), "passthrough"]},
            {"svc": [SVC(C=0.1), LogisticRegression()], "union__transformer_weights": [None]},
        ],
        {"steps": [[("one", StandardScaler()), ("two", SVC())], [("three", SVC())]]},
    ],
    ids=["parameters of parts", "parts", "steps"],
)
@pytest.mark.filterwarnings("ignore:.*None.*:FutureWarning")
def test_pipelines_within_pipelines(grid: Any) -> None:
    ours, theirs = both("GridSearchCV", UNION, grid, cv=3, return_train_score=True)
    ours.fit(X, Y)
    theirs.fit(X, Y)
    for key, expected in theirs.cv_results_.items():
        if "score" in key and "time" not in key:
            np.testing.assert_array_equal(ours.cv_results_[key], expected)
    assert [repr(each) for each in ours.cv_results_["params"]] == [
        repr(each) for each in theirs.cv_results_["params"]
    ]
    assert repr(ours.best_estimator_) == repr(theirs.best_estimator_)


@pytest.mark.parametrize("grid", [{"other__C": [1, 2]}, {"svc__c": [1, 2]}])
def test_parameters_that_are_absent_are_refused_as_by_scikit_learn(grid: Any) -> None:
    words = []
    for search in both("GridSearchCV", SCALED, grid):
        with pytest.raises(ValueError, match="Invalid parameter") as caught:
            search.fit(X, Y)
        words.append(str(caught.value))
    assert words[0] == words[1]


def test_times_are_shares_that_add_up_to_what_was_spent() -> None:
    search = hpc_sweep.GridSearchCV(SCALED, GRID, cv=3, refit=False)
    begin = time.perf_counter()
    results = search.fit(X, Y).cv_results_
    spent = time.perf_counter() - begin
    assert 0 < 3 * sum(results["mean_fit_time"] + results["mean_score_time"]) < spent
    assert (results["mean_fit_time"] > 0).all()


@pytest.mark.parametrize("where", ["fit", "transform"])
def test_what_fails_is_told_as_scikit_learn_tells_it(where: str) -> None:
    model = make_pipeline(Fails(60 if where == "fit" else 31, where), SVC())
    cv = [(np.arange(60), np.arange(60, 90)), (np.arange(59), np.arange(59, 90))]
    told = []
    searches = both("GridSearchCV", model, {"svc__C": [1, 10]}, cv=cv, refit=False)
    for search in searches:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            search.fit(X, Y)
        told.append([(each.category, str(each.message).partition("Below")[0]) for each in warned])
        search.set_params(error_score="raise")
        with pytest.raises(ValueError, match="too"):
            search.fit(X, Y)
    assert told[0] == told[1]
    assert (FitFailedWarning in [category for category, _ in told[0]]) == (where == "fit")


def test_an_error_score_is_put_where_a_score_fails() -> None:
    model = make_pipeline(Fails(60), SVC())
    cv = [(np.arange(60), np.arange(60, 90)), (np.arange(59), np.arange(59, 90))]
    options = {"cv": cv, "error_score": -7.0, "scoring": ["accuracy", "f1_macro"]}
    ours, theirs = both("GridSearchCV", model, {"svc__C": [1, 10]}, refit="accuracy", **options)
    for search in (ours, theirs):
        with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
            search.fit(X, Y)
    assert_same(ours, theirs)
    assert ours.cv_results_["split0_test_accuracy"].tolist() == [-7, -7]
    assert set(ours.shared) == {0}


def accuracy_of_few(y: Any, predicted: Any) -> float:
    if len(y) == 60:
        raise ValueError("too many")
    return float(accuracy_score(y, predicted))


@pytest.mark.filterwarnings("ignore")
def test_a_metric_that_fails_on_training_samples_only() -> None:
    scoring = {"all": "accuracy", "few": make_scorer(accuracy_of_few)}
    options = {"cv": KFold(3), "refit": "all", "error_score": -7.0, "scoring": scoring}
    ours, theirs = both("GridSearchCV", SCALED, GRID, return_train_score=True, **options)
    assert_same(ours.fit(X, Y), theirs.fit(X, Y))
    assert set(ours.cv_results_["mean_train_few"]) == {-7}


def test_a_scorer_that_gives_no_number_is_refused_as_by_scikit_learn() -> None:
    words = []
    for search in both("GridSearchCV", SCALED, GRID, scoring=lambda *_: "much"):
        with pytest.raises(ValueError, match="scoring must return a number") as caught:
            search.fit(X, Y)
        words.append(str(caught.value).partition("(scorer")[0])
    assert words[0] == words[1]


@pytest.mark.parametrize("action", ["default", "always", "once", "ignore"])
def test_warnings_of_shared_fits_are_those_of_fits_alone(action: Any) -> None:
    model = make_pipeline(Warns(), StandardScaler(), SVC(max_iter=2))
    seen = []
    for search in both("GridSearchCV", model, {"svc__C": [1, 10]}, cv=KFold(3), refit=False):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter(action)
            search.fit(X, Y)
        seen.append(sorted((str(w.message), w.filename, w.lineno) for w in warned))
    assert seen[0] == seen[1]
    assert len(seen[0]) == (0 if action == "ignore" else 12)


def alarmed(X: Any) -> Any:
    warnings.warn(f"{len(X)} samples", UserWarning, stacklevel=1)
    return X


def alarming(y: Any, predicted: Any) -> float:
    warnings.warn(f"{len(y)} of mean {float(predicted.mean()):.6f}", UserWarning, stacklevel=1)
    return 1.0


def failing(y: Any, predicted: Any) -> float:
    raise ZeroDivisionError("no score")


def ratio_to_nothing(y: Any, predicted: Any) -> float:
    return min(1.0, float(np.max(np.ones(2) / (y - y)[:2])))


ALARMED = FunctionTransformer(alarmed)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("estimator", "parameter", "metrics"),
    [
        (make_pipeline(StandardScaler(), ALARMED, Lasso()), "lasso__alpha", [r2_score]),
        (make_pipeline(ALARMED, KNeighborsClassifier()), "kneighborsclassifier__n_neighbors", []),
        (Ridge(), "alpha", [alarming]),
        (Ridge(), "alpha", [alarming, failing]),
        (make_pipeline(StandardScaler(), Ridge()), "ridge__alpha", [r2_score, ratio_to_nothing]),
    ],
    ids=["transformer", "index", "metric", "metric beside one that fails", "NumPy"],
)
def test_warnings_of_shared_scores_are_those_of_scores_alone(
    estimator: Any, parameter: str, metrics: list[Any], train: bool
) -> None:
    scoring = {metric.__name__: make_scorer(metric) for metric in metrics} or None
    options = {"cv": KFold(3), "refit": False, "scoring": scoring, "return_train_score": train}
    seen = []
    for search in both("GridSearchCV", estimator, {parameter: [1, 2]}, **options):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            search.fit(X, Y)
        seen.append(sorted((w.category.__name__, str(w.message)) for w in warned))
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 6


def test_filters_of_modules_hold_for_shared_fits() -> None:
    model = make_pipeline(Warns(), StandardScaler(), SVC(max_iter=2))
    search = hpc_sweep.GridSearchCV(model, {"svc__C": [1, 10]}, cv=KFold(3), refit=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", module="sklearn")
        search.fit(X, Y)
    assert {str(each.message) for each in warned} == {"60 samples"}


def test_threads_leave_warnings_as_they_were() -> None:
    before = warnings.showwarning
    model = make_pipeline(Warns(), SVC())
    search = hpc_sweep.GridSearchCV(model, {"svc__C": [1, 10, 20, 30]}, cv=KFold(9), refit=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        with joblib.parallel_config("threading", n_jobs=3):
            search.fit(X, Y)
        found = len(warned)
        warnings.warn("afterwards", UserWarning, stacklevel=1)
        assert len(warned) == found + 1
    assert {str(each.message) for each in warned} == {"80 samples", "afterwards"}
    assert warnings.showwarning is before


def test_warnings_that_are_errors_make_fits_fail() -> None:
    model = make_pipeline(Warns(), SVC())
    for search in both("GridSearchCV", model, {"svc__C": [1, 10]}, cv=KFold(3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            with pytest.raises(ValueError, match="All the 6 fits failed"):
                search.fit(X, Y)


def test_what_a_search_prints_is_what_scikit_learn_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = []
    for search in both("GridSearchCV", SCALED, GRID, cv=3, verbose=3):
        search.fit(X, Y)
        printed = capsys.readouterr().out
        texts.append([line.partition("total time")[0].rstrip(".") for line in printed.splitlines()])
    assert len(texts[0]) == 19
    assert texts[0] == texts[1]


def test_callbacks_see_every_fit(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    search = hpc_sweep.GridSearchCV(SCALED, GRID, cv=3).set_callbacks(ProgressBar())
    search.fit(X, Y)
    assert set(search.shared) == {-1}


def test_fitted_searches_are_pickled_and_clones_are_unfitted() -> None:
    search = hpc_sweep.GridSearchCV(SCALED, GRID, cv=3).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(search))
    assert vars(loaded).keys() == vars(search).keys()
    np.testing.assert_array_equal(loaded.shared, search.shared)
    np.testing.assert_array_equal(loaded.predict(X), search.predict(X))
    unfitted = clone(search)
    assert type(unfitted) is hpc_sweep.GridSearchCV
    assert not hasattr(unfitted, "shared")
    assert repr(unfitted) == repr(model_selection.GridSearchCV(SCALED, GRID, cv=3))


class InTwoSteps(hpc_sweep.GridSearchCV):
    """Evaluates candidates in two calls, of which the second has another splitter."""

    def _run_search(self, evaluate_candidates: Any) -> None:
        evaluate_candidates([{"svc__C": 1}, {"svc__C": 2}], more_results={"call": [1, 1]})
        evaluate_candidates(
            [{"svc__C": 3}, {"svc__C": 4}], cv=KFold(3), more_results={"call": [2, 2]}
        )


def test_searches_of_ones_own_may_evaluate_several_times() -> None:
    search = InTwoSteps(SCALED, {}, cv=3).fit(X, Y)
    assert search.shared.tolist() == [0, 0, 2, 2]
    assert search.cv_results_["call"].tolist() == [1, 1, 2, 2]
    for cv, rows in ((3, slice(0, 2)), (KFold(3), slice(2, 4))):
        theirs = model_selection.GridSearchCV(SCALED, {"svc__C": [1, 2, 3, 4]}, cv=cv).fit(X, Y)
        np.testing.assert_array_equal(
            search.cv_results_["mean_test_score"][rows],
            theirs.cv_results_["mean_test_score"][rows],
        )


def test_no_candidates_are_refused_as_by_scikit_learn() -> None:
    class Empty(hpc_sweep.GridSearchCV):
        def _run_search(self, evaluate_candidates: Any) -> None:
            evaluate_candidates([])

    with pytest.raises(ValueError, match="No fits were performed"):
        Empty(SCALED, {}).fit(X, Y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_results_do_not_depend_on_processes(backend: str) -> None:
    ours, theirs = both("GridSearchCV", SCALED, GRID, cv=3, return_train_score=True)
    with joblib.parallel_config(backend, n_jobs=2):
        ours.fit(X, Y)
    assert_same(ours, theirs.fit(X, Y))
    assert set(ours.shared) == {0, 3}


def test_large_arrays_are_shared_by_processes_and_fits(tmp_path: Path) -> None:
    features = np.repeat(X, 400, axis=1)
    assert features.nbytes > 2**20  # so that joblib maps it
    path = tmp_path / "fits"
    model = make_pipeline(Counting(str(path)), PCA(2, random_state=0), SVC())
    search = hpc_sweep.GridSearchCV(model, GRID, cv=3, n_jobs=2, refit=False).fit(features, Y)
    assert len(path.read_text().split()) == 6
    assert set(search.shared) == {0, 3}
    search = hpc_sweep.GridSearchCV(Ridge(), {"alpha": [1, 10]}, cv=3, n_jobs=2, refit=False)
    many = np.repeat(X, 400, axis=0)
    assert many.nbytes > 2**20
    assert set(search.fit(many, many[:, 0]).shared) == {0}


@pytest.mark.parametrize(
    ("sizes", "n_splits", "n_jobs", "expected"),
    [
        ([6], 3, 1, [6]),
        ([6], 3, 2, [3, 3] * 3),
        ([6], 5, 2, [6] * 5),
        ([5, 3], 2, 4, [3, 2] * 2 + [2, 1] * 2),
        ([4], 1, 64, [2, 2]),
        ([], 3, 2, []),
    ],
)
def test_groups_are_cut_only_where_processes_would_wait(
    sizes: list[int], n_splits: int, n_jobs: int, expected: list[int]
) -> None:
    starts = np.cumsum([0, *sizes])
    groups = [list(range(a, b)) for a, b in itertools.pairwise(starts)]
    slices = _slices(groups, n_splits, n_jobs)
    assert sorted(len(rows) for rows, _ in slices) == sorted(expected)
    done = sorted((row, column) for rows, columns in slices for row in rows for column in columns)
    wanted = [(row, column) for rows in groups for row in rows for column in range(n_splits)]
    assert done == sorted(wanted)
