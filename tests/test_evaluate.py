"""The plain loop gives scikit-learn's numbers to the bit; a failing candidate fails alone."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics import check_scoring, make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, StratifiedKFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR

from hpc_sweep.estimators import build_scorers, build_splitter
from hpc_sweep.search import Evaluation, Evaluator, Model, Setting, Split, Task

Array = NDArray[Any]


def make_arrays(samples: int = 60, features: int = 4, outputs: int = 0) -> tuple[Array, Array]:
    """Return X and y with something to learn."""
    rng = np.random.default_rng(11)
    X = rng.normal(3, 2, (samples, features))
    y = X @ rng.normal(size=(features, max(1, outputs))) + rng.normal(size=(samples, 1))
    return X, y if outputs else y[:, 0]


def evaluate(
    X: Any,
    y: Any,
    models: Sequence[Model],
    candidates: Sequence[tuple[int, Mapping[str, Any]]],
    splits: Mapping[int, Sequence[Split]],
    metrics: Sequence[str],
) -> Evaluation:
    """Evaluate one partition, by the plain loop alone."""
    settings = [Setting(model, params) for model, params in candidates]
    evaluator = Evaluator(models, settings, metrics, rules=())
    return evaluator.evaluate([Task(X, y, splits)])[0]


def ours(
    X: Array,
    y: Array | None,
    estimator: Any,
    grid: Any,
    cv: Any = 3,
    scoring: Any = None,
) -> Evaluation:
    """Evaluate as a worker does."""
    splitter = build_splitter(cv, is_classifier(estimator)) if isinstance(cv, int) else cv
    named = scoring is None or isinstance(scoring, str) or not callable(scoring)
    scorer = build_scorers(estimator, scoring) if named else scoring
    model = Model(estimator, splitter, scorer)
    several = isinstance(scoring, (list, Mapping))
    splits = {0: list(splitter.split(X, y))}
    candidates = [(0, params) for params in ParameterGrid(grid)]
    return evaluate(X, y, [model], candidates, splits, tuple(scoring) if several else ("score",))


def theirs(
    X: Array, y: Array | None, estimator: Any, grid: Any, cv: Any = 3, scoring: Any = None
) -> dict[str, Array]:
    """Return scikit-learn's test scores by metric, shape (n_candidates, n_splits)."""
    search = GridSearchCV(estimator, grid, cv=cv, scoring=scoring, refit=False, error_score=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = search.fit(X, y).cv_results_
    several = isinstance(scoring, (list, Mapping))
    return {
        metric: np.stack(
            [results[f"split{i}_test_{metric}"] for i in range(search.n_splits_)], axis=1
        )
        for metric in (tuple(scoring) if several else ("score",))
    }


def same(found: Evaluation, expected: Mapping[str, Array]) -> None:
    assert set(found.scores) == set(expected)
    for metric, scores in expected.items():
        np.testing.assert_array_equal(found.scores[metric], scores)


# equal numbers

SVR_PIPELINE = make_pipeline(StandardScaler(), PolynomialFeatures(), SVR())


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (Ridge(), {"alpha": [0.1, 1.0, 10.0], "fit_intercept": [True, False]}),
        (Ridge(copy_X=False), {"alpha": [0.1, 1.0, 10.0]}),
        (Lasso(copy_X=False), {"alpha": [0.1, 1.0]}),
        (SVR_PIPELINE, {"svr__C": [1, 10], "polynomialfeatures__degree": [1, 2]}),
        (make_pipeline(StandardScaler(copy=False), SVR()), {"svr__C": [1, 10]}),
        (make_pipeline(StandardScaler(), Ridge()), [{"ridge": [SVR(), Ridge()]}, {}]),
        (MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, random_state=0), {"alpha": [0.1, 1]}),
    ],
    ids=["ridge", "ridge in place", "lasso in place", "svr", "scaler in place", "steps", "mlp"],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_regressors(estimator: Any, grid: Any, order: Any, dtype: str) -> None:
    X, y = make_arrays()
    X, y = np.asarray(X, dtype=dtype, order=order), y.astype(dtype)
    expected = theirs(X.copy(order="K"), y.copy(), estimator, grid)
    same(ours(X, y, estimator, grid), expected)


@pytest.mark.parametrize("cv", [4, StratifiedKFold(3, shuffle=True, random_state=1)])
def test_classifier_with_stratified_splits(cv: Any) -> None:
    X, y = make_arrays()
    labels = np.digitize(y, np.quantile(y, [0.2, 0.5]))
    grid = {"C": [0.1, 1], "kernel": ["linear", "rbf"]}
    expected = theirs(X, labels, SVC(), grid, cv, "f1_macro")
    same(ours(X, labels, SVC(), grid, cv, "f1_macro"), expected)
    assert len(np.unique(expected["score"])) > 3


@pytest.mark.parametrize("scoring", ["r2", "neg_root_mean_squared_error", None])
def test_single_metrics(scoring: str | None) -> None:
    X, y = make_arrays()
    same(
        ours(X, y, Ridge(), {"alpha": [0, 5]}, scoring=scoring),
        theirs(X, y, Ridge(), {"alpha": [0, 5]}, scoring=scoring),
    )


@pytest.mark.parametrize(
    "scoring", [["r2", "neg_max_error"], {"mae": "neg_mean_absolute_error", "fit": "r2"}]
)
def test_several_metrics(scoring: Any) -> None:
    X, y = make_arrays()
    grid = {"alpha": [0.1, 1.0]}
    same(ours(X, y, Ridge(), grid, 5, scoring), theirs(X, y, Ridge(), grid, 5, scoring))


def test_metric_of_probabilities() -> None:
    X, y = make_arrays()
    labels = (y > np.median(y)).astype(int)
    scoring = ["roc_auc", "neg_log_loss", "accuracy"]
    grid = {"C": [0.01, 1.0]}
    found = ours(X, labels, LogisticRegression(), grid, 3, scoring)
    same(found, theirs(X, labels, LogisticRegression(), grid, 3, scoring))


def test_several_outputs() -> None:
    X, y = make_arrays(outputs=3)
    grid = {"alpha": [[1.0, 2.0, 3.0], 0.5]}
    same(ours(X, y, Ridge(), grid), theirs(X, y, Ridge(), grid))


def test_without_target() -> None:
    X, _ = make_arrays()
    grid = {"n_clusters": [2, 3]}
    estimator = KMeans(n_init=2, random_state=0)
    found = ours(X, None, estimator, grid, KFold(3))
    same(found, theirs(X, None, estimator, grid, KFold(3)))
    assert np.isfinite(found.scores["score"]).all()


def test_several_models_with_their_own_splits() -> None:
    X, y = make_arrays()
    labels = (y > np.median(y)).astype(int)
    models: list[Model] = []
    splits: dict[int, Any] = {}
    candidates: list[tuple[int, dict[str, Any]]] = []
    for index, (estimator, cv) in enumerate([(Ridge(), 2), (SVC(), 3)]):
        splitter = build_splitter(cv, is_classifier(estimator))
        models.append(Model(estimator, splitter, build_scorers(estimator, None)))
        splits[index] = list(splitter.split(X, labels))
        candidates.append((index, {}))
    found = evaluate(X, labels, models, candidates[::-1], splits, ["score"])
    assert found.scores["score"].shape == (2, 3)
    np.testing.assert_array_equal(found.scores["score"][:1], theirs(X, labels, SVC(), {})["score"])
    ridge = theirs(X, labels, Ridge(), {}, 2)["score"]
    np.testing.assert_array_equal(found.scores["score"][1:, :2], ridge)
    assert np.isnan(found.scores["score"][1, 2])
    assert not found.failed.any()


def test_slices_of_candidates_give_the_same_numbers() -> None:
    X, y = make_arrays()
    grid = list(ParameterGrid({"alpha": [0.1, 1.0, 10.0]}))
    whole = ours(X, y, Ridge(), [{k: [v] for k, v in p.items()} for p in grid])
    for row, params in enumerate(grid):
        alone = ours(X, y, Ridge(), {k: [v] for k, v in params.items()})
        np.testing.assert_array_equal(alone.scores["score"][0], whole.scores["score"][row])


def test_times_and_quiet_success() -> None:
    X, y = make_arrays()
    found = ours(X, y, Ridge(), {"alpha": [1, 2]})
    for times in (found.fit_time, found.score_time):
        assert times.shape == (2, 3)
        assert ((times > 0) & (times < 10)).all()
    assert found.failed.tolist() == [False, False]
    assert found.messages == ["", ""]


def test_nothing_given_is_changed() -> None:
    X, y = make_arrays()
    before = X.copy(), y.copy()
    estimator, values = Ridge(copy_X=False), {"alpha": [0.1, 1.0]}
    ours(X, y, estimator, values)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert estimator.alpha == 1.0
    assert not hasattr(estimator, "coef_")


def test_no_candidates() -> None:
    X, y = make_arrays()
    model = Model(Ridge(), KFold(2), check_scoring(Ridge()))
    found = evaluate(X, y, [model], [], {}, ["score"])
    assert found.scores["score"].shape == (0, 0)


# candidates that misbehave


class Naughty(RegressorMixin, BaseEstimator):
    """Predicts the mean, and misbehaves as told, on one split or on all."""

    def __init__(self, how: str = "", first: float | None = None) -> None:
        self.how = how
        self.first = first

    def fit(self, X: Array, y: Array) -> Naughty:
        if self.first is None or X[0, 0] == self.first:
            self._misbehave("fit", X)
        self.mean_ = float(y.mean())
        return self

    def predict(self, X: Array) -> Array:
        self._misbehave("predict", X)
        return np.full(len(X), np.nan if self.how == "nan" else self.mean_)

    def _misbehave(self, where: str, X: Array) -> None:
        if self.how == f"{where} raises":
            raise ValueError(f"{where}\n  said   no")
        if self.how == f"{where} warns":
            warnings.warn("it did\nnot converge", ConvergenceWarning, stacklevel=2)
            warnings.warn("and more", UserWarning, stacklevel=2)
        if self.how == f"{where} mutates":
            X[...] = 1e9
        if self.how == f"{where} memory":
            raise MemoryError
        if self.how == f"{where} long":
            raise RuntimeError("x" * 10_000)


def naughty(how: str, **options: Any) -> tuple[Evaluation, dict[str, Array]]:
    """Evaluate three candidates of which the middle one misbehaves; return both results."""
    X, y = make_arrays()
    hows = {"how": ["", how, "none"]}
    expected = theirs(X, y, Naughty(**options), hows, scoring="r2")
    return ours(X, y, Naughty(**options), hows, scoring="r2"), expected


def others_untouched(found: Evaluation) -> None:
    assert found.failed.tolist()[::2] == [False, False]
    assert found.messages[::2] == ["", ""]
    assert np.isfinite(found.scores["score"][::2]).all()
    np.testing.assert_array_equal(found.scores["score"][0], found.scores["score"][2])


@pytest.mark.parametrize("where", ["fit", "predict"])
def test_an_estimator_that_raises(where: str) -> None:
    found, expected = naughty(f"{where} raises")
    same(found, expected)
    others_untouched(found)
    assert found.failed[1]
    assert found.messages[1] == f"split 0: ValueError: {where} said no"
    assert np.isnan(found.scores["score"][1]).all()
    assert np.isfinite(found.fit_time).all()
    assert (found.fit_time >= 0).all()


def test_an_estimator_that_raises_on_one_split() -> None:
    X, _ = make_arrays()
    (_, (train, _), _) = KFold(3).split(X)
    found, expected = naughty("fit raises", first=X[train][0, 0])
    same(found, expected)
    others_untouched(found)
    assert found.failed[1]
    assert 0 < np.isnan(found.scores["score"][1]).sum() < 3
    assert found.messages[1].endswith("ValueError: fit said no")


def test_an_estimator_without_memory() -> None:
    found, _ = naughty("fit memory")
    others_untouched(found)
    assert found.messages[1].startswith("split 0: MemoryError")


def test_a_long_reason_is_cut() -> None:
    found, _ = naughty("fit long")
    assert 400 < len(found.messages[1]) < 600
    assert found.messages[1].endswith("...")


def test_an_estimator_that_predicts_nan() -> None:
    found, expected = naughty("nan")
    same(found, expected)
    others_untouched(found)
    assert found.failed[1]
    assert "NaN" in found.messages[1]


@pytest.mark.parametrize("where", ["fit", "predict"])
def test_an_estimator_that_changes_its_input(where: str) -> None:
    found, expected = naughty(f"{where} mutates")
    same(found, expected)
    others_untouched(found)


@pytest.mark.parametrize("where", ["fit", "predict"])
def test_warnings_become_messages(where: str) -> None:
    found, expected = naughty(f"{where} warns")
    same(found, expected)
    others_untouched(found)
    assert not found.failed.any()
    assert found.messages[1] == "ConvergenceWarning: it did not converge"


def test_every_candidate_gets_its_own_warning() -> None:
    X, y = make_arrays()
    found = ours(X, y, Naughty("fit warns"), {"first": [None, X[0, 0]]})
    assert [text[:18] for text in found.messages] == ["ConvergenceWarning"] * 2


def test_a_reason_is_worth_more_than_a_warning() -> None:
    X, y = make_arrays()

    class Both(Naughty):
        def predict(self, X: Array) -> Array:
            raise KeyError("lost")

    found = ours(X, y, Both("fit warns"), {}, scoring="r2")
    assert found.messages == ["split 0: KeyError: 'lost'"]


def test_warnings_do_not_leak() -> None:
    X, y = make_arrays()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours(X, y, Naughty("fit warns"), {})
    assert caught == []
    assert warnings.filters == before


def test_a_parameter_that_does_not_exist() -> None:
    X, y = make_arrays()
    found = ours(X, y, Ridge(), [{"alpha": [1.0]}, {"alhpa": [1.0]}, {"alpha": [2.0]}])
    assert found.failed.tolist() == [False, True, False]
    assert "alhpa" in found.messages[1]
    assert np.isfinite(found.scores["score"][[0, 2]]).all()


def test_a_parameter_that_does_not_fit() -> None:
    X, y = make_arrays()
    found = ours(X, y, Ridge(), {"alpha": [-1.0, 1.0]})
    assert found.failed.tolist() == [True, False]
    assert "InvalidParameterError" in found.messages[0]


# scorers that misbehave


def no_score(y_true: Array, y_pred: Array) -> float:
    raise ZeroDivisionError("no\nscore")


def scorers(scores: Mapping[str, Any]) -> Any:
    return check_scoring(Ridge(), dict(scores), raise_exc=False)


def evaluate_with(scorer: Any, metrics: Sequence[str]) -> Evaluation:
    X, y = make_arrays()
    model = Model(Ridge(), KFold(3), scorer)
    candidates = [(0, {"alpha": 1.0}), (0, {"alpha": 2.0})]
    return evaluate(X, y, [model], candidates, {0: list(KFold(3).split(X))}, metrics)


def test_one_of_two_scorers_fails() -> None:
    X, y = make_arrays()
    scoring = {"bad": make_scorer(no_score), "good": make_scorer(r2_score)}
    found = evaluate_with(scorers(scoring), ["bad", "good"])
    expected = theirs(X, y, Ridge(), {"alpha": [1.0, 2.0]}, 3, scoring)
    same(found, expected)
    assert np.isnan(found.scores["bad"]).all()
    assert np.isfinite(found.scores["good"]).all()
    assert found.failed.all()
    assert "scoring bad" in found.messages[0]
    assert "\n" not in found.messages[0]


def test_the_only_scorer_fails() -> None:
    found = evaluate_with(make_scorer(no_score), ["score"])
    assert np.isnan(found.scores["score"]).all()
    assert found.messages == ["split 0: ZeroDivisionError: no score"] * 2


@pytest.mark.parametrize("score", [None, "0.5", [0.5, 0.6], np.array([0.5, 0.6]), 1j])
def test_a_scorer_that_gives_no_number(score: Any) -> None:
    found = evaluate_with(lambda estimator, X, y: score, ["score"])
    assert found.failed.all()
    assert np.isnan(found.scores["score"]).all()
    assert all(text.startswith("split 0: ") for text in found.messages)


NUMBERS = [1, np.float32(0.5), np.int64(3), np.array(0.25), np.array([0.5]), np.inf]


@pytest.mark.parametrize("score", [*NUMBERS, True, np.bool_(False), Fraction(1, 4)])
def test_a_scorer_that_gives_some_number(score: Any) -> None:
    found = evaluate_with(lambda estimator, X, y: score, ["score"])
    assert not found.failed.any()
    assert (found.scores["score"] == float(np.asarray(score).item())).all()


def test_a_scorer_that_forgets_a_metric() -> None:
    found = evaluate_with(lambda estimator, X, y: {"a": 1.0}, ["a", "b"])
    assert (found.scores["a"] == 1).all()
    assert np.isnan(found.scores["b"]).all()
    assert found.failed.all()
    assert "'b'" in found.messages[0]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


def test_an_error_without_words() -> None:
    def score(estimator: Any, X: Array, y: Array) -> float:
        raise Unspeakable

    found = evaluate_with(score, ["score"])
    assert found.failed.all()
    assert "Unspeakable" in found.messages[0]


def test_an_estimator_that_calls_exit() -> None:
    """A candidate must not end the worker."""

    def score(estimator: Any, X: Array, y: Array) -> float:
        sys.exit(3)

    found = evaluate_with(score, ["score"])
    assert found.failed.all()
    assert "SystemExit: 3" in found.messages[0]


def test_an_interruption_passes() -> None:
    def score(estimator: Any, X: Array, y: Array) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_with(score, ["score"])


def test_a_score_that_is_nan_fails_its_candidate() -> None:
    X, y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
    model = Model(Ridge(), KFold(3), lambda estimator, X, y: float("nan"))
    splits = {0: list(KFold(3).split(X))}
    found = evaluate(X, y, [model], [(0, {})], splits, ["score"])
    assert found.failed.all()
    assert found.messages == ["split 0: scoring score: the score is NaN"]
