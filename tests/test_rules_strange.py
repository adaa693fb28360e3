"""What writes, checks for itself or turns on last bits gets what it would get alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from conformance import Array, Case, conforms, evaluated, samples
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer, mean_pinball_loss
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR

from hpc_sweep.search import Evaluator, Model, Setting, Task
from hpc_sweep.search.copies import leaves_input
from hpc_sweep.search.splits import Splits

SCALED_SVR = make_pipeline(StandardScaler(), SVR())
COSTS = {"svr__C": [1, 2, 3]}


def cut_at_zero(y: Array, predicted: Array) -> float:
    """Write into both, as logarithmic errors found on the web do."""
    y[y < 0] = 0
    predicted[predicted < 0] = 0
    return float(np.sqrt(np.mean((np.log1p(y) - np.log1p(predicted)) ** 2)))


def shifts_samples(estimator: Any, X: Array, y: Array) -> float:
    score = estimator.score(X, y)
    X *= 1.5
    y += 1
    return float(score)


@pytest.mark.parametrize(
    "scoring",
    [{"r2": "r2", "cut": make_scorer(cut_at_zero), "max": "neg_max_error"}, shifts_samples],
    ids=["metric", "scorer"],
)
@pytest.mark.parametrize(
    ("estimator", "grid", "tolerance"),
    [
        (SCALED_SVR, COSTS, 0.0),
        (KNeighborsRegressor(), {"n_neighbors": [2, 4, 9]}, 0.0),
        (Ridge(), {"alpha": [1, 10, 100]}, 1e-9),
    ],
    ids=["svr", "neighbors", "ridge"],
)
def test_a_scorer_that_writes_into_samples(
    estimator: Any, grid: Any, tolerance: float, scoring: Any
) -> None:
    conforms(Case(estimator, grid, None, scoring, tolerance=tolerance, left=None), *samples(False))


class Writes(TransformerMixin, RegressorMixin, BaseEstimator):
    """Writes into what it is told to."""

    def __init__(self, into: str = "y", times: float = 1.0) -> None:
        self.into = into
        self.times = times

    def fit(self, X: Any, y: Array) -> Writes:
        if self.into == "y":
            y *= self.times
        if self.into == "X":
            X.data[...] = X.data * self.times if sparse.issparse(X) else 0.0
        self.mean_ = float(np.mean(y))
        return self

    def transform(self, X: Any) -> Any:
        return X * 1.0

    def predict(self, X: Array) -> Array:
        return np.full(len(X), self.mean_)


@pytest.mark.parametrize("last", [True, False])
def test_an_estimator_that_writes_into_the_target(last: bool) -> None:
    steps = (Writes(),) if last else (Writes(), SVR())
    grid = {"writes__times": [1.0, 2.0, 3.0], **({} if last else {"svr__C": [1, 2]})}
    pipeline = make_pipeline(StandardScaler(), *steps)
    conforms(Case(pipeline, grid, None, train=False, left=None), *samples(False))


def test_a_step_that_writes_into_sparse_samples() -> None:
    X, y = samples(False)
    settings = [
        Setting(0, {"writes__times": times, "svr__C": cost}) for times in (1, 2) for cost in (1, 2)
    ]
    pipeline = make_pipeline(StandardScaler(with_mean=False), Writes("X"), SVR(kernel="linear"))
    model = Model(pipeline, None, lambda *each: each[0].score(*each[1:]))
    task = Task(sparse.csr_array(np.abs(X)), y, {0: list(KFold(3).split(X))})
    found, alone = (
        Evaluator([model], settings, ["score"], **more).evaluate([task])[0].scores["score"]
        for more in ({}, {"rules": ()})
    )
    np.testing.assert_array_equal(found, alone)


def test_a_step_that_scales_test_samples_in_place() -> None:
    """Each kind of prediction that is asked for scales them again, alas."""
    model = make_pipeline(StandardScaler(copy=False), LogisticRegression())
    case = Case(
        model,
        {"logisticregression__C": [0.1, 1]},
        (2,),
        ["accuracy", "neg_log_loss"],
        train=False,
    )
    conforms(case, *samples(True))


class Inside(RegressorMixin, BaseEstimator):
    """Makes an estimator of scikit-learn's in its fit, whose parameters nobody has seen."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Array, y: Array) -> Inside:
        self.inner_ = Ridge(alpha=self.alpha).fit(X, y)
        return self

    def predict(self, X: Array) -> Array:
        return np.asarray(self.inner_.predict(X))


@pytest.mark.parametrize("steps", [(), (StandardScaler(),)], ids=["alone", "shared"])
def test_parameters_of_what_is_made_in_a_fit_are_checked(steps: Any) -> None:
    case = Case(
        make_pipeline(*steps, Inside()), {"inside__alpha": [1.0, 2.0, -1.0]}, None, left=None
    )
    assert conforms(case, *samples(False)).failed.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("estimator", "name"), [(SCALED_SVR, "svr__C"), (SVR(), "C")], ids=["shared", "alone"]
)
def test_options_of_scorers_are_checked(estimator: Any, name: str) -> None:
    scoring = {"r2": "r2", "wrong": make_scorer(mean_pinball_loss, alpha=2)}
    case = Case(estimator, {name: [1, 2]}, None, scoring, train=False)
    found = evaluated(case, *samples(False))
    assert np.isfinite(found.scores["r2"]).all()
    assert np.isnan(found.scores["wrong"]).all()


def test_ranks_of_equal_predictions() -> None:
    rng = np.random.default_rng(0)
    X = (rng.random((90, 4)) < 0.4).astype(float)
    y = X @ [1.0, 2.0, 0.3, 1.0] + rng.normal(size=90)
    ranks = make_scorer(lambda *each: spearmanr(*each).statistic)
    case = Case(Ridge(), {"alpha": [0.1, 1, 2]}, (3,), ranks, tolerance=1e-9, left=None)
    conforms(case, X, y)
    X, y = samples(False)
    conforms(Case(Ridge(), {"alpha": [0.1, 1, 2]}, (3,), ranks, tolerance=1e-9), X, y)


@pytest.mark.parametrize(
    "columns",
    [make_column_selector("a"), slice(0, 2), pandas.Index(["a", "b"]), np.array(["a"], object)],
    ids=["selector", "slice", "index", "objects"],
)
def test_columns_are_the_same_in_all_copies(columns: Any) -> None:
    pipeline = make_pipeline(make_column_transformer((StandardScaler(), columns)), SVR())
    settings = [Setting(0, {"svr__C": cost}) for cost in (1, 2)]
    ((rule, rows),) = Evaluator([Model(pipeline, None, None)], settings, ["score"]).groups
    assert rule is not None
    assert rows == [0, 1]


@pytest.mark.parametrize(
    "steps",
    [
        [("memory", StandardScaler()), ("svr", SVR())],
        [("scale", StandardScaler()), ("svr", Ridge()), ("nothing", "passthrough")],
    ],
    ids=["name", "order"],
)
def test_pipelines_that_scikit_learn_refuses(steps: Any) -> None:
    estimator = Pipeline(steps)
    name = "svr__C" if isinstance(estimator["svr"], SVR) else "svr__alpha"
    case = Case(estimator, {name: [1, 2]}, (), "r2", train=False)
    assert evaluated(case, *samples(False)).failed.all()


def test_arguments_of_functions_say_whether_they_write() -> None:
    for given, leaves in ({"copy": False}, False), ({"copy": True}, True), (None, True):
        assert leaves_input(FunctionTransformer(np.nan_to_num, kw_args=given)) is leaves


class Given:
    """A splitter that gives one split."""

    def __init__(self, *split: Any) -> None:
        self._split = split

    def split(self, X: Any, y: Any) -> Any:
        yield self._split


def test_splits_are_counted_from_the_first_sample() -> None:
    """NumPy takes masks, and numbers from the end, which a batch must not take for others'."""
    X = np.zeros((6, 1))
    mask = np.array([True, True, False, False, True, False])
    ((train, test),) = Splits(Given(mask, [-1, 2])).make(X, None, 0)
    assert (train.tolist(), test.tolist()) == ([0, 1, 4], [5, 2])
    assert Splits(Given([1], [])).make(X, None, 0)[0][1].dtype == np.intp
    for wrong in ([6], [-7], mask[:5], [0.5]):
        with pytest.raises(ValueError, match="the splitter gave"):
            Splits(Given([0], wrong)).make(X, None, 0)
